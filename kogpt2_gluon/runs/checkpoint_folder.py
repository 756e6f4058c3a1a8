"""The names in a folder of checkpoints: which are checkpoints, which is the newest and which the best.

The text file ``latest`` names the checkpoint that was saved last, ``best`` the one of the lowest held-out loss. What a
checkpoint consists of is in :mod:`.checkpoint`.
"""

from __future__ import annotations

import re
import time
from itertools import count
from pathlib import Path

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.files import move, remove_file, write_file
from kogpt2_gluon.storage.links import read_file

LATEST, BEST = "latest", "best"  # text files, each with the name of a checkpoint
LONGEST_NAME = 256  # bytes
FOLDER = re.compile(r"step-(\d{8,})")


def newest_in(ckpt_dir: Path) -> Path | None:
    """Returns the folder of the checkpoint that was saved last, as `latest` names it; else the one of most steps.

    The number of steps alone is not enough: a run that went back to an earlier step has not yet removed the later
    checkpoints if it dies at its first save.
    """
    folders = committed(ckpt_dir)
    return named_in(ckpt_dir, LATEST) or (folders[0] if folders else None)


def named_in(ckpt_dir: Path, file: str) -> Path | None:
    """Returns the folder of the checkpoint that a text file names; None if it is not there or names none."""
    try:
        named = ckpt_dir / read_file(ckpt_dir / file, LONGEST_NAME).decode().strip()
    except (OSError, ValueError):
        return None
    return named if named in committed(ckpt_dir) else None


def committed(ckpt_dir: Path) -> list[Path]:
    """Lists the folders that have a checkpoint's name, the one of most steps first."""
    if not ckpt_dir.is_dir():
        return []
    numbered = [(int(found[1]), folder) for folder in ckpt_dir.iterdir() if (found := FOLDER.fullmatch(folder.name))]
    return [folder for _, folder in sorted(numbered, reverse=True)]


def better_one(path: Path) -> Path | None:
    """Returns PATH/best if `path` is a run or its folder of checkpoints whose newest one is not the best."""
    for ckpt_dir in (path, path / "checkpoints"):
        newest, best = newest_in(ckpt_dir), named_in(ckpt_dir, BEST)
        if newest:
            return path / BEST if best and best != newest else None
    return None


def runs_below(path: Path) -> list[str]:
    """Lists the names of the runs in a folder, such as those of several seeds."""
    below = sorted(path.iterdir()) if path.is_dir() else []
    return [each.name for each in below if newest_in(each / "checkpoints")]


def best_step(ckpt_dir: Path) -> int | None:
    """Returns the step of the checkpoint that ``best`` names; None if it names none that is there."""
    named = named_in(ckpt_dir, BEST)
    return step_of(named) if named else None


def name_best(ckpt_dir: Path, step: int | None) -> bool:
    """Makes ``best`` name the checkpoint of `step`; removes the file if there is none. True if it names one now."""
    name = None if step is None else name_of(step)
    if name is None or not (ckpt_dir / name).is_dir():
        remove_file(ckpt_dir / BEST)
        return False
    if best_step(ckpt_dir) != step:
        write_file(ckpt_dir / BEST, f"{name}\n".encode())
    return True


def check_best_name(ckpt_dir: Path) -> None:
    """Raises RecipeError if a folder has the name of the file ``best``; a link to one is replaced."""
    path = ckpt_dir / BEST
    if path.is_dir() and not path.is_symlink():
        raise RecipeError(
            f"{path}: a folder, where a run writes the name of its best checkpoint; move it, or set "
            "checkpoint.keep_best=false"
        )


def folder_aside(ckpt_dir: Path, step: int) -> Path:
    """Returns a new name for the checkpoints of steps that a run goes back from."""
    name = f"before-step-{step:08d}-{time.strftime('%Y%m%d-%H%M%S')}"
    return next(path for number in count(1) if not (path := ckpt_dir / f"{name}{f'.{number}' * (number > 1)}").exists())


def move_all(folders: list[Path], aside: Path) -> None:
    """Moves checkpoints into a folder, which is made if there are any."""
    for folder in folders:
        aside.mkdir(parents=True, exist_ok=True)
        move(folder, aside / folder.name)


def name_of(step: int) -> str:
    """The name of the folder of a step's checkpoint."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    found = FOLDER.fullmatch(folder.name)
    assert found is not None, folder
    return int(found[1])
