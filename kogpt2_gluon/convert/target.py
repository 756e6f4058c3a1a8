"""The folder that a conversion writes: whole or not there, with one line for whatever prevents it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.files import new_folder
from kogpt2_gluon.wording import gigabytes


def refuse_occupied(out: Path) -> None:
    """RecipeError if `out` exists and is not an empty folder, or cannot exist."""
    try:
        if out.is_dir() and any(out.iterdir()):
            raise RecipeError(f"{out}: the folder is not empty; name a new one, or empty it")
        if out.exists() and not out.is_dir():
            raise RecipeError(f"{out}: it is a file; name a folder")
    except OSError as error:  # a name that is too long
        raise RecipeError(f"{out}: cannot be written: {error.strerror}") from None


@contextmanager
def target_folder(out: Path, needed: int) -> Iterator[Path]:
    """Yields a folder to fill, which takes the name `out` when the block ends. `needed` is its size in bytes.

    RecipeError if `out` is occupied or cannot be written, DiskFullError if there is no room for it.
    """
    refuse_occupied(out)

    def about() -> str:
        return f"the converted model needs {gigabytes(needed)}; make room, or name another folder"

    try:
        with full_disk_named(out, about), new_folder(out) as folder:
            yield folder
    except OSError as error:
        raise RecipeError(f"{out}: cannot be written: {error.strerror or error}") from None
