"""The end of a slice without a result: is it the trial's own fault, or would it stop every other trial too?"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kogpt2_gluon.errors import CorruptionError, DivergedError, KoGPT2Error, PreemptedError
from kogpt2_gluon.search.rungs import FAILED
from kogpt2_gluon.search.study import Trial

MOST_IN_A_ROW = 3  # trials that fail one after another, before the search stops
STOPPED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
DIED = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
OUT_OF_MEMORY = "out of memory"  # begins the line of an OutOfMemoryError, whose exit code says less
# What no settings cause: no result where the run says it is well, a wrong machine, and a command that cannot be run.
NOT_ITS_OWN = (0, CorruptionError.exit_code, 126, 127)
FULL = re.compile("the disk is full|your quota is used up")  # a DiskFullError, likewise


@dataclass(frozen=True)
class Failure:
    """Why a trial cannot go on.

    Attributes
    ----------
    reason : str
    code : int
        The exit code of its process; negative: the number of a signal.
    """

    reason: str
    code: int

    @property
    def has_diverged(self) -> bool:
        """The run itself says that its settings are the reason."""
        return self.code == DivergedError.exit_code

    @property
    def is_its_size(self) -> bool:
        """Memory ran out, or the process died, as it does where the kernel ends what takes too much."""
        return _signal_of(self.code) in DIED or self.reason.startswith(OUT_OF_MEMORY)


class Judge:
    """Decides whether a search goes on after a failure; it remembers how many there were in a row."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def succeeded(self) -> None:
        """Notes that a trial has reached its rung, or has diverged: training works here."""
        self._in_a_row = 0

    def check(self, failure: Failure, path: Path, trials: Sequence[Trial], are_others_busy: bool) -> None:
        """Raises the KoGPT2Error that stops the search, if a failure would not be that of one trial alone.

        It stops at what no settings cause; at the first failure while no trial has a result, unless memory was the
        reason and other trials still train; and at the third failure in a row.
        """
        self._in_a_row += 1
        works = any(trial.values or trial.standing.state == FAILED for trial in trials)
        why = None
        if failure.code in NOT_ITS_OWN or FULL.search(failure.reason):
            why = ""
        elif not works and not (failure.is_its_size and are_others_busy):
            why = "; no trial has a result yet, so the search stops, and the same command tries this one again"
        elif self._in_a_row >= MOST_IN_A_ROW:
            why = f"; {self._in_a_row} trials failed in a row, so the search stops; the same command goes on"
        if why is not None:
            error = KoGPT2Error(f"{path}: {failure.reason}{why}")
            error.exit_code = failure.code if failure.code > 0 else KoGPT2Error.exit_code
            raise error


def failure_of(code: int, said: str, reached: bool, run_dir: Path) -> Failure | None:
    """Returns why a trial cannot go on, None if it can, by the exit code and the last words of a slice of it.

    `reached` says that the trial has its result. Raises PreemptedError if somebody stopped it on the way.
    """
    if reached and code in (0, PreemptedError.exit_code):
        return None
    number = _signal_of(code)
    if code == PreemptedError.exit_code or number in STOPPED:
        raise PreemptedError(f"{run_dir}: was stopped on the way; the same command goes on")
    if number == signal.SIGKILL:
        return Failure("killed by SIGKILL, as the kernel does where memory runs out", code)
    if number is not None:
        return Failure(f"ended by {number.name}{said and f': {said}'}", code)
    return Failure(said or f"ended with exit code {code} and without the result of a rung", code)


def _signal_of(code: int) -> signal.Signals | None:
    """Returns the signal that ended a process, also where a shell or a launcher says so; None without one."""
    number = -code if code < 0 else code - 128
    return signal.Signals(number) if number in set(signal.Signals) else None
