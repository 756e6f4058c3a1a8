"""Run a plan on this machine: one worker directly, in this terminal; several as on any other hosts (job.py).

The worker is in a session of its own, so Ctrl-C reaches this process alone. It passes the first SIGINT or SIGTERM on,
and the worker saves its state and ends (exit code 75). After a second signal, or `grace` seconds, the worker is killed.
A mark in the environment (KOGPT2_LAUNCH_ID) identifies what was started, so a process of another job, or of a reused
process number, is never touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence

from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_gluon.machine import job
from kogpt2_launch.host.processes import kill_marked
from kogpt2_launch.plan.environment import worker_environment
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.run.attempt import Options
from kogpt2_launch.run.job import run_job
from kogpt2_launch.run.outcome import ended
from kogpt2_launch.run.output import say
from kogpt2_launch.run.programs import find_program
from kogpt2_launch.run.restart import Policy
from kogpt2_launch.run.stopping import stop_signals

NO_RESTARTS = Policy(restarts=0)


def run_local(
    plan: Plan,
    options: Options = Options(),  # noqa: B008 - frozen
    policy: Policy = NO_RESTARTS,
    worker: Sequence[str] | None = None,
) -> int:
    """Runs `plan` here to its end, with its output passed through. Call it from the main thread: it takes signals.

    Parameters
    ----------
    plan : Plan
        A plan of one host, which is this one; RecipeError otherwise.
    options, policy
        Only ``options.grace`` applies to a single worker: it has no supervisor, and is not started again.
    worker : sequence of str, optional
        The command of a worker, instead of the plan's ``kogpt2 train ...``.

    Returns
    -------
    int
        0 if every worker ended well, else the exit code of the first worker that failed, which is named on stderr.
    """
    _check_local(plan)
    if plan.size > 1:
        return run_job(plan, options, policy, worker)
    argv = list(worker or plan.worker_argv())
    argv[0] = argv[0] if os.sep in argv[0] else find_program(argv[0])
    plan.stop_file.unlink(missing_ok=True)  # of an earlier run
    code = _run_alone(argv, plan, options.grace)
    if code:
        say(f"the worker {ended(code)}")
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
    """Runs one worker and returns its exit code, 128 + S for signal S."""
    mark = secrets.token_hex(16)
    env = {**worker_environment({each.name: each.value for each in plan.env}, os.environ), job.LAUNCH_ID: mark}
    with stop_signals() as received:
        try:
            process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=job.end_with_parent(signal.SIGTERM),  # it saves its state first
            )
        except OSError as error:
            raise KoGPT2Error(f"{argv[0]}: cannot be started: {error.strerror}") from None
        try:
            deadline = float("inf")
            while process.poll() is None and time.monotonic() < deadline and len(received) < 2:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                if received and deadline == float("inf"):
                    deadline = time.monotonic() + grace
                    process.send_signal(signal.SIGTERM if received[0] == signal.SIGHUP else received[0])
        finally:
            kill_marked({job.LAUNCH_ID: mark})
        code = process.wait()
    return code if code >= 0 else 128 - code
