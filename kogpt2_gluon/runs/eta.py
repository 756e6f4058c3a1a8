"""Estimates how long a run still takes."""

from __future__ import annotations

import math
from collections import deque


class Eta:
    """Estimates the remaining time from the rate of the last `window` log lines.

    Only the time between lines of this process counts: not its start and, after a resume, not the steps before it.
    """

    def __init__(self, window: int = 64) -> None:
        self._marks: deque[tuple[int, float]] = deque(maxlen=window)

    def mark(self, step: int, now: float) -> None:
        """Notes that `step` was reached at `now` (seconds of any steady clock)."""
        self._marks.append((step, now))

    def seconds(self, num_steps: int) -> float:
        """The seconds until `num_steps`; NaN before two different steps are known."""
        if not self._marks or self._marks[-1][0] <= self._marks[0][0]:
            return math.nan
        (first, began), (step, now) = self._marks[0], self._marks[-1]
        return max(num_steps - step, 0) * (now - began) / (step - first)
