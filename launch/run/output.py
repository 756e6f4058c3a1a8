"""The output of the launcher: rank 0's lines on stdout, its own on stderr. Neither may hold up a run, or end it."""

from __future__ import annotations

import queue
import sys
import threading

from kogpt2_gluon.machine.console import write_line

CLOSE_SECONDS = 5.0  # that a slow reader has for the last lines


class Shown:
    """Write lines to stdout from a thread of its own, so that a reader that pauses (as with Ctrl-S) delays nobody."""

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
            write_line(sys.stdout, line)


def say(line: str) -> None:
    """Prints a line of the launcher's own."""
    write_line(sys.stderr, f"kogpt2-launch: {line}")
