"""Ctrl-C and SIGTERM for verbs that resume what they have finished."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from kogpt2_gluon.errors import PreemptedError
from kogpt2_gluon.machine import job


@contextmanager
def stoppable(has_results: Callable[[], bool], unit: str) -> Iterator[None]:
    """Treats SIGTERM like Ctrl-C; either raises PreemptedError if there are results from which the next call resumes.

    `unit` is what is kept: a ``part``, a ``shard``.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        if not has_results():
            raise
        job.keep_exit_code()
        raise PreemptedError(f"stopped; the same command resumes after the last finished {unit}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
