"""Text sources: the files, folders and S3 prefixes a user names, each opened as one stream of plain bytes."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Callable, Protocol, cast

import zstandard

from kogpt2_gluon.errors import DataError

READ_SIZE = 1 << 20  # bytes requested from the disk, or given to the reader, at a time
PACKED_SIZE = 1 << 12  # compressed bytes unpacked at a time: zstd can make 128 MiB of them, gzip 4 MiB
S3_URL = re.compile(r"s3:/+(?P<bucket>[^/]+)/*(?P<key>.*)", re.DOTALL)  # pathlib turns two slashes into one


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
    """A decompressor that gives READ_SIZE at a time: 45 bytes of bz2 can hold 45 MB."""

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
        return self._inner.decompress(data, READ_SIZE)


def _bz2() -> _Decompressor:
    return _Bounded(bz2.BZ2Decompressor())


def _xz() -> _Decompressor:
    return _Bounded(lzma.LZMADecompressor())


def _zstd() -> _Decompressor:
    # 2 GiB is enough for what `zstd --long=31` writes.
    return cast(_Decompressor, zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj())


DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {".gz": _gzip, ".bz2": _bz2, ".xz": _xz, ".zst": _zstd}
# How compressed data begins, whatever its file is called.
_PACKED = re.compile(
    rb"(?P<gz>\x1f\x8b\x08)|(?P<bz2>BZh[1-9](?:1AY&SY|\x17rE8P\x90))|(?P<xz>\xfd7zXZ\0)"
    rb"|(?P<zst>\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)"
)
_PLAIN = re.compile(rb"[^\x00-\x08\x0e-\x1a\x1c-\x1f]*")  # no control characters, which packed data always has
# BZ2Decompressor raises plain OSError and ValueError for damaged data.
_DAMAGE = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError)


@dataclass(frozen=True)
class Source:
    """One file to read.

    `name` is a path, or ``s3://bucket/key``; `size` is the bytes stored (compressed, if it is); `mark` and `size`
    show whether it is still the same: `mark` is the time of its last change in nanoseconds, or its ETag.
    """

    name: str
    size: int
    mark: str

    @property
    def path(self) -> Path | None:
        """The path on a mounted file system; None for an object of S3."""
        return None if self.name.startswith("s3://") else Path(self.name)

    @property
    def suffix(self) -> str:
        """The suffix without that of the compression, in lower case: ``.jsonl`` for ``a.jsonl.gz``."""
        name = PurePath(self.name)
        plain = name.with_suffix("") if name.suffix.lower() in DECOMPRESSORS else name
        return plain.suffix.lower()

    def open(self, on_read: Callable[[int], None] | None = None) -> BinaryIO:
        """Opens a stream of its bytes; gzip, bz2, xz and zstd data, by whatever name, is unpacked while it is read.

        `on_read` is called with the number of bytes of each block read from disk or network. A stream that is not
        unpacked can seek. Raises DataError if the source cannot be opened; reading raises DataError where compressed
        data is truncated or damaged, where the disk fails, or where an object of S3 was replaced since it was listed.
        """
        raw = io.BufferedReader(self._open_raw(on_read), READ_SIZE)
        try:
            packing = packing_of(raw.peek(), self.name)
        except BaseException:
            raw.close()
            raise
        return raw if not packing else io.BufferedReader(_Unpacked(self.name, raw, packing), READ_SIZE)

    def _open_raw(self, on_read: Callable[[int], None] | None) -> io.RawIOBase:
        path = self.path
        if path is None:
            from kogpt2_gluon.storage.s3 import S3Stream

            return S3Stream(*split_s3_url(self.name), self.size, self.mark, on_read)
        try:
            return _CountedFile(path, on_read)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def packing_of(head: bytes, name: str) -> str:
    """Returns the suffix of the compression (a key of DECOMPRESSORS) of a file that begins with `head`; "" if none.

    Content decides. Damaged data, or none, in a file called ``.gz`` or so still counts as compressed.
    """
    found = _PACKED.match(head)
    if found is not None:
        return f".{found.lastgroup}"
    suffix = PurePath(name).suffix.lower()
    return suffix if suffix in DECOMPRESSORS and (not head or not _PLAIN.fullmatch(head[:4096])) else ""


def local_source(path: str | Path) -> Source:
    """Returns the source for a file. DataError if there is no such file, or it cannot be accessed."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return Source(str(path), status.st_size, str(status.st_mtime_ns))


def is_s3_url(argument: str | Path) -> bool:
    """Returns True if an argument means S3 (``s3://bucket/...``) and not a file."""
    return S3_URL.fullmatch(str(argument)) is not None


def split_s3_url(url: str | Path) -> tuple[str, str]:
    """Returns (bucket, key or prefix) of ``s3://bucket/key``."""
    found = S3_URL.fullmatch(str(url))
    assert found is not None, url
    return found["bucket"], found["key"]


def list_sources(arguments: Iterable[str | Path]) -> list[Source]:
    """Returns the files that arguments name, sorted: a file, all files below a folder, all objects below an S3 prefix.

    Hidden files and folders (a leading dot) are skipped unless they are named themselves; links are followed, each
    folder once. Raises DataError for a source that is missing, or a folder or prefix without files.
    """
    sources: list[Source] = []
    for argument in arguments:
        if is_s3_url(argument):
            from kogpt2_gluon.storage.s3 import list_objects

            sources += [
                Source(f"s3://{item.bucket}/{item.key}", item.size, item.etag)
                for item in list_objects(*split_s3_url(argument))
            ]
            continue
        path = Path(argument)
        if not path.is_dir():
            sources.append(local_source(path))
            continue
        found = [local_source(entry) for entry in _walk(path, set())]
        if not found:
            raise DataError(f"{path}: a folder without any file to read")
        sources += found
    return sources


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:  # a link back up
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, seen)
        else:
            yield entry


class _CountedFile(io.FileIO):
    """A file that reports each read from disk, for a progress bar: bytes as stored, compressed or not."""

    def __init__(self, path: Path, on_read: Callable[[int], None] | None) -> None:
        super().__init__(str(path))
        self._path, self._on_read = path, on_read

    def readinto(self, buffer: Any) -> int:
        try:
            count = super().readinto(buffer) or 0
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read: {error.strerror}") from None
        if self._on_read is not None and count:
            self._on_read(count)
        return count


class _Unpacked(io.RawIOBase):
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
