"""How an attempt ended, in one line and in a report: the rank whose end explains the others, and its last lines."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kogpt2_gluon.errors import CorruptionError, DataError, DivergedError, PreemptedError, RecipeError
from kogpt2_launch.run.control import Rank

GRACE = 2.0  # seconds that the other workers have to end, once one has failed
MEANINGS = {
    RecipeError.exit_code: "bad recipe or argument",
    DataError.exit_code: "bad data",
    DivergedError.exit_code: "diverged",
    CorruptionError.exit_code: "the workers hold different parameters",
    PreemptedError.exit_code: "stopped early, state saved",
}


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt.

    code : the exit code of the run if it ends here. rank, host : those of the failure, if it has any. step : the last
    step that a worker reported, -1 for none. leaving : hosts whose spot instance ends. last_lines : the output of the
    rank that failed. report : the text for the log.
    """

    code: int
    reason: str
    rank: int | None = None
    host: str | None = None
    step: int = -1
    leaving: tuple[str, ...] = ()
    asked: bool = False  # a person or scheduler asked for the end
    last_lines: tuple[str, ...] = ()
    report: str = ""
    grace: float = GRACE  # seconds that the workers which are left have to end


def reported(outcome: Outcome, ranks: Sequence[Rank], left: Sequence[str], engine_lines: Sequence[str]) -> Outcome:
    """Adds the step and the report. left : lines on hosts that could not be swept. engine_lines : its last lines."""
    lines = [outcome.reason, *left]
    if outcome.code:
        lines += ["", *(_describe(rank) for rank in ranks)]
        spoke = sorted((rank for rank in ranks if rank.last_lines and rank.failed), key=explains)
        for rank in spoke[:3]:
            lines += ["", f"last lines of rank {rank.number} on {rank.host}:", *_indented(rank.last_lines)]
        for rank in ranks:
            if rank.stacks:
                lines += ["", f"rank {rank.number} on {rank.host}:", *_indented(rank.stacks.splitlines())]
        if any(rank.lost or not rank.present for rank in ranks):
            lines += ["", "last lines of the engine:", *_indented(engine_lines)]
    step = max((rank.step for rank in ranks), default=-1)
    words = tuple(ranks[outcome.rank].last_lines) if outcome.rank is not None else ()
    return replace(outcome, step=step, last_lines=words, report="\n".join(lines) + "\n")


def explains(rank: Rank) -> tuple[int, float]:
    """The sort key of the ranks that failed: the smallest explains why the others ended.

    The first in time is not always the cause. A rank that ends with a code of its own shuts Horovod down on its way
    out, and the others, whose allreduce then fails, may end (code 1) before it does.
    """
    if rank.code in MEANINGS:
        return 0, rank.ended
    killed = rank.code is not None and rank.code > 128
    return (1 if killed or rank.lost else 2), rank.ended


def ended(code: int) -> str:
    """An exit code as words: ``ended with exit code 3 (bad data)``, ``was killed by SIGTERM``."""
    if code > 128:
        with contextlib.suppress(ValueError):
            number = signal.Signals(code - 128)
            # Nothing in the process can say more: the kernel gives it no time.
            memory = " (by the kernel if the host ran out of memory: dmesg)" if number == signal.SIGKILL else ""
            return f"was killed by {number.name}{memory}"
    return f"ended with exit code {code}" + (f" ({MEANINGS[code]})" if code in MEANINGS else "")


def numbers(which: Sequence[int]) -> str:
    """Numbers as text, ``1, 2, 3``, or the first few of many."""
    return ", ".join(map(str, which[:8])) + (f" and {len(which) - 8} more" if len(which) > 8 else "")


def _describe(rank: Rank) -> str:
    if not rank.present:
        how = "never started"
    elif rank.lost:
        how = rank.lost
    else:
        how = ended(rank.code) if rank.code is not None else "still running"
    return f"rank {rank.number} on {rank.host}: {how}, step {rank.step}"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
