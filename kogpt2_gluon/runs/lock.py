"""One run folder has one writer: a second training in it is refused, with the name of the first."""

from __future__ import annotations

import contextlib
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

    The lock is the operating system's (flock), so a dead process leaves none behind; the file says who holds it. Where
    a file system has no such locks (Lustre mounted without flock) it protects nothing. A folder that was made for the
    lock, and got nothing else, goes with it. RecipeError if another process holds it.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / LOCK_FILE
        self._made = not run_dir.exists()
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO | None = self._open()
        except BlockingIOError:
            raise _refusal(run_dir) from None
        except OSError as error:
            raise RecipeError(f"tracking.run_dir={run_dir}: cannot be written ({error.strerror})") from None

    def _open(self) -> BinaryIO | None:
        """Returns the locked file; None where there are no locks. BlockingIOError if another process has it."""
        while True:
            file = self._path.open("a+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    break
                file.close()  # its holder removed it in between
            except FileNotFoundError:
                file.close()
            except BlockingIOError:
                file.close()
                raise
            except OSError:
                file.close()
                return None
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since},\n".encode())
        file.flush()
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
        if self._made:
            with contextlib.suppress(OSError):  # it is not empty
                self._path.parent.rmdir()


def check_unlocked(run_dir: Path) -> None:
    """Raises RecipeError if a training holds the lock of a run folder; writes nothing."""
    try:
        with (run_dir / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(run_dir) from None
    except OSError:
        pass  # no lock, or a file system without locks


def _refusal(run_dir: Path) -> RecipeError:
    holder = ""
    with contextlib.suppress(OSError):
        holder = (run_dir / LOCK_FILE).read_bytes()[:200].decode("utf-8", "replace").strip()
    return RecipeError(
        f"{run_dir}: {holder or 'another process'} trains in it; stop that one, or set another tracking.run_dir"
    )
