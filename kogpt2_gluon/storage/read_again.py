"""Input that is read more than once: a pipe or standard input is kept in a temporary file meanwhile."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.disk import full_disk_named

STANDARD_INPUT = "-"


@contextmanager
def readable_again(path: Path, missing: str) -> Iterator[tuple[Path, str]]:
    """Yields a file that can be read more than once, and its name for messages.

    `path` is a file, a pipe, or "-" for standard input. DataError with the text `missing` if there is none,
    DiskFullError if there is no room to keep it.
    """
    is_input = str(path) == STANDARD_INPUT
    if not is_input and not os.path.lexists(path):
        raise DataError(missing)
    if not is_input and not _is_pipe(path):
        yield path, str(path)
        return
    with tempfile.NamedTemporaryFile(prefix="kogpt2-input-") as kept:
        name = "standard input" if is_input else str(path)
        folder = Path(kept.name).parent
        with full_disk_named(folder, lambda: f"{name} is kept there; set TMPDIR to a folder with more room"):
            if is_input:
                shutil.copyfileobj(sys.stdin.buffer, kept)
            else:
                with path.open("rb") as pipe:
                    shutil.copyfileobj(pipe, kept)
            kept.flush()
        yield Path(kept.name), name


def _is_pipe(path: Path) -> bool:
    """Returns True for what can be read once only; whatever else is wrong with a path, its reader says."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
