"""Where glibc's malloc puts arrays that live as long as the process."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_MMAP_THRESHOLD = -3  # in glibc's malloc.h: requests of at least so many bytes get a mapping of their own
SMALLEST, USUAL = 1 << 20, 32 << 20  # USUAL is what glibc's own threshold grows to


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
