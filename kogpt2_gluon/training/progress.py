"""Reports how far this worker has come. The launcher reads it to distinguish a slow run from one that hangs."""

from __future__ import annotations

import os
from pathlib import Path

from kogpt2_gluon.machine import job


class Progress:
    """Writes ``STEP BEATS`` into the file that KOGPT2_PROGRESS_FILE names; without that variable it writes nothing.

    A beat is any sign of life, an update or a batch of an evaluation.
    """

    def __init__(self) -> None:
        name = os.environ.get(job.PROGRESS_FILE)
        self._file = Path(name).open("wb", buffering=0) if name else None  # noqa: SIM115 - see close
        self._step = self._beats = 0

    def beat(self) -> None:
        self._beats += 1
        if self._file:
            os.pwrite(self._file.fileno(), job.progress_line(self._step, self._beats), 0)

    def at_step(self, step: int) -> None:
        self._step = step
        self.beat()

    def close(self) -> None:
        if self._file:
            self._file.close()
