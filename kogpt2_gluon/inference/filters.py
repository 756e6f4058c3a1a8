"""Which tokens may follow, and with which probability: what is done to a row of logits before a token is chosen.

Each function gives the same as the logits processor of transformers (5.23) of that name, also where scores are equal. V
is `vocab_size`, N the number of tokens of a text so far, K that of the tokens that are left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError

Row = NDArray[Any]  # (V,) float32 or float64
Ids = NDArray[np.int64]

BLOCK = 64  # scores whose maximum `at_least` looks at
FEW = 256  # a nucleus is looked for among about so many tokens first, where there are more than
LARGE = 2 * FEW * BLOCK
NEAR = 1e-6  # to this a sum of probabilities is exact


def check_logits(logits: Row) -> None:
    """Raises DataError unless a row of logits has a finite maximum: one NaN would make any choice arbitrary."""
    if not np.isfinite(logits.max()):
        bad = int(np.isnan(logits).sum()) or int(np.isposinf(logits).sum()) or logits.size
        raise DataError(
            f"the network computes no probabilities here: {bad:,} of its {logits.size:,} logits are not finite; its "
            "parameters are damaged, or its training diverged"
        )


def log_normalizer(logits: Row) -> float:
    """Returns the logarithm of the sum of the exponentials: a logit minus this is a log-probability."""
    largest = logits.max()
    return float(largest) + float(np.log(np.exp(logits - largest).sum(dtype=np.float64)))


# Processors: they change scores (V,), which are logits or log-probabilities, in place.


def penalize_repetition(scores: Row, ids: Ids, penalty: float) -> None:
    """Divides positive scores of `ids` (N,) by `penalty` and multiplies negative ones, once for each token."""
    seen = ids[ids < scores.size]
    found = scores[seen]
    with np.errstate(over="ignore"):
        scores[seen] = np.where(found < 0, found * penalty, found / penalty)


def repeating_tokens(ids: Ids, size: int) -> Ids:
    """Returns the tokens that would make the last `size` tokens of a text (N,) a sequence that it has already."""
    if len(ids) < size:
        return ids[:0]
    windows = np.lib.stride_tricks.sliding_window_view(ids, size)
    beginning = ids[len(ids) + 1 - size :]
    return windows[(windows[:, :-1] == beginning).all(axis=1), -1]


class BadWords:
    """Sequences of ids that a text must not have; their last token is excluded where a text ends with the others.

    Parameters
    ----------
    sequences : sequence of sequences of int
        Each has at least one id.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self._always = np.array([sequence[0] for sequence in sequences if len(sequence) == 1], np.int64)
        self._after: dict[int, list[tuple[list[int], int]]] = defaultdict(list)  # by the last but one
        for sequence in sequences:
            if len(sequence) > 1:
                self._after[sequence[-2]].append((list(sequence[:-1]), sequence[-1]))

    def completing_tokens(self, ids: Sequence[int]) -> Ids:
        """Returns the tokens that would complete one of the sequences after a text (N,)."""
        after = self._after.get(ids[-1], ()) if ids else ()
        completing = [last for begin, last in after if list(ids[-len(begin) :]) == begin]
        return np.concatenate([self._always, np.array(completing, np.int64)])


# Warpers: they choose the tokens to draw from.


def at_least(scores: Row, count: int) -> Ids:
    """Returns a few ids that include the `count` largest scores; found by the largest score of every 64."""
    blocks = scores.size // BLOCK
    if blocks < 2 * count:
        return np.arange(scores.size)
    largest = scores[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1)
    # `count` blocks have a score as large as this, so the largest are not smaller.
    return np.flatnonzero(scores >= np.partition(largest, blocks - count)[blocks - count])


def largest_first(scores: Row, count: int) -> Ids:
    """Returns the ids of the `count` largest scores, the largest first; of equal ones the smaller id is first."""
    likely = at_least(scores, count)
    if count < likely.size:
        smallest = np.partition(scores[likely], likely.size - count)[likely.size - count]
        likely = likely[scores[likely] >= smallest]
    return likely[np.argsort(-scores[likely], kind="stable")][:count]


def top_k(scores: Row, count: int) -> Ids:
    """Returns the ids of the `count` largest scores, and of all that are as large as the last of them; of -inf none."""
    if count >= scores.size:
        return np.flatnonzero(scores > -np.inf)
    likely = at_least(scores, count)
    found = scores[likely]
    smallest = np.partition(found, likely.size - count)[likely.size - count]
    return likely[(found >= smallest) & (found > -np.inf)]


def top_p(probabilities: Row, mass: float) -> Ids:
    """Returns the places of the fewest largest probabilities (K,) that have `mass` together.

    Which of several equal ones are kept, where not all are needed, is the affair of sorting, as in transformers. Sums
    are made from the smallest on, as there: rounding decides where a sum is exactly `mass`.
    """
    inside, border = _border(probabilities, mass)
    order = border[np.argsort(probabilities[border], kind="stable")]
    kept = probabilities[order]
    all_are_there = inside.size + order.size == probabilities.size
    below = 0.0 if all_are_there else 1 - probabilities[inside].sum() - kept.sum()
    is_needed = below + np.cumsum(kept) > 1 - mass
    if not inside.size:
        is_needed[-1] = True
    return np.concatenate([inside, order[is_needed]])


def _border(probabilities: Row, mass: float) -> tuple[Ids, Ids]:
    """Returns places that are surely among the fewest with `mass`, and others that may be: all, for a few.

    Sorting 50,000 numbers takes some milliseconds. So the nucleus is looked for among the likeliest tokens, and if it
    is larger, its border is found by numbers without their places, and of single precision.
    """
    nothing, everything = np.arange(0), np.arange(probabilities.size)
    if probabilities.size <= LARGE:
        return nothing, everything
    likely = at_least(probabilities, FEW)
    if probabilities[likely].sum() > mass + NEAR:
        return nothing, likely
    rounded = probabilities.astype(np.float32)
    falling = np.sort(rounded)[::-1]
    first, last = np.searchsorted(np.cumsum(falling.astype(np.float64)), [mass - NEAR, mass + NEAR])
    largest, smallest = falling[min(first, falling.size - 1)], falling[min(last, falling.size - 1)]
    is_inside = rounded > largest
    return np.flatnonzero(is_inside), np.flatnonzero(~is_inside & (rounded >= smallest))


def min_p(probabilities: Row, share: float) -> Ids:
    """Returns the places of the probabilities (K,) that are at least `share` times the largest of them."""
    return np.flatnonzero(probabilities >= share * probabilities.max())


def typical_p(probabilities: Row, mass: float) -> Ids:
    """Returns the places of the fewest probabilities (K,) nearest to the entropy that have `mass` together.

    Their negative logarithms are nearest to the entropy of the distribution (Meister et al., 2022); all that are as
    near as the last of them are kept.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(probabilities)
        entropy = np.nansum(probabilities * surprise)  # of a probability of 0: none
    distance = np.abs(surprise - entropy)
    near = everything = np.arange(probabilities.size)
    if probabilities.size > LARGE:
        near = at_least(-distance, FEW)
        if probabilities[near].sum() < mass + NEAR:
            near = everything
    order = near[np.argsort(distance[near], kind="stable")]
    before = int((np.cumsum(probabilities[order]) < mass).sum())
    return np.flatnonzero(distance <= distance[order[min(before, order.size - 1)]])
