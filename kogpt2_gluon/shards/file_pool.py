"""Reads many files at scattered places: with few descriptors, in several threads, and again where a read failed.

A shared file system can fail a read for a moment: a server that restarts answers with EIO, a client that was cut off
finds its handles stale. Such a read is tried again, with a new descriptor and growing pauses, before it ends a run.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.limits import memory_limit

MAX_OPEN = 128  # well below the usual limit of 1,024 descriptors a process, with several sets open
PAUSES = (0.1, 0.3, 1.0, 3.0)  # seconds before the second, third, fourth and fifth try
# The errors of NFS and Lustre that pass. ENXIO and ESHUTDOWN come from a Lustre target that is being moved.
PASSING = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EINTR,
        errno.EAGAIN,
        errno.ENXIO,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
    }
)

logger = logging.getLogger(__name__)


class _OpenFile:
    """A descriptor, the number of threads that read from it, and whether the last of them must close it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.users, self.retired = descriptor, 0, False


class FilePool:
    """Open descriptors of many files. The least recently used are closed first, but never while a thread reads.

    Parameters
    ----------
    max_open : int
        The most descriptors that are kept open. While threads read more files than that at once, there are more.
    random_access : bool
        Ask the kernel not to read beyond the range of a read.
    pauses : sequence of float
        Seconds before each new try of a read that failed with a passing error.
    sleep : callable
        Called with the seconds to wait.
    """

    def __init__(
        self,
        max_open: int = MAX_OPEN,
        random_access: bool = False,
        pauses: tuple[float, ...] = PAUSES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._max_open, self._random_access = max_open, random_access
        self._pauses, self._sleep = pauses, sleep
        self._open: OrderedDict[Path, _OpenFile] = OrderedDict()
        self._identity: dict[Path, tuple[int, ...]] = {}
        self._lock = threading.Lock()
        self.on_change: Callable[[Path], None] | None = None  # called with a file that was replaced

    def __len__(self) -> int:
        return len(self._open)

    def read(self, path: Path, buffer: memoryview, offset: int, drop: bool = False) -> int:
        """Fills `buffer` (of bytes) from byte `offset` of a file; returns the number of bytes that there were.

        With `drop` the kernel is asked to forget the range afterwards. Raises DataError, naming file and byte, if the
        file cannot be read; an error that may pass is tried again first.
        """
        for pause in (*self._pauses, None):
            try:
                return self.read_once(path, buffer, offset, drop)
            except OSError as error:
                if pause is None or error.errno not in PASSING:
                    tries = f" after {len(self._pauses) + 1} tries" if error.errno in PASSING else ""
                    raise DataError(f"{path}: cannot be read at byte {offset}{tries}: {error.strerror}") from None
                self.forget(path)
                logger.warning(
                    "%s: cannot be read at byte %d (%s); trying again in %g s", path, offset, error.strerror, pause
                )
                self._sleep(pause)
        raise AssertionError("the last try returns or raises")

    def read_once(self, path: Path, buffer: memoryview, offset: int, drop: bool = False) -> int:
        """Does what :meth:`read` does, but tries once only and lets an OSError through."""
        entry = self._borrow(path)
        try:
            return _read_at(entry.descriptor, buffer, offset, drop)
        finally:
            self._give_back(entry)

    def forget(self, path: Path) -> None:
        """Closes a file as soon as no thread reads from it; the next read opens it again."""
        with self._lock:
            entry = self._open.pop(path, None)
            if entry is not None:
                entry.retired = True
                self._close_unused(entry)

    def is_current(self, path: Path) -> bool:
        """Returns True if the name still belongs to the file that was last opened here, and not to a replacement."""
        try:
            status = path.stat()
        except OSError:
            return False
        return self._identity.get(path, ())[:2] == (status.st_dev, status.st_ino)

    def close(self) -> None:
        """Closes all files: those that a thread reads from when the read ends, the others at once."""
        with self._lock:
            paths = list(self._open)
        for path in paths:
            self.forget(path)

    def _borrow(self, path: Path) -> _OpenFile:
        """Returns an open file, which stays open until it is given back."""
        with self._lock:
            entry = self._open.get(path)
            if entry is not None:
                entry.users += 1
                self._open.move_to_end(path)
                return entry
        return self._add(path)  # without the lock: opening a file on a shared file system can take a while

    def _give_back(self, entry: _OpenFile) -> None:
        with self._lock:
            entry.users -= 1
            self._close_unused(entry)
            if len(self._open) > self._max_open:
                self._evict()

    def _add(self, path: Path) -> _OpenFile:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._note_identity(path, descriptor)
            if self._random_access:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        except BaseException:
            os.close(descriptor)
            raise
        mine = _OpenFile(descriptor)
        with self._lock:
            entry = self._open.setdefault(path, mine)  # another thread may have been faster
            entry.users += 1
            self._open.move_to_end(path)
        if entry is not mine:
            os.close(descriptor)
        return entry

    def _note_identity(self, path: Path, descriptor: int) -> None:
        """Calls `on_change` if the file was replaced since it was first opened: what was checked of it is void then."""
        status = os.fstat(descriptor)
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._identity.setdefault(path, identity) != identity:
            self._identity[path] = identity
            if self.on_change is not None:
                self.on_change(path)

    def _evict(self) -> None:
        """Closes the least recently used files above the limit. The caller holds the lock."""
        for path, entry in list(self._open.items()):
            if not entry.users:
                del self._open[path]
                entry.retired = True
                self._close_unused(entry)
                if len(self._open) <= self._max_open:
                    return

    @staticmethod
    def _close_unused(entry: _OpenFile) -> None:
        if entry.retired and not entry.users:
            os.close(entry.descriptor)


def _read_at(descriptor: int, buffer: memoryview, offset: int, drop: bool) -> int:
    """Fills `buffer` as far as the file goes, in more than one read where a read brings less than it was asked for."""
    size, done = len(buffer), 0
    while done < size:
        count = os.preadv(descriptor, [buffer[done:] if done else buffer], offset + done)
        if not count:
            break
        done += count
    if drop:
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)
    return done


def available_memory() -> int:
    """Returns the bytes of memory that are free or only cache files, at most the limit of the control groups."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    return min(free, memory_limit() or free)
