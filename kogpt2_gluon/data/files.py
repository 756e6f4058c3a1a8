"""Files: finding and opening text sources, and writing so that a crash never leaves half a file under its name."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import uuid
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterable, Iterator, Optional, Protocol, cast

import zstandard

from kogpt2_gluon.errors import DataError

READ_SIZE = 1 << 20  # bytes asked of the disk at a time
BLOCK_SIZE = 1 << 16  # compressed bytes unpacked at a time; bounds what a highly compressed block can grow to


class _Decompressor(Protocol):
    """What zlib, lzma and zstandard have in common: one member (or frame) unpacked piece by piece."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip() -> _Decompressor:
    return zlib.decompressobj(wbits=31)  # 31: a gzip header, and its checksum checked


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor()


def _zstd() -> _Decompressor:
    # 2 GiB admits what `zstd --long=31` writes.
    return cast(_Decompressor, zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj())


DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {".gz": _gzip, ".xz": _xz, ".zst": _zstd}


def text_suffix(path: Path) -> str:
    """The suffix below the compression's, in lower case: ``.jsonl`` of ``a.jsonl.gz``."""
    plain = path.with_suffix("") if path.suffix.lower() in DECOMPRESSORS else path
    return plain.suffix.lower()


def list_sources(sources: Iterable[Path]) -> list[Path]:
    """The files that SRC arguments mean: a file itself, or all files below a folder in sorted order.

    Hidden files and folders (a leading dot) are passed over unless named outright; links are followed, each folder
    once. Raises DataError naming a source that is missing, or a folder without files.
    """
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            found = list(_walk(source, set()))
            if not found:
                raise DataError(f"{source}: a folder without any file to read")
            files += found
        elif source.exists():
            files.append(source)
        else:
            raise DataError(f"{source}: no such file or folder")
    return files


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:  # a link back up
        return
    seen.add(real)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, seen)
        else:
            yield entry


class _CountedFile(io.FileIO):
    """A file that reports every block read from disk: what a progress bar counts, compressed or not."""

    def __init__(self, path: Path, on_read: Optional[Callable[[int], None]]) -> None:
        super().__init__(str(path))
        self._on_read = on_read

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        if self._on_read is not None and count:
            self._on_read(count)
        return count


class _Unpacked(io.RawIOBase):
    """The decompressed bytes of a .gz, .xz or .zst file of one or more members.

    One reader for the three, because their own file classes differ where it matters: zstandard's takes a truncated
    file for a short one, and none says where the damage lies.
    """

    def __init__(self, path: Path, raw: BinaryIO, start: Callable[[], _Decompressor]) -> None:
        self._path, self._raw, self._start = path, raw, start
        self._member: Optional[_Decompressor] = start()
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

    def _next_block(self) -> Optional[bytes]:
        """More unpacked bytes (perhaps none yet), or None at the end of the file."""
        packed = self._packed or self._raw.read(BLOCK_SIZE)
        at_end = not packed
        if self._member is None:  # between members, where gzip and xz admit padding with zeros
            padding = len(packed) - len(packed.lstrip(b"\0"))
            packed = packed[padding:]
            self._position += padding
            self._packed = b""
            if not packed:
                return None if at_end else b""
            self._member = self._start()
        if at_end:
            raise DataError(f"{self._path}: truncated: its compressed data ends too early, at byte {self._position:,}")
        try:
            plain = self._member.decompress(packed)
        except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            raise DataError(
                f"{self._path}: damaged, or not {self._path.suffix} data, near compressed byte {self._position:,} "
                f"({' '.join(str(error).split())})"
            ) from None
        self._packed = self._member.unused_data if self._member.eof else b""
        self._position += len(packed) - len(self._packed)
        if self._member.eof:
            self._member = None
        return plain

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def open_source(path: Path, on_read: Optional[Callable[[int], None]] = None) -> BinaryIO:
    """Opens a text source as a stream of bytes; ``.gz``, ``.xz`` and ``.zst`` are unpacked on the way.

    ``on_read`` is called with the number of bytes of each block read from disk. Raises DataError if the file cannot
    be opened; reading from the stream raises DataError where a compressed file is truncated or damaged.
    """
    try:
        raw = io.BufferedReader(_CountedFile(path, on_read), READ_SIZE)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    start = DECOMPRESSORS.get(path.suffix.lower())
    return raw if start is None else io.BufferedReader(_Unpacked(path, raw, start), READ_SIZE)


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: a rename is safe against a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(path: Path) -> Path:
    """A hidden name beside `path` that no other process uses, on this host or on one sharing the file system."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the name `path` only when all of it is on disk.

    Missing parent folders are made. If the block raises, `path` is as it was and nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the name `path` only when all of it is on disk.

    Missing parent folders are made. A folder that bears the name already is moved aside, then removed: the caller
    has made sure that it may go. If the block raises, `path` is as it was and nothing else is left.
    """
    path = path.resolve()  # a link to a folder stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, aside = _partial(path), _partial(path)
    partial.mkdir()
    try:
        yield partial
        _fsync_tree(partial)
        if path.exists():
            path.rename(aside)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    fsync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _fsync_tree(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _fsync_tree(entry)
        else:
            with entry.open("rb") as stream:
                os.fsync(stream.fileno())
    fsync_folder(folder)
