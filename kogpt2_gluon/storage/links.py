"""Files of folders that come from elsewhere: names and links that lead out, and what is no file at all, are refused."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PIECE = 1 << 20  # bytes


def read_file(path: Path, most: int = -1) -> bytes:
    """Reads a file whole, or its first `most` bytes. OSError if it cannot be read, or is no file.

    An archive can bring a pipe or a device under any name, and reading one would wait, or go on, for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a file, but a pipe or a device", str(path))
    with os.fdopen(descriptor, "rb") as file:
        return b"".join(_pieces(file, most))


def _pieces(file: IO[bytes], most: int) -> Iterator[bytes]:
    """Reads up to `most` bytes (-1: all). Python takes memory for all that a single read asks for, before it reads."""
    while piece := file.read(PIECE if most < 0 else min(PIECE, most)):
        yield piece
        most -= len(piece) if most > 0 else 0


def file_in(folder: Path, name: str) -> Path | None:
    """Returns the file of a folder that another file names, such as a manifest; None if it is not there.

    A name that is a path, and so could lead out of the folder, names no file.
    """
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        return None
    try:
        return folder / name if (folder / name).is_file() else None
    except (OSError, ValueError):  # too long, or not of this file system's characters
        return None


def leads_out(path: Path) -> bool:
    """Returns True for a link to a file that is not below the link's own folder. The folder may be a link itself."""
    try:
        return path.is_symlink() and path.parent.resolve() not in path.resolve().parents
    except (OSError, RuntimeError):  # a ring of links
        return True
