"""Collect the signals that ask the launcher to stop."""

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
    """Collects the SIGINTs, SIGTERMs and SIGHUPs that arrive inside the block; they have no other effect there.

    Yields a list that grows; `wake` is called each time. An ignored SIGHUP stays ignored (nohup). A SIGTERM soon after
    another signal is the same request. Enter the block in the main thread.
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
        if received:
            job.keep_exit_code()
