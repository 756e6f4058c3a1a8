"""Saving the state of a run, and restoring it. Where to resume from is decided in resume_point.py."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from kogpt2_gluon.errors import DivergedError, KoGPT2Error
from kogpt2_gluon.estimate import size_of
from kogpt2_gluon.model.gpt2 import named_parameters
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import ONLY_AS_BEST, open_checkpoint, save_checkpoint
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.training.best import is_best
from kogpt2_gluon.training.evaluation import is_due
from kogpt2_gluon.training.state import TrainingRun, TrainState
from kogpt2_gluon.wording import gigabytes


def restore_state(saved: dict[str, Any]) -> TrainState:
    """Returns the state that :func:`save_state` saved. Checkpoints older than mixed precision lack skipped updates."""
    state = TrainState(**{entry.name: saved[entry.name] for entry in fields(TrainState) if entry.name in saved})
    if state.evaluation:
        state.evaluation.setdefault("attempt", state.evaluation["step"])
    return state


def save_is_due(recipe: Recipe, state: TrainState) -> bool:
    """Returns True after a step that `checkpoint.interval` calls for, or whose evaluation was the best so far."""
    return is_due(state.step, recipe.checkpoint.interval) or is_best(state)


def save_state(recipe: Recipe, run: TrainingRun) -> None:
    """Writes a checkpoint, on rank 0; all workers wait for it.

    DivergedError if anything in it is not finite, DiskFullError if there is no room for it.
    """
    run.reader.gather(run.worker)
    if run.worker.rank == 0:
        state, update = run.state, run.update
        masters = {name: array.asnumpy() for name, array in update.masters.items()}
        moments = update.arrays()
        for name, array in (*masters.items(), *moments.items()):
            if not np.isfinite(array).all():
                raise DivergedError(f"step {state.step}: {name} is not finite; nothing was saved for this step")
        # A file of parameters has the tied matrix under both of its names.
        once = {id(parameter): masters[name] for name, parameter in update.parameters.items()}
        arrays = {name: once[id(parameter)] for name, parameter in named_parameters(run.net).items()}
        with full_disk_named(recipe.ckpt_dir, lambda: _no_room(recipe, state.step)):
            save_checkpoint(
                recipe.ckpt_dir,
                {
                    **_finite(asdict(state)),
                    "loss_scale": run.loss_scale.state(),
                    "products": run.products.state(),
                    "reader": run.reader.state(),
                    "recipe_fingerprint": recipe.fingerprint(),
                    "data_fingerprint": run.reader.fingerprint,
                    "held_out_fingerprint": run.held_out.fingerprint if run.held_out else None,
                    "tokenizer_sha256": run.tokenizer.sha256,
                    "size": run.worker.size,
                    ONLY_AS_BEST: not _is_regular(recipe, state),
                },
                arrays,
                moments,
                recipe,
                run.tokenizer.stored,
                keep=recipe.checkpoint.keep,
                best=state.best["step"] if state.best else None,
            )
    run.worker.barrier()


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
    return None if isinstance(value, float) and not math.isfinite(value) else value
