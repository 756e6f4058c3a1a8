"""One attempt to run a plan: prepare the hosts, start the engine, watch, end everything, say why.

Whatever ends it, the same road is taken out: the supervisors are told to end their workers, the engine is ended, and
every host is swept by ssh for processes that bear this attempt's mark. A host that cannot be reached sweeps itself: its
supervisors hear nothing any more and end what they started.
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

from kogpt2_gluon.errors import PreemptedError
from kogpt2_gluon.machine import job
from kogpt2_launch.hosts import Host
from kogpt2_launch.plan.commands import (
    HOROVODRUN,
    engine_argv,
    engine_environment,
    launch_folder,
    rendezvous,
    supervisor_argv,
)
from kogpt2_launch.plan.environment import worker_environment
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.run.agent import program, understood
from kogpt2_launch.run.control import Control, Rank
from kogpt2_launch.run.outcome import Outcome, ended, explains, numbers, reported
from kogpt2_launch.run.programs import find_program
from kogpt2_launch.ssh import Shell

SETTLE_SECONDS = 3.0  # after a first failure: the rank whose exit code says why may end a little later
SWEEP_SECONDS = 12.0


@dataclass(frozen=True)
class Options:
    """How an attempt is run. Times in seconds.

    engine : horovodrun or mpirun. detect : a host or launcher unheard for so long is taken for dead. hang : no worker
    moves for so long. start : from the engine's start to the first step. grace : to save after a request to stop.
    """

    engine: str = HOROVODRUN
    shell: Shell = Shell(sys.executable)
    detect: float = 30.0
    hang: float = 900.0
    start: float = 1800.0
    grace: float = 120.0
    metadata: str | None = None  # another address of the instance metadata service, as tests have


async def run_attempt(
    plan: Plan,
    argv: Sequence[str],
    options: Options,
    log_dir: Path,
    show: Callable[[str], None],
    requests: list[int],
    seen: Callable[[Sequence[Rank]], None] = lambda ranks: None,
) -> Outcome:
    """Runs `argv` once on every slot of `plan`.

    Parameters
    ----------
    argv : sequence of str
        The command of a worker.
    log_dir : Path
        Relative to the working folder, or absolute; each host's ranks write their logs there.
    show : callable
        Gets the lines of rank 0.
    requests : list of int
        The signals that this process has received; a list that grows.
    seen : callable
        Gets the state of all ranks about once a second.
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
        self.deadline: float | None = None  # after a request to stop
        self.grace = 2.0  # for the others, once one has failed

    async def run(self) -> Outcome:
        engine: asyncio.subprocess.Process | None = None
        try:
            outcome = await self._prepare()
            if outcome is None:
                engine = await self._start_engine()
                outcome = await self._watch(engine)
        finally:
            # Also when this is cancelled or fails itself: nothing may be left running.
            left = await self._end(engine)
        return reported(outcome, self.control.ranks, left, self._engine_lines())

    # ---- on the hosts ----

    async def _prepare(self) -> Outcome | None:
        """None when every host has its archive and launch.json."""

        def prepared(host: Host) -> str:
            return program("prepare", {"launch": self.launch, "folder": self.folder, "remote": not host.is_local})

        for answer in await self._ask_hosts(prepared, 60.0):
            _, problem = understood(answer)
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

    async def _end(self, engine: asyncio.subprocess.Process | None) -> list[str]:
        """Ends all that this attempt started; what could not be swept."""
        control = self.control
        control.tell("end", grace=self.grace)
        until = time.monotonic() + self.grace + self.options.detect
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
        problems = [(answer.host, understood(answer)[1]) for answer in answers]
        return [f"{host} could not be swept ({problem})" for host, problem in problems if problem]

    # ---- watching ----

    async def _watch(self, engine: asyncio.subprocess.Process) -> Outcome:
        """Until all have ended well, or one thing has gone wrong."""
        ranks, began, told = self.control.ranks, time.monotonic(), 0.0
        while True:
            await self.control.wait(0.5)
            self.control.look()
            now = time.monotonic()
            if now - told >= 1.0:
                told = now
                self.seen(ranks)
            if any(rank.failed for rank in ranks):
                return await self._failure()
            if all(rank.over for rank in ranks):
                return self._ended()
            outcome = self._asked_to_stop(now) or self._wrong_network() or self._late(now - began)
            # A scheduler may send its SIGTERM to the engine too: the workers save all the same.
            if outcome is None and engine.returncode is not None and self.deadline is None:
                await self.control.wait(SETTLE_SECONDS)
                if not all(rank.over for rank in ranks) and not self.requests:
                    return self._engine_ended(engine.returncode)
            outcome = outcome or await self._hung(now)
            if outcome is not None:
                return outcome

    async def _failure(self) -> Outcome:
        """The rank whose end explains the others'."""
        await asyncio.sleep(SETTLE_SECONDS)
        first = min((rank for rank in self.control.ranks if rank.failed), key=explains)
        code, how = 1, f"rank {first.number}: {first.lost}"
        if first.code is not None:
            code, how = first.code, f"rank {first.number} on {first.host} {ended(first.code)}"
        # Asked to stop before it could save, a worker ends by the signal: no reason to start it again.
        asked = bool(self.requests)
        if asked and code == 128 + signal.SIGTERM and first.beats == 0:
            return self._stopped_early()
        return Outcome(code, how, first.number, first.host, leaving=self._leaving(), asked=asked)

    def _stopped_early(self) -> Outcome:
        """There is nothing to save yet: as after a save, running again goes on where this would have."""
        return Outcome(PreemptedError.exit_code, "asked to stop before the first step", asked=True)

    def _ended(self) -> Outcome:
        ranks = self.control.ranks
        stopped = [rank for rank in ranks if rank.code == PreemptedError.exit_code]
        if not stopped:
            return Outcome(0, "done")
        leaving, asked = self._leaving(), bool(self.requests) or self.plan.stop_file.exists()
        if leaving:
            why = f"{', '.join(leaving)} leaves ({next(rank.spot for rank in ranks if rank.spot)})"
        elif asked:
            why = "asked to stop"
        else:
            why = "the workers ended by themselves, at a signal from elsewhere or for want of this launcher's heartbeat"
        return Outcome(PreemptedError.exit_code, f"{why}: state saved", leaving=leaving, asked=asked)

    def _engine_ended(self, code: int) -> Outcome:
        absent = [rank.number for rank in self.control.ranks if not rank.present]
        which = f"; rank {numbers(absent)} never came" if absent else ""
        return Outcome(1, f"{self.options.engine} ended with exit code {code}{which}: {self._engine_words()}")

    def _engine_lines(self) -> list[str]:
        log = self.log_dir / "engine.log"
        return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-30:] if log.exists() else []

    def _engine_words(self) -> str:
        return (self._engine_lines() or ["it said nothing"])[-1][:300]

    def _asked_to_stop(self, now: float) -> Outcome | None:
        """Hands a request to stop on to the workers; an outcome when they have had their time, or are asked twice."""
        if (self.requests or self._leaving()) and self.deadline is None:
            if self.requests and any(rank.pid is None for rank in self.control.ranks):
                return self._stopped_early()
            if not self.requests and any(rank.beats == 0 for rank in self.control.ranks):
                leaving = self._leaving()
                return Outcome(1, f"{', '.join(leaving)} leaves before the first step", leaving=leaving)
            self.deadline = now + self.options.grace
            self.control.tell("save")
        if self.deadline is not None and (now > self.deadline or len(self.requests) > 1):
            self.grace = 0.0
            late = "asked to stop twice" if len(self.requests) > 1 else f"not saved within {self.options.grace:g} s"
            return Outcome(self._signal_code(), late, leaving=self._leaving(), asked=bool(self.requests))
        return None

    def _signal_code(self) -> int:
        return 128 + self.requests[0] if self.requests else 1

    def _leaving(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rank.host for rank in self.control.ranks if rank.spot))

    def _wrong_network(self) -> Outcome | None:
        """A run that planned EFA and has NCCL on sockets is several times slower, and would say so nowhere."""
        instance = self.plan.fabric.instance
        if instance is None or not instance.efa or len(self.plan.hosts) == 1:
            return None
        for rank in self.control.ranks:
            for line in rank.network:
                if "Using network Socket" in line:
                    reason = (
                        f"rank {rank.number} on {rank.host}: NCCL fell back to sockets where EFA was planned "
                        f"({line}); kogpt2-launch preflight looks for what is missing"
                    )
                    return Outcome(1, reason, rank.number, rank.host)
        return None

    def _late(self, seconds: float) -> Outcome | None:
        if seconds <= self.options.start:
            return None
        absent = [rank.number for rank in self.control.ranks if not rank.present]
        if absent:
            return Outcome(1, f"rank {numbers(absent)} has not come within {seconds:.0f} s: {self._engine_words()}")
        waiting = [rank for rank in self.control.ranks if rank.beats == 0 and not rank.over]
        if waiting:
            reason = f"no first step within {seconds:.0f} s: rank {numbers([rank.number for rank in waiting])}"
            return Outcome(1, reason, waiting[0].number, waiting[0].host)
        return None

    async def _hung(self, now: float) -> Outcome | None:
        """Everybody waits: for the rank that stands furthest behind, or whose process is stopped."""
        there = [rank for rank in self.control.ranks if not rank.over]
        if not there or any(rank.beats == 0 for rank in there):
            return None
        still = now - max(rank.moved for rank in there)
        if still <= self.options.hang or self.deadline is not None:
            return None
        self.control.tell("stacks")
        until = time.monotonic() + min(6.0, self.options.detect)
        while any(not rank.stacks and not rank.over for rank in there) and time.monotonic() < until:
            await self.control.wait(0.5)
        self.grace = 0.0
        blamed = min(there, key=lambda rank: (rank.state not in ("T", "t"), rank.step, rank.beats))
        how = "its process is stopped" if blamed.state in ("T", "t") else f"state {blamed.state or 'unknown'}"
        reason = (
            f"no worker has moved for {still:.0f} s at step {blamed.step}; rank {blamed.number} on {blamed.host}: {how}"
        )
        return Outcome(1, reason, blamed.number, blamed.host)
