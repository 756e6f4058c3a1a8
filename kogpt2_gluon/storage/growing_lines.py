"""A file to which lines are added one by one, over several runs of a program: each line is there whole or not at all.

After a crash the file has the lines that were finished, byte for byte, and perhaps a part of one more, which the next
run removes. A disk that is full leaves no part of a line.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.storage.files import fsync_folder

SYNC_SECONDS = 5.0  # a power cut costs the lines of so long
LONGEST_LINE = 1 << 30  # bytes


class GrowingLines:
    """Opens a file, or makes it and the folders that it needs; only one process at a time can.

    RecipeError if another process has it open so.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        self._file = path.open("ab+", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise RecipeError(f"{path}: another process adds lines to it; wait for it, or name another file") from None
        except OSError:  # a file system without locks
            pass
        if is_new:
            fsync_folder(path.parent)
        self._size = self._remove_part()
        self._synced = time.monotonic()

    def __enter__(self) -> GrowingLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def lines(self) -> Iterator[bytes]:
        """Yields the lines that are there, without their ends. Memory is one line."""
        with self.path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                if not line.endswith(b"\n"):
                    raise DataError(f"{self.path}: has a line above {LONGEST_LINE >> 20} MiB")
                yield line[:-1]

    def add(self, line: bytes) -> None:
        """Adds a line, without its end. If that fails, as on a full disk, the file is as it was."""
        left = memoryview(line + b"\n")
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:
            self._file.truncate(self._size)
            if isinstance(error, OSError):
                error.filename = error.filename or str(self.path)
            raise
        self._size += len(line) + 1
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _remove_part(self) -> int:
        """Removes a last line without an end; returns the size that is left."""
        end = self._file.seek(0, os.SEEK_END)
        size = end
        while size:
            begin = max(0, size - (1 << 16))
            self._file.seek(begin)
            found = self._file.read(size - begin).rfind(b"\n")
            if found >= 0:
                size = begin + found + 1
                break
            size = begin
        if size < end:
            self._file.truncate(size)
        return size
