"""Saving the state of a run, and resuming from it."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.errors import DataError, DivergedError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model.gpt2 import named_parameters
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, go_back_to, newest_checkpoint, open_checkpoint, save_checkpoint
from kogpt2_gluon.training.state import TrainingRun, TrainState

# Settings that may differ between a checkpoint and the recipe that resumes from it; any other makes it another run.
MAY_CHANGE = {
    "num_steps",
    "batch_size",
    "learning_rate",
    "final_learning_rate",
    "schedule",
    "warmup_ratio",
    "weight_decay",
    "clip_norm",
    "device",
    "threads",
    "ops",
    "precision",  # the checkpoint is float32 either way
}


def find_resume_point(resume: str, ckpt_dir: Path, worker: Worker) -> Checkpoint | None:
    """Returns the checkpoint to resume from: the newest (``auto``), none (``never``), or the one at a path.

    Rank 0 looks for the newest, and all workers take the one that it found, because on a shared file system two workers
    can see different folders. RecipeError for ``never`` if there is a checkpoint; DataError if one is damaged.
    """
    if resume not in ("auto", "never"):
        checkpoint = open_checkpoint(Path(resume))
        checkpoint.verify()
        if not worker.all_equal(checkpoint.state()["step"]):
            raise DataError(f"{resume}: the workers see different checkpoints there; name one folder step-NNNNNNNN")
        return checkpoint
    found = newest_checkpoint(ckpt_dir) if worker.rank == 0 else None
    if resume == "never" and found:
        raise RecipeError(
            f"{ckpt_dir}: already holds {found.path.name}; --resume auto continues from it, or change run_dir"
        )
    name = worker.broadcast(found.path.name if found else None)
    return open_checkpoint(ckpt_dir / name) if name else None


def record_resume_point(resume: str, checkpoint: Checkpoint, ckpt_dir: Path, worker: Worker) -> list[str]:
    """Makes a checkpoint that the user named the newest of the run, before the first step; returns lines for the log.

    Without it, a run that dies before its first save would resume from the steps that it went back from.
    """
    moved = ""
    if resume != "auto" and worker.rank == 0:
        _, moved = go_back_to(checkpoint, ckpt_dir)
    worker.barrier()
    return [moved] if moved else []


def check_same_run(checkpoint: Checkpoint, recipe: Recipe) -> list[str]:
    """Returns the settings that changed and may change; RecipeError if the checkpoint is of another run.

    The reader checks that the data is the same: its files may have moved, so their names say nothing.
    """
    changed: list[str] = []
    refused: list[str] = []
    saved = checkpoint.recipe()
    before, now = saved.to_dict(), recipe.to_dict()
    if (saved.data.train_weights, len(saved.data.train_sets)) != (
        recipe.data.train_weights,
        len(recipe.data.train_sets),
    ):
        refused.append(f"data.train: {saved.data.train} -> {recipe.data.train}")
    for section in ("model", "training"):
        for key, value in now[section].items():
            if before[section][key] != value:
                text = f"{section}.{key}: {before[section][key]} -> {value}"
                (changed if key in MAY_CHANGE else refused).append(text)
    if refused:
        raise RecipeError(
            f"{checkpoint.path}: saved by another recipe ({', '.join(refused)}); restore these values or change run_dir"
        )
    return changed


def restore_state(saved: dict[str, Any]) -> TrainState:
    """Returns the state that :func:`save_state` saved. Checkpoints older than mixed precision lack skipped updates."""
    state = TrainState(**{entry.name: saved[entry.name] for entry in fields(TrainState) if entry.name in saved})
    if state.evaluation:
        state.evaluation.setdefault("attempt", state.evaluation["step"])
    return state


def save_state(recipe: Recipe, run: TrainingRun) -> None:
    """Writes a checkpoint, on rank 0; all workers wait for it. DivergedError if anything in it is not finite."""
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
        save_checkpoint(
            recipe.ckpt_dir,
            {
                **_finite(asdict(state)),
                "loss_scale": run.loss_scale.state(),
                "reader": run.reader.state(),
                "recipe_fingerprint": recipe.fingerprint(),
                "data_fingerprint": run.reader.fingerprint,
                "held_out_fingerprint": run.held_out.fingerprint if run.held_out else None,
                "tokenizer_sha256": run.tokenizer.sha256,
                "size": run.worker.size,
            },
            arrays,
            moments,
            recipe,
            run.tokenizer.path,
            keep=recipe.checkpoint.keep,
        )
    run.worker.barrier()


def _finite(value: Any) -> Any:
    """Copies plain data, with None for every number that is not finite, such as the perplexity of a loss above 700."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
