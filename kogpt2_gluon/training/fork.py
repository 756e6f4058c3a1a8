"""A fork: a new run that begins at a checkpoint of another one, with its moments, its place in the data, its record."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, go_back_to, open_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import committed, name_of, step_of
from kogpt2_gluon.runs.run_folder import PARENT_FILE, RunFolder, open_run
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.training.resume_point import check_same_run
from kogpt2_gluon.training.resume_rules import Change, check_allowed


def fork(
    run_dir: Path, target: Path, step: int | None, settings: Sequence[str] = (), allow_change: Sequence[str] = ()
) -> tuple[int, list[Change]]:
    """Makes `target` the folder of a run that goes on from step `step` of another (None: its newest checkpoint).

    With the same settings it ends with the bytes of its parent. `settings` (``section.key=value``) are those that a
    resume may change; those of `allow_change` in addition. The parent is read, never written. Returns the step, and
    what changes. RecipeError if `target` exists, for a change that makes another run, or if there is no such step;
    DataError if the parent's record or the checkpoint is damaged.
    """
    if os.path.lexists(target):
        raise RecipeError(f"{target}: exists already; name a new folder for the fork")
    parent = open_run(run_dir)
    if parent.fault:
        raise parent.fault
    checkpoint = _checkpoint_of(parent, step)
    checkpoint.verify()
    own = [f"tracking.run_dir={target}", "checkpoint.ckpt_dir=", "checkpoint.mirrors=[]"]
    # A mirror holds one run: the fork needs others.
    recipe = parse_recipe(parent.recipe.to_dict(), [*own, *settings], source=str(run_dir / "recipe.yaml"))
    changes = check_same_run(checkpoint, recipe, check_allowed(allow_change))
    recipe.accumulate(Worker.size)
    step = int(checkpoint.state()["step"])
    target.mkdir(parents=True)
    _write_record(parent, target, step)
    go_back_to(checkpoint, recipe.ckpt_dir)
    origin: dict[str, Any] = {"run": str(run_dir.resolve()), "step": step, "settings": list(settings)}
    write_file(target / PARENT_FILE, json.dumps(origin, ensure_ascii=False, indent=1).encode())
    write_file(target / "recipe.yaml", recipe.to_yaml().encode())  # the last: without it the folder is no run
    return step, changes


def _checkpoint_of(parent: RunFolder, step: int | None) -> Checkpoint:
    folder = _folder_of(parent.recipe)
    if step is None:
        return open_checkpoint(folder)
    path = folder / name_of(step)
    if not path.is_dir():
        there = ", ".join(str(step_of(each)) for each in reversed(committed(folder))) or "none"
        raise RecipeError(f"{folder}: has no checkpoint of step {step}; those that are there: {there}")
    return open_checkpoint(path)


def _folder_of(recipe: Recipe) -> Path:
    if not recipe.ckpt_dir.is_dir():
        raise DataError(f"{recipe.ckpt_dir}: no folder of checkpoints there")
    return recipe.ckpt_dir


def _write_record(parent: RunFolder, target: Path, step: int) -> None:
    """Gives the fork its parent's figures up to the step, so that its curves are whole."""
    kept = [json.dumps(line) for line in parent.lines if line["step"] <= step]
    if kept:
        write_file(target / "metrics.jsonl", ("\n".join(kept) + "\n").encode())
