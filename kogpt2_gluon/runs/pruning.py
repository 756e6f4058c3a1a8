"""Removes old checkpoints of runs that are over, after it has said which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import load_recipe, parse_recipe
from kogpt2_gluon.runs.checkpoint import newest_whole
from kogpt2_gluon.runs.checkpoint_folder import BEST, committed, named_in, newest_in
from kogpt2_gluon.runs.lock import RunLock
from kogpt2_gluon.runs.run_folder import RunFolder
from kogpt2_gluon.storage.files import remove_folder
from kogpt2_gluon.user_files import read_yaml

ASIDE = "before-step-*"  # the checkpoints that a run went back from, and the best ones of another measure


def to_prune(
    run: RunFolder, keep: int, with_aside: bool = False, warn: Callable[[str], None] = print
) -> list[tuple[Path, int]]:
    """Returns the folders that go, the oldest first, and the bytes of each.

    The newest checkpoint and the best one stay, and of the others those of the most steps, `keep` in all without the
    best one. `with_aside`: what a run has moved aside goes, too. The newest checkpoint is verified first. If it is
    damaged, the newest one that is whole stays in addition, from which the run would go on, and `warn` gets the lines
    that say so.

    RecipeError if the checkpoints belong to another run; DataError if none is whole, or one cannot be read now.
    """
    folder = run.recipe.ckpt_dir
    _check_owner(run)
    newest, best, rest = newest_in(folder), named_in(folder, BEST), committed(folder)
    stay = {newest, best, *[each for each in rest if each != newest][: max(keep - 1, 0)]}
    going = [each for each in reversed(rest) if each not in stay]
    if going:
        try:
            whole, faults = newest_whole(folder)
        except DataError as error:
            raise DataError(f"{error}; nothing was removed") from None
        if whole and faults:
            for fault in faults:
                warn(f"WARNING: {fault}")
            warn(f"WARNING: {whole.path.name}, the newest checkpoint that is whole, stays too")
            going = [each for each in going if each != whole.path]
    if with_aside:
        going += sorted(path for path in folder.glob(ASIDE) if path.is_dir() and not path.is_symlink())
    return [(path, _bytes_in(path)) for path in going]


def prune(
    run: RunFolder, keep: int, with_aside: bool = False, warn: Callable[[str], None] = print
) -> Iterator[tuple[Path, int]]:
    """Removes what :func:`to_prune` names; yields each when it is gone. RecipeError if the run is training, too."""
    _check_owner(run)
    try:
        lock = RunLock(run.path)
    except RecipeError as error:
        raise RecipeError(f"{error}; nothing was removed") from None
    with lock:
        for path, size in to_prune(run, keep, with_aside, warn):
            remove_folder(path)
            yield path, size


def _check_owner(run: RunFolder) -> None:
    """Raises RecipeError if the checkpoints that the recipe of `run` names are those of a run in another folder.

    A copy of a run without its checkpoints names those of the original, and so does any copy if checkpoint.ckpt_dir is
    set. The lock of the copy would not keep a training in the original from them.
    """
    folder, own = run.recipe.ckpt_dir.resolve(), run.path.resolve()
    if own in folder.parents:
        return
    recorded = parse_recipe(read_yaml(run.path / "recipe.yaml", "recipe")).run_dir
    for other in dict.fromkeys((recorded.resolve(), folder.parent)):
        path = other / "recipe.yaml"
        if other != own and path.is_file() and load_recipe(str(path)).ckpt_dir.resolve() == folder:
            raise RecipeError(
                f"{run.path}: its checkpoints, {folder}, are those of the run in {other}; prune that one; nothing was "
                "removed"
            )


def _bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
