"""Restores the saved state of a run, and says when it is saved. Where to resume from is decided in resume_point.py."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.training.best import is_best
from kogpt2_gluon.training.evaluation import is_due
from kogpt2_gluon.training.state import TrainState


def restore_state(saved: dict[str, Any]) -> TrainState:
    """Returns the state that a checkpoint holds. Those older than mixed precision lack skipped updates."""
    state = TrainState(**{entry.name: saved[entry.name] for entry in fields(TrainState) if entry.name in saved})
    state.begun_as = state.begun_as or str(saved.get("recipe_fingerprint") or "")
    if state.evaluation:
        state.evaluation.setdefault("attempt", state.evaluation["step"])
    return state


def save_is_due(recipe: Recipe, state: TrainState) -> bool:
    """Returns True after a step that `checkpoint.interval` calls for, or whose evaluation was the best so far."""
    return is_due(state.step, recipe.checkpoint.interval) or is_best(state)
