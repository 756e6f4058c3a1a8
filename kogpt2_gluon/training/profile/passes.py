"""Where a step of a recipe goes: phases, operators, a trace file. For `kogpt2 profile`.

The steps are those of training: :func:`kogpt2_gluon.training.loop.run_step` over the parts of ``training/setup.py``,
some of which stand behind wrappers that say when a phase begins. Three passes follow the warm-up:

1. *as in training*: nothing is measured but the time of it all.
2. *phases apart*: before a phase begins, MXNet's engine is waited for, so that what runs belongs to the phase.
3. *operators*: phases apart, under MXNet's profiler, the operators of the graph one at a time. In training the engine
   gets up to 15 of them as one entry, and the profiler would show that entry (``MXNET_EXEC_BULK_EXEC_TRAIN`` in MXNet's
   docs/faq/env_var.md); here the graph is hybridized anew, without such segments.

What this distorts, so that only pass 1 gives a speed:

- Passes 2 and 3 lose what overlaps in training: Python and the engine, an allreduce and the backward pass, an update
  and the next batch.
- In pass 3 every operator pays its own way through the engine's queue, some 10 to 30 microseconds. A graph of small
  operators looks slower than it is; most of that shows as time in which no operator runs.
- An operator's time is all that passes until it is done, waiting for its threads or, in an allreduce, for the other
  workers included.
- What a micro step does before its forward pass (it seeds the dropout) counts to the backward pass before it.
"""

from __future__ import annotations

import io
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import numpy as np
import sentencepiece

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.runtime import mx, num_threads
from kogpt2_gluon.recipe import DataRecipe, Recipe
from kogpt2_gluon.runs.metrics import tracker_for
from kogpt2_gluon.shards.format import TOKENIZER, Manifest, ShardWriter
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.loop import memory_in_use, run_step, step_record
from kogpt2_gluon.training.profile.table import Profile, phase_times
from kogpt2_gluon.training.profile.trace import Span, operator_times, read_spans, write_trace
from kogpt2_gluon.training.setup import set_up
from kogpt2_gluon.training.signals import StopRequest
from kogpt2_gluon.training.state import Parts

TRACE = "trace.json"
# Random tokens: chunks, a document, and updates before they repeat. (At 1024 x 1024 an update is 2 MiB.)
RANDOM_CHUNK = 64 << 10
RANDOM_DOCUMENT = 1 << 10
RANDOM_UPDATES = 4

Show = Callable[[str, int, int], None]  # what is being done, steps done of it, steps of it


def profile(
    recipe: Recipe, steps: int, out: Path, synthetic: bool = False, warmup: int = 3, show: Show | None = None
) -> Profile | None:
    """Runs some steps of `recipe` and measures where their time goes; writes ``OUT/trace.json``.

    Parameters
    ----------
    recipe : Recipe
        Its run folder and checkpoints are neither read nor written: the weights are new ones.
    steps, warmup : int
        Steps of each pass, and those before. Only the first call in a process works: MXNet's profiler starts once.
    out : Path
        Folder for the trace; RecipeError if it cannot be written.
    synthetic : bool
        Random tokens in place of the recipe's data, through the same reader.
    show : callable, optional
        Told of every step: (what is being done, steps done of it, steps of it).

    Returns
    -------
    Profile or None
        None on every worker but rank 0. Raises what training raises.
    """
    _make_folder(out)
    show = show or (lambda *_: None)
    with tempfile.TemporaryDirectory(prefix="kogpt2-profile-") as name:
        scratch = Path(name)
        recipe = _detached(recipe, scratch, 3 * steps + 2 * warmup)
        if synthetic:
            recipe = replace(recipe, data=write_random_shards(recipe, scratch / "shards"))
        with set_up(recipe, "never") as parts:
            return _measure(recipe, parts, steps, warmup, synthetic, out, scratch, show)


def _measure(
    recipe: Recipe, parts: Parts, steps: int, warmup: int, synthetic: bool, out: Path, scratch: Path, show: Show
) -> Profile | None:
    """The passes, and what they give."""
    run = Passes(recipe, parts, scratch, show)
    run.steps("warming up", warmup)
    alone = run.steps("as in training", steps)
    memory = memory_in_use(parts.ctx)
    if parts.ctx.device_type == "cpu":
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    apart, phases = run.apart("phases apart", steps)
    parts.loss_block.hybridize(static_alloc=True, static_shape=True, forward_bulk_size=0, backward_bulk_size=0)
    run.steps("warming up again", warmup)
    with _profiler(scratch / "mxnet.json"):
        profiled, profiled_phases = run.apart("operators", steps)
    if parts.worker.rank:
        return None
    operators = read_spans(scratch / "mxnet.json")
    write_trace(out / TRACE, profiled_phases, operators)
    training, worker = recipe.training, parts.worker
    parameters = sum(parameter.data().size for parameter in parts.update.parameters.values())
    tokens = steps * recipe.tokens_per_step
    return Profile(
        recipe=recipe.name,
        about=f"{parameters:,} parameters, {training.precision}, operators {training.ops}; {worker.size} worker(s) on "
        f"{parts.ctx}, {num_threads()} thread(s); "
        f"{training.batch_size} x {recipe.data.seq_length} tokens, {recipe.accumulate(worker.size)} micro step(s)",
        synthetic=synthetic,
        steps=steps,
        tokens_per_step=recipe.tokens_per_step,
        tokens_per_second=tokens / alone,
        tokens_per_second_apart=tokens / apart,
        tokens_per_second_profiled=tokens / profiled,
        peak_memory=memory,
        parameters=parameters,
        skipped=parts.state.skipped,
        phases=phase_times(phases, steps, recipe, worker.size, parameters),
        operators=operator_times(profiled_phases, operators, steps),
        trace=str(out / TRACE),
    )


class Passes:
    """Runs steps of a recipe, as they are or with their phases apart."""

    def __init__(self, recipe: Recipe, parts: Parts, scratch: Path, show: Show):
        self._recipe, self._parts, self._scratch, self._show = recipe, parts, scratch, show

    def steps(self, what: str, count: int) -> float:
        """Seconds that `count` steps take, the engine's work included."""
        return self._run(what, count, self._parts, None)

    def apart(self, what: str, count: int) -> tuple[float, list[Span]]:
        """The same with every phase waited for, each step logged; and the phases."""
        clock = PhaseClock(self._parts)
        return self._run(what, count, clock.parts(), clock), clock.spans

    def _run(self, what: str, count: int, parts: Parts, clock: PhaseClock | None) -> float:
        recipe, stop = self._recipe, StopRequest()  # not entered: Ctrl-C just ends a profile
        folder = self._scratch / what
        with tracker_for(
            parts.worker.rank, folder, count, 0, recipe.tracking.tensorboard, _silent_console()
        ) as tracker:
            mx.nd.waitall()
            began = time.perf_counter()
            for number in range(count):
                self._show(what, number, count)
                result = run_step(recipe, parts, stop)
                if clock:
                    clock.enter("log")
                    tracker.log_step(**{**step_record(recipe, parts, result, 1.0), "step": number + 1})
                    clock.leave()
            with parts.worker.waiting():
                mx.nd.waitall()
            seconds = time.perf_counter() - began
        self._show(what, count, count)
        return seconds


class PhaseClock:
    """The phases of the steps made with :meth:`parts`; `spans` are those that have ended."""

    def __init__(self, parts: Parts):
        self.spans: list[Span] = []
        self._parts, self._phase, self._began = parts, "", 0.0

    def enter(self, phase: str) -> None:
        """Waits for all that was asked of the engine, which ends the phase before."""
        with self._parts.worker.waiting():
            mx.nd.waitall()
        self.leave()
        self._phase, self._began = phase, time.time_ns() / 1e3

    def leave(self) -> None:
        """Ends the phase."""
        if self._phase:
            self.spans.append(Span(self._phase, self._began, time.time_ns() / 1e3))
        self._phase = ""

    def parts(self) -> Parts:
        """The same parts of a run, but that these tell the clock where a step is."""
        loss_block = _PhasedLoss(self._parts.loss_block, self.enter)
        update = _PhasedUpdate(self._parts.update, self.enter)
        phased: dict[str, Any] = {"batches": self._batches(), "loss_block": loss_block, "update": update}
        return replace(self._parts, **phased)

    def _batches(self) -> Iterator[Any]:
        while True:
            self.enter("read")
            batch = next(self._parts.batches)
            self.enter("forward")
            yield batch


class _PhasedLoss:
    """A LanguageModelLoss that ends the forward phase."""

    def __init__(self, loss_block: Any, enter: Callable[[str], None]):
        self._loss_block, self._enter = loss_block, enter

    def __call__(self, tokens: Any) -> Any:
        self._enter("forward")
        losses = self._loss_block(tokens)
        self._enter("backward")
        return losses

    def add_embedding_gradient(self) -> None:
        self._loss_block.add_embedding_gradient()


class _PhasedUpdate:
    """An Update whose methods begin phases."""

    def __init__(self, update: Any, enter: Callable[[str], None]):
        self._update, self._enter = update, enter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._update, name)

    def reduce(self) -> float:
        self._enter("reduce")
        squared_norm: float = self._update.reduce()
        self._enter("agree")
        return squared_norm

    def apply(self, *arguments: Any, **named: Any) -> None:
        self._enter("update")
        self._update.apply(*arguments, **named)


@contextmanager
def _profiler(file: Path) -> Iterator[None]:
    """MXNet's profiler around a block, its record in `file` afterwards."""
    mx.nd.waitall()
    mx.profiler.set_config(profile_symbolic=True, profile_imperative=True, filename=str(file))
    mx.profiler.set_state("run")
    try:
        yield
        mx.nd.waitall()
    finally:
        mx.profiler.set_state("stop")
        mx.profiler.dump()


def _detached(recipe: Recipe, scratch: Path, num_steps: int) -> Recipe:
    """The recipe without its run: it starts anew, has steps enough, needs no held-out data, and leaves nothing."""
    return replace(
        recipe,
        data=replace(recipe.data, test=""),
        training=replace(recipe.training, num_steps=max(recipe.training.num_steps, num_steps)),
        evaluation=replace(recipe.evaluation, stop_improvement=0.0),
        checkpoint=replace(recipe.checkpoint, ckpt_dir=str(scratch / "checkpoints")),
        tracking=replace(recipe.tracking, run_dir=str(scratch / "run")),
    )


def write_random_shards(recipe: Recipe, folder: Path) -> DataRecipe:
    """Shards of random tokens, the same on every worker, and the recipe's data with them in place of its own."""
    special = {"unk": 0, "bos": 1, "eos": 2, "pad": 3}
    folder.mkdir()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # a tokenizer is only needed for its name
        sentence_iterator=iter(["가 나 다 라 마 바 사"] * 10),
        model_writer=model,
        model_type="bpe",
        vocab_size=18,
        unk_id=special["unk"],
        bos_id=special["bos"],
        eos_id=special["eos"],
        pad_id=special["pad"],
        pad_piece="<pad>",
        minloglevel=2,
    )
    (folder / TOKENIZER).write_bytes(model.getvalue())
    tokenizer, vocab_size, length = Tokenizer.load(folder / TOKENIZER), recipe.model.vocab_size, recipe.data.seq_length
    if vocab_size < tokenizer.vocab_size:
        raise RecipeError(f"model.vocab_size={vocab_size}: --synthetic needs {tokenizer.vocab_size} or more")
    dtype = "<u2" if vocab_size <= 65_535 else "<u4"
    manifest = Manifest("train", dtype, RANDOM_CHUNK, vocab_size, tokenizer.sha256, special, "random tokens")
    count = RANDOM_UPDATES * recipe.training.total_batch_size * (length + 1)
    generator = np.random.default_rng(recipe.training.seed)
    with ShardWriter(folder, manifest) as writer:
        for _ in range(-(-count // RANDOM_DOCUMENT)):
            tokens = generator.integers(len(special), vocab_size, RANDOM_DOCUMENT).astype(dtype)
            tokens[0], tokens[-1] = special["bos"], special["eos"]
            writer.add(tokens, [len(tokens)])
        writer.finish()
    return replace(recipe.data, train=str(folder), source="shards", cache="off", bpe_dropout=0.0)


def _make_folder(out: Path) -> None:
    """The folder for what is written; RecipeError if it cannot be had, before any time is spent."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written to ({error.strerror}); name another folder") from None


def _silent_console() -> Any:
    from rich.console import Console

    return Console(file=io.StringIO())
