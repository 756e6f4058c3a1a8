"""The order in which the rows of a task are trained on: a pure function of (rows, seed, batch, update).

Each epoch has the rows in a new random order, each row once, and the epochs follow one another without a gap, so an
update may have rows of two epochs. Some updates together are a window. Inside a window the rows are sorted by length
before they are dealt to its updates, whose order is random again; so a micro batch has rows of about the same length,
and little of it is padding. The micro batches of an update are the same for any number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

WINDOW = 50  # updates; as many as the data has at most

Numbers = NDArray[np.int64]


@dataclass
class Order:
    """The rows of each update.

    Parameters
    ----------
    lengths : (rows,) int64
        Tokens of each row.
    total_batch_size : int
        Rows of an update.
    seed : int
    """

    lengths: Numbers
    total_batch_size: int
    seed: int
    _epochs: dict[int, Numbers] = field(default_factory=dict, repr=False)
    _window: tuple[int, Numbers] | None = field(default=None, repr=False)

    @property
    def window(self) -> int:
        """Updates of a window."""
        return max(1, min(WINDOW, len(self.lengths) // self.total_batch_size))

    def update(self, number: int) -> Numbers:
        """The rows of update `number` (from 0), (total_batch_size,), those of similar length next to each other."""
        window, place = divmod(number, self.window)
        if self._window is None or self._window[0] != window:
            self._window = window, self._deal(window)
        return self._window[1][place]

    def _deal(self, window: int) -> Numbers:
        """The rows of a window's updates, (updates, total_batch_size)."""
        size = self.window * self.total_batch_size
        rows = self._stream(window * size, size)
        by_length = rows[np.argsort(self.lengths[rows], kind="stable")].reshape(self.window, -1)
        return by_length[self._generator("window", window).permutation(self.window)]

    def _stream(self, first: int, count: int) -> Numbers:
        """The rows from place `first` on, in the order of the epochs."""
        total = len(self.lengths)
        parts = []
        while count:
            epoch, begin = divmod(first, total)
            part = self._epoch(epoch)[begin : begin + count]
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(parts)

    def _epoch(self, epoch: int) -> Numbers:
        if epoch not in self._epochs:
            self._epochs = {number: order for number, order in self._epochs.items() if number == epoch - 1}
            self._epochs[epoch] = self._generator("epoch", epoch).permutation(len(self.lengths))
        return self._epochs[epoch]

    def _generator(self, purpose: str, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, number], counter=[0, 0, 0, purpose == "window"]))
