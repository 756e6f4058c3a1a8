"""A checkpoint's manifest: the names of its files, their sizes, and a hash of every 16 MiB of each.

The hashes are made while the files are written, so that nothing is read again; a file is checked by several threads at
once. Format version 1, which older checkpoints have, holds one hash for each file.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import xxhash

from kogpt2_gluon.errors import DamagedError, DataError
from kogpt2_gluon.machine.limits import available_cores
from kogpt2_gluon.storage.links import read_file

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
BLOCK_BYTES = 16 << 20
PIECE_BYTES = 256 << 10  # hashed while they are still in the processor's cache
MAX_THREADS = 8
DAMAGE = (errno.ENOENT, errno.EIO, errno.EUCLEAN, errno.EBADMSG)  # what a missing file and a bad disk answer


Part = tuple[int, memoryview]  # an offset in a file, and the memory for the bytes from there on


class FileFacts(NamedTuple):
    """A file's size, and the hash (xxh3, 128 bits, in hex) of each of its blocks."""

    size: int
    hashes: list[str]
    block_bytes: int  # 0: one hash of the whole file


class ManifestWriter:
    """Writes the files of a folder, and in the end the manifest. Not durable by itself: see storage/files.py."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._facts: dict[str, FileFacts] = {}

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Yields a new file to write from its beginning to its end."""
        with (self._folder / name).open("xb") as file:
            hashed = _HashedFile(file)
            yield hashed  # type: ignore[misc]  # of a BinaryIO, it has what writers here use
            self._facts[name] = hashed.facts()

    def write(self, name: str, content: bytes) -> None:
        with self.open(name) as file:
            file.write(content)

    def close(self) -> None:
        """Writes the manifest."""
        files = {name: {"bytes": facts.size, "xxh3_128": facts.hashes} for name, facts in sorted(self._facts.items())}
        content = {"format_version": FORMAT_VERSION, "block_bytes": BLOCK_BYTES, "files": files}
        (self._folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")


class _HashedFile:
    """A file whose blocks are hashed as they are written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = 0
        self._digest = xxhash.xxh3_128()
        self._hashes: list[str] = []

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        at = 0
        while at < len(view):
            part = view[at : at + BLOCK_BYTES - self._size % BLOCK_BYTES]
            self._file.write(part)
            self._digest.update(part)
            self._size += len(part)
            at += len(part)
            if self._size % BLOCK_BYTES == 0:
                self._end_block()
        return len(view)

    def facts(self) -> FileFacts:
        if self._size % BLOCK_BYTES or not self._size:
            self._end_block()
        return FileFacts(self._size, self._hashes, BLOCK_BYTES)

    def _end_block(self) -> None:
        self._hashes.append(self._digest.hexdigest())
        self._digest = xxhash.xxh3_128()


def read_manifest(folder: Path) -> dict[str, FileFacts]:
    """Reads what a folder's manifest says.

    DamagedError if it is missing or damaged; DataError if it is of a later version, or cannot be read now.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(read_file(path).decode())
        version = manifest["format_version"]
        if version not in (1, FORMAT_VERSION):
            raise DataError(f"{path}: format version {version!r}; this program reads {FORMAT_VERSION} and older")
        block_bytes = 0 if version == 1 else manifest["block_bytes"]
        return {name: _facts(facts, block_bytes) for name, facts in manifest["files"].items()}
    except OSError as error:
        check_is_damage(error, path)
        why = str(error.strerror)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
    raise DamagedError(f"{path}: not a checkpoint's manifest ({why})")


def _facts(facts: Mapping[str, Any], block_bytes: Any) -> FileFacts:
    size, hashes = facts["bytes"], facts["xxh3_128"] if block_bytes else [facts["xxh3_128"]]
    if not (type(size) is int and size >= 0 and type(block_bytes) is int and block_bytes >= 0):
        raise ValueError(f"sizes {size!r} and {block_bytes!r}")
    blocks = max(1, -(-size // block_bytes)) if block_bytes else 1
    if type(hashes) is not list or len(hashes) != blocks or not all(type(each) is str for each in hashes):
        raise ValueError(f"not a hash for each of {blocks} blocks")
    return FileFacts(size, hashes, block_bytes)


def check_is_damage(error: OSError, path: Path) -> None:
    """DataError unless an error says that a file is lost: one that cannot be read now may well be whole."""
    if error.errno not in DAMAGE:
        raise DataError(f"{path}: cannot be read now ({error.strerror}); try again once it can") from None


def same_as_written(path: Path, facts: FileFacts) -> bool:
    """Compares a file with its hashes; False if it differs or is lost. DataError if it cannot be read now."""
    return read_as_written(path, facts, [])


def read_as_written(path: Path, facts: FileFacts, parts: Sequence[Part]) -> bool:
    """Reads `parts` of a file, and compares all of it with its hashes on the way: every byte is read once.

    The parts are in the order of the file and do not overlap. False if the file differs or is lost, and then what their
    memory holds is not to be used. DataError if it cannot be read now. The file is not mapped into memory: where a
    network's file system cannot give a page of a mapped file, the process dies.
    """
    length = facts.block_bytes or max(1, facts.size)
    try:
        if path.stat().st_size != facts.size:
            return False
        with path.open("rb", buffering=0) as file:

            def same(block: int) -> bool:
                start = block * length
                return _read_block(file, start, min(start + length, facts.size), parts) == facts.hashes[block]

            if len(facts.hashes) == 1:
                return same(0)
            with ThreadPoolExecutor(min(MAX_THREADS, available_cores())) as threads:
                return all(threads.map(same, range(len(facts.hashes))))
    except OSError as error:
        check_is_damage(error, path)
        return False


def digest_as_written(path: Path, facts: FileFacts) -> str:
    """Returns the hash (xxh3, 128 bits, in hex) of a whole file, which is compared with its blocks' on the way.

    Every byte is read once. "" if the file differs or is lost; DataError if it cannot be read now.
    """
    length, whole = facts.block_bytes or max(1, facts.size), xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            for number, expected in enumerate(facts.hashes):
                block, left = xxhash.xxh3_128(), min(length, facts.size - number * length)
                while left and (piece := file.read(min(PIECE_BYTES, left))):
                    block.update(piece)
                    whole.update(piece)
                    left -= len(piece)
                if left or block.hexdigest() != expected:
                    return ""
            return "" if file.read(1) else whole.hexdigest()
    except OSError as error:
        check_is_damage(error, path)
        return ""


def _read_block(file: FileIO, start: int, end: int, parts: Sequence[Part]) -> str:
    """Reads the bytes from `start` to `end`, those of `parts` into their memory; returns their hash."""
    digest, at = xxhash.xxh3_128(), start
    for piece in _memory_for(start, end, parts):
        while piece:
            count = os.preadv(file.fileno(), [piece], at)
            if not count:
                return ""  # the file shrank
            digest.update(piece[:count])
            at, piece = at + count, piece[count:]
    return digest.hexdigest()


def _memory_for(start: int, end: int, parts: Sequence[Part]) -> Iterator[memoryview]:
    """Yields memory for the bytes from `start` to `end`, in order: that of `parts`, else some that is used again."""
    other, at = memoryview(bytearray(min(PIECE_BYTES, end - start))), start
    for offset, memory in (*parts, (end, memoryview(b""))):
        while at < min(offset, end):
            piece = other[: min(offset, end) - at]
            yield piece
            at += len(piece)
        while at < min(offset + len(memory), end):
            piece = memory[at - offset : end - offset][:PIECE_BYTES]
            yield piece
            at += len(piece)
