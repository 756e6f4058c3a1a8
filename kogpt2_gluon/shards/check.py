"""One shard file, checked on its own: every hash, every token id, every document end.

A shard is checked in two steps, each of which other processes can do: first the parts after its tokens
(:func:`check_index`), then its tokens, a range of chunks at a time (:func:`check_chunks`). The memory for it is a chunk
and some pieces of the document ends, whatever the shard's size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.file_pool import FilePool
from kogpt2_gluon.shards.format import (
    FORMAT_VERSION,
    LARGEST_FOOTER,
    MAGIC,
    READ_SIZE,
    TRAILER,
    Tokens,
    check_chunk_bytes,
)

RANGE_BYTES = 16 << 20  # tokens checked by one task
_COUNTS = ("tokens", "documents", "chunks", "chunk_bytes", "vocab_size")


@dataclass(frozen=True)
class Fault:
    """Something in a file that differs from what was written, with the chunk and byte where these are known."""

    file: str
    message: str
    chunk: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        chunk = "" if self.chunk is None else f" chunk {self.chunk}"
        offset = "" if self.offset is None else f" byte {self.offset}"
        return f"{self.file}:{chunk}{offset}{':' if chunk or offset else ''} {self.message}"


@dataclass(frozen=True)
class Layout:
    """The places of a shard's parts and the type of its tokens, from its own footer or else from its manifest."""

    dtype: str
    chunk_bytes: int
    tokens: int
    documents: int
    vocab_size: int
    bos: int
    eos: int
    tokenizer_sha256: str = ""
    special_ids: tuple[tuple[str, int], ...] = ()
    document_ends_hash: str = ""

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def chunk_tokens(self) -> int:
        return self.chunk_bytes // self.itemsize

    @property
    def chunks(self) -> int:
        return -(-self.tokens // self.chunk_tokens)

    @property
    def ends_start(self) -> int:
        """The first byte after the tokens."""
        return self.tokens * self.itemsize

    @property
    def hashes_start(self) -> int:
        return self.ends_start + 8 * self.documents


@dataclass
class Index:
    """The parts of a shard after its tokens, as :func:`check_index` read them, and all faults of the shard.

    `hash` is the trailer's, "" if it is wrong; `layout` is None if nothing says where the tokens end. `ranges` are the
    tasks for :func:`check_chunks`. `opens` is True if the first token is ``<s>``, None if documents have no
    token of their own at the beginning; `closed` is True if the last token ends a document.
    """

    path: Path
    size: int = 0
    hash: str = ""
    layout: Layout | None = None
    ranges: list[ChunkRange] = field(default_factory=list)
    opens: bool | None = False
    closed: bool = False
    faults: list[Fault] = field(default_factory=list)

    def fault(self, message: str, offset: int | None = None) -> None:
        self.faults.append(Fault(str(self.path), message, None, offset))


@dataclass(frozen=True)
class ChunkRange:
    """A range of a shard's chunks, and of the document ends in them (None if the ends are not in order)."""

    path: Path
    layout: Layout
    first: int
    last: int  # exclusive
    ends: tuple[int, int] | None
    drop: bool = False


def check_index(path: Path, known: Layout | None = None, drop: bool = False) -> Index:
    """Checks trailer, footer, the list of chunk hashes, and document ends. `known` is the layout in the manifest.

    `drop` asks the kernel not to keep what is read. Every fault is in the result; none is raised.
    """
    found = Index(path)
    pool = FilePool()
    try:
        found.size = path.stat().st_size
        footer = _read_footer(found, pool)
        found.layout = footer or known
        layout = found.layout
        if layout is None:
            found.fault("nothing says where its tokens end: they cannot be checked")
            return found
        if layout.hashes_start + 8 * layout.chunks + TRAILER.size > found.size:
            needed = layout.hashes_start + 8 * layout.chunks + TRAILER.size
            found.fault(f"{found.size:,} bytes, too short for its {layout.tokens:,} tokens: {needed:,} or more")
        first = np.zeros(1, layout.dtype)
        if layout.bos == layout.eos:
            found.opens = None
        else:
            found.opens = pool.read(path, _bytes(first), 0) == layout.itemsize and int(first[0]) == layout.bos
        ordered = _check_ends(found, layout, pool, drop)
        found.ranges = list(_ranges(path, layout, ordered, drop))
    except DataError as error:
        found.fault(without_path(error, path))
    except OSError as error:
        found.fault(f"cannot be read: {error.strerror}")
    finally:
        pool.close()
    return found


def without_path(error: DataError, path: Path) -> str:
    """Returns the message without the file's name, which a Fault has in a field of its own."""
    start = f"{path}: "
    return str(error)[len(start) :] if str(error).startswith(start) else str(error)


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.view(np.uint8).data


def _read_footer(found: Index, pool: FilePool) -> Layout | None:
    """Returns the layout in the footer, None if trailer or footer is damaged; sets the hash if all hashes are right."""
    path, end = found.path, found.size - TRAILER.size
    trailer = bytearray(TRAILER.size)
    if end < 0 or pool.read(path, memoryview(trailer), end) < len(trailer):
        found.fault(f"{found.size:,} bytes: too short for a .ktok file")
        return None
    length, stated, magic = TRAILER.unpack(trailer)
    if magic != MAGIC:
        found.fault(f"no {MAGIC.decode()} at its end: not a whole .ktok file", end)
        return None
    if length > min(LARGEST_FOOTER, end):
        found.fault(f"its trailer is damaged: a footer of {length:,} bytes", end)
        return None
    footer = bytearray(length)
    pool.read(path, memoryview(footer), end - length)
    try:
        layout, chunks = _parse_footer(bytes(footer))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, DataError) as error:
        found.fault(f"its footer is damaged ({type(error).__name__}: {error})", end - length)
        return None
    start = end - length - 8 * chunks
    if chunks != layout.chunks or start != layout.hashes_start:
        found.fault(f"its footer is damaged: {layout.tokens:,} tokens do not end where it lies", end - length)
        return None
    index = bytearray(end - start)
    pool.read(path, memoryview(index), start)
    if xxhash.xxh3_64_intdigest(index) != stated:
        found.fault("its chunk hashes or footer are damaged", start)
    else:
        found.hash = f"{stated:016x}"
    return layout


def _parse_footer(footer: bytes) -> tuple[Layout, int]:
    """Returns the layout and the number of chunks. Raises some error if this is not a footer."""
    plain = json.loads(footer)
    if plain["format_version"] != FORMAT_VERSION:
        raise DataError(f"format version {plain['format_version']!r}; this program reads {FORMAT_VERSION}")
    if any(not isinstance(plain[name], int) or plain[name] < 0 for name in _COUNTS) or not plain["tokens"]:
        raise DataError("its counts are not counts")
    check_chunk_bytes(plain["chunk_bytes"], plain["dtype"], "footer")
    special = {str(name): int(token) for name, token in plain["special_ids"].items()}
    layout = Layout(
        plain["dtype"],
        plain["chunk_bytes"],
        plain["tokens"],
        plain["documents"],
        plain["vocab_size"],
        special["bos"],
        special["eos"],
        str(plain["tokenizer_sha256"]),
        tuple(sorted(special.items())),
        str(plain["document_ends_hash"]),
    )
    return layout, int(plain["chunks"])


def _check_ends(found: Index, layout: Layout, pool: FilePool, drop: bool) -> list[int] | None:
    """Checks the document ends; returns how many lie before and in each range, None if they are not in order.

    The list has two numbers for each range: the ends before its first token, and the ends up to its last.
    """
    borders = _borders(layout)
    counts = np.zeros(len(borders), np.int64)
    digest, previous, ordered = xxhash.xxh3_64(), -1, True
    block = np.empty(READ_SIZE // 8, "<u8")
    for first in range(0, layout.documents, len(block)):
        ends = block[: min(len(block), layout.documents - first)]
        offset = layout.ends_start + 8 * first
        if pool.read(found.path, _bytes(ends), offset, drop) < ends.nbytes:
            found.fault("its document ends are cut off", offset)
            return None
        digest.update(ends.data)
        steps = np.flatnonzero(ends[1:] <= ends[:-1])
        if ordered and (int(ends[0]) <= previous or len(steps)):
            at = 0 if int(ends[0]) <= previous else int(steps[0]) + 1
            found.fault(f"its document ends do not rise at document {first + at}", offset + 8 * at)
            ordered = False
        previous = int(ends[-1])
        counts[0::2] += np.searchsorted(ends, borders[0::2].astype(np.uint64), side="left")
        counts[1::2] += np.searchsorted(ends, borders[1::2].astype(np.uint64), side="right")
    if layout.document_ends_hash and digest.hexdigest() != layout.document_ends_hash:
        found.fault("its document ends are damaged", layout.ends_start)
        ordered = False
    if ordered and previous > layout.tokens:
        found.fault(f"its last document ends at token {previous:,} of {layout.tokens:,}", layout.hashes_start - 8)
        ordered = False
    found.closed = ordered and previous == layout.tokens
    return counts.tolist() if ordered else None


def _borders(layout: Layout) -> NDArray[np.int64]:
    """Returns first token and end of each range of chunks, as (first, end, first, end, ...)."""
    step = max(1, RANGE_BYTES // layout.chunk_bytes) * layout.chunk_tokens
    starts = np.arange(0, layout.tokens, step, dtype=np.int64)
    borders: NDArray[np.int64] = np.stack([starts, np.minimum(starts + step, layout.tokens)], axis=1).reshape(-1)
    return borders


def _ranges(path: Path, layout: Layout, counts: list[int] | None, drop: bool) -> Iterator[ChunkRange]:
    borders = _borders(layout).tolist()
    for number in range(0, len(borders), 2):
        ends = None if counts is None else (counts[number], counts[number + 1])
        last = -(-borders[number + 1] // layout.chunk_tokens)
        yield ChunkRange(path, layout, borders[number] // layout.chunk_tokens, last, ends, drop)


def check_chunks(task: ChunkRange) -> list[Fault]:
    """Checks the hashes and token ids of a range of chunks, and the tokens around each document end in it."""
    layout, pool, faults = task.layout, FilePool(), []
    hashes: list[int | None] = [None] * (task.last - task.first)  # None: it is cut off, and its chunk cannot be checked
    buffer = np.empty(layout.chunk_tokens, layout.dtype)
    try:
        stored = np.zeros(len(hashes), "<u8")
        whole = pool.read(task.path, _bytes(stored), layout.hashes_start + 8 * task.first) // 8
        hashes[:whole] = stored[:whole].tolist()
        ends = _EndsOf(task, pool)
        for chunk in range(task.first, task.last):
            start = chunk * layout.chunk_tokens
            tokens = buffer[: min(layout.chunk_tokens, layout.tokens - start)]
            faults += _check_chunk(task, pool, chunk, tokens, hashes[chunk - task.first], ends)
    except DataError as error:  # the document ends cannot be read
        faults.append(Fault(str(task.path), without_path(error, task.path)))
    finally:
        pool.close()
    return faults


def _check_chunk(
    task: ChunkRange, pool: FilePool, chunk: int, tokens: Tokens, expected: int | None, ends: _EndsOf
) -> list[Fault]:
    layout, file = task.layout, str(task.path)
    offset = chunk * layout.chunk_bytes
    try:
        read = pool.read(task.path, _bytes(tokens), offset, task.drop)
    except DataError as error:
        return [Fault(file, without_path(error, task.path), chunk, offset)]
    if read < tokens.nbytes:
        return [Fault(file, f"cut off after {read:,} of {tokens.nbytes:,} bytes", chunk, offset)]
    if expected is not None and xxhash.xxh3_64_intdigest(tokens.data) != expected:
        return [Fault(file, "damaged: its bytes do not match their hash", chunk, offset)]
    faults = []
    if int(tokens.max()) >= layout.vocab_size:
        bad = np.flatnonzero(tokens >= layout.vocab_size)
        message = f"{len(bad):,} token ids are not below vocab_size={layout.vocab_size}, the first is {tokens[bad[0]]}"
        faults.append(Fault(file, message, chunk, offset + int(bad[0]) * layout.itemsize))
    start = chunk * layout.chunk_tokens
    here = ends.between(start, start + len(tokens)) - start
    after = here[here < len(tokens)] if layout.bos != layout.eos else here[:0]
    for name, token, places in (
        ("</s> before the end", layout.eos, here[here > 0] - 1),
        ("<s> after the end", layout.bos, after),
    ):
        bad = places[tokens[places] != token]
        if len(bad):
            message = f"no {name} of {len(bad):,} of its documents, as the list of document ends has them"
            faults.append(Fault(file, message, chunk, offset + int(bad[0]) * layout.itemsize))
    return faults


class _EndsOf:
    """Reads a range's document ends as they are needed: all at once they can take more memory than the tokens."""

    def __init__(self, task: ChunkRange, pool: FilePool) -> None:
        self._task, self._pool = task, pool
        self._next, self._last = task.ends or (0, 0)
        self._block = np.empty(0, np.int64)

    def between(self, start: int, end: int) -> NDArray[np.int64]:
        """Returns the ends from token `start` to `end`, both inclusive: neighbouring chunks share these two borders."""
        parts = [self._block]
        while self._next < self._last and (not len(parts[-1]) or parts[-1][-1] <= end):
            block = np.empty(min(READ_SIZE // 8, self._last - self._next), "<u8")
            offset = self._task.layout.ends_start + 8 * self._next
            self._pool.read(self._task.path, _bytes(block), offset, self._task.drop)
            parts.append(block.astype(np.int64))
            self._next += len(block)
        ends = np.concatenate(parts)
        self._block = ends[np.searchsorted(ends, end) :]
        first, last = int(np.searchsorted(ends, start)), int(np.searchsorted(ends, end, side="right"))
        here: NDArray[np.int64] = ends[first:last]
        return here
