"""What the launcher shows: rank 0's lines on stdout, its own on stderr. Neither may hold up a run, or end it."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from typing import TextIO

CLOSE_SECONDS = 5.0  # for a slow reader to get the last lines


class Shown:
    """Writes lines to stdout from a thread of its own: a reader that stands still (Ctrl-S, say) delays nobody."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        self._lines.put(line)

    def close(self) -> None:
        self._lines.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            write(sys.stdout, line)


def tell(line: str) -> None:
    """A line of our own."""
    write(sys.stderr, f"kogpt2-launch: {line}")


def write(stream: TextIO, line: str) -> None:
    """A line; what the stream's encoding has no letter for becomes ?, and nobody who reads is no error."""
    try:
        try:
            print(line, file=stream, flush=True)
        except UnicodeEncodeError:
            print(line.encode(stream.encoding, "replace").decode(stream.encoding), file=stream, flush=True)
    except (OSError, ValueError):
        # What is still buffered would make Python fail once more at its end.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
