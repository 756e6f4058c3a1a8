"""Compressed data, known by how it begins: gzip, bz2, xz and zstd, unpacked while it is read."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from pathlib import PurePath
from typing import Any, BinaryIO, Callable, Protocol, cast

import zstandard

from kogpt2_gluon.errors import DataError

UNPACKED_SIZE = 1 << 20  # bytes that bz2 and xz give at a time
MOST_MEMORY = 1 << 31  # bytes that unpacking may need: enough for what `zstd --long=31` and `xz -9e` write
PACKED_SIZE = 1 << 12  # compressed bytes unpacked at a time: zstd can make 128 MiB of them, gzip 4 MiB


class _Decompressor(Protocol):
    """The methods that zlib, bz2, lzma and zstandard share: one member (or frame) is unpacked piece by piece."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip() -> _Decompressor:
    return zlib.decompressobj(wbits=31)  # 31: expects a gzip header, and checks the checksum


class _Bounded:
    """A decompressor that gives UNPACKED_SIZE at a time: 45 bytes of bz2 can hold 45 MB."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def has_more(self) -> bool:
        """True if it has not yet given everything that it was given."""
        return not self._inner.eof and not self._inner.needs_input

    def decompress(self, data: bytes, /) -> bytes:
        return self._inner.decompress(data, UNPACKED_SIZE)


def _bz2() -> _Decompressor:
    return _Bounded(bz2.BZ2Decompressor())


def _xz() -> _Decompressor:
    return _Bounded(lzma.LZMADecompressor(memlimit=MOST_MEMORY))


def _zstd() -> _Decompressor:
    return cast(_Decompressor, zstandard.ZstdDecompressor(max_window_size=MOST_MEMORY).decompressobj())


DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {".gz": _gzip, ".bz2": _bz2, ".xz": _xz, ".zst": _zstd}
# How compressed data begins, whatever its file is called.
_PACKED = re.compile(
    rb"(?P<gz>\x1f\x8b\x08)|(?P<bz2>BZh[1-9](?:1AY&SY|\x17rE8P\x90))|(?P<xz>\xfd7zXZ\0)"
    rb"|(?P<zst>\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)"
)
_PLAIN = re.compile(rb"[^\x00-\x08\x0e-\x1a\x1c-\x1f]*")  # no control characters, which packed data always has
# BZ2Decompressor raises plain OSError and ValueError for damaged data.
_DAMAGE = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError, MemoryError)


def packing_of(head: bytes, name: str) -> str:
    """Returns the suffix of the compression (a key of DECOMPRESSORS) of a file that begins with `head`; "" if none.

    Content decides. Damaged data, or none, in a file called ``.gz`` or so still counts as compressed.
    """
    found = _PACKED.match(head)
    if found is not None:
        return f".{found.lastgroup}"
    suffix = PurePath(name).suffix.lower()
    return suffix if suffix in DECOMPRESSORS and (not head or not _PLAIN.fullmatch(head[:4096])) else ""


class Unpacked(io.RawIOBase):
    """The decompressed bytes of a .gz, .bz2, .xz or .zst file of one or more members.

    There is one reader for the four, because their own file classes differ where it matters: zstandard's takes a
    truncated file for a short one, and none says where the damage is.
    """

    def __init__(self, name: str, raw: BinaryIO, suffix: str) -> None:
        self._name, self._raw, self._suffix = name, raw, suffix
        self._start = DECOMPRESSORS[suffix]
        self._member: _Decompressor | None = self._start()
        self._packed = b""  # read, not yet given to the decompressor
        self._position = 0  # compressed bytes given to it
        self._plain = memoryview(b"")  # unpacked, not yet asked for

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            block = self._next_block()
            if block is None:
                return 0
            self._plain = memoryview(block)
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _next_block(self) -> bytes | None:
        """Returns more unpacked bytes (perhaps none yet), or None at the end of the file."""
        if isinstance(self._member, _Bounded) and self._member.has_more:
            return self._unpack(self._member, b"")
        packed = self._packed or self._raw.read(PACKED_SIZE)
        at_end = not packed
        if self._member is None:  # between members, where gzip and xz allow padding with zeros
            padding = len(packed) - len(packed.lstrip(b"\0"))
            packed = packed[padding:]
            self._position += padding
            self._packed = b""
            if not packed:
                return None if at_end else b""
            self._member = self._start()
        if at_end:
            raise DataError(f"{self._name}: truncated: its compressed data ends too early, at byte {self._position:,}")
        return self._unpack(self._member, packed)

    def _unpack(self, member: _Decompressor, packed: bytes) -> bytes:
        try:
            plain = member.decompress(packed)
        except _DAMAGE as error:
            raise DataError(
                f"{self._name}: damaged, or not {self._suffix} data, near compressed byte {self._position:,} "
                f"({' '.join(str(error).split())})"
            ) from None
        self._position += len(packed)
        self._packed = b""
        if member.eof:
            self._packed = member.unused_data
            self._position -= len(self._packed)
            self._member = None
        return plain

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
