"""One attempt, that is one start of all workers of a plan: prepare the hosts, start the engine, watch, end everything.

Whatever ends an attempt, the way out is the same. The supervisors get the order to end their workers, the engine is
ended, and every host is swept through ssh for processes with the mark of this attempt. A host that cannot be reached
sweeps itself: its supervisors hear nothing any more and end what they started. When it is over, and why, is decided in
verdicts.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable

from kogpt2_gluon.machine import job
from kogpt2_launch.hosts import Host
from kogpt2_launch.plan.commands import (
    HOROVODRUN,
    engine_argv,
    engine_environment,
    launch_folder,
    supervisor_argv,
)
from kogpt2_launch.plan.environment import worker_environment
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.run import verdicts
from kogpt2_launch.run.agent import program
from kogpt2_launch.run.control import Control, Rank
from kogpt2_launch.run.outcome import GRACE, Outcome, reported
from kogpt2_launch.run.programs import find_program
from kogpt2_launch.run.rendezvous import rendezvous
from kogpt2_launch.ssh import Shell

SETTLE_SECONDS = 3.0  # after a first failure; the rank whose exit code explains it may end a little later
SWEEP_SECONDS = 12.0


@dataclass(frozen=True)
class Options:
    """The options of an attempt. Times are in seconds.

    engine : horovodrun or mpirun. detect : a host or launcher that is silent for so long is taken for dead. hang : the
    run hangs if no worker moves for so long. start : the limit from the engine's start to the first step. grace : the
    time to save after a request to stop. metadata : another address of the instance metadata service, for tests.
    """

    engine: str = HOROVODRUN
    shell: Shell = Shell(sys.executable)
    detect: float = 30.0
    hang: float = 900.0
    start: float = 1800.0
    grace: float = 120.0
    metadata: str | None = None


async def run_attempt(
    plan: Plan,
    argv: Sequence[str],
    options: Options,
    log_dir: Path,
    show: Callable[[str], None],
    requests: list[int],
    seen: Callable[[Sequence[Rank]], None] = lambda ranks: None,
) -> Outcome:
    """Runs `argv` once on every slot of `plan`, and returns how it ended.

    Parameters
    ----------
    argv : sequence of str
        The command of a worker.
    log_dir : Path
        Relative to the working folder, or absolute. Each host's ranks write their logs there.
    show : callable
        Called with each line of rank 0.
    requests : list of int
        The signals that this process has received; a list that grows.
    seen : callable
        Called with the state of all ranks about once a second.
    """
    hosts = [host.name for host, ranks in zip(plan.hosts, plan.ranks()) for _ in ranks]
    mark, token = secrets.token_hex(16), secrets.token_hex(32)
    address = "127.0.0.1" if plan.is_local else "0.0.0.0"
    log_dir.mkdir(parents=True, exist_ok=True)
    async with Control(hosts, token, options.detect, show, address) as control:
        with rendezvous(options.engine, plan.hosts) as rendezvous_port:
            launch = {
                "id": mark,
                "token": token,
                "port": control.port,
                "rendezvous_port": rendezvous_port,
                "interface": plan.network_interface,
                "hosts": [[host.name, host.slots] for host in plan.hosts],
                "argv": list(argv),
                "env": worker_environment({each.name: each.value for each in plan.env}, os.environ),
                "cwd": str(Path.cwd()),
                "log_dir": str(log_dir),
                "detect_seconds": options.detect,
                "orphan_grace": min(5.0, options.detect),
                "spot": plan.fabric.instance is not None or options.metadata is not None,
                **({"metadata": options.metadata} if options.metadata else {}),
            }
            return await Attempt(plan, options, control, launch, log_dir, requests, seen).run()


class Attempt:
    """The steps of :func:`run_attempt`."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        control: Control,
        launch: dict[str, Any],
        log_dir: Path,
        requests: list[int],
        seen: Callable[[Sequence[Rank]], None],
    ) -> None:
        self.plan, self.options, self.control, self.launch = plan, options, control, launch
        self.log_dir, self.requests, self.seen = log_dir, requests, seen
        self.folder = launch_folder(launch["id"])
        self.deadline: float | None = None  # for the workers to save in, after a request to stop

    async def run(self) -> Outcome:
        engine: asyncio.subprocess.Process | None = None
        outcome: Outcome | None = None
        try:
            outcome = await self._prepare()
            if outcome is None:
                engine = await self._start_engine()
                outcome = await self._watch(engine)
        finally:
            # This also happens if the attempt is cancelled or fails itself: nothing may be left running.
            left = await self._end(engine, outcome.grace if outcome is not None else GRACE)
        return reported(outcome, self.control.ranks, left, self._engine_lines())

    # ---- on the hosts ----

    async def _prepare(self) -> Outcome | None:
        """Puts archive and launch.json on every host; returns an Outcome if that fails on one."""

        def prepared(host: Host) -> str:
            return program("prepare", {"launch": self.launch, "folder": self.folder, "remote": not host.is_local})

        for answer in await self._ask_hosts(prepared, 60.0):
            _, problem = answer.said()
            if problem:
                return Outcome(1, f"{answer.host}: {problem}", host=answer.host)
        return None

    async def _ask_hosts(self, make: Callable[[Host], str], seconds: float) -> Sequence[Any]:
        ask = partial(self.options.shell.run_on_all, self.plan.hosts, make, seconds)
        return await asyncio.get_running_loop().run_in_executor(None, ask)

    async def _start_engine(self) -> asyncio.subprocess.Process:
        plan, options = self.plan, self.options
        argv = engine_argv(options.engine, plan.hosts, plan.network_interface, plan.fabric.preset, options.shell.port)
        argv = [find_program(argv[0]), *argv[1:], *supervisor_argv(options.shell.python, self.launch["id"])]
        with (self.log_dir / "engine.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *argv,
                env=engine_environment(os.environ, self.launch["id"]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                # SIGKILL, not SIGTERM: the signal comes once for each thread of ours that ends, and horovodrun's
                # handler of SIGTERM locks itself out when another interrupts it. The supervisors end by themselves.
                preexec_fn=job.end_with_parent(),
            )

    async def _end(self, engine: asyncio.subprocess.Process | None, grace: float) -> list[str]:
        """Ends everything that this attempt has started; returns a line for each host that could not be swept."""
        control = self.control
        control.send("end", grace=grace)
        until = time.monotonic() + grace + self.options.detect
        while any(rank.present and not rank.over for rank in control.ranks) and time.monotonic() < until:
            await control.wait(0.5)
            control.look()
        control.release()
        if engine is not None:
            for number, seconds in ((None, 2.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
                with contextlib.suppress(ProcessLookupError):
                    if number is not None:
                        os.killpg(engine.pid, number)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(engine.wait(), seconds)
                    break
        sweep = program("sweep", {"id": self.launch["id"], "folder": self.folder})
        answers = await self._ask_hosts(lambda host: sweep, SWEEP_SECONDS)
        problems = [(answer.host, answer.said()[1]) for answer in answers]
        return [f"{host} could not be swept ({problem})" for host, problem in problems if problem]

    # ---- watching ----

    async def _watch(self, engine: asyncio.subprocess.Process) -> Outcome:
        """Waits until all workers have ended well, or one thing has gone wrong."""
        ranks, began, seen = self.control.ranks, time.monotonic(), 0.0
        while True:
            await self.control.wait(0.5)
            self.control.look()
            now = time.monotonic()
            if now - seen >= 1.0:
                seen = now
                self.seen(ranks)
            if any(rank.failed for rank in ranks):
                await asyncio.sleep(SETTLE_SECONDS)
                return verdicts.failed(ranks, self.requests)
            if all(rank.over for rank in ranks):
                return verdicts.ended_well(ranks, bool(self.requests) or self.plan.stop_file.exists())
            self._pass_on_stop_request(now)
            outcome = self._verdict(now, now - began)
            # A scheduler may send its SIGTERM to the engine too: the workers save all the same.
            if outcome is None and engine.returncode is not None and self.deadline is None:
                await self.control.wait(SETTLE_SECONDS)
                if not all(rank.over for rank in ranks) and not self.requests:
                    name, words = self.options.engine, self._engine_words()
                    return verdicts.engine_ended(ranks, name, engine.returncode, words)
            if outcome is None and self.deadline is None:
                outcome = verdicts.hung(ranks, now, self.options.hang)
                if outcome is not None:
                    await self._ask_for_stacks()
            if outcome is not None:
                return outcome

    def _verdict(self, now: float, seconds: float) -> Outcome | None:
        """The reason to end, if there is one; `seconds` after the engine's start."""
        ranks, options = self.control.ranks, self.options
        if self.deadline is None:
            stopped = verdicts.nothing_to_save(ranks, self.requests)
        else:
            stopped = verdicts.not_saved_in_time(ranks, self.requests, now, self.deadline, options.grace)
        return (
            stopped
            or verdicts.wrong_network(self.plan, ranks)
            or verdicts.late(ranks, seconds, options.start, self._engine_words)
        )

    def _pass_on_stop_request(self, now: float) -> None:
        """Asks the workers to save, once, when somebody asks for the end or a spot instance leaves."""
        ranks = self.control.ranks
        if self.deadline is not None or not (self.requests or verdicts.leaving(ranks)):
            return
        if verdicts.nothing_to_save(ranks, self.requests) is None:
            self.deadline = now + self.options.grace
            self.control.send("save")

    async def _ask_for_stacks(self) -> None:
        """Collects where each worker is in its code, for the report."""
        there = [rank for rank in self.control.ranks if not rank.over]
        self.control.send("stacks")
        until = time.monotonic() + min(6.0, self.options.detect)
        while any(not rank.stacks and not rank.over for rank in there) and time.monotonic() < until:
            await self.control.wait(0.5)

    # ---- the engine's output ----

    def _engine_lines(self) -> list[str]:
        log = self.log_dir / "engine.log"
        return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-30:] if log.exists() else []

    def _engine_words(self) -> str:
        return (self._engine_lines() or ["it said nothing"])[-1][:300]
