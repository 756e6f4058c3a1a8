"""Removes old checkpoints of runs that are over, after it has said which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.runs.checkpoint_folder import BEST, committed, named_in, newest_in
from kogpt2_gluon.runs.lock import RunLock
from kogpt2_gluon.runs.run_folder import RunFolder
from kogpt2_gluon.storage.files import remove_folder

ASIDE = "before-step-*"  # the checkpoints that a run went back from, and the best ones of another measure


def to_prune(run: RunFolder, keep: int, with_aside: bool = False) -> list[tuple[Path, int]]:
    """Returns the folders that go, the oldest first, and the bytes of each.

    The newest checkpoint and the best one stay, and of the others those of the most steps, `keep` in all without the
    best one. `with_aside`: what a run has moved aside goes, too.
    """
    folder = run.recipe.ckpt_dir
    newest, best, rest = newest_in(folder), named_in(folder, BEST), committed(folder)
    stay = {newest, best, *[each for each in rest if each != newest][: max(keep - 1, 0)]}
    going = [each for each in reversed(rest) if each not in stay]
    if with_aside:
        going += sorted(path for path in folder.glob(ASIDE) if path.is_dir() and not path.is_symlink())
    return [(path, _bytes_in(path)) for path in going]


def prune(run: RunFolder, keep: int, with_aside: bool = False) -> Iterator[tuple[Path, int]]:
    """Removes what :func:`to_prune` names; yields each when it is gone. RecipeError if the run is training."""
    try:
        lock = RunLock(run.path)
    except RecipeError as error:
        raise RecipeError(f"{error}; nothing was removed") from None
    with lock:
        for path, size in to_prune(run, keep, with_aside):
            remove_folder(path)
            yield path, size


def _bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
