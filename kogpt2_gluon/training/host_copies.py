"""Copies of MXNet's arrays in memory of the host, made in a fraction of the time that writing them takes."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.runtime import mx

Array = NDArray[Any]

ALIGNMENT = 64  # bytes
THREADS = 2  # one alone does not fill the memory's bandwidth


class HostCopies:
    """Memory for copies of arrays, kept from one time to the next: new memory costs as much as the copying."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._size = 0

    def take(self, arrays: Mapping[str, Any], room: int) -> dict[str, Array]:
        """Copies arrays, on the CPU or a GPU; what was returned before is overwritten. Waits for MXNet.

        There is room for so many bytes (:func:`room_of`); only what was ever used takes memory.
        """
        if room != self._size:
            self._memory = None  # before the new one is made
            self._memory, self._size = _reserve(room), room
        copies: dict[str, Array] = {}
        place = 0
        for name, array in arrays.items():
            copies[name] = np.ndarray(array.shape, array.dtype, buffer=self._memory, offset=place)
            place += room_of({name: array})
        if len(arrays) == 1:  # starting threads would take longer
            _copy(*arrays.values(), *copies.values())
            return copies
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(_copy, arrays.values(), copies.values()))
        return copies


def room_of(arrays: Mapping[str, Any]) -> int:
    """The bytes that copies of arrays take, with what is left free behind each."""
    sizes = (int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize for array in arrays.values())
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _reserve(size: int) -> mmap.mmap:
    """Returns uninitialised memory, of huge pages where the system has them."""
    memory = mmap.mmap(-1, max(size, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _copy(array: Any, copy: Array) -> None:
    """Does what `array.asnumpy()` does, but into memory that is there already."""
    address = copy.ctypes.data_as(ctypes.c_void_p)
    mx.base.check_call(mx.base._LIB.MXNDArraySyncCopyToCPU(array.handle, address, ctypes.c_size_t(copy.size)))
