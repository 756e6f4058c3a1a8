"""Measures speed and memory for the log."""

from __future__ import annotations

import time
from typing import Any

import psutil

from kogpt2_gluon.machine.runtime import mx


class Stopwatch:
    """Measures tokens per second since the last reading. The time in which it is paused does not count."""

    def __init__(self) -> None:
        self._began, self._tokens, self._paused_at = time.perf_counter(), 0, 0.0

    def count(self, tokens: int) -> None:
        self._tokens += tokens

    def rate(self) -> float:
        """Tokens per second since the last call; the next reading starts from here."""
        now = time.perf_counter()
        rate = self._tokens / max(1e-9, now - self._began)
        self._began, self._tokens = now, 0
        return rate

    def paused(self) -> Stopwatch:
        return self

    def __enter__(self) -> None:
        self._paused_at = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._began += time.perf_counter() - self._paused_at


def memory_in_use(ctx: Any) -> int:
    """Bytes in use: by this process on a CPU, by every process on the device on a GPU."""
    if ctx.device_type == "gpu":
        free, total = mx.context.gpu_memory_info(ctx.device_id)
        return int(total - free)
    return int(psutil.Process().memory_info().rss)
