"""One run folder has one writer: a second training in it is refused, with the name of the first."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import BinaryIO

from kogpt2_gluon.errors import RecipeError

LOCK_FILE = "lock"


class RunLock:
    """Holds the lock of a run folder until it is closed, or until this process ends, however it ends.

    The lock is the operating system's (flock), so a dead process leaves none behind. Where a file system has none
    (Lustre mounted without flock) it protects nothing, and says nothing. The file says who holds it.
    """

    def __init__(self, run_dir: Path) -> None:
        path = run_dir / LOCK_FILE
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO | None = path.open("a+b")
        except OSError as error:
            raise RecipeError(f"tracking.run_dir={run_dir}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read(200).decode("utf-8", "replace").strip() or "another process"
            self._file.close()
            raise RecipeError(
                f"{run_dir}: {holder} trains in it; stop that one, or set another tracking.run_dir"
            ) from None
        except OSError:
            return
        self._file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since},\n".encode())
        self._file.flush()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lock back; a second call does nothing."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def check_unlocked(run_dir: Path) -> None:
    """Raises RecipeError if a training holds the lock of a run folder; writes nothing."""
    if (run_dir / LOCK_FILE).is_file() and os.access(run_dir / LOCK_FILE, os.W_OK):
        RunLock(run_dir).close()
