"""Recognises a spike: a loss or gradient norm far above those of the last updates.

The mean and the standard deviation are over the last `training.spike_window` updates that were made. A loss or norm
that is more than `training.spike_sigmas` deviations above its mean is a spike. Nothing is one before half of the window
is full. OLMo leaves out updates by the same rule (Ai2's OLMo-core, SkipStepOptimizer: 128 updates, 6 deviations). There
the outliers count in the window too; here an update that is skipped does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SMALLEST_DEVIATION = 1e-3  # of the mean: among losses that are all alike, the next digit is not a spike

Figures = Sequence[float]  # the loss, in nats per token, and the gradient norm of an update
NAMES = ("loss", "gradient norm")


def spike_of(figures: Figures, recent: Sequence[Figures], window: int, sigmas: float) -> str | None:
    """Says why an update with these `figures` is a spike; None if it is none.

    Parameters
    ----------
    figures : (loss, gradient norm)
        Both finite.
    recent : sequence of (loss, gradient norm)
        Those of the updates made so far, the last ones at least.
    window : int
        The updates that are compared with.
    sigmas : float
        Standard deviations above the mean from which on it is a spike.
    """
    if len(recent) < window // 2:
        return None
    for name, value, others in zip(NAMES, figures, zip(*recent[-window:])):
        mean = math.fsum(others) / len(others)
        deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in others) / len(others))
        deviation = max(deviation, SMALLEST_DEVIATION * abs(mean))
        if value > mean + sigmas * deviation:
            above = f"{(value - mean) / deviation:.1f} deviations above" if deviation else "above"
            return f"{name} {value:.4g} is {above} the mean of the last {len(others)}, {mean:.4g} (+-{deviation:.2g})"
    return None


def remember(recent: list[list[float]], figures: Figures, window: int) -> None:
    """Adds the `figures` of an update that is made to those of the last `window` updates, in place."""
    recent.append(list(figures))
    del recent[:-window]
