"""Which tokens may follow, and with which probability: what is done to a row of logits before a token is chosen.

Each function gives the same as the logits processor of transformers (5.23) of that name: the same tokens are kept, ties
included. V is `vocab_size`, N the number of tokens of a text so far, K the number of tokens that are kept.
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
FEW = 256  # a nucleus is looked for among so many of the likeliest tokens first


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
    """Sequences of ids that a text must not have; their last token is excluded where the others stand.

    Parameters
    ----------
    sequences : sequence of sequences of int
        Each has at least one id.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self._always = [sequence[0] for sequence in sequences if len(sequence) == 1]
        self._after: dict[int, list[tuple[list[int], int]]] = defaultdict(list)  # by the last but one
        for sequence in sequences:
            if len(sequence) > 1:
                self._after[sequence[-2]].append((list(sequence[:-1]), sequence[-1]))

    def completing_tokens(self, ids: Sequence[int]) -> list[int]:
        """Returns the tokens that would complete one of the sequences after a text (N,)."""
        after = self._after.get(ids[-1], ()) if ids else ()
        return self._always + [last for begin, last in after if list(ids[-len(begin) :]) == begin]


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
    """Returns the ids of the `count` largest scores, and of all that are as large as the last of them."""
    likely = at_least(scores, count)
    found = scores[likely]
    return likely[found >= np.partition(found, likely.size - count)[likely.size - count]]


def top_p(probabilities: Row, mass: float) -> Ids:
    """Returns the places of the fewest largest probabilities (K,) that have `mass` together, the largest first.

    Of equal ones that are not all needed, the last are kept. Sums are made from the smallest on, as transformers has
    it: which token stands exactly at the border is decided by rounding.
    """
    order = _enough(probabilities, probabilities, mass)
    kept = probabilities[order]
    rest = 0.0 if order.size == probabilities.size else 1 - kept.sum()
    from_here_on = rest + np.cumsum(kept[::-1])[::-1]
    count = int((from_here_on > 1 - mass).sum())
    return order[: max(1, count)]


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
        entropy = np.nansum(probabilities * surprise)
    distance = np.abs(surprise - entropy)
    order = _enough(-distance, probabilities, mass)
    before = int((np.cumsum(probabilities[order]) < mass).sum())
    return np.flatnonzero(distance <= distance[order[min(before, order.size - 1)]])


def _enough(scores: Row, probabilities: Row, mass: float) -> Ids:
    """Returns places by their scores, the largest and, of equal ones, the last first: all, or more than `mass` needs.

    Sorting 50,000 scores takes some milliseconds, and the tokens that matter are mostly few.
    """
    count = FEW
    while 4 * count < scores.size:
        likely = at_least(scores, count) if 2 * count <= scores.size // BLOCK else top_k(scores, count)
        if probabilities[likely].sum() > mass + 1e-6:
            return likely[np.argsort(scores[likely], kind="stable")[::-1]]
        count *= 8
    return np.argsort(scores, kind="stable")[::-1]
