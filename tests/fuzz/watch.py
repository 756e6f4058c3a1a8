"""Watches one execution: which exceptions come out, what their message says, and what it took in time and memory."""

from __future__ import annotations

import re
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import LONGEST_MESSAGE, KoGPT2Error
from tests.fuzz.target import Target

CPU_SECONDS = 5.0  # no input is larger than 64 KiB
HANGS = 20.0  # seconds of CPU after which an execution is interrupted
MEMORY = 64 << 20  # bytes that an execution may take at its peak, whatever the size of its input
ADDRESS_SPACE = 2 << 30  # bytes that a process may ask for in addition to what it has at the start
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_SHAPE = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9a-f]{16,}|-?\d[\d.,e+-]*")


class HangError(BaseException):
    """Raised in an execution that takes too long; nothing catches it but :meth:`Watch.execute`."""


@dataclass
class Outcome:
    """How an execution ended. `finding` is "" where it ended as it should; `shape` is the same for like outcomes."""

    shape: str
    finding: str = ""
    detail: str = ""


class Watch:
    """Runs a target on inputs, in a folder of its own."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.path = target, folder / target.file
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def execute(self, data: bytes) -> Outcome:
        self.path.write_bytes(data)
        start, before = time.process_time(), _memory_now()
        error: BaseException | None = None
        signal.setitimer(signal.ITIMER_PROF, HANGS)
        try:
            if self.target.place is not None:
                self.target.place(self.path, data)
            self.target.read(self.path)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:  # a panic of a Rust library is no Exception
            error = raised
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return self._judge(error, time.process_time() - start, _peak_memory() - before)

    def _judge(self, error: BaseException | None, seconds: float, memory: int) -> Outcome:
        shape, finding = self._judge_error(error)
        detail = ""
        if finding and error is not None:
            detail = "".join(traceback.format_exception(type(error), error, error.__traceback__)[-6:])[-3000:]
        if not finding and seconds > CPU_SECONDS:
            finding = f"{seconds:.1f} s of CPU"
        if not finding and memory > MEMORY:
            finding = f"{memory >> 20} MiB of memory"
        return Outcome(shape, finding, detail)

    def _judge_error(self, error: BaseException | None) -> tuple[str, str]:
        if error is None:
            return "read", ""
        if isinstance(error, HangError):
            return "hang", f"hangs: {_where(error)}"
        text = str(error)
        if not isinstance(error, KoGPT2Error):
            return _shape(error, text), f"{type(error).__name__} at {_where(error)}"
        finding = ""
        if CONTROL.search(text):
            finding = "control characters in a message"
        elif len(text) > LONGEST_MESSAGE + 20:
            finding = "a message that is not one line"
        elif not any(part in text for part in (self.path.name, self.path.parent.name)):
            finding = "a message that names no file"
        return _shape(error, text), f"{finding}, from {_where(error)}" if finding else ""


def _shape(error: BaseException, text: str) -> str:
    return f"{type(error).__name__}: {_NOT_SHAPE.sub('_', text.rpartition('/')[2])[:60]}"


def _where(error: BaseException) -> str:
    """Returns the innermost place in this package that an exception went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/kogpt2_gluon/" in frame.filename or "/launch/" in frame.filename]
    frame = (ours or list(frames))[-1]
    return f"{'/'.join(Path(frame.filename).parts[-2:])}, {frame.name}"


def _memory_now() -> int:
    """Returns the bytes that this process has, from which its peak begins again.

    getrusage's peak is of no use here: it never falls, and a new process begins with that of the one that started it.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak_memory() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    """Returns a number of bytes from Linux's account of this process."""
    with Path("/proc/self/status").open(encoding="ascii", errors="replace") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def limits() -> Iterator[None]:
    """Bounds what this process can take: memory that it asks for, and the CPU time of one execution."""

    def interrupt(*_: Any) -> None:
        raise HangError

    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, interrupt)
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)
        signal.signal(signal.SIGPROF, handler)
