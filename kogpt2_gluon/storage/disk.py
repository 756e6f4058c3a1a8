"""Room on a disk, and an error that says where it ended.

The operating system's own words are "No space left on device", often without the name of a file: NumPy's array writer
even leaves the number of the error out.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from kogpt2_gluon.errors import DiskFullError
from kogpt2_gluon.wording import gigabytes

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
NO_ROOM = 1 << 20  # bytes; NumPy writes arrays in larger pieces than this, and then less than a piece is free


def free_bytes(path: Path) -> int:
    """Returns the bytes that are free on the disk of `path`, which need not exist yet."""
    return shutil.disk_usage(_existing(path)).free


@contextmanager
def full_disk_named(folder: Path, describe: Callable[[], str]) -> Iterator[None]:
    """Turns the error of a full disk into a DiskFullError that names the file or `folder`, its disk and the room left.

    `describe` is called only then: it says what needed how much room, and the way out.
    """
    try:
        yield
    except OSError as error:
        if not _is_full(error, folder):
            raise
        # shutil.copyfile names the source first, then the copy, for which there is no room.
        raise disk_full(Path(error.filename2 or error.filename or folder), describe(), error.errno) from None


def disk_full(path: Path, about: str, number: int | None = errno.ENOSPC) -> DiskFullError:
    """Returns the error for a file or folder whose disk is full; `about` says what needed room, and the way out."""
    usage = shutil.disk_usage(_existing(path))
    state = f"{gigabytes(usage.free)} free of {gigabytes(usage.total)}"
    what = "your quota is used up" if number == errno.EDQUOT else "the disk is full"
    return DiskFullError(f"{path}: {what} ({state}); {about}")


def _is_full(error: OSError, folder: Path) -> bool:
    if error.errno is not None:
        return error.errno in FULL
    return (
        "requested" in str(error) and free_bytes(folder) < NO_ROOM
    )  # numpy.ndarray.tofile: "N requested and M written"


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
