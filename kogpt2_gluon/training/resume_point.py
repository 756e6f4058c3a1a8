"""Finds where a run goes on from, and checks that it is the same run; without MXNet, so that a dry run does it too."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.options import expand_home
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import WEIGHTS_ALONE, Checkpoint, go_back_to, newest_whole, open_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import committed, newest_in, step_of
from kogpt2_gluon.training.resume_rules import FREELY, PATH, Change, refusal, rule_of

SECTIONS = ("model", "training", "task", "adaptation", "distillation")  # that say what is trained, and how
CHOICES = ("auto", "never")  # of --resume, besides a path


def resume_choice(resume: str) -> str:
    """The value of --resume: ``auto`` and ``never`` in any case, else a path. RecipeError for what is neither."""
    if resume.strip().lower() in CHOICES:
        return resume.strip().lower()
    if not resume.strip():
        raise RecipeError("--resume is empty; give auto, never, or a checkpoint's path")
    try:
        path = expand_home(resume)
    except ValueError as error:
        raise RecipeError(f"--resume {error}") from None
    near = difflib.get_close_matches(resume.lower(), CHOICES, n=1)
    if near and "/" not in resume and not Path(path).exists():
        raise RecipeError(f"--resume {resume}: neither auto nor never, and no such folder; did you mean {near[0]}?")
    return path


def find_resume_point(resume: str, ckpt_dir: Path, worker: Worker) -> tuple[Checkpoint | None, list[str]]:
    """Returns the checkpoint to resume from, and warnings: the newest (``auto``), none (``never``), or that at a path.

    Rank 0 looks for the newest one that is whole, and all workers take the one that it found, because on a shared file
    system two workers can see different folders. RecipeError for ``never`` if there is a checkpoint; DataError if the
    one at a path is damaged, or all are.
    """
    if resume not in CHOICES:
        checkpoint = open_checkpoint(Path(resume))
        checkpoint.verify()
        if not worker.all_equal(checkpoint.state()["step"]):
            raise DataError(f"{resume}: the workers see different checkpoints there; name one folder step-NNNNNNNN")
        return checkpoint, []
    if resume == "never" and worker.rank == 0 and (there := newest_in(ckpt_dir)):
        raise RecipeError(f"{ckpt_dir}: already holds {there.name}; --resume auto continues from it, or change run_dir")
    found, faults = newest_whole(ckpt_dir) if worker.rank == 0 else (None, [])
    name = worker.broadcast(found.path.name if found else None)
    warnings = [f"WARNING: {fault}" for fault in faults]
    if found and faults:
        warnings.append(f"WARNING: going on from {found.path.name}, the newest checkpoint that is whole")
    elif found and (later := [each.name for each in committed(ckpt_dir) if step_of(each) > step_of(found.path)]):
        warnings.append(
            f"WARNING: going on from {found.path.name}, which the file latest names, though there is "
            f"{', '.join(sorted(later))}: a run was killed before it changed that file, or the file is damaged"
        )
    return open_checkpoint(ckpt_dir / name) if name else None, warnings


def record_resume_point(resume: str, checkpoint: Checkpoint, ckpt_dir: Path, worker: Worker) -> list[str]:
    """Makes the checkpoint that a run goes on from its newest, before the first step; returns lines for the log.

    That changes something where the user named it, or where newer ones are damaged. Without it, a run that dies before
    its first save would resume from the steps that it went back from, or look at the damaged ones again.
    """
    moved = ""
    if worker.rank == 0 and (resume != "auto" or newest_in(ckpt_dir) != ckpt_dir / checkpoint.path.name):
        _, moved = go_back_to(checkpoint, ckpt_dir)
    worker.barrier()
    return [moved] if moved else []


def check_same_run(checkpoint: Checkpoint, recipe: Recipe, allowed: Collection[str] = ()) -> list[Change]:
    """Returns the settings that changed and may, or are `allowed` to; RecipeError if the checkpoint is of another run.

    The reader checks that the data is the same: its files may have moved, so their names say nothing.
    """
    if checkpoint.state().get(WEIGHTS_ALONE):
        raise RecipeError(
            f"{checkpoint.path}: has weights alone, without the state of an optimizer; begin a run with them: "
            f"--init-from {checkpoint.path} and another run_dir"
        )
    saved = checkpoint.recipe()
    before, now = saved.to_dict(), recipe.to_dict()
    keys = [f"{section}.{key}" for section in SECTIONS for key in now[section]]
    before["task"]["name"], now["task"]["name"] = (Path(each["task"]["name"]).stem for each in (before, now))
    changes: list[Change] = []
    refused: list[Change] = []
    if _shares(saved) != _shares(recipe):
        refused.append(Change("data.train", saved.data.train, recipe.data.train))
    teachers = saved.distillation.teacher, recipe.distillation.teacher
    if not all(teachers) and any(teachers):  # another path alone says nothing
        keys.remove("distillation.teacher")
        refused.append(Change("distillation.teacher", *(each or "none" for each in teachers)))
    for key in [*keys, "data.seq_length"]:
        section, _, name = key.partition(".")
        change = Change(key, before[section][name], now[section][name])
        if change.before != change.now:
            (changes if key in allowed or rule_of(key) in (FREELY, PATH) else refused).append(change)
    if refused:
        raise refusal(str(checkpoint.path), refused)
    return changes


def _shares(recipe: Recipe) -> tuple[list[float] | None, int]:
    return recipe.data.train_weights, len(recipe.data.train_sets)
