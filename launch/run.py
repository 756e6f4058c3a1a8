"""Runs a plan on this machine: one worker directly, in this terminal; more as on any other hosts (job.py).

The worker is in a session of its own, so Ctrl-C reaches this process alone, which hands the first SIGINT or SIGTERM on:
the worker saves its state and ends (exit code 75). After a second one, or `grace` seconds, it is killed. What was
started is told from everything else on the machine by a mark in its environment (KOGPT2_LAUNCH_ID), so a process of
another job, or of a reused process number, is never touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Iterator, List, Optional, Sequence

from kogpt2_gluon.errors import KoGPT2Error, RecipeError

from .attempt import Options
from .environment import worker_environment
from .host.processes import MARK, kill_marked
from .job import run_job
from .outcome import MEANINGS
from .plan import Plan
from .programs import find_program
from .restart import Policy

GRACE_SECONDS = 120.0


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
    if plan.size > 1:
        return run_job(plan, Options(grace=grace), Policy(restarts=0), worker)
    argv = list(worker) if worker else [find_program("kogpt2"), *plan.worker_argv()[1:]]
    code = _run_alone(argv, plan, grace)
    if code:
        why = f" ({MEANINGS[code]})" if code in MEANINGS else ""
        print(f"kogpt2-launch: the worker ended with exit code {code}{why}", file=sys.stderr)
    return code


def _check_local(plan: Plan) -> None:
    remote = [host.name for host in plan.hosts if not host.is_local]
    if remote:
        raise RecipeError(
            f"the local backend starts workers on this machine only; {', '.join(remote)} is another host: "
            "--backend horovodrun or mpirun"
        )
    if len(plan.hosts) > 1:
        raise RecipeError("the local backend runs one host; give this machine once, with all its slots")


def _run_alone(argv: Sequence[str], plan: Plan, grace: float) -> int:
    """The exit code of one worker, 128 + S for signal S."""
    mark = secrets.token_hex(16)
    env = {**worker_environment({each.name: each.value for each in plan.env}, os.environ), MARK: mark}
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
                    process.send_signal(received[0])
        finally:
            kill_marked({MARK: mark})
        code = process.wait()
    return code if code >= 0 else 128 - code


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
