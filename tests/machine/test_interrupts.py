"""A request to stop is not lost, wherever in the program it arrives."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from kogpt2_gluon.machine.interrupts import interruptible


class Slow:
    """An object that takes a while to go, and gets a signal meanwhile."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_a_finalizer_arrives_after_it(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Python would print an exception that is raised there, and go on."""
    forgotten = []
    monkeypatch.setattr(sys, "unraisablehook", forgotten.append)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        held = Slow(number)
        del held
        time.sleep(5)
        raise AssertionError("the signal was lost")
    assert forgotten == [] and signal.getsignal(number) is before


def test_a_signal_elsewhere_acts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was late")
