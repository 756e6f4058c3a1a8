"""One run folder has one writer: a second training in it is refused, with the name of the first."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import BinaryIO

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.files import make_folder, remove_empty

LOCK_FILE = "lock"
PATIENCE_SECONDS = 0.3  # who only looks at a lock holds it for a moment
AGAIN_SECONDS = 0.01


class HeldError(RecipeError):
    """Another process holds the lock of a run folder."""


class RunLock:
    """Holds the lock of a run folder until it is closed, or until this process ends, however it ends.

    The lock is the operating system's (flock), so a dead process leaves none behind; the file says who holds it. Where
    a file system has no such locks (Lustre mounted without flock) it protects nothing. Folders that were made for the
    lock, and got nothing else, go with it. HeldError if another process holds it, RecipeError if the folder cannot be
    written.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / LOCK_FILE
        self._made: list[Path] = []  # folders that were not there
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._file: BinaryIO | None = self._open(run_dir)
                return
            except OSError as error:
                is_held = isinstance(error, BlockingIOError)
                may_pass = is_held or isinstance(error, FileNotFoundError)
                if not may_pass or time.monotonic() >= deadline:
                    raise (_held(run_dir) if is_held else _unwritable(run_dir, error)) from None
            time.sleep(AGAIN_SECONDS)

    def _open(self, run_dir: Path) -> BinaryIO | None:
        """Returns the locked file; None where there are no locks.

        BlockingIOError if another process has it, FileNotFoundError if its holder removed it, or its folder, meanwhile.
        """
        made = make_folder(run_dir)
        self._made = self._made or made
        file = self._path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if isinstance(error, BlockingIOError):
                raise
            return None
        try:
            if not os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since},\n".encode())
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):  # it tries to write again
                file.close()
            raise
        return file

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lock back; a second call does nothing."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()  # while it is locked: whoever opened it sees that it is another file now
        self._file.close()
        self._file = None
        remove_empty(self._made)


def check_unlocked(run_dir: Path) -> None:
    """Raises HeldError if a training holds the lock of a run folder; writes nothing."""
    try:
        with (run_dir / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(run_dir) from None
    except OSError:
        pass  # no lock, or a file system without locks


def _held(run_dir: Path) -> HeldError:
    holder = ""
    with contextlib.suppress(OSError):
        holder = (run_dir / LOCK_FILE).read_bytes()[:200].decode("utf-8", "replace").strip()
    return HeldError(
        f"{run_dir}: {holder or 'another process'} trains in it; stop that one, or set another tracking.run_dir"
    )


def _unwritable(run_dir: Path, error: OSError) -> RecipeError:
    return RecipeError(f"tracking.run_dir={run_dir}: cannot be written ({error.strerror})")
