"""Recognises a spike: a loss or gradient norm far above those of the last updates.

The mean and the standard deviation are over the last `training.spike_window` updates. A loss or norm that is more than
`training.spike_sigmas` deviations above its mean is a spike. Nothing is one before half of the window is full. OLMo
leaves out updates by the same rule (Ai2's OLMo-core, SkipStepOptimizer: 128 updates, 6 deviations).

A spike counts in the window as the largest figure that would not have been one. So one spike hides no other that
follows it, and if the figures rise to another level for good, the window follows within some updates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

SMALLEST_DEVIATION = 1e-3  # of the mean: among losses that are all alike, the next digit is not a spike

Figures = Sequence[float]  # the loss, in nats per token, and the gradient norm of an update
NAMES = ("loss", "gradient norm")


class Usual(NamedTuple):
    """The mean and the deviation of a figure over so many `updates`."""

    mean: float
    deviation: float
    updates: int

    def limit(self, sigmas: float) -> float:
        """The largest value that is not a spike."""
        return self.mean + sigmas * self.deviation


def usual(recent: Sequence[Figures], window: int) -> list[Usual]:
    """Returns what is usual for each figure over the last `window` updates; nothing if half of them are not there."""
    if len(recent) < window // 2:
        return []
    found = []
    for values in zip(*recent[-window:]):
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in values) / len(values))
        found.append(Usual(mean, max(deviation, SMALLEST_DEVIATION * abs(mean)), len(values)))
    return found


def spike_of(figures: Figures, recent: Sequence[Figures], window: int, sigmas: float) -> str | None:
    """Says why an update with these `figures` is a spike; None if it is none.

    Parameters
    ----------
    figures : (loss, gradient norm)
        Both finite.
    recent : sequence of (loss, gradient norm)
        Those of the updates so far, as :func:`remember` keeps them.
    window : int
        The updates that are compared with.
    sigmas : float
        Standard deviations above the mean from which on it is a spike.
    """
    for name, value, known in zip(NAMES, figures, usual(recent, window)):
        if value > known.limit(sigmas):
            above = f"{(value - known.mean) / known.deviation:.1f} deviations above" if known.deviation else "above"
            place = f"the mean of the last {known.updates}, {known.mean:.4g} (+-{known.deviation:.2g})"
            return f"{name} {value:.4g} is {above} {place}"
    return None


def remember(recent: list[list[float]], figures: Figures, window: int, sigmas: float) -> None:
    """Adds the `figures` of an update to those of the last `window` updates, in place; a spike as the limit."""
    known = usual(recent, window)
    limits = [each.limit(sigmas) for each in known] or [math.inf] * len(figures)
    recent.append([min(value, limit) for value, limit in zip(figures, limits)])
    del recent[:-window]
