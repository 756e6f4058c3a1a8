"""TensorBoard: event files in the run folder.

tensorboardX's SummaryWriter has a thread and a queue of its own. On a full disk that thread dies, and once the queue is
full, `add_scalar` waits for ever (2.6.5). Its parts are used here without them: whoever calls has a thread already.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.runs.followers.background import Figures


class TensorBoard:
    """Writes scalars. TensorBoard hides what an earlier start has written after `step`; all of it if that is None.

    After an error the next records go to a new file, since the end of the old one may be half a record.
    """

    def __init__(self, folder: Path, step: int | None) -> None:
        self._folder, self._begins = folder, 0 if step is None else step + 1
        self._event = _import_parts()[1]
        self._writer: Any = None
        self._open()

    def add(self, records: Sequence[Figures]) -> None:
        try:
            if self._writer is None:
                self._open()
            for record in records:
                for name, value in record.numbers.items():
                    event = self._event.Event(wall_time=record.time, step=record.step)
                    event.summary.value.add(tag=f"{record.kind}/{name}", simple_value=value)
                    self._writer.write_event(event)
            self._writer.flush()
        except OSError:
            self._writer = None
            raise

    def close(self, done: bool) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Two starts within a second must not share a file.
        writer = _import_parts()[0](str(self._folder / "events"), f".{time.monotonic_ns()}")
        start = self._event.Event(wall_time=time.time(), step=self._begins)
        start.session_log.status = self._event.SessionLog.SessionStatus.START
        writer.write_event(start)
        writer.flush()
        self._writer = writer


def _import_parts() -> tuple[Any, Any]:
    """Returns tensorboardX's writer of events and its module of their format."""
    # tensorboardX imports torch if it is installed, though nothing here needs it: 200 MB, and a second OpenMP runtime
    # in a process that computes with MXNet's. torch is hidden during the import, so it stays out.
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2
    finally:
        if hide:
            del sys.modules["torch"]
    return EventsWriter, event_pb2
