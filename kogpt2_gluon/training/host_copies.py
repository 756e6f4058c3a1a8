"""Copies of MXNet's arrays in memory of the host, made in a fraction of the time that writing them takes."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Collection, Mapping
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

    def take(self, arrays: Mapping[str, Any], names: Collection[str]) -> dict[str, Array]:
        """Copies the arrays of these names, on the CPU or a GPU. Waits for MXNet.

        What was returned before is overwritten. There is room for all `arrays`; only what was ever used takes memory.
        """
        size = sum(_room(array) for array in arrays.values())
        if size != self._size:
            self._memory = None  # before the new one is made
            self._memory, self._size = _reserve(size), size
        copies, place = {}, 0
        for name in names:
            array = arrays[name]
            copies[name] = np.ndarray(array.shape, array.dtype, buffer=self._memory, offset=place)
            place += _room(array)
        if len(names) == 1:  # starting threads would take longer
            _copy(arrays[next(iter(names))], next(iter(copies.values())))
            return copies
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda name: _copy(arrays[name], copies[name]), names))
        return copies


def _room(array: Any) -> int:
    """The bytes that an array takes, with what is left free behind it."""
    return -(-int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize // ALIGNMENT) * ALIGNMENT


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
