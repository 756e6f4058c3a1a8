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
    """Memory for copies of a set of arrays, kept from one time to the next: new memory costs as much as the copying."""

    def __init__(self) -> None:
        self._layout: list[tuple[str, tuple[int, ...], Any]] = []
        self._copies: dict[str, Array] = {}

    def take(self, arrays: Mapping[str, Any], names: Collection[str]) -> dict[str, Array]:
        """Copies the arrays of these names, on the CPU or a GPU. Waits for MXNet.

        What was returned before is overwritten. There is room for all `arrays`; only what is used takes memory.
        """
        layout = [(name, array.shape, array.dtype) for name, array in arrays.items()]
        if layout != self._layout:
            self._copies = {}  # before the new ones are made
            self._layout, self._copies = layout, _allocate(layout)
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda name: _copy(arrays[name], self._copies[name]), names))
        return {name: self._copies[name] for name in names}


def _allocate(layout: list[tuple[str, tuple[int, ...], Any]]) -> dict[str, Array]:
    """Makes uninitialised arrays in one mapping, of huge pages where the system has them."""
    places, size = {}, 0
    for name, shape, dtype in layout:
        places[name] = size
        size += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
    memory = mmap.mmap(-1, max(size, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return {name: np.ndarray(shape, dtype, buffer=memory, offset=places[name]) for name, shape, dtype in layout}


def _copy(array: Any, copy: Array) -> None:
    """Does what `array.asnumpy()` does, but into memory that is there already."""
    address = copy.ctypes.data_as(ctypes.c_void_p)
    mx.base.check_call(mx.base._LIB.MXNDArraySyncCopyToCPU(array.handle, address, ctypes.c_size_t(copy.size)))
