"""Decide if a run that has failed is started again, on which hosts, and when. The history alone decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

from kogpt2_gluon.errors import DataError, DivergedError, RecipeError
from kogpt2_launch.hosts import Host
from kogpt2_launch.run.outcome import Outcome

# A restart would end with these codes again. 127: the program does not exist.
FINAL = (RecipeError.exit_code, DataError.exit_code, DivergedError.exit_code, 127)
FAILURES_OF_A_HOST = 2  # after so many it is left out
STANDSTILLS = 2  # failures in a row without a new checkpoint; after so many, a restart does not help


@dataclass(frozen=True)
class Policy:
    """restarts : at most so many. backoff : seconds before the first one, doubled each time up to `longest`."""

    restarts: int = 3
    backoff: float = 10.0
    longest: float = 300.0


@dataclass(frozen=True)
class Failed:
    """An attempt that failed, and the step of the newest checkpoint after it (None: there is none)."""

    outcome: Outcome
    saved: int | None


@dataclass(frozen=True)
class Decision:
    """hosts : the hosts of the next attempt, after `wait` seconds; None ends the run. why : one line for the log."""

    hosts: tuple[Host, ...] | None
    wait: float
    why: str


def decide(
    history: Sequence[Failed],
    first_saved: int | None,
    hosts: Sequence[Host],
    policy: Policy,
    divides: Callable[[Sequence[Host]], bool],
) -> Decision:
    """Decides what follows after the last attempt of `history`.

    Parameters
    ----------
    first_saved : int or None
        The step of the newest checkpoint before the first attempt.
    hosts : sequence of Host
        The hosts of the last attempt.
    divides : callable
        Returns True if the workers of some hosts can share the batch evenly.
    """
    outcome = history[-1].outcome
    if outcome.asked:
        return Decision(None, 0.0, outcome.reason)
    if outcome.code in FINAL:
        return Decision(None, 0.0, "a restart would end the same way")
    restarts = len(history)
    if restarts > policy.restarts:
        return Decision(None, 0.0, f"all {policy.restarts} restarts are used up")
    saved = [first_saved, *(each.saved for each in history)]
    still = [now == before for before, now in zip(saved, saved[1:])]
    if len(still) >= STANDSTILLS and all(still[-STANDSTILLS:]):
        return Decision(None, 0.0, f"no new checkpoint in {STANDSTILLS} attempts in a row")
    remaining, without = tuple(hosts), ""
    if outcome.leaving:
        remaining, without = _without(hosts, outcome.leaving), f" without {', '.join(outcome.leaving)}"
        if not remaining or not divides(remaining):
            return Decision(None, 0.0, f"the batch cannot be shared{without}; run again on other hosts")
        return Decision(remaining, 0.0, f"resuming{without}")
    failures = Counter(each.outcome.host for each in history if each.outcome.host)
    weak = tuple(host.name for host in hosts if failures[host.name] >= FAILURES_OF_A_HOST)
    if weak:
        fewer = _without(hosts, weak)
        if fewer and divides(fewer):
            remaining, without = fewer, f" without {', '.join(weak)}, which failed {FAILURES_OF_A_HOST} times"
    wait = min(policy.longest, policy.backoff * 2 ** (restarts - 1))
    return Decision(remaining, wait, f"restart {restarts} of {policy.restarts} in {wait:g} s{without}")


def _without(hosts: Sequence[Host], names: Sequence[str]) -> tuple[Host, ...]:
    return tuple(host for host in hosts if host.name not in names)
