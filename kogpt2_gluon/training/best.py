"""The best checkpoint of a run: the one of the lowest held-out loss, which `checkpoint.keep` does not remove.

Only losses that were measured in the same way compare: on the same held-out data, cut into sequences of the same
length, and over the same of these sequences. So an evaluation over more of them than `evaluation.max_sequences`, which
the last one of a run is, is followed by one over those. Where a resume changes how the loss is measured, the best
checkpoint so far moves aside and another one is looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.held_out import HeldOutReader
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, move_best_aside
from kogpt2_gluon.runs.checkpoint_folder import name_best
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.training.state import TrainState


def measure_of(recipe: Recipe, held_out: ShardSet) -> dict[str, Any]:
    """Says how the loss is measured that chooses the best checkpoint: losses compare if this is the same."""
    seq_length, most = recipe.data.seq_length, recipe.evaluation.max_sequences
    sequences = HeldOutReader(held_out, seq_length, most).num_sequences
    return {"held_out": held_out.fingerprint, "seq_length": seq_length, "sequences": sequences}


def note_best(state: TrainState, loss: float, measure: dict[str, Any], say: Callable[[str], None]) -> None:
    """Makes this step the best so far if its held-out `loss` is below that of all steps before.

    `say` is called with a line for the log if it is not. Every worker calls this with the same numbers.
    """
    best = state.best
    if best is None or loss < best["loss"]:
        state.best = {"step": state.step, "loss": loss, **measure}
    elif best["step"] != state.step:
        say(f"held-out loss {loss:.4f} is not below {best['loss']:.4f} of step {best['step']:,}, the best checkpoint")


def is_best(state: TrainState) -> bool:
    """Returns True if the evaluation after this step was the best so far."""
    return state.best is not None and state.best["step"] == state.step


def settle_best(
    recipe: Recipe, state: TrainState, held_out: ShardSet | None, checkpoint: Checkpoint, worker: Worker
) -> list[str]:
    """Brings the best checkpoint of the state to go on from, and the file ``best``, in line with what is on disk.

    Every worker calls this before the first step; rank 0 looks and writes. Without held-out data nothing new can be
    measured, so the best so far stays what it is. Returns lines for the log.
    """
    if not recipe.checkpoint.keep_best:
        state.best = None
        return []
    found, notes = worker.broadcast(_settle(recipe, state, held_out, checkpoint) if worker.rank == 0 else None)
    state.best = state.best if found else None
    return list(notes)


def _settle(
    recipe: Recipe, state: TrainState, held_out: ShardSet | None, checkpoint: Checkpoint
) -> tuple[bool, list[str]]:
    """Returns True if the best checkpoint so far is there and compares with what comes, and lines for the log."""
    best, ckpt_dir = state.best, recipe.ckpt_dir
    there = name_best(ckpt_dir, best["step"] if best else None)
    if best is None:
        return False, []
    what = f"the best checkpoint so far, of step {best['step']:,} with held-out loss {best['loss']:.4f},"
    if not there:
        return False, [f"note: {what} is not in {ckpt_dir}; the best one from here on is kept"]
    if held_out is None or measure_of(recipe, held_out).items() <= best.items():
        return True, []
    moved = move_best_aside(checkpoint, ckpt_dir)
    return False, [f"note: {what} was measured in another way than from here on, so they do not compare; {moved}"]
