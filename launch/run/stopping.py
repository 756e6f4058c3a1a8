"""Requests to stop: signals to the launcher, and the file that ``kogpt2-launch stop`` leaves in the run's folder."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Callable

from kogpt2_gluon.recipe import STOP_FILE
from kogpt2_launch.plan.plan import Plan

ECHO_SECONDS = 3.0  # a scheduler's SIGTERM may come straight and through its script: that is one request


def stop_file(plan: Plan) -> Path:
    """What ``kogpt2-launch stop`` leaves; workers look for it, and the launcher between attempts."""
    return Path(plan.run_dir, STOP_FILE)


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
        if number == signal.SIGTERM and received and now - last < ECHO_SECONDS:
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
