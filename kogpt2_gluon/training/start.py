"""Every check before a run's first step that needs no MXNet. `kogpt2 train` and its dry run both make them here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.estimate import checkpoints_kept, size_of
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint
from kogpt2_gluon.runs.checkpoint_folder import check_best_name
from kogpt2_gluon.runs.metrics import check_record
from kogpt2_gluon.storage.disk import FULL, disk_full, free_bytes
from kogpt2_gluon.storage.files import try_to_make
from kogpt2_gluon.training.initial_weights import NewWeights
from kogpt2_gluon.training.live_changes import keep_live_changes
from kogpt2_gluon.training.mirror_start import MirrorStart, settle_mirrors
from kogpt2_gluon.training.objective import Objective, open_objective
from kogpt2_gluon.training.resume_point import check_same_run, find_resume_point
from kogpt2_gluon.training.resume_rules import IF_ALLOWED, Change, check_allowed, notes_on_allowed, rule_of
from kogpt2_gluon.training.saved_records import check_records
from kogpt2_gluon.wording import gigabytes


@dataclass
class Start:
    """The checked start of a run. `saved` is the content of the checkpoint's state.json; `notes` are for the log."""

    accumulate: int
    objective: Objective
    checkpoint: Checkpoint | None
    saved: dict[str, Any] | None
    changed: list[Change]  # settings that differ from the checkpoint's
    initial: NewWeights | None = None  # whose weights a new run begins with
    to_fetch: str = ""  # the checkpoint that would be fetched from a mirror
    notes: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        return int(self.saved["step"]) if self.saved else 0

    @property
    def allowed_changes(self) -> list[Change]:
        """The changes that were made by permission."""
        return [change for change in self.changed if rule_of(change.key) == IF_ALLOWED]

    @property
    def values_before(self) -> dict[str, Any]:
        """The values, in the checkpoint, of settings that were changed by permission; for the reader."""
        return {change.key: change.before for change in self.allowed_changes}

    @property
    def source(self) -> str:
        """Where the saved state comes from, for messages."""
        return str(self.checkpoint and self.checkpoint.path)


def check_start(
    recipe: Recipe,
    resume: str,
    worker: Worker,
    opened: ExitStack,
    needs_data: bool = True,
    allow_change: Sequence[str] = (),
    fetch: bool = True,
) -> Start:
    """Makes the checks of this worker; raises what a run would raise. The reader's own come after it.

    `opened` closes what is opened here. Without `needs_data` no training data need be named. `allow_change` has the
    keys that a resume may change in addition; see training/resume_rules.py. Without `fetch`, a checkpoint that would be
    fetched from a mirror is only named.
    """
    allowed = check_allowed(allow_change)
    if worker.rank == 0:
        check_folder(recipe.run_dir, "tracking.run_dir")
        check_folder(recipe.ckpt_dir, "checkpoint.ckpt_dir")
        if recipe.checkpoint.keep_best:
            check_best_name(recipe.ckpt_dir)
        check_record(recipe.run_dir)
    objective = open_objective(recipe, needs_data, opened)
    checkpoint, warnings = find_resume_point(resume, recipe.ckpt_dir, worker)
    mirrors = settle_mirrors(recipe, resume, checkpoint, fetch) if worker.rank == 0 else MirrorStart()
    if checkpoint is None and recipe.checkpoint.mirrors and fetch:
        checkpoint, warnings = find_resume_point(resume, recipe.ckpt_dir, worker)  # there is one if it was fetched
    saved, kept = saved_state(checkpoint, recipe) if checkpoint else (None, [])
    changed = check_same_run(checkpoint, recipe, allowed) if checkpoint else []
    start = Start(recipe.accumulate(worker.size), objective, checkpoint, saved, changed)
    start.notes += [*objective.notes, *mirrors.notes, *warnings, *kept]
    start.to_fetch = mirrors.to_fetch
    if start.saved is not None and "reader" not in start.saved:
        start.notes.append(f"note: {start.source} does not say how much data was read, so the data begins at its start")
    if saved is not None:
        objective.check_saved(saved, start.source)
    start.initial = None if checkpoint else objective.initial_weights()
    if start.initial:
        start.notes += [f"begins with the weights of {start.initial.path}, as a new run", *start.initial.notes]
    start.notes += notes_on_allowed(allowed, changed, recipe)
    if worker.rank == 0 and start.step < recipe.training.num_steps:
        start.notes += check_room(recipe)
    return start


def saved_state(checkpoint: Checkpoint, recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """Returns the checked state of a checkpoint, and notes; applies the changes in it to `recipe`, in place."""
    saved = checkpoint.state()
    check_records(saved, str(checkpoint.path))
    live, notes = keep_live_changes(recipe, saved)
    return {**saved, "live": live}, notes


def check_folder(folder: Path, key: str) -> None:
    """RecipeError unless files can be made in `folder`, or below the nearest folder above it that exists.

    Permissions alone do not answer this (root may write to /proc, and cannot): a folder is made there and removed.
    """
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise RecipeError(f"{key}={folder}: cannot be made: {place} is not a folder")
    try:
        try_to_make(place)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(folder, "the run cannot even make its folder there; make room", error.errno) from None
        what = "cannot be written to" if place == folder.absolute() else "cannot be made"
        raise RecipeError(f"{key}={folder}: {what} ({error.strerror})") from None


def check_room(recipe: Recipe) -> list[str]:
    """Compares the free disk with the estimate of the checkpoints; returns a line if not all of them will fit.

    DiskFullError if there is no room for one.
    """
    one, folder = size_of(recipe).checkpoint, recipe.ckpt_dir
    free = free_bytes(folder)
    if free < one:
        raise disk_full(folder, f"a checkpoint needs {gigabytes(one)}; make room, or name another checkpoint.ckpt_dir")
    there = sum(file.stat().st_size for file in folder.glob("step-*/*") if file.is_file())
    most = one * (checkpoints_kept(recipe) + 1)
    if free + there >= most:
        return []
    return [
        f"note: {folder}: {gigabytes(free)} free, and its checkpoints take {gigabytes(most)} at most; make room, or "
        "take a smaller checkpoint.keep"
    ]
