"""Caches for several texts that grow at the same time, each with a length of its own: what continuous batching needs.

A slot holds the keys and values of one text. A pass reads the next tokens of any of them, a whole prompt or one token,
and returns the logits that follow. V is `vocab_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model


class Run(NamedTuple):
    """The next tokens of a text.

    Attributes
    ----------
    slot : int
        Where its cache is.
    tokens : sequence of int
        One or more; they follow the `lengths[slot]` tokens that the slot has already.
    """

    slot: int
    tokens: Sequence[int]


class Slots:
    """Slots for any network, over its own `states`; runs are read one by one.

    Parameters
    ----------
    net : GPT2Model
        Initialized and not hybridized.
    num_slots : int
        The most texts at once.
    capacity : int
        The most tokens of a text, prompt included; at most `net.max_length`.
    ctx : mx.Context or None
        None: the CPU.

    Attributes
    ----------
    lengths : list of int
        The tokens that each slot has read.
    """

    def __init__(self, net: GPT2Model, num_slots: int, capacity: int, ctx: Any = None) -> None:
        assert capacity <= net.max_length
        self.num_slots, self.capacity = num_slots, capacity
        self.lengths = [0] * num_slots
        self._net, self._ctx = net, ctx or mx.cpu()
        self._states: list[Any] = [None] * num_slots

    def next_logits(self, runs: Sequence[Run]) -> NDArray[np.float32]:
        """Reads each run into its slot, each slot at most once; returns the logits (len(runs), V) that follow."""
        rows = []
        for slot, tokens in runs:
            data = mx.nd.array([list(tokens)], ctx=self._ctx, dtype="int32")
            logits, self._states[slot] = self._net(data, self._states[slot])
            self.lengths[slot] += len(tokens)
            rows.append(logits[0, -1].astype("float32").asnumpy())
        return np.stack(rows)

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Makes the text of a slot that of another, too, for samples and beams that begin alike.

        `length`: only its first tokens, at most as many as it has; None: all of it.
        """
        states = self._states[source]
        if length is not None and length < self.lengths[source]:
            states = [each.slice_axis(axis=2, begin=0, end=length) for each in states] if length else None
        self._states[target] = states
        self.lengths[target] = self.lengths[source] if length is None else length

    def clear(self, slot: int) -> None:
        """Makes a slot ready for another text."""
        self._states[slot], self.lengths[slot] = None, 0


def slots_for(net: GPT2Model, num_slots: int, capacity: int, ctx: Any = None) -> Slots:
    """The fastest slots for the operators of a network."""
    return Slots(net, num_slots, capacity, ctx)
