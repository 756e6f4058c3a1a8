"""Run a plan to its end, attempt after attempt. Each one resumes from the newest checkpoint.

A launch writes into ``RUN_DIR/launch/``: ``status.json`` (the present state), ``attempt-NN.log`` (how an attempt ended;
the first line is the reason), ``attempt-NN/`` (the output of the engine and of each rank, and NCCL's log), ``lock``
(held while a launcher is at work).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, KoGPT2Error, PreemptedError, RecipeError
from kogpt2_gluon.findings import FAIL
from kogpt2_gluon.machine.console import write_line
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.runs.checkpoint import newest_checkpoint
from kogpt2_gluon.storage.files import write_file
from kogpt2_launch.hosts import Host
from kogpt2_launch.plan.commands import MPIRUN
from kogpt2_launch.plan.environment import inherited
from kogpt2_launch.plan.plan import Plan, batch_divides, make_plan
from kogpt2_launch.plan.variables import USER
from kogpt2_launch.run.attempt import Options, run_attempt
from kogpt2_launch.run.control import Rank
from kogpt2_launch.run.outcome import Outcome
from kogpt2_launch.run.output import Shown, say
from kogpt2_launch.run.restart import Decision, Failed, Policy, decide
from kogpt2_launch.run.stopping import stop_signals

STATUS_SECONDS = 2.0


def run_job(plan: Plan, options: Options, policy: Policy, worker: Sequence[str] | None = None) -> int:
    """Runs a plan through an engine, with rank 0's output on stdout. Call it from the main thread: it takes signals.

    Parameters
    ----------
    worker : sequence of str, optional
        The command of a worker, instead of the plan's ``kogpt2 train ...``.

    Returns
    -------
    int
        0, or the exit code of the first worker that failed in the last attempt; 75 after a planned stop.
    """
    _check_engine(plan, options)
    job = Job(plan, options, policy, worker)
    try:
        return asyncio.run(job.run())
    finally:
        job.show.close()


def _check_engine(plan: Plan, options: Options) -> None:
    """RecipeError for what mpirun, unlike horovodrun, does not take: hosts without an interface, underscores."""
    odd = [host.name for host in plan.hosts if "_" in host.name]
    if options.engine == MPIRUN and odd and not plan.is_local:
        raise RecipeError(
            f"--backend mpirun: host {odd[0]}: Open MPI takes no underscore in a name; give its address, another "
            "name of it in /etc/hosts, or --backend horovodrun"
        )
    if options.engine == MPIRUN and not plan.is_local and plan.network_interface is None:
        raise RecipeError("--backend mpirun: make the plan with --network-interface, the one that the hosts share")


class Job:
    """The attempts of one launch."""

    def __init__(self, plan: Plan, options: Options, policy: Policy, worker: Sequence[str] | None) -> None:
        self.plan, self.options, self.policy, self.worker = plan, options, policy, worker
        self.recipe: Recipe = load_recipe(plan.recipe, plan.overrides)
        self.folder = self.recipe.run_dir / "launch"
        self.requests: list[int] = []
        self.show = Shown()
        self.ranks: Sequence[Rank] = ()
        self.number, self._reported = 0, 0.0
        self._writing: asyncio.Future[None] | None = None

    async def run(self) -> int:
        self.stop = asyncio.Event()
        wake, loop = self.stop.set, asyncio.get_running_loop()
        check_inherited(self.plan)
        with locked(self.folder), stop_signals(lambda: loop.call_soon_threadsafe(wake)) as self.requests:
            self.plan.stop_file.unlink(missing_ok=True)  # of an earlier launch
            history: list[Failed] = []
            first_saved = self._saved()
            while True:
                outcome = await self._attempt()
                if outcome.code == 0:
                    await self._status("done", "")
                    return 0
                history.append(Failed(outcome, self._saved()))
                self._report(outcome)
                decision = decide(history, first_saved, self.plan.hosts, self.policy, self._divides)
                if decision.hosts is None:
                    if not outcome.asked and self.policy.restarts:
                        say(f"not started again: {decision.why}")
                    await self._status("ended", outcome.reason)
                    return outcome.code
                say(decision.why)
                await self._pause(decision)
                if self._asked():
                    say("asked to stop; run again to go on")
                    await self._status("ended", "asked to stop before the restart")
                    return PreemptedError.exit_code
                self.plan = self._planned(decision.hosts)

    async def _attempt(self) -> Outcome:
        self.number = next_number(self.folder)
        name = f"attempt-{self.number:02d}"
        argv = self.worker or self.plan.worker_argv()
        folder = self.folder / name
        try:
            outcome = await run_attempt(self.plan, argv, self.options, folder, self.show, self.requests, self._seen)
        except OSError as error:
            outcome = Outcome(1, f"{error.filename or folder}: {error.strerror}", report=f"{error}\n")
        keep(self.folder / f"{name}.log", outcome.report.encode())
        return outcome

    def _report(self, outcome: Outcome) -> None:
        """Prints the reason and the last lines of the rank that failed; those of rank 0 have been shown already."""
        say(outcome.reason)
        for line in outcome.last_lines[-5:] if outcome.rank else outcome.last_lines[-1:]:
            write_line(sys.stderr, f"    {line}")
        say(f"more in {self.folder}/attempt-{self.number:02d}.log")

    async def _pause(self, decision: Decision) -> None:
        """Waits until the restart is due, or somebody asks for the end."""
        await self._status("waiting", decision.why)
        until = time.monotonic() + decision.wait
        while not self._asked() and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stop.wait(), min(STATUS_SECONDS, left))

    def _asked(self) -> bool:
        return bool(self.requests) or self.plan.stop_file.exists()

    def _planned(self, hosts: tuple[Host, ...]) -> Plan:
        """Makes the plan again for fewer hosts."""
        plan = self.plan
        if hosts == plan.hosts:
            return plan
        user = {each.name: each.value for each in plan.env if each.source == USER}
        interface = plan.network_interface if any(not host.is_local for host in hosts) else None
        return make_plan(plan.recipe, plan.overrides, hosts, interface, user, plan.fabric, plan.file_system)

    def _divides(self, hosts: Sequence[Host]) -> bool:
        return batch_divides(self.recipe, sum(host.slots for host in hosts))

    def _saved(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none, or its folder is not visible from here."""
        try:
            newest = newest_checkpoint(self.recipe.ckpt_dir)
            return int(newest.state()["step"]) if newest else None
        except (DataError, OSError, ValueError, KeyError):
            return None

    def _seen(self, ranks: Sequence[Rank]) -> None:
        """Notes the state, about once a second. Its file system may stall, so nobody waits for it here."""
        self.ranks, now = ranks, time.monotonic()
        if now - self._reported >= STATUS_SECONDS and (self._writing is None or self._writing.done()):
            self._reported = now
            self._writing = self._write_status("running", "")

    async def _status(self, state: str, text: str) -> None:
        if self._writing is not None:
            await self._writing
        await self._write_status(state, text)

    def _write_status(self, state: str, text: str) -> asyncio.Future[None]:
        now = time.monotonic()
        status: dict[str, Any] = {
            "state": state,
            "text": text,
            "launcher": {"host": socket.gethostname(), "pid": os.getpid()},
            "updated": time.time(),
            "attempt": self.number,
            "recipe": [self.plan.recipe, *self.plan.overrides],
            "num_steps": self.recipe.training.num_steps,
            "ranks": [
                {
                    "rank": rank.number,
                    "host": rank.host,
                    "step": rank.step,
                    "process": rank.state,
                    "silent": round(now - rank.heard, 1) if rank.present else None,
                    "still": round(now - rank.moved, 1) if rank.present else None,
                    "code": rank.code,
                }
                for rank in self.ranks
            ],
        }
        content = json.dumps(status, ensure_ascii=False).encode()
        return asyncio.get_running_loop().run_in_executor(None, keep, self.folder / "status.json", content)


def keep(path: Path, content: bytes) -> None:
    """Writes a file of the run folder; if that fails, prints a line and goes on."""
    try:
        write_file(path, content)
    except OSError as error:
        say(f"{path}: cannot be written: {error.strerror}")


def check_inherited(plan: Plan) -> None:
    """Holds the variables that workers inherit from this environment to the rules for those of a plan.

    RecipeError for a variable that would corrupt data; a printed line for one that does harm, or nothing.
    """
    planned = {each.name for each in plan.env}
    found = plan.fabric.lint({name: value for name, value in inherited(os.environ).items() if name not in planned})
    for each in found:
        if each.status == FAIL:
            raise RecipeError(f"{each.what} in this environment: {each.text} ({each.where}); unset it")
        say(f"{each.what} in this environment: {each.text} ({each.where})")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Allows one launcher for each run folder. The kernel drops the lock with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KoGPT2Error(
                f"{folder.parent}: another launcher runs this; see kogpt2-launch status, or end it with stop"
            ) from None
        except OSError:
            pass  # the file system has no locks, like Lustre without -o flock
        yield


def next_number(folder: Path) -> int:
    """The number of the next attempt."""
    found = [int(path.name[8:]) for path in folder.glob("attempt-*") if path.is_dir() and path.name[8:].isdigit()]
    return max(found, default=0) + 1
