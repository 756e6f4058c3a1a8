"""Runs a plan to its end: attempt after attempt, each going on from the newest checkpoint, with a status for others.

Beside the run's checkpoints, in ``RUN_DIR/launch/``: ``status.json`` (what goes on now), ``attempt-NN.log`` (how an
attempt ended; the reason is its first line), ``attempt-NN/`` (the output of the engine and of each rank, NCCL's lines),
``lock`` (held while a launcher is at work).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from kogpt2_gluon.checkpoint import newest_checkpoint
from kogpt2_gluon.data.files import replace_file
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.recipe import Recipe, load_recipe

from .attempt import Options, run_attempt
from .control import Rank
from .environment import inherited
from .hosts import Host
from .lint import ERROR
from .outcome import Outcome
from .plan import Plan, make_plan
from .restart import Decision, Failed, Policy, decide
from .variables import USER

STATUS_SECONDS = 2.0
ECHO_SECONDS = 3.0  # a scheduler's SIGTERM may come straight and through its script: that is one request


def run_job(plan: Plan, options: Options, policy: Policy, worker: Optional[Sequence[str]] = None) -> int:
    """Runs a plan through an engine, output of rank 0 on stdout; call it from the main thread (it takes the signals).

    Parameters
    ----------
    worker : sequence of str, optional
        The command of a worker, in place of the plan's ``kogpt2 train ...``.

    Returns
    -------
    int
        0, or the exit code of the first worker that failed in the last attempt; 75 after a planned stop.
    """
    return asyncio.run(Job(plan, options, policy, worker).run())


class Job:
    """The attempts of one launch."""

    def __init__(self, plan: Plan, options: Options, policy: Policy, worker: Optional[Sequence[str]]) -> None:
        self.plan, self.options, self.policy, self.worker = plan, options, policy, worker
        self.recipe: Recipe = load_recipe(plan.recipe, plan.overrides)
        self.folder = self.recipe.run_dir / "launch"
        self.requests: List[int] = []
        self.number, self._told = 0, 0.0

    async def run(self) -> int:
        self.stop = asyncio.Event()
        check_inherited(self.plan)
        with locked(self.folder), self._signals():
            history: List[Failed] = []
            first_saved = self._saved()
            while True:
                outcome = await self._attempt()
                if outcome.code == 0:
                    self._status("done", outcome.reason)
                    return 0
                history.append(Failed(outcome, self._saved()))
                self._tell(outcome)
                decision = decide(history, first_saved, self.plan.hosts, self.policy, self._divides)
                if decision.hosts is not None:
                    tell(decision.why)
                    await self._pause(decision)
                if decision.hosts is None or self.requests:
                    if not outcome.asked and not self.requests and self.policy.restarts:
                        tell(f"not started again: {decision.why}")
                    self._status("ended", outcome.reason)
                    return outcome.code
                self.plan = self._planned(decision.hosts)

    async def _attempt(self) -> Outcome:
        self.number = next_number(self.folder)
        name = f"attempt-{self.number:02d}"
        argv = self.worker or self.plan.worker_argv()
        outcome = await run_attempt(self.plan, argv, self.options, self.folder / name, show, self.requests, self._seen)
        with replace_file(self.folder / f"{name}.log") as log:
            log.write(outcome.report.encode())
        return outcome

    def _tell(self, outcome: Outcome) -> None:
        """The reason, and what the rank that failed said last; rank 0's lines have been shown."""
        tell(outcome.reason)
        for line in outcome.last_lines[-5:] if outcome.rank else outcome.last_lines[-1:]:
            print(f"    {line}", file=sys.stderr)
        tell(f"more in {self.folder}/attempt-{self.number:02d}.log")

    async def _pause(self, decision: Decision) -> None:
        self._status("waiting", decision.why)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stop.wait(), decision.wait)

    def _planned(self, hosts: Tuple[Host, ...]) -> Plan:
        """The same plan on fewer hosts."""
        plan = self.plan
        if hosts == plan.hosts:
            return plan
        user = {each.name: each.value for each in plan.env if each.source == USER}
        interface = plan.network_interface if any(not host.is_local for host in hosts) else None
        return make_plan(plan.recipe, plan.overrides, hosts, interface, user, plan.fabric, plan.file_system)

    def _divides(self, hosts: Sequence[Host]) -> bool:
        try:
            self._planned(tuple(hosts))
        except RecipeError:
            return False
        return True

    def _saved(self) -> Optional[int]:
        """The step of the newest complete checkpoint, if its folder is seen from here."""
        try:
            newest = newest_checkpoint(self.recipe.ckpt_dir)
            return int(newest.state()["step"]) if newest else None
        except (DataError, OSError, ValueError, KeyError):
            return None

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        noted = -ECHO_SECONDS

        def note(number: int) -> None:
            nonlocal noted
            now = time.monotonic()
            if number == signal.SIGTERM and now - noted < ECHO_SECONDS:
                return
            noted = now
            self.requests.append(number)
            self.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, note, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _seen(self, ranks: Sequence[Rank]) -> None:
        now = time.monotonic()
        if now - self._told >= STATUS_SECONDS:
            self._told = now
            self._status("running", "", ranks)

    def _status(self, state: str, text: str, ranks: Sequence[Rank] = ()) -> None:
        now = time.monotonic()
        status: Dict[str, Any] = {
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
                for rank in ranks
            ],
        }
        with replace_file(self.folder / "status.json") as file:
            file.write(json.dumps(status, ensure_ascii=False).encode())


def check_inherited(plan: Plan) -> None:
    """Holds the variables that workers inherit from this environment to the rules of a plan's own.

    RecipeError for one that would corrupt data; a line for what does harm, or nothing.
    """
    planned = {each.name for each in plan.env}
    found = plan.fabric.lint({name: value for name, value in inherited(os.environ).items() if name not in planned})
    for each in found:
        if each.severity == ERROR:
            raise RecipeError(f"{each.name} in this environment: {each.text} ({each.source}); unset it")
        tell(f"{each.name} in this environment: {each.text} ({each.source})")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One launcher a run folder: the kernel drops the lock with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KoGPT2Error(f"{folder.parent}: another launcher runs this; kogpt2-launch status or stop") from None
        except OSError:
            pass  # a file system without locks, as Lustre is without -o flock
        yield


def next_number(folder: Path) -> int:
    """One more than the attempts that are there."""
    found = [int(path.name[8:]) for path in folder.glob("attempt-*") if path.is_dir() and path.name[8:].isdigit()]
    return max(found, default=0) + 1


def show(line: str) -> None:
    """A line of rank 0."""
    print(line, flush=True)


def tell(line: str) -> None:
    """A line of our own."""
    print(f"kogpt2-launch: {line}", file=sys.stderr, flush=True)
