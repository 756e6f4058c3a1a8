"""Saves the state of a run while its training goes on.

A thread checks, hashes and writes the arrays; before the next update changes them, what is left is copied in memory.
There is one save at a time: the next one waits for it, and so does the end of the run. A checkpoint appears whole or
not at all, whenever the process dies (runs/checkpoint.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Callable

from numpy.typing import NDArray

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.estimate import size_of
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import ONLY_AS_BEST, open_checkpoint, save_checkpoint
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.tokenizer_file import StoredTokenizer
from kogpt2_gluon.training.best import is_best
from kogpt2_gluon.training.evaluation import is_due
from kogpt2_gluon.training.host_copies import HostCopies
from kogpt2_gluon.training.mirroring import Mirrors
from kogpt2_gluon.training.saved_arrays import SavedArrays
from kogpt2_gluon.training.state import TrainingRun, TrainState
from kogpt2_gluon.wording import gigabytes

Arrays = Mapping[str, NDArray[Any]]


class Saver:
    """Saves one run's checkpoints; rank 0 writes. Leaving it, as a context manager, waits for the last save.

    Parameters
    ----------
    recipe : Recipe
    run : TrainingRun
    say : function
        Is called with a line about a failed save, if the run ends by another error.
    """

    def __init__(self, recipe: Recipe, run: TrainingRun, say: Callable[[str], None]) -> None:
        self._recipe, self._run, self._say = recipe, run, say
        self._copies, self._one = HostCopies(), HostCopies()
        self._saved: SavedArrays | None = None
        run.update.before_change = self._keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._pending: Future[None] | None = None
        self._mirrors = Mirrors(recipe, run.state.begun_as, say, is_writer=run.worker.rank == 0)

    def save(self) -> None:
        """Begins to save the state as it is now. Every worker calls this; rank 0 waits for the save before.

        Raises what the save before raised: DivergedError if something in it was not finite, DiskFullError if there was
        no room for it.
        """
        run = self._run
        run.reader.gather(run.worker)
        if run.worker.rank != 0:
            return
        self._wait()
        masters, moments = run.update.masters, run.update.moments()
        self._saved = SavedArrays({**masters, **moments}, run.state.step, self._one)
        parts, state = (self._saved.part(list(masters)), self._saved.part(list(moments))), _state_of(self._recipe, run)
        self._pending = self._thread.submit(_write, self._recipe, state, *parts, run.tokenizer.stored, self._mirrors)
        if not self._recipe.checkpoint.in_background:
            self._wait()

    def _keep(self) -> None:
        """Is called before an update changes the arrays."""
        if self._saved and not self.is_written():
            self._saved.keep(self._copies)
        self._saved = None

    def is_written(self) -> bool:
        """Returns True if nothing is being written. Does not wait."""
        return self._pending is None or self._pending.done()

    def check(self) -> None:
        """Raises what a save raised that has ended by now. Does not wait."""
        if self.is_written():
            self._wait()
        self._mirrors.report()

    def finish(self, in_haste: bool = False) -> None:
        """Waits, on every worker, until all that was saved is on disk and in the mirrors. Raises what a save raised.

        A mirror that fails is a line in the log; `in_haste`, a slow one is left behind.
        """
        self._wait()
        self._mirrors.finish(in_haste, self._run.progress.beat)
        self._run.worker.barrier()

    def check_mirrors(self) -> None:
        """Raises KoGPT2Error, on rank 0, if the last checkpoint is not in every mirror."""
        self._mirrors.check()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self._wait()
        except KoGPT2Error as failed:
            if not error:
                raise
            self._say(str(failed))
        finally:
            self._thread.shutdown()
            if error is None or isinstance(error, KoGPT2Error):
                self._mirrors.finish(True, self._run.progress.beat)
            self._mirrors.close()


def _state_of(recipe: Recipe, run: TrainingRun) -> dict[str, Any]:
    """Returns all of a run but its arrays, as plain data that no later step changes."""
    return {
        **_finite(asdict(run.state)),
        "loss_scale": run.loss_scale.state(),
        "products": run.products.state(),
        "reader": copy.deepcopy(run.reader.state()),
        "recipe_fingerprint": recipe.fingerprint(),
        "data_fingerprint": run.reader.fingerprint,
        "held_out_fingerprint": run.objective.held_out.fingerprint if run.objective.held_out else None,
        **run.objective.state(),
        "tokenizer_sha256": run.tokenizer.sha256,
        "size": run.worker.size,
        ONLY_AS_BEST: not _is_regular(recipe, run.state),
    }


def _write(
    recipe: Recipe,
    state: dict[str, Any],
    masters: Arrays,
    moments: Arrays,
    tokenizer: StoredTokenizer,
    mirrors: Mirrors,
) -> None:
    """Writes a checkpoint of the arrays of network and optimizer, and lets the mirrors begin to copy it."""
    with full_disk_named(recipe.ckpt_dir, lambda: _no_room(recipe, state["step"])):
        save_checkpoint(
            recipe.ckpt_dir,
            state,
            masters,
            moments,
            recipe,
            tokenizer,
            keep=recipe.checkpoint.keep,
            best=state["best"]["step"] if state["best"] else None,
            keep_every=recipe.checkpoint.keep_every,
        )
    mirrors.announce()


def _is_regular(recipe: Recipe, state: TrainState) -> bool:
    """Returns False if the state is saved because its held-out loss is the best so far, and for no other reason."""
    ended = state.stop_rule_met or state.step >= recipe.training.num_steps
    return ended or is_due(state.step, recipe.checkpoint.interval) or not is_best(state)


def _no_room(recipe: Recipe, step: int) -> str:
    needed = gigabytes(size_of(recipe).checkpoint)
    return f"the checkpoint of step {step:,} needs {needed}; {last_save(recipe)}"


def last_save(recipe: Recipe) -> str:
    """Says from where a run that ends on a full disk can go on."""
    try:
        name = open_checkpoint(recipe.ckpt_dir).path.name
    except KoGPT2Error:
        return "nothing was saved before; make room, or name another tracking.run_dir"
    return f"{name} was saved last; make room and run again to go on from it"


def _finite(value: Any) -> Any:
    """Copies plain data, with None for every number that is not finite, such as the perplexity of a loss above 700."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else copy.deepcopy(value)
