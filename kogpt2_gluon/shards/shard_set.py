"""Reads a set of token shards: whole chunks, each checked against its hash."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.file_pool import MAX_OPEN, FilePool, available_memory
from kogpt2_gluon.shards.format import (
    FORMAT_VERSION,
    LARGEST_FOOTER,
    MAGIC,
    MAX_CHUNK_BYTES,
    TRAILER,
    Manifest,
    Tokens,
)
from kogpt2_gluon.storage.links import leads_out
from kogpt2_gluon.storage.tokenizer_file import tokenizer_in


class ChunkPlace(NamedTuple):
    """The place of a chunk: its shard's index in the manifest, its number in that shard, its first byte, its tokens."""

    shard: int
    within: int
    offset: int
    tokens: int


class CorruptChunkError(DataError):
    """Raised for a chunk that differs from what was written. The rest of its set may be whole, and a reader may go on.

    `path` is the shard's file, `shard` its name, `chunk` the chunk's number in the set, `within` its number in the
    shard, `offset` its first byte in the file. `damage` is the message without advice.
    """

    def __init__(self, path: Path, chunk: int, within: int, offset: int) -> None:
        self.damage = f"{path}: chunk {within} at byte {offset} is damaged"
        super().__init__(
            f"{self.damage}; `kogpt2 verify {path.parent}` lists all damage, data.corrupt=skip trains without it"
        )
        self.path, self.chunk, self.within, self.offset = path, chunk, within, offset
        self.folder, self.shard = path.parent, path.name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.chunk, self.within, self.offset)


class ShardSet:
    """A set of shards, open for reading by any number of threads at once. It needs 9 bytes of memory a chunk.

    The sizes of the shards are compared with the manifest at once. A shard's footer and hashes are checked when the
    shard is first used. A chunk is compared with its hash when it is first read, or at every read with
    ``read_into(..., verify=True)``.

    Parameters
    ----------
    folder : Path
        A folder that `kogpt2 shard` wrote. DataError if its manifest is missing or bad, or a shard has another size.
    drop_behind : bool, optional
        Make the kernel forget a chunk after it was read. The default is True if the set is larger than half of the
        free memory: a smaller set stays cached from one pass to the next, a larger one would push out everything else.
    max_open : int
        The most file descriptors that are kept open.
    sleep : callable
        Called with the seconds to wait before a failed read is tried again.
    """

    def __init__(
        self,
        folder: Path,
        drop_behind: bool | None = None,
        max_open: int = MAX_OPEN,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.load(self.folder)
        self.fingerprint = self.manifest.fingerprint()
        self.dtype = np.dtype(self.manifest.dtype)
        self.chunk_tokens = self.manifest.chunk_bytes // self.dtype.itemsize
        self.num_bytes = sum(shard.bytes for shard in self.manifest.shards)
        self._paths = [self.folder / shard.name for shard in self.manifest.shards]
        self._first_chunk = [0]
        for shard in self.manifest.shards:
            self._first_chunk.append(self._first_chunk[-1] - (-shard.tokens // self.chunk_tokens))
        self._check_sizes()  # before memory is allocated by what the manifest says
        self._hashes: dict[int, NDArray[np.uint64]] = {}
        self._verified = bytearray(self.num_chunks)
        self._drop = self.num_bytes > available_memory() // 2 if drop_behind is None else drop_behind
        self._pool = FilePool(max_open, random_access=self._drop, sleep=sleep)
        self._pool.on_change = self._forget

    @property
    def num_shards(self) -> int:
        return len(self._paths)

    @property
    def num_chunks(self) -> int:
        return self._first_chunk[-1]

    @property
    def tail_tokens(self) -> int:
        """Tokens of the short last chunk; 0 if all are full."""
        return self.manifest.tokens % self.chunk_tokens

    @property
    def num_full(self) -> int:
        """The number of full chunks."""
        return self.manifest.tokens // self.chunk_tokens

    @property
    def tokenizer_path(self) -> Path:
        return tokenizer_in(self.folder)

    def locate(self, chunk: int) -> ChunkPlace:
        """Finds a chunk of the set."""
        if not 0 <= chunk < self.num_chunks:
            raise IndexError(f"chunk {chunk} of {self.num_chunks}")
        shard = bisect_right(self._first_chunk, chunk) - 1
        within = chunk - self._first_chunk[shard]
        tokens = min(self.chunk_tokens, self.manifest.shards[shard].tokens - within * self.chunk_tokens)
        return ChunkPlace(shard, within, within * self.manifest.chunk_bytes, tokens)

    def chunk_hash(self, chunk: int) -> int:
        """Returns the xxh3-64 of a chunk's bytes, from its shard's list, which the manifest's hash covers."""
        place = self.locate(chunk)
        return int(self._hashes_of(place.shard)[place.within])

    def read_into(self, chunk: int, out: Tokens, verify: bool = False) -> int:
        """Reads a chunk into `out`, (chunk_tokens,) or longer, of the set's dtype; returns how many tokens it has.

        The chunk's hash is checked on its first read by this object, or on each with `verify`. Raises CorruptChunkError
        for a damaged chunk, and DataError for a shard that cannot be read or is not the manifest's; in both cases the
        contents of `out` are undefined.
        """
        place = self.locate(chunk)
        view = self._bytes_of(out, place)
        read = self._pool.read(self._paths[place.shard], view, place.offset, self._drop)
        # Only now: the read may have found that the file is not the one that was checked.
        check = verify or not self._verified[chunk]
        if read < len(view) or (check and xxhash.xxh3_64_intdigest(view) != self.chunk_hash(chunk)):
            raise CorruptChunkError(self._paths[place.shard], chunk, place.within, place.offset)
        self._verified[chunk] = 1
        return place.tokens

    def chunks_of(self, shard: int) -> range:
        """Returns the numbers of a shard's chunks; shards count from 0, in the manifest's order."""
        return range(self._first_chunk[shard], self._first_chunk[shard + 1])

    def read_chunk(self, chunk: int) -> Tokens:
        """Returns a chunk's tokens in a new array, (chunk_tokens,) or fewer for the last; see :meth:`read_into`."""
        tokens = np.empty(self.locate(chunk).tokens, dtype=self.dtype)
        self.read_into(chunk, tokens)
        return tokens

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        self._pool.close()

    def __enter__(self) -> ShardSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bytes_of(self, out: Tokens, place: ChunkPlace) -> memoryview:
        """Returns the part of `out` that a chunk fills, as bytes."""
        assert out.dtype == self.dtype and out.ndim == 1 and len(out) >= place.tokens
        return out.view(np.uint8)[: place.tokens * self.dtype.itemsize].data

    def _check_sizes(self) -> None:
        for info, path in zip(self.manifest.shards, self._paths):
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise DataError(f"{path}: this shard is missing; its manifest names it") from None
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from None
            if size != info.bytes:
                raise DataError(f"{path}: {size:,} bytes, its manifest says {info.bytes:,}; truncated or overwritten")
            if leads_out(path):
                raise DataError(f"{path}: a link out of the folder of its set; put the file itself there")
            if info.tokens * self.dtype.itemsize + 8 * info.documents > size:
                raise DataError(f"{path}: {size:,} bytes cannot hold the {info.tokens:,} tokens of its manifest")

    def _forget(self, path: Path) -> None:
        """Forgets what was checked of a shard, because its file was replaced while it was not open."""
        shard = self._paths.index(path)
        self._hashes.pop(shard, None)
        chunks = self.chunks_of(shard)
        self._verified[chunks.start : chunks.stop] = bytes(len(chunks))

    def _hashes_of(self, shard: int) -> NDArray[np.uint64]:
        """Returns the chunk hashes of a shard, which its trailer's hash ties to the manifest."""
        hashes = self._hashes.get(shard)
        if hashes is None:
            hashes = self._hashes[shard] = self._checked_hashes(shard)
        return hashes

    def _checked_hashes(self, shard: int) -> NDArray[np.uint64]:
        info, path = self.manifest.shards[shard], self._paths[shard]
        count = len(self.chunks_of(shard))
        trailer, end = bytearray(TRAILER.size), info.bytes - TRAILER.size
        if end < 0 or self._pool.read(path, memoryview(trailer), end) < len(trailer):
            raise DataError(f"{path}: ends before byte {info.bytes:,}; not a whole .ktok file")
        footer_length, trailer_hash, magic = TRAILER.unpack(trailer)
        if magic != MAGIC:
            raise DataError(f"{path}: no {MAGIC.decode()} at its end; not a whole .ktok file")
        start = end - footer_length - 8 * count
        if start < 0 or footer_length > LARGEST_FOOTER:
            raise DataError(f"{path}: its trailer is damaged (from byte {end})")
        index = np.empty(end - start, np.uint8)  # chunk hashes and footer
        if self._pool.read(path, index.data, start) < end - start or (
            xxhash.xxh3_64_intdigest(index.data) != trailer_hash
        ):
            raise DataError(f"{path}: its chunk hashes or footer are damaged (from byte {start})")
        if f"{trailer_hash:016x}" != info.hash or start != info.tokens * self.dtype.itemsize + 8 * info.documents:
            raise DataError(f"{path}: not the shard that its manifest names; make this set again")
        self._check_document_ends(shard, index[8 * count :].tobytes())
        return index[: 8 * count].view("<u8").copy()

    def _check_document_ends(self, shard: int, footer: bytes) -> None:
        """Compares a shard's document ends with their hash, unless they are longer than the longest chunk.

        Nothing here uses them, and for a corpus of short lines they can be more bytes than a worker reads of the shard.
        `kogpt2 verify` always checks them.
        """
        info, path = self.manifest.shards[shard], self._paths[shard]
        ends, start = bytearray(8 * info.documents), info.tokens * self.dtype.itemsize
        if not ends or len(ends) > MAX_CHUNK_BYTES:
            return
        try:
            stated = json.loads(footer)["document_ends_hash"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{path}: its footer is not one of format {FORMAT_VERSION}") from None
        if self._pool.read(path, memoryview(ends), start) < len(ends) or xxhash.xxh3_64_hexdigest(ends) != stated:
            raise DataError(f"{path}: its document ends are damaged (from byte {start})")
