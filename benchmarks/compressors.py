"""Compressors as models of text: the size of a held-out text after the training text, less that of the latter alone.

A compressor learns from what it has read, so a text coded after another one costs what a model trained on the latter
needs for it. Windows and blocks bound what is remembered: 32 KiB for gzip, 900 kB for bz2, the rest all of the text.
Both texts are coded with the settings of the longer one: a model of another size is another model. When zpaq chose its
size by each text's own length, and a power of two came between the two, its figure was a quarter too low.

Those whose library is not installed are left out by `compressors`, which says so.
"""

from __future__ import annotations

import bz2
import importlib.util
import lzma
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

Size = Callable[[bytes, int], int]  # the compressed size of a text in bytes, with room for so many
# libzpaq.cpp, `compressBlock`: what level 5 adds up for a text.
ZPAQ_TEXT = "w2c0,1010,255i1c256ci1,1,1,1,1,1,2ac0,2,0,255i1c0,3,0,0,255i1c0,4,0,0,0,255i1mm16ts19t0"
ZPAQ_HEAD = 4096  # bytes that a block has less than its nominal size
EXTRA = "pip install 'kogpt2-gluon[bench]'"


@dataclass(frozen=True)
class Coded:
    """The size of a coded text: `bits` after the training text, `alone` without it, `seconds` for all."""

    bits: int
    alone: int
    seconds: float


def gzip_size(text: bytes, room: int) -> int:
    """zlib, level 9, with gzip's window."""
    return len(zlib.compress(text, 9))


def bz2_size(text: bytes, room: int) -> int:
    """bzip2, level 9."""
    return len(bz2.compress(text, 9))


def xz_size(text: bytes, room: int) -> int:
    """xz -9e with a dictionary of all the text."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": _power_above(room)}]
    return len(lzma.compress(text, lzma.FORMAT_RAW, filters=filters))


def zstd_size(text: bytes, room: int) -> int:
    """zstd --ultra -22 --long, with a window of all the text."""
    import zstandard

    wide = {"window_log": min(zstandard.WINDOWLOG_MAX, _power_above(room).bit_length() - 1)}
    parameters = zstandard.ZstdCompressionParameters.from_level(22, source_size=room, **wide)
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(text))


def ppmd_size(text: bytes, room: int) -> int:
    """PPMd, variant H, as 7z has it, of order 8 with 1 GiB of memory."""
    import pyppmd

    encoder = pyppmd.Ppmd7Encoder(8, 1 << 30)
    return len(encoder.encode(text)) + len(encoder.flush())


def zpaq_size(text: bytes, room: int) -> int:
    """zpaq's mixture of many contexts for text, as in -method 5, in one block.

    The method is spelled out, because from `5` libzpaq would choose the size of the model by each text's own length.
    """
    import zpaq

    block = max(0, _power_above(room + ZPAQ_HEAD).bit_length() - 21)  # a power of two, in MiB
    return len(zpaq.compress(text, method=f"x{block},0{ZPAQ_TEXT}", threads=1))


def _power_above(size: int) -> int:
    """Returns the least power of two that is not below `size` and 64 KiB."""
    return 1 << max(16, (size - 1).bit_length())


COMPRESSORS: dict[str, tuple[Size, str]] = {  # name -> its size, the module that it needs
    "gzip -9": (gzip_size, "zlib"),
    "bz2 -9": (bz2_size, "bz2"),
    "xz -9e": (xz_size, "lzma"),
    "zstd --ultra -22": (zstd_size, "zstandard"),
    "PPMd (7z), order 8": (ppmd_size, "pyppmd"),
    "zpaq -m5": (zpaq_size, "zpaq"),
}


def compressors(say: Callable[[str], None]) -> dict[str, Size]:
    """Returns those whose library is installed, by name."""
    found = {}
    for name, (size, module) in COMPRESSORS.items():
        if importlib.util.find_spec(module) is None:
            say(f"left out: {name}, which needs {module}: {EXTRA}")
        else:
            found[name] = size
    return found


def coded_after(size: Size, train: bytes, test: bytes) -> Coded:
    """Codes `test` after `train`."""
    begun = time.perf_counter()
    room = len(train) + len(test)
    bits = 8 * (size(train + test, room) - size(train, room))
    return Coded(bits, 8 * size(test, room), time.perf_counter() - begun)
