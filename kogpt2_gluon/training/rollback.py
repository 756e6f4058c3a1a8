"""Rolls a run back to its last checkpoint, from which it goes on without the updates that led to a spike.

The run ends as if it had failed, and begins again as if it had been started again: it resumes from the newest
checkpoint, or from its start if there is none. Only what must be left out is handed over. Each update has a number, its
attempt, and an attempt always has the same sequences. So an update is left out by its number: its sequences are read
and counted, and the parameters stay as they were, as with an update that float16 skips.

A change of settings while the run trains (training/live_changes.py) begins again in the same way, and leaves out none.

The ranges that are left out are in every checkpoint from then on. A run that dies before the next one meets the same
spike again, and rolls back again.
"""

from __future__ import annotations

import gc
from typing import Callable, TypeVar

Range = list[int]  # [first, last] attempt, both included
Result = TypeVar("Result")


class RollBack(Exception):  # noqa: N818 - the run goes on
    """Ends a training that is about to go on from its last checkpoint.

    Attributes
    ----------
    left_out : list of [first, last]
        Attempts that are left out from there on.
    stop_wanted : bool
        True if this worker was asked to stop on the way; the training that goes on then stops.
    """

    def __init__(self, message: str, left_out: list[Range], stop_wanted: bool = False) -> None:
        super().__init__(message)
        self.left_out, self.stop_wanted = left_out, stop_wanted

    def __repr__(self) -> str:
        """Its message, which is how log.txt says why a training ended that did not fail."""
        return str(self)


def with_rollbacks(run_once: Callable[[RollBack | None], Result]) -> Result:
    """Returns what `run_once` returns, which is called again, with the RollBack, each time that it raises one."""
    back: RollBack | None = None
    while True:
        try:
            return run_once(back)
        except RollBack as error:
            # Another object: the traceback of this one holds network and optimizer of the training that ended.
            back = RollBack(str(error), error.left_out, error.stop_wanted)
        gc.collect()


def merged(ranges: list[Range], others: list[Range]) -> list[Range]:
    """Returns the ranges of both, in their order, each once."""
    return sorted({(first, last): [first, last] for first, last in (*ranges, *others)}.values())
