"""Runs a plan on this machine: starts the workers, hands signals on, tells how they ended, leaves nothing behind.

One worker is started directly, more through ``horovodrun --gloo``. The children form a session of their own, so Ctrl-C
reaches this process alone, which then decides:

- the first SIGINT or SIGTERM goes to the *workers*, which save their state and end (exit code 75). It does not go to
  horovodrun, which would give them 5 seconds, freeze them, and kill them.
- a second one, or `grace` seconds without an end, ends everything that was started.

What was started is told from everything else on the machine by a mark in its environment (KOGPT2_LAUNCH_ID), so a
process of another job, or of a reused process number, is never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Dict, Iterator, List, Optional, Sequence

import psutil

from kogpt2_gluon.errors import DataError, DivergedError, KoGPT2Error, PreemptedError, RecipeError

from .environment import inherited
from .plan import Plan
from .variables import LIBRARY_PATH, join_library_paths

MARK = "KOGPT2_LAUNCH_ID"
GRACE_SECONDS = 120.0
END_SECONDS = 15.0  # horovodrun takes up to 10 to end its workers by itself
WORKER_EXIT = Path(__file__).with_name("worker_exit.py")
MEANINGS = {
    RecipeError.exit_code: "bad recipe or argument",
    DataError.exit_code: "bad data",
    DivergedError.exit_code: "diverged",
    PreemptedError.exit_code: "stopped early, state saved, run again to go on",
}


@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended: its rank, its exit code (128 + S if signal S killed it), and when, in nanoseconds."""

    rank: int
    code: int
    time: int


def run_local(plan: Plan, worker: Optional[Sequence[str]] = None, grace: float = GRACE_SECONDS) -> int:
    """Runs `plan` here to its end, output streaming through; call it from the main thread (it takes the signals).

    Parameters
    ----------
    plan : Plan
        One host, and that host is this one; RecipeError otherwise.
    worker : sequence of str, optional
        The command of a worker, in place of the plan's ``kogpt2 train ...``.
    grace : float
        Seconds that workers have to save and end after a first SIGINT or SIGTERM.

    Returns
    -------
    int
        0 if every worker ended well, else the exit code of the first worker that failed; it is named on stderr.
    """
    _check_local(plan)
    argv = list(worker) if worker else _located(plan.worker_argv())
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="kogpt2-launch-") as name:
        folder = Path(name)
        if plan.size > 1:
            argv = [*_located(plan.horovodrun_argv()), sys.executable, str(WORKER_EXIT), str(folder), "--", *argv]
        code = _supervise(argv, worker_environment(plan, mark), plan.size, folder, mark, grace)
        exits = [_read_exit(path) for path in sorted(folder.glob("rank-*.exit"))]
    return _outcome(plan.size, code, exits)


def worker_environment(plan: Plan, mark: str) -> Dict[str, str]:
    """What the workers' processes get: the allowed part of ours, the plan's variables over it, and the mark."""
    ours = inherited(os.environ)
    planned = {each.name: each.value for each in plan.env}
    if LIBRARY_PATH in ours and LIBRARY_PATH in planned:
        planned[LIBRARY_PATH] = join_library_paths(planned[LIBRARY_PATH], ours[LIBRARY_PATH])
    return {**ours, **planned, MARK: mark}


def first_failure(exits: Sequence[WorkerExit]) -> Optional[WorkerExit]:
    """The worker whose end explains the others'; None if all ended well.

    The first in time is not enough: a rank that leaves with a code of its own shuts Horovod down on its way out, and
    the others, thrown out of their allreduce, may be gone (code 1) before it is. So a code that says why comes first.
    """
    failed = [each for each in exits if each.code]
    return min(failed, key=lambda each: (each.code not in MEANINGS, each.time), default=None)


def find_program(name: str) -> str:
    """The path of an installed command: beside this Python, as a virtual environment has it, else on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        way = "make horovod builds it" if name == "horovodrun" else "install this package there"
        raise KoGPT2Error(f"{name}: not beside {sys.executable} and not on PATH; {way}")
    return found


def _check_local(plan: Plan) -> None:
    remote = [host.name for host in plan.hosts if not host.is_local]
    if remote:
        raise RecipeError(f"the local backend starts workers on this machine only; {', '.join(remote)} is another host")
    if len(plan.hosts) > 1:
        raise RecipeError("the local backend runs one host; give this machine once, with all its slots")


def _located(argv: Sequence[str]) -> List[str]:
    return [find_program(argv[0]), *argv[1:]]


def _supervise(argv: Sequence[str], env: Dict[str, str], size: int, folder: Path, mark: str, grace: float) -> int:
    """Starts `argv`, waits for its end or for the time to end it, and returns its exit code."""
    with _received_signals() as received:
        try:
            process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            raise KoGPT2Error(f"{argv[0]}: cannot be started: {error.strerror}") from None
        try:
            deadline = float("inf")
            while process.poll() is None and time.monotonic() < deadline and len(received) < 2:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                if received and deadline == float("inf"):
                    deadline = time.monotonic() + grace
                    _hand_on(received[0], process, size, folder, mark)
        finally:
            _end_marked(process, mark)
    code = process.wait()
    if code < 0:
        return 128 - code
    # horovodrun answers 1 to being stopped; for a script, the signal is the better answer.
    return 128 + received[0] if received and code == 1 and size > 1 else code


@contextlib.contextmanager
def _received_signals() -> Iterator[List[int]]:
    """The SIGINTs and SIGTERMs that arrive inside the block, in order; they have no other effect there."""
    received: List[int] = []

    def note(number: int, _frame: Optional[FrameType]) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hand_on(number: int, process: subprocess.Popen[bytes], size: int, folder: Path, mark: str) -> None:
    """Sends a signal to every worker; while some are not up yet there is nothing to save, and all are ended."""
    if size == 1:
        process.send_signal(number)
        return
    workers = [int(path.read_text(encoding="utf-8")) for path in folder.glob("rank-*.pid")]
    if len(workers) < size:
        process.send_signal(signal.SIGTERM)
        return
    ours = {each.pid: each for each in _marked(mark)}
    for pid in workers:
        if pid in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                ours[pid].send_signal(number)


def _marked(mark: str) -> List[psutil.Process]:
    """The living processes that this run started, wherever in the process tree they are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _end_marked(process: subprocess.Popen[bytes], mark: str) -> None:
    """Ends what is left of this run: lets it end by itself if the first process has, then asks, then kills."""
    if _gone_within(2.0 if process.poll() is not None else 0.0, process, mark):
        return
    for number, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, 5.0)):
        for each in _marked(mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)
        if _gone_within(seconds, process, mark):
            return


def _gone_within(seconds: float, process: subprocess.Popen[bytes], mark: str) -> bool:
    """Whether nothing of this run is left after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while _marked(mark):
        process.poll()  # takes the exit code: until then an ended process still stands in the table
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def _read_exit(path: Path) -> WorkerExit:
    return WorkerExit(**json.loads(path.read_text(encoding="utf-8")))


def _outcome(size: int, code: int, exits: Sequence[WorkerExit]) -> int:
    """The exit code of the run, with a line on stderr that says whose it is."""
    first = first_failure(exits)
    if first is not None:
        why = f" ({MEANINGS[first.code]})" if first.code in MEANINGS else ""
        print(f"kogpt2-launch: rank {first.rank} ended with exit code {first.code}{why}", file=sys.stderr)
        return first.code
    if code and size > 1:
        lost = sorted(set(range(size)) - {each.rank for each in exits})
        whose = f"no exit code from rank {', '.join(map(str, lost))}" if lost else "horovodrun failed"
        print(f"kogpt2-launch: {whose}; the run ends with {code}", file=sys.stderr)
    return code
