"""The order of several sets of shards with weights; also that of one set.

A lane's places are cut into periods of PERIOD sequences. In each period set ``k`` comes exactly ``shares[k]`` times, at
places that a keyed permutation of the period chooses. Every lane and period has another permutation, so the lanes are
out of phase, and an update of many lanes holds each set's share. The number of times that a set came before a place is
the set's own place in that lane. So every set is read in its own order, at its own rate, without repeats within its own
pass.

An epoch of a mix has as many sequences as one pass over each set.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.reading.order import ChunkOrder, Order, of_course
from kogpt2_gluon.reading.permutation import Int64Array, key_of, keys_of, permute
from kogpt2_gluon.reading.saved_state import check_source

PERIOD = 10_000
STATE_VERSION = 3  # of the order and its state; a place of another version means nothing here
WITHOUT_COURSES = 2  # an earlier version: the same order, and a run had only one
# What to do if a state is of another order, by the key that differs.
_WAYS_OUT = {
    "fingerprint": "train on the same shards in the same order, with the same weights",
    "lanes": "restore data.max_lanes and training.total_batch_size",
    "seed": "restore training.seed",
    "seq_length": "restore data.seq_length",
    "course": "resume with the settings that it was saved with",
    "window": "restore data.window",
}


def shares_of(weights: Sequence[float]) -> tuple[int, ...]:
    """Rounds weights to parts of PERIOD by the largest remainder, each at least 1. DataError for more than PERIOD."""
    if len(weights) > PERIOD:
        raise DataError(f"data.train: {len(weights):,} sets; at most {PERIOD:,} can be mixed")
    exact = [weight / sum(weights) * PERIOD for weight in weights]
    shares = [max(1, int(share)) for share in exact]
    # Largest remainder first. Shares that were raised to 1 have a negative remainder and are never lowered again.
    while (missing := PERIOD - sum(shares)) != 0:
        remainders = [each - share for each, share in zip(exact, shares)]
        ranked = sorted(range(len(shares)), key=lambda k: remainders[k], reverse=missing > 0)
        for k in [k for k in ranked if missing > 0 or shares[k] > 1][: abs(missing)]:
            shares[k] += 1 if missing > 0 else -1
    return tuple(shares)


def current(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns a saved state as this version writes it, if it is one of WITHOUT_COURSES; any other as it is."""
    if (saved.get("source"), saved.get("version")) != ("shards", WITHOUT_COURSES):
        return saved
    return {**saved, "version": STATE_VERSION, "course": 0}


def show_passes(passes: float) -> str:
    """Formats a number of passes or epochs with two digits that matter: 12.50, 0.040, 0.00031."""
    if passes >= 0.1 or passes == 0:
        return f"{passes:,.2f}"
    return f"{passes:.{1 - math.floor(math.log10(passes))}f}"


@dataclass(frozen=True)
class Mix:
    """The order of several sets that have the same seed, seq_length, lanes, window and course.

    Parameters
    ----------
    orders : tuple of Order
        One for each set.
    shares : tuple of int
        How many of a lane's PERIOD sequences come from each set; see :func:`shares_of`.
    """

    orders: tuple[Order, ...]
    shares: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.orders) == len(self.shares) and sum(self.shares) == PERIOD and min(self.shares) >= 1
        alike = {(order.seed, order.seq_length, order.lanes, order.window, order.course) for order in self.orders}
        assert len(alike) == 1

    @property
    def lanes(self) -> int:
        return self.orders[0].lanes

    @property
    def seq_length(self) -> int:
        return self.orders[0].seq_length

    @property
    def sequences_per_epoch(self) -> int:
        """Sequences in an epoch: the sum over the sets."""
        return sum(order.sequences_per_epoch for order in self.orders)

    @cached_property
    def fingerprint(self) -> str:
        """One set's own fingerprint, or for several a SHA-256 (hex) over the sets' fingerprints and shares."""
        if len(self.orders) == 1:
            return self.orders[0].fingerprint
        plain = [[order.fingerprint, share] for order, share in zip(self.orders, self.shares)]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    def sets(self, lane: int, period: int) -> NDArray[np.int16]:
        """Returns the number of the set for each place in one period of a lane, (PERIOD,)."""
        if len(self.orders) == 1:
            return np.zeros(PERIOD, np.int16)
        key = key_of(of_course("mix", self.orders[0].course), self.fingerprint, self.orders[0].seed, lane)
        mixed = permute(np.arange(PERIOD), PERIOD, int(keys_of(key, np.array([period]))[0]))
        return np.searchsorted(np.cumsum(self.shares), mixed, side="right").astype(np.int16)

    def own_places(self, lane: int, place: int) -> Int64Array:
        """Returns how many of the lane's first `place` sequences come from each set: the sets' own places in it."""
        if len(self.orders) == 1:
            return np.array([place])
        period, within = divmod(place, PERIOD)
        scanned = np.bincount(self.sets(lane, period)[:within], minlength=len(self.orders))
        own: Int64Array = period * np.array(self.shares) + scanned
        return own

    def passes(self, consumed: int) -> list[float]:
        """Returns the passes over each set after `consumed` sequences over all lanes; exact at the end of a period."""
        return [consumed * share / PERIOD / order.sequences_per_epoch for order, share in zip(self.orders, self.shares)]

    def chunks_from(self, lane: int, place: int) -> Iterator[tuple[int, int]]:
        """Yields (set, chunk) in the order in which the lane needs them from its sequence `place` on.

        The sets are interleaved by their rates. Small sets, which are read whole, come first and once.
        """
        needed = [self._needed(lane, k, int(own)) for k, own in enumerate(self.own_places(lane, place))]
        return ((k, chunk) for _, k, chunk in heapq.merge(*needed))

    def _needed(self, lane: int, k: int, own_place: int) -> Iterator[tuple[float, int, int]]:
        """Yields (about how many places from now it is needed, set, chunk) for one set."""
        order = self.orders[k]
        large = isinstance(order, ChunkOrder)
        pace = order.full_sequences * PERIOD / self.shares[k]
        for number, chunk in enumerate(order.chunks_from(lane, own_place)):
            yield max(0, number - order.window + 1) * pace if large else -1.0, k, chunk

    def state(self, consumed: int) -> dict[str, Any]:
        """Returns what a resume needs and checks, under 1 kB. `consumed` counts sequences over all lanes."""
        order = self.orders[0]
        return {
            "source": "shards",
            "version": STATE_VERSION,
            "fingerprint": self.fingerprint,
            "seed": order.seed,
            "seq_length": order.seq_length,
            "lanes": order.lanes,
            "window": order.window,
            "course": order.course,
            "consumed": consumed,
        }

    def check_state(self, saved: dict[str, Any], source: str) -> None:
        """Raises DataError if `saved`, from checkpoint `source`, is the state of another order."""
        saved = current(saved)
        check_source(saved, "shards", STATE_VERSION, source)
        for key, value in self.state(0).items():
            if key in _WAYS_OUT and saved.get(key) != value:
                raise DataError(
                    f"{source}: its data had {key} {saved.get(key)}, now it is {value}; {_WAYS_OUT[key]}, or start a "
                    "new run in another run_dir"
                )
