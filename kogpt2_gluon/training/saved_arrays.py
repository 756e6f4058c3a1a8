"""The arrays of a run as they are when it is saved, read one after another while the training goes on.

Until parameters and moments change, at the next update, they are read where they are. Then what is left of them is
copied, in a fraction of the time that writing takes. So a save needs memory only for what is not yet written by then.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DivergedError
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.training.host_copies import HostCopies, room_of

Array = NDArray[Any]

CHECKED_AT_ONCE = 1 << 20  # numbers


class SavedArrays:
    """MXNet's arrays, {name: array}, as they are now. Each may be read once, by any thread.

    Parameters
    ----------
    arrays : dict
        On the CPU or a GPU.
    step : int
        For the message about a number that is not finite.
    one : HostCopies
        Memory for the array that is being read; an update waits while one is copied, and new memory takes longer.
    """

    def __init__(self, arrays: Mapping[str, Any], step: int, one: HostCopies) -> None:
        self._step, self._one, self._room = step, one, room_of(arrays)
        self._lock = threading.Lock()
        self._left = dict(arrays)  # neither read nor copied
        self._copies: dict[str, Array] = {}

    def part(self, names: list[str]) -> Mapping[str, Array]:
        """Some of the arrays, for a file."""
        return _Part(self, names)

    def keep(self, copies: HostCopies) -> None:
        """Copies what has not been read; the arrays may change once this returns. Waits for MXNet."""
        with self._lock:
            if self._left:
                self._copies, self._left = copies.take(self._left, self._room), {}

    def read(self, name: str) -> Array:
        """Returns an array of the save, valid until the next one is read. DivergedError if it is not finite."""
        with self._lock:
            if name in self._left:
                array = self._one.take({name: self._left.pop(name)}, self._room)[name]
            else:
                array = self._copies.pop(name)
        if not _is_finite(array):
            raise DivergedError(f"step {self._step}: {name} is not finite; nothing was saved for this step")
        return array


class _Part(LazyArrays[str]):
    """Some arrays of a save."""

    def __init__(self, saved: SavedArrays, names: list[str]) -> None:
        super().__init__({name: name for name in names})
        self._saved = saved

    def __getitem__(self, name: str) -> Array:
        return self._saved.read(self._places[name])


def _is_finite(array: Array) -> bool:
    flat = array.reshape(-1)
    return all(np.isfinite(flat[at : at + CHECKED_AT_ONCE]).all() for at in range(0, flat.size, CHECKED_AT_ONCE))
