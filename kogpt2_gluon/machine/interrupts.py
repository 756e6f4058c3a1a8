"""SIGTERM and SIGHUP as interrupts: what a process has half-written is removed, or saved, before it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kogpt2_gluon.errors import PreemptedError
from kogpt2_gluon.machine import job

AGAIN_SECONDS = 0.01


def send_again_from_finalizer(number: int, frame: Any) -> bool:
    """Returns True, and sends a signal again in a moment, if it came while an object's ``__del__`` ran.

    Python prints and forgets an exception that is raised there, so the request would be lost. MXNet's arrays have a
    ``__del__``, and a program that generates text frees thousands a second.
    """
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    if frame is None:
        return False
    again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
    return True


@contextmanager
def interruptible() -> Iterator[None]:
    """Treats SIGTERM and SIGHUP like Ctrl-C while the block runs: the first one raises KeyboardInterrupt.

    Without it they end the process at once, and no ``finally`` runs. Another one within ECHO_SECONDS is the same
    request again, and does not disturb the removal. A signal that is ignored (nohup) stays so. The block has no effect
    in a thread other than the main one, where Python admits no handlers.
    """
    first = 0.0

    def interrupt(number: int, frame: Any) -> None:
        nonlocal first
        if send_again_from_finalizer(number, frame):
            return
        now = time.monotonic()
        if number == signal.SIGINT or not first or now - first >= job.ECHO_SECONDS:
            first = now
            raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # which a finalizer would lose
            before[signal.SIGINT] = signal.default_int_handler
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def preempted_on_signals(message: str) -> None:
    """Makes SIGTERM, SIGHUP and Ctrl-C raise PreemptedError(message), for a command whose children save their state.

    The first one raises it, and the command waits for its children in a ``finally``. Another one within ECHO_SECONDS is
    the same request again and does not disturb that. A later one, and a second Ctrl-C at any time, ends the wait:
    KeyboardInterrupt, because nobody knows then whether the state is saved. A signal that is ignored (nohup) stays so.
    """
    first = 0.0

    def stop(number: int, frame: Any) -> None:
        nonlocal first
        if send_again_from_finalizer(number, frame):
            return
        now = time.monotonic()
        if not first:
            first = now
            job.keep_exit_code()
            raise PreemptedError(message)
        if number == signal.SIGINT or now - first >= job.ECHO_SECONDS:
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
