"""A request to stop is not lost, wherever in the program it arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from kogpt2_gluon.machine.interrupts import interruptible


class Slow:
    """An object that takes a while to go, and gets a signal meanwhile."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
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


WAITING = r'''
import os, subprocess, sys
from kogpt2_gluon.errors import one_line
from kogpt2_gluon.machine import job
from kogpt2_gluon.machine.interrupts import preempted_on_signals
saves = r"""
import os, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
os.write(1, b"begun\n")
while not asked:
    time.sleep(0.02)
sys.stdin.readline()
os.write(1, b"saved\n")
"""
with one_line("test"):
    preempted_on_signals("saved")
    ends = job.end_with_parent(15)
    child = subprocess.Popen([sys.executable, "-c", saves], start_new_session=True, preexec_fn=ends)
    try:
        os.write(1, b"waiting\n")
        child.wait()
    finally:
        child.terminate()
        os.write(1, b"asked\n")
        child.wait()
'''


@contextmanager
def waiting(*prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A command that waits for its child, which saves its state until it reads a line; both write to one pipe."""
    command, pipe = [*prefix, sys.executable, "-c", WAITING], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    with process:
        try:
            assert process.stdout is not None
            assert {process.stdout.readline() for _ in range(2)} == {"begun\n", "waiting\n"}
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], numbers: Sequence[int]) -> None:
    """Sends a first signal, and the others once it was obeyed."""
    assert process.stdout is not None
    process.send_signal(numbers[0])
    assert process.stdout.readline() == "asked\n"
    for number in numbers[1:]:
        process.send_signal(number)


def check_waits_for_the_child(process: subprocess.Popen[str]) -> None:
    """The command goes on waiting, and ends with 75 after its child has saved."""
    assert process.stdin is not None and process.stdout is not None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(timeout=30) == 75 and process.stdout.readline() == "saved\n"


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_request_that_comes_again_does_not_disturb_the_wait_for_the_child(first: int) -> None:
    """A scheduler's SIGTERM may arrive twice: saved is said after the child has saved."""
    with waiting() as process:
        ask(process, [first, signal.SIGTERM, signal.SIGHUP])
        check_waits_for_the_child(process)


def test_a_second_ctrl_c_ends_the_wait_and_does_not_say_saved() -> None:
    with waiting() as process:
        ask(process, [signal.SIGINT, signal.SIGINT])
        assert process.wait(timeout=30) == 130  # while the child still saves
        assert process.stderr is not None and process.stderr.readline() == "test: interrupted\n"


def test_nohup_is_respected() -> None:
    with waiting("nohup") as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        ask(process, [signal.SIGTERM])
        check_waits_for_the_child(process)
