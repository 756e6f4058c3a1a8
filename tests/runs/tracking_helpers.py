"""Helpers that the tests of a run's record and of its report share."""

from __future__ import annotations

from kogpt2_gluon.runs.metrics import NullTracker, StepRecord

HOSTILE = "</pre><script>alert('x')</script>\x1b[31m&\x00 \"q\" \ud800"


def log(tracker: NullTracker, step: int, loss: float = 5.0, grad_norm: float = 1.0, rate: float = 1000.0) -> None:
    tracker.log_step(StepRecord(step, loss, 1e-4, grad_norm, rate, 512.0, step / 100, step * 50))
