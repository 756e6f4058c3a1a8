"""The file of a study, as Optuna keeps it: SQLite, or a journal for several hosts on a shared file system."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from kogpt2_gluon.errors import DataError, KoGPT2Error

SQLITE, JOURNAL = "study.db", "study.log"
BUSY_SECONDS = 60.0  # that SQLite waits for another tool which has the study open
TAIL = 1 << 16  # bytes that are searched at a time


def open_study(folder: Path, name: str, best_is_low: bool, journal: bool, say: Callable[[str], None]) -> Any:
    """Opens the study in a folder, or makes it; returns Optuna's Study.

    Call it, and whatever writes to the study, while the lock of the study's decisions is held. DataError if the file is
    damaged.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = _journal(folder / JOURNAL, say) if journal else _sqlite(folder / SQLITE)
        direction = optuna.study.StudyDirection.MINIMIZE if best_is_low else optuna.study.StudyDirection.MAXIMIZE
        return optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
    except Exception as error:  # of SQLAlchemy, SQLite or the journal, at a file that is damaged
        if isinstance(error, KoGPT2Error):
            raise
        raise DataError(
            f"{folder}: its study cannot be opened ({_reason(error)}); the runs are in trials/ all the same"
        ) from None


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Raises DataError where Optuna can no longer read or write the study.

    It was removed, its disk is full, or another tool keeps it locked.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise DataError(
            f"{folder}: its study can no longer be used ({_reason(error)}); put that right, and the same command "
            "goes on"
        ) from None


def _reason(error: BaseException) -> str:
    """Returns the words of SQLite, which those of Optuna hide."""
    while error.__cause__:
        error = error.__cause__
    return " ".join(str(error).split())[:200]


def _sqlite(path: Path) -> Any:
    """Returns Optuna's storage in a SQLite file, whatever is in its path.

    No address holds every path: SQLAlchemy ends one at a question mark and decodes %41, Optuna fills in what is in
    braces. So the file is opened here, and the address only says which database it is.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import QueuePool  # that of files; for an address without one it would be another

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path.absolute(), timeout=BUSY_SECONDS, check_same_thread=False)

    return RDBStorage("sqlite://", {"creator": connect, "poolclass": QueuePool})


def _journal(path: Path, say: Callable[[str], None]) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock: Any = DecisionsLock(path, say)
    lock.acquire()  # it reads before it writes
    return JournalStorage(JournalFileBackend(str(path), lock))


class DecisionsLock:
    """Takes the place of Optuna's lock around each write to a journal; the lock of the decisions is held already.

    Optuna's own lock is a symbolic link, which a kill leaves there: the next start waits half a minute for it, and for
    ever if the path of the journal is relative. The lock of the decisions goes with its process.

    A full disk or a power cut leaves half a line, after which the next one would make the journal unreadable. So each
    write begins with a look at the end of the file. Nor may a journal begin in its middle: one that is no longer the
    file of the first look was removed or replaced.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._file: tuple[int, int] | None = None

    def acquire(self) -> bool:
        """Removes half a line at the end of the journal. DataError if it is another file than before."""
        found = self._path.stat() if self._path.exists() else None
        if self._file and (found is None or (found.st_dev, found.st_ino) != self._file):
            raise DataError(f"{self._path}: was removed or replaced while it was in use; put it back")
        self._file = (found.st_dev, found.st_ino) if found else None
        if removed := cut_half_line(self._path):
            self._say(
                f"{self._path}: a full disk or a power cut has left half a line; its {removed:,} bytes are removed"
            )
        return True

    def release(self) -> None:
        """Does nothing."""


def cut_half_line(path: Path) -> int:
    """Cuts a file to its last line end; returns how many bytes that removed. There need not be a file."""
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return 0
    with file:
        size = keep = file.seek(0, os.SEEK_END)
        while keep:
            begin = max(0, keep - TAIL)
            file.seek(begin)
            last = file.read(keep - begin).rfind(b"\n")
            keep = begin + last + 1
            if last >= 0:
                break
        if keep < size:
            file.truncate(keep)
            os.fsync(file.fileno())
        return size - keep
