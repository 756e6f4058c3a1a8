"""Requests to stop by signals to the launcher."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Callable

from kogpt2_gluon.machine import job


@contextlib.contextmanager
def stop_signals(wake: Callable[[], object] = lambda: None) -> Iterator[list[int]]:
    """The SIGINTs, SIGTERMs and SIGHUPs that arrive inside the block, in order; they have no other effect there.

    A list that grows; `wake` is called each time. A SIGHUP that is ignored stays so (nohup), and a SIGTERM soon after
    another signal is the same request. Enter it in the main thread.
    """
    received: list[int] = []
    last = 0.0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if number == signal.SIGTERM and received and now - last < job.ECHO_SECONDS:
            return
        last = now
        received.append(number)
        wake()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
