"""Measures speed, waiting and memory for the log."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker

SAMPLED_EVERY = 20  # steps at least, between two that give up the overlap of their communication to measure it

_NOTHING = nullcontext()


@dataclass(frozen=True)
class Reading:
    """The speed and the waits since the last reading of a stopwatch.

    Attributes
    ----------
    tokens_per_second : float
        Of all workers.
    data_wait : float
        Share of the time in which this worker waited for its next batch.
    communication : float or None
        Share of a step that the mean of the gradients and the sums over the workers took, waiting for the slowest
        worker included, in a step in which nothing else ran meanwhile; usually most of it is hidden by the backward
        pass. None for one worker, and if no step was measured.
    last : tuple of int and float, or None
        The rank that was the last to have its own gradients in that step, and by how many seconds later than the
        median of all ranks.
    """

    tokens_per_second: float
    data_wait: float = 0.0
    communication: float | None = None
    last: tuple[int, float] | None = None


class Stopwatch:
    """Measures since the last reading. The time in which it is paused does not count.

    :meth:`phase` is the marker of a step's phases (training/phases.py). Now and then it makes one step wait for its
    backward pass before the gradients travel, which changes no number.
    """

    def __init__(self, worker: Worker) -> None:
        self._began, self._tokens, self._paused_at = time.perf_counter(), 0, 0.0
        self._read, self._reduce, self._agree = _Timer(), _Timer(), _Timer()
        self._worker, self._steps, self._samples = worker, SAMPLED_EVERY, False
        self._step_began, self._own_part = 0.0, 0.0
        self._communication: float | None = None

    def count(self, tokens: int) -> None:
        """Counts a step, which is over, and its tokens."""
        self._tokens += tokens
        self._steps += 1
        if self._samples:
            self._samples, whole = False, time.perf_counter() - self._step_began
            shared = self._reduce.take() + self._agree.take()
            self._communication, self._own_part = shared / max(1e-9, whole), whole - shared

    def phase(self, name: str) -> AbstractContextManager[object]:
        """Marks a phase of a step."""
        if name == "read":
            self._step_began = time.perf_counter()
            return self._read
        if not self._samples:
            return _NOTHING
        marks: dict[str, AbstractContextManager[object]] = {
            "backward": _SETTLED,
            "reduce": self._reduce,
            "agree": self._agree,
        }
        return marks.get(name, _NOTHING)

    def reading(self) -> Reading:
        """Returns what was measured since the last reading; the next one begins here.

        Every worker calls it after the same steps, as the workers compare their times.
        """
        now = time.perf_counter()
        elapsed = max(1e-9, now - self._began)
        last = None
        if self._communication is not None:
            parts = self._worker.gather([self._own_part])[:, 0]
            last = int(parts.argmax()), float(parts.max() - np.median(parts))
        wait = min(self._read.take() / elapsed, 1.0)
        found = Reading(self._tokens / elapsed, wait, self._communication, last)
        self._began, self._tokens, self._communication = now, 0, None
        if self._worker.size > 1 and self._steps >= SAMPLED_EVERY:
            self._steps, self._samples = 0, True  # in the next step
        return found

    def paused(self) -> Stopwatch:
        return self

    def __enter__(self) -> None:
        self._paused_at = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._began += time.perf_counter() - self._paused_at


class _Timer:
    """Adds up the time in its ``with`` blocks."""

    def __init__(self) -> None:
        self._seconds = self._entered = 0.0

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds += time.perf_counter() - self._entered

    def take(self) -> float:
        """Returns the seconds, and begins again."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class _Settled:
    """Waits at the end of its block for all that MXNet's engine has under way."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            mx.nd.waitall()


_SETTLED = _Settled()


def memory_in_use(ctx: Any) -> int:
    """Bytes in use: by this process on a CPU, by every process on the device on a GPU."""
    if ctx.device_type == "gpu":
        free, total = mx.context.gpu_memory_info(ctx.device_id)
        return int(total - free)
    return int(psutil.Process().memory_info().rss)
