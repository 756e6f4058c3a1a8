"""Ctrl-C and SIGTERM for verbs that resume what they have finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from kogpt2_gluon.errors import PreemptedError
from kogpt2_gluon.machine import job
from kogpt2_gluon.machine.interrupts import interruptible


@contextmanager
def stoppable(has_results: Callable[[], bool], unit: str) -> Iterator[None]:
    """Treats SIGTERM and SIGHUP like Ctrl-C: PreemptedError if there are results from which the next call resumes.

    `unit` is what is kept: a ``part``, a ``shard``.
    """
    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        if not has_results():
            raise
        job.keep_exit_code()
        raise PreemptedError(f"stopped; the same command resumes after the last finished {unit}") from None
