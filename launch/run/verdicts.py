"""Decide if a running attempt is over: pure functions of what its ranks have reported. Nothing here sends or waits.

Each returns an Outcome when the attempt is over, and None while it may go on. run/attempt.py asks them in turn.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Callable

from kogpt2_gluon.errors import CorruptionError, PreemptedError
from kogpt2_gluon.machine import job
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.run.control import Rank
from kogpt2_launch.run.outcome import Outcome, ended, explains, numbers

AT_ONCE = 0.0  # the grace of workers that will not end by themselves


def failed(ranks: Sequence[Rank], requests: Sequence[int]) -> Outcome:
    """The failure that explains the others', once at least one rank has failed."""
    first = min((rank for rank in ranks if rank.failed), key=explains)
    code, how = 1, f"rank {first.number}: {first.lost}"
    if first.code is not None:
        code, how = first.code, f"rank {first.number} on {first.host} {ended(first.code)}"
    if code == CorruptionError.exit_code:  # all ranks end with it: which of them is wrong, they say themselves
        said = first.last_lines[-1] if first.last_lines else "their output says which"
        wrong = job.rank_that_differs(said)
        host = ranks[wrong].host if wrong is not None and wrong < len(ranks) else None
        why = f"the workers hold different parameters: {said}"
        return Outcome(code, why, first.number, host, leaving=leaving(ranks), asked=bool(requests))
    asked = bool(requests)
    # A worker that is asked to stop before it can save ends by the signal. That is not a reason to start it again.
    if asked and code == 128 + signal.SIGTERM and first.beats == 0:
        return _stopped_before_the_first_step()
    return Outcome(code, how, first.number, first.host, leaving=leaving(ranks), asked=asked)


def ended_well(ranks: Sequence[Rank], asked: bool) -> Outcome:
    """The end of an attempt whose workers are all done or have saved. asked : somebody asked for the end."""
    stopped = [rank for rank in ranks if rank.code == PreemptedError.exit_code]
    if not stopped:
        return Outcome(0, "done")
    hosts = leaving(ranks)
    if hosts:
        why = f"{', '.join(hosts)} leaves ({next(rank.spot for rank in ranks if rank.spot)})"
    elif asked:
        why = "asked to stop"
    else:
        why = "the workers ended by themselves: a signal from elsewhere, or they lost this launcher's heartbeat"
    return Outcome(PreemptedError.exit_code, f"{why}: state saved", leaving=hosts, asked=asked)


def nothing_to_save(ranks: Sequence[Rank], requests: Sequence[int]) -> Outcome | None:
    """The end of workers that are asked to stop, or whose instance ends, before there is any state to save."""
    if requests:
        return _stopped_before_the_first_step() if any(rank.pid is None for rank in ranks) else None
    hosts = leaving(ranks)
    if hosts and any(rank.beats == 0 for rank in ranks):
        return Outcome(1, f"{', '.join(hosts)} leaves before the first step", leaving=hosts)
    return None


def not_saved_in_time(
    ranks: Sequence[Rank], requests: Sequence[int], now: float, deadline: float, grace: float
) -> Outcome | None:
    """The end of workers that were asked to save and have had their time, or are asked a second time."""
    if now <= deadline and len(requests) <= 1:
        return None
    why = "asked to stop twice" if len(requests) > 1 else f"not saved within {grace:g} s"
    code = 128 + requests[0] if requests else 1
    return Outcome(code, why, leaving=leaving(ranks), asked=bool(requests), grace=AT_ONCE)


def wrong_network(plan: Plan, ranks: Sequence[Rank]) -> Outcome | None:
    """The end of a run that planned EFA and has NCCL on sockets: it would be several times slower and never say so."""
    if not plan.fabric.has_efa or len(plan.hosts) == 1:
        return None
    for rank in ranks:
        for line in rank.network:
            if "Using network Socket" in line:
                reason = (
                    f"rank {rank.number} on {rank.host}: NCCL fell back to sockets where EFA was planned "
                    f"({line}); kogpt2-launch preflight finds what is missing"
                )
                return Outcome(1, reason, rank.number, rank.host)
    return None


def late(ranks: Sequence[Rank], seconds: float, allowed: float, engine_words: Callable[[], str]) -> Outcome | None:
    """The end of an attempt that began `seconds` ago and still has a rank without a first step.

    engine_words : the last line of the engine's output, read only when it is needed.
    """
    if seconds <= allowed:
        return None
    absent = [rank.number for rank in ranks if not rank.present]
    if absent:
        return Outcome(1, f"rank {numbers(absent)} did not start within {seconds:.0f} s: {engine_words()}")
    waiting = [rank for rank in ranks if rank.beats == 0 and not rank.over]
    if waiting:
        reason = f"no first step within {seconds:.0f} s: rank {numbers([rank.number for rank in waiting])}"
        return Outcome(1, reason, waiting[0].number, waiting[0].host)
    return None


def engine_ended(ranks: Sequence[Rank], engine: str, code: int, engine_words: str) -> Outcome:
    """The end of an attempt whose engine ended before its workers."""
    absent = [rank.number for rank in ranks if not rank.present]
    which = f"; rank {numbers(absent)} never started" if absent else ""
    return Outcome(1, f"{engine} ended with exit code {code}{which}: {engine_words}")


def hung(ranks: Sequence[Rank], now: float, allowed: float) -> Outcome | None:
    """The end of workers that all wait for one: the one with the fewest steps, or whose process is stopped."""
    there = [rank for rank in ranks if not rank.over]
    if not there or any(rank.beats == 0 for rank in there):
        return None
    still = now - max(rank.moved for rank in there)
    if still <= allowed:
        return None
    blamed = min(there, key=lambda rank: (rank.state not in ("T", "t"), rank.step, rank.beats))
    how = "its process is stopped" if blamed.state in ("T", "t") else f"state {blamed.state or 'unknown'}"
    reason = (
        f"no worker has moved for {still:.0f} s at step {blamed.step}; rank {blamed.number} on {blamed.host}: {how}"
    )
    return Outcome(1, reason, blamed.number, blamed.host, grace=AT_ONCE)


def leaving(ranks: Sequence[Rank]) -> tuple[str, ...]:
    """The hosts whose spot instance is about to end."""
    return tuple(dict.fromkeys(rank.host for rank in ranks if rank.spot))


def _stopped_before_the_first_step() -> Outcome:
    """There is nothing to save yet: as after a save, running again goes on where this run would have."""
    return Outcome(PreemptedError.exit_code, "asked to stop before the first step", asked=True)
