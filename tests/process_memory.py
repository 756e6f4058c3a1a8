"""The memory of a test process, which runs thousands of tests one after another.

What a test freed stays with the process: glibc keeps free memory between blocks that are in use, 20 to 60 MB after a
training of a tiny network, and networks are in cycles, which Python collects late in a process with many objects.
"""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

GROWTH = 32 << 20  # bytes, from which on giving back is worth its time: a collection takes some tens of milliseconds

_last = 0  # bytes that the process held after it gave memory back


def give_back_memory() -> None:
    """Collects garbage and gives free memory back to the system if the process has grown since it last did."""
    global _last
    if _in_use() < _last + GROWTH:
        return
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc's
        libc.malloc_trim(0)
    _last = _in_use()


def _in_use() -> int:
    """Returns the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
