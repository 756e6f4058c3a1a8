"""The best checkpoint of a run, which `checkpoint.keep` does not remove: that of the lowest held-out loss, or of the
highest score of a task.

Only scores that were measured in the same way compare: on the same held-out data, cut into sequences of the same
length, and over the same of these sequences. So an evaluation over more of them than `evaluation.max_sequences`, which
the last one of a run is, is followed by one over those. Where a resume changes how it is measured, the best
checkpoint so far moves aside and another one is looked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, move_best_aside
from kogpt2_gluon.runs.checkpoint_folder import name_best
from kogpt2_gluon.training.objective import Objective, Scores
from kogpt2_gluon.training.state import TrainState


def note_best(state: TrainState, scores: Scores, measure: dict[str, Any], say: Callable[[str], None]) -> None:
    """Makes this step the best so far if `scores` are better than those of all steps before.

    `say` is called with a line for the log if they are not. Every worker calls this with the same numbers.
    """
    best, (name, value) = state.best, scores.chooses
    if math.isnan(value):
        say(f"held-out {name} does not exist, so this is not the best checkpoint")
    elif best is None or _is_better(scores, best):
        metric = {} if name == "loss" else {"metric": name, "score": value}
        state.best = {"step": state.step, "loss": scores.loss, **measure, **metric}
    elif best["step"] != state.step:
        side = "below" if name == "loss" else "above"
        say(
            f"held-out {name} {value:.4f} is not {side} {best.get('score', best['loss']):.4f} of step "
            f"{best['step']:,}, the best checkpoint"
        )


def _is_better(scores: Scores, best: Mapping[str, Any]) -> bool:
    name, value = scores.chooses
    return bool(value < best["loss"] if name == "loss" else value > best["score"])


def is_best(state: TrainState) -> bool:
    """Returns True if the evaluation after this step was the best so far."""
    return state.best is not None and state.best["step"] == state.step


def settle_best(
    recipe: Recipe, state: TrainState, objective: Objective, checkpoint: Checkpoint, worker: Worker
) -> list[str]:
    """Brings the best checkpoint of the state to go on from, and the file ``best``, in line with what is on disk.

    Every worker calls this before the first step; rank 0 looks and writes. Without held-out data nothing new can be
    measured, so the best so far stays what it is. Returns lines for the log.
    """
    if not recipe.checkpoint.keep_best:
        state.best = None
        return []
    found, notes = worker.broadcast(_settle(recipe, state, objective, checkpoint) if worker.rank == 0 else None)
    state.best = state.best if found else None
    return list(notes)


def _settle(recipe: Recipe, state: TrainState, objective: Objective, checkpoint: Checkpoint) -> tuple[bool, list[str]]:
    """Returns True if the best checkpoint so far is there and compares with what comes, and lines for the log."""
    best, ckpt_dir = state.best, recipe.ckpt_dir
    there = name_best(ckpt_dir, best["step"] if best else None)
    if best is None:
        return False, []
    what = f"the best checkpoint so far, of step {best['step']:,} with held-out {_figure(best)},"
    if not there:
        return False, [f"note: {what} is not in {ckpt_dir}; the best one from here on is kept"]
    if objective.held_out is None or objective.measure().items() <= best.items():
        return True, []
    moved = move_best_aside(checkpoint, ckpt_dir)
    return False, [f"note: {what} was measured in another way than from here on, so they do not compare; {moved}"]


def _figure(best: Mapping[str, Any]) -> str:
    name, value = (best["metric"], best["score"]) if "metric" in best else ("loss", best["loss"])
    return f"{name} {value:.4f}"
