"""Measures where a step of a recipe spends its time: phases, operators, a trace file. For `kogpt2 profile`.

The steps are those of training: :func:`kogpt2_gluon.training.loop.run_step` on the run that ``training/setup.py``
builds. The step itself marks its phases (``training/phases.py``); here the marker is a clock. Three passes follow the
warm-up:

1. *as in training*: only the time of the whole pass is measured.
2. *phases apart*: MXNet's engine is waited for before and after each phase, so that all work belongs to its phase.
3. *operators*: phases apart, under MXNet's profiler, the operators of the graph one at a time. In training the engine
   gets up to 15 of them as one entry, and the profiler would show that entry (``MXNET_EXEC_BULK_EXEC_TRAIN`` in MXNet's
   docs/faq/env_var.md). In this pass the graph is hybridized again, without such segments.

The passes distort the following, so that only pass 1 gives a speed:

- Passes 2 and 3 lose what overlaps in training: Python and the engine, an allreduce and the backward pass, an update
  and the next batch.
- In pass 3 every operator goes through the engine's queue on its own, which costs some 10 to 30 microseconds. A graph
  of small operators looks slower than it is; most of that shows as time in which no operator runs.
- The time of an operator includes its waiting: for its threads and, in an allreduce, for the other workers.
"""

from __future__ import annotations

import io
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.runtime import mx, num_threads
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import DataRecipe
from kogpt2_gluon.runs.metrics import tracker_for
from kogpt2_gluon.shards.format import TOKENIZER, Manifest, ShardWriter
from kogpt2_gluon.storage.files import make_folder, remove_empty
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.loop import run_step, step_record
from kogpt2_gluon.training.out_of_memory import memory_named
from kogpt2_gluon.training.phases import PHASES, unmarked
from kogpt2_gluon.training.profile.table import Profile, phase_times
from kogpt2_gluon.training.profile.trace import Span, operator_times, read_spans, write_trace
from kogpt2_gluon.training.setup import set_up
from kogpt2_gluon.training.signals import StopRequest
from kogpt2_gluon.training.state import TrainingRun
from kogpt2_gluon.training.stopwatch import Reading, memory_in_use

TRACE = "trace.json"
# Random tokens: chunks, a document, and updates before they repeat. (At 1024 x 1024 an update is 2 MiB.)
RANDOM_CHUNK = 64 << 10
RANDOM_DOCUMENT = 1 << 10
RANDOM_UPDATES = 4

Progress = Callable[[str, int, int], None]  # called with the name of a pass, its steps done, its steps in all


def profile(
    recipe: Recipe, steps: int, out: Path, synthetic: bool = False, warmup: int = 3, progress: Progress | None = None
) -> Profile | None:
    """Runs some steps of `recipe` and measures where their time goes; writes ``OUT/trace.json``.

    Parameters
    ----------
    recipe : Recipe
        Its checkpoints are not read, and nothing of its run is written; the weights are new ones.
    steps, warmup : int
        Steps of each pass, and steps before the passes. Only the first call in a process works, because MXNet's
        profiler starts only once.
    out : Path
        Folder for the trace; RecipeError if it cannot be written to.
    synthetic : bool
        True: read random tokens in place of the recipe's data, through the same reader.
    progress : callable, optional
        Called before every step and after the last: (name of the pass, steps done in it, steps of it).

    Returns
    -------
    Profile or None
        None on every worker except rank 0. Raises what training raises.
    """
    progress = progress or (lambda *_: None)
    with _folder(out), tempfile.TemporaryDirectory(prefix="kogpt2-profile-") as name:
        scratch = Path(name)
        recipe = _detached(recipe, scratch, 3 * steps + 2 * warmup)
        if synthetic:
            recipe = replace(recipe, data=write_random_shards(recipe, scratch / "shards"))
        with memory_named(recipe), set_up(recipe, "never") as run:
            return _measure(recipe, run, steps, warmup, synthetic, out, scratch, progress)


def _measure(
    recipe: Recipe,
    run: TrainingRun,
    steps: int,
    warmup: int,
    synthetic: bool,
    out: Path,
    scratch: Path,
    progress: Progress,
) -> Profile | None:
    """Runs the passes; returns their result on rank 0."""
    passes = Passes(recipe, run, scratch, progress)
    passes.steps("warming up", warmup)
    alone = passes.steps("as in training", steps)
    memory = memory_in_use(run.ctx)
    if run.ctx.device_type == "cpu":
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    apart, phases = passes.apart("phases apart", steps)
    run.loss_block.hybridize(static_alloc=True, static_shape=True, forward_bulk_size=0, backward_bulk_size=0)
    passes.steps("warming up again", warmup)
    with _profiler(scratch / "mxnet.json"):
        profiled, profiled_phases = passes.apart("operators", steps)
    if run.worker.rank:
        return None
    operators = read_spans(scratch / "mxnet.json")
    write_trace(out / TRACE, profiled_phases, operators)
    training, worker = recipe.training, run.worker
    parameters = sum(parameter.data().size for parameter in run.update.parameters.values())
    tokens_per_step = run.objective.tokens_per_step
    tokens = steps * tokens_per_step
    operations = run.objective.flops_per_token * tokens_per_step / worker.size
    return Profile(
        recipe=recipe.name,
        about=f"{parameters:,} parameters, {run.products.precision}, operators {training.ops}; {worker.size} "
        f"worker(s) on {run.ctx}, {num_threads()} thread(s); "
        f"{training.batch_size} x {recipe.data.seq_length} tokens, {recipe.accumulate(worker.size)} micro step(s)"
        + (f"; {run.products.kernels.describe()}" if run.products.kernels else ""),
        synthetic=synthetic,
        steps=steps,
        tokens_per_step=tokens_per_step,
        tokens_per_second=tokens / alone,
        tokens_per_second_apart=tokens / apart,
        tokens_per_second_profiled=tokens / profiled,
        peak_memory=memory,
        parameters=parameters,
        skipped=run.state.skipped,
        phases=phase_times(phases, steps, operations, parameters),
        operators=operator_times(profiled_phases, operators, steps),
        trace=str(out / TRACE),
    )


class Passes:
    """Runs steps of a recipe, as in training or with their phases apart."""

    def __init__(self, recipe: Recipe, run: TrainingRun, scratch: Path, progress: Progress):
        self._recipe, self._run, self._scratch, self._progress = recipe, run, scratch, progress

    def steps(self, what: str, count: int) -> float:
        """The seconds that `count` steps take, the engine's work included."""
        return self._steps(what, count, None)

    def apart(self, what: str, count: int) -> tuple[float, list[Span]]:
        """The seconds of `count` steps whose phases are waited for, each step logged; and these phases."""
        clock = PhaseClock(self._run.worker.waiting)
        return self._steps(what, count, clock), clock.spans

    def _steps(self, what: str, count: int, clock: PhaseClock | None) -> float:
        recipe, run, stop = self._recipe, self._run, StopRequest()  # not entered: Ctrl-C just ends a profile
        folder = self._scratch / what
        tracker = tracker_for(run.worker.rank, folder, count, None, recipe.tracking.tensorboard, _silent_console())
        with tracker:
            mx.nd.waitall()
            began = time.perf_counter()
            for number in range(count):
                self._progress(what, number, count)
                result = run_step(recipe, run, stop, clock or unmarked)
                if clock:
                    with clock("log"):
                        tracker.log_step(replace(step_record(run, result, Reading(1.0)), step=number + 1))
            with run.worker.waiting():
                mx.nd.waitall()
            seconds = time.perf_counter() - began
        self._progress(what, count, count)
        return seconds


class PhaseClock:
    """Measures the phases that a step marks: ``with clock(name):``. `spans` are those that have ended.

    `waiting` is what :meth:`Worker.waiting` is: it goes around a wait for MXNet's engine.
    """

    def __init__(self, waiting: Callable[[], AbstractContextManager[None]]):
        self.spans: list[Span] = []
        self._waiting = waiting

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        assert phase in PHASES, phase
        self._wait()  # for what was asked of the engine between two phases
        began = time.time_ns() / 1e3
        yield
        self._wait()
        self.spans.append(Span(phase, began, time.time_ns() / 1e3))

    def _wait(self) -> None:
        with self._waiting():
            mx.nd.waitall()


@contextmanager
def _profiler(file: Path) -> Iterator[None]:
    """Runs MXNet's profiler around a block; its record is in `file` afterwards."""
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
    """The recipe with steps enough and without held-out data; it starts from nothing and writes into `scratch` only."""
    return replace(
        recipe,
        data=replace(recipe.data, test=""),
        training=replace(
            recipe.training,
            num_steps=max(recipe.training.num_steps, num_steps),
            on_nonfinite="stop",  # there is no checkpoint to go back to
            on_spike="off",
        ),
        evaluation=replace(recipe.evaluation, stop_improvement=0.0),
        checkpoint=replace(recipe.checkpoint, ckpt_dir=str(scratch / "checkpoints")),
        tracking=replace(recipe.tracking, run_dir=str(scratch / "run")),
    )


def write_random_shards(recipe: Recipe, folder: Path) -> DataRecipe:
    """Writes shards of random tokens, the same on every worker; returns the recipe's data section that reads them."""
    special = {"unk": 0, "bos": 1, "eos": 2, "pad": 3}
    folder.mkdir()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # the tokens are random: only the special ids of the tokenizer are used
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


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Makes the folder to write to, before any time is spent; removes what it made if the profile fails.

    RecipeError if it cannot be written to.
    """
    try:
        made = make_folder(out)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise RecipeError(f"{out}: cannot be written to ({error.strerror}); name another folder with --out") from None
    try:
        yield
    except BaseException:
        remove_empty(made)
        raise


def _silent_console() -> Any:
    from rich.console import Console

    return Console(file=io.StringIO())
