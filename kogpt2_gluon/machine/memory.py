"""Where arrays that live long are put: by glibc's malloc, and by the kernel in pages of which size."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kogpt2_gluon.machine.runtime import mx

M_MMAP_THRESHOLD = -3  # in glibc's malloc.h: requests of at least so many bytes get a mapping of their own
SMALLEST, USUAL = 1 << 20, 32 << 20  # USUAL is what glibc's own threshold grows to
MADV_HUGEPAGE, MADV_NOHUGEPAGE = 14, 15  # in Linux's mman.h
HUGE_PAGE, CACHE_LINE = 2 << 20, 64  # bytes


@contextmanager
def own_mappings() -> Iterator[None]:
    """Within it, every array of 1 MiB or more gets a mapping of its own.

    Otherwise it depends on what was freed before: glibc raises its threshold with each mapping that is freed, and puts
    smaller arrays into heaps of 64 MiB, where six of a feed-forward layer's matrices leave 7 MiB at the end. KoGPT-2
    base then takes up to 80 MB more, from run to run. Afterwards arrays that come and go are taken from heaps, because
    the kernel clears a new mapping's pages. Arrays must be written within it: MXNet allocates them when they are.

    Does nothing where malloc is not glibc's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    mallopt(M_MMAP_THRESHOLD, SMALLEST)
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, USUAL)


def in_huge_pages(shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Arrays of bytes on the CPU, not yet written, side by side in huge pages if the kernel gives them.

    Matrices that are read again and again are read about a tenth faster from such pages.
    """
    sizes = [-(-math.prod(shape) // CACHE_LINE) * CACHE_LINE for shape in shapes]
    with own_mappings():
        memory = mx.nd.empty((sum(sizes) + HUGE_PAGE,), dtype="uint8")
    begin = -_address(memory) % HUGE_PAGE
    _advise(memory, MADV_HUGEPAGE)
    views = []
    for shape, size in zip(shapes, sizes):
        views.append(memory[begin : begin + math.prod(shape)].reshape(shape))
        begin += size
    return views


def untouched(shape: tuple[int, ...], dtype: str) -> Any:
    """An array on the CPU that takes memory only as its parts are written, page by page.

    In huge pages, which some systems give without being asked, a few written numbers would take two megabytes.
    """
    with own_mappings():
        array = mx.nd.empty(shape, dtype=dtype)
    _advise(array, MADV_NOHUGEPAGE)
    return array


def _address(array: Any) -> int:
    address = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return address.value or 0


def _advise(array: Any, advice: int) -> None:
    """Advises the kernel how to back the whole pages of an array. A refusal costs speed or memory, and no more."""
    madvise = getattr(ctypes.CDLL(None), "madvise", lambda *_: 0)
    page, address = 4096, _address(array)
    begin, end = -(-address // page) * page, (address + array.size * array.dtype(0).nbytes) // page * page
    if end > begin:
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice)
