"""The phases of a training step. The loop marks them; `kogpt2 profile` measures them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

# In the order of a step. The loop marks each with ``with phase(name):``.
PHASES = {
    "read": "wait for the next batch, on its way to the device",
    "forward": "network and loss, all micro steps",
    "backward": "gradients, all micro steps",
    "reduce": "mean over the workers, global norm",
    "agree": "loss to the host, sums over the workers",
    "update": "optimizer",
    "log": "one line of the record",
}

Phase = Callable[[str], AbstractContextManager[object]]  # called with a key of PHASES, gives what marks that phase

_NOTHING = nullcontext()


def unmarked(name: str) -> AbstractContextManager[None]:
    """The marker of training itself: it does nothing, in some 100 ns a phase."""
    return _NOTHING
