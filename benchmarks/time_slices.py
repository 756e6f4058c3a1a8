"""Commands that run side by side in slices of time, so that a machine whose speed changes treats them alike.

Each command is a process group of its own. In turn one of them runs for some seconds while the others are stopped
(SIGSTOP), and only the seconds in which it ran count. So whole commands are compared as fairly as single steps are,
without knowing anything about it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from contestants import Contestant, ContestantError, Result, announce, last_words, one_limit

START = 0.2  # seconds of a first slice: a process must exist before it can be stopped


class SlicedProcess:
    """A contestant whose process is stopped except in its slices; it writes to a file."""

    def __init__(self, contestant: Contestant, log: Path):
        self.name, self.log = contestant.name, log
        self.seconds, self.peak_memory_mb = 0.0, 0.0
        environment = {**os.environ, **one_limit(), **contestant.variables}
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [str(part) for part in contestant.command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._descriptor = os.pidfd_open(self._process.pid)
        self.has_ended = False
        self._run(START)

    def run(self, seconds: float) -> None:
        """Lets it run for so long, or to its end. Raises ContestantError if it failed."""
        os.killpg(self._process.pid, signal.SIGCONT)
        self._run(seconds)

    def _run(self, seconds: float) -> None:
        began = time.perf_counter()
        ended, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ended:
            os.killpg(self._process.pid, signal.SIGSTOP)
        self.seconds += time.perf_counter() - began
        if ended:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.has_ended, self.peak_memory_mb = True, usage.ru_maxrss / 1024
            if self._process.returncode:
                raise ContestantError(f"{self.name}: exit code {self._process.returncode}: {last_words(self.words())}")

    def words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """Ends it, if it has not ended."""
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._descriptor)


def run_in_slices(contestants: Sequence[Contestant], seconds: float, work: Path) -> dict[str, Result]:
    """Runs all to their ends, `seconds` at a time; returns {name: seconds, peak_memory_mb, words}."""
    processes: list[SlicedProcess] = []
    try:
        for contestant in contestants:
            processes.append(SlicedProcess(contestant, work / f"{contestant.name}.log"))
        while any(not process.has_ended for process in processes):
            for process in processes:
                if not process.has_ended:
                    process.run(seconds)
                    if process.has_ended:
                        announce(f"{process.name:<18} ended after {process.seconds:,.1f} s")
        return {
            each.name: {"seconds": each.seconds, "peak_memory_mb": each.peak_memory_mb, "words": each.words()}
            for each in processes
        }
    finally:
        for process in processes:
            process.close()
