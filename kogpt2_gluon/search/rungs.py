"""Which run of a search goes on, and how far: asynchronous successive halving with pauses, or the median rule.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020): a run that reaches a rung pauses there. It is
promoted to the next one once it is in the best 1/eta of all that have reached its rung. Optuna's own pruner ends a run
for good instead of pausing it, so a result that comes later cannot help it.

Kim et al., "CHOPT: Automated Hyperparameter Optimization Framework for Cloud-Based Machine Learning Platforms" (2018):
what has paused is a pool, from which runs come back while machines have nothing better to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

ASHA, MEDIAN, NONE = "asha", "median", "none"
RULES = (ASHA, MEDIAN, NONE)
MEDIAN_NEEDS = 4  # results at a rung, before the median rule pauses anything there

# What a run does at the moment.
WAITS, BUSY, DONE, FAILED = "waits", "busy", "done", "failed"


@dataclass(frozen=True)
class Standing:
    """The place of a run in the search.

    Attributes
    ----------
    number : int
    state : str
        WAITS (it can go on), BUSY (it trains, here or on another host), DONE or FAILED.
    results : mapping
        Its cost at each rung that it has reached, by the rung's step: the lower, the better.
    """

    number: int
    state: str
    results: Mapping[int, float] = field(default_factory=dict)


def rungs_of(num_steps: int, first: int, eta: int, rule: str = ASHA) -> list[int]:
    """Returns the steps at which runs are compared, ascending: `first` times powers of `eta`, and the last step."""
    if rule == NONE:
        return [num_steps]
    steps = [first]
    while steps[-1] * eta < num_steps:
        steps.append(steps[-1] * eta)
    return [*steps, num_steps] if steps[-1] < num_steps else [num_steps]


def next_slice(
    standings: Sequence[Standing], rungs: Sequence[int], rule: str, eta: int, may_begin: bool
) -> tuple[int | None, int] | None:
    """Returns which run goes on, and to which step; (None, step) for a new one; None if no run should go on now.

    In this order: a run that was interrupted before its first rung, promotions from the highest rung down, a new run
    if there may be one, and then what is best among the paused ones, if nothing was finished or if machines are free
    while others work.
    """
    for each in standings:
        if each.state == WAITS and not each.results:
            return each.number, rungs[0]
    for index in reversed(range(len(rungs) - 1)):
        for each in _promoted([one for one in standings if rungs[index] in one.results], rungs[index], rule, eta):
            if each.state == WAITS and rungs[index + 1] not in each.results:
                return each.number, rungs[index + 1]
    if may_begin:
        return None, rungs[0]
    paused = [each for each in standings if each.state == WAITS and max(each.results) < rungs[-1]]
    if paused and (any(each.state == BUSY for each in standings) or not any(each.state == DONE for each in standings)):
        best = min(paused, key=lambda each: (-max(each.results), each.results[max(each.results)], each.number))
        return best.number, rungs[rungs.index(max(best.results)) + 1]
    return None


def _promoted(reached: Sequence[Standing], rung: int, rule: str, eta: int) -> list[Standing]:
    """Returns those of the runs at a rung that deserve the next one, the best first."""
    ranked = sorted(reached, key=lambda each: (each.results[rung], each.number))
    finite = [each for each in ranked if math.isfinite(each.results[rung])]
    if rule == ASHA:
        return finite[: len(ranked) // eta]
    if len(ranked) < MEDIAN_NEEDS:
        return finite
    middle = median(each.results[rung] for each in ranked)
    return [each for each in finite if each.results[rung] <= middle]
