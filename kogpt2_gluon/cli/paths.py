"""Paths on the command line."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


class HomePath(click.Path):
    """A path in which a leading ~ is a home: a shell expands it in `--out ~/x`, but not in `--out=~/x`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.startswith("~"):
            from kogpt2_gluon.options import expand_home  # --help does not read YAML

            try:
                value = expand_home(value)
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


def check_target(option: str, path: Path) -> None:
    """Raises RecipeError if a file cannot be written there: it is better said before what goes into it is computed."""
    from kogpt2_gluon.errors import RecipeError

    with _writable(option, path):
        kind = path.stat().st_mode if path.exists() else stat.S_IFREG
        _try_to_make_in(path.absolute().parent)
    if not stat.S_ISREG(kind):
        what = "is a folder" if stat.S_ISDIR(kind) else "is a device, a pipe or a socket"
        raise RecipeError(f"{option} {path}: {what}; name a file")


def check_folder_target(option: str, path: Path) -> None:
    """Raises RecipeError if nothing can be written into a folder, which need not exist."""
    with _writable(option, path):
        _try_to_make_in(path.absolute())


def _try_to_make_in(folder: Path) -> None:
    from kogpt2_gluon.storage.files import try_to_make

    while not folder.exists():  # the missing ones are made
        folder = folder.parent
    try_to_make(folder)


@contextmanager
def _writable(option: str, path: Path) -> Iterator[None]:
    from kogpt2_gluon.errors import RecipeError

    try:
        yield
    except OSError as error:
        raise RecipeError(f"{option} {path}: cannot be written: {error.strerror}") from None


FOLDER = HomePath(file_okay=False, path_type=Path)
ANY_PATH = HomePath(path_type=Path)
