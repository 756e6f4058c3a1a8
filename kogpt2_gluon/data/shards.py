"""Token shards: the `.ktok` file and the folder of them with its `manifest.json`.

A shard file, front to back::

    tokens          little-endian <u2 (vocabulary up to 65,535) or <u4, in chunks of `chunk_bytes`
    document ends   <u8 each: token index, within the shard, after each document that ends in it
    chunk hashes    <u8 each: xxh3-64 of every chunk
    footer          JSON, UTF-8: format, dtype, counts, tokenizer, and where the parts above lie
    trailer         <u4 length of the footer, <u8 xxh3-64 of everything after the tokens, the magic ``KTOK0001``

The trailer's hash covers the chunks' hashes, so one comparison with the manifest ties a whole shard to it. Within a
set, documents run on from one shard to the next and all chunks are full but the very last one. A folder's manifest is
written last: a folder without one was never finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Optional, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.data.files import replace_file
from kogpt2_gluon.errors import DataError

FORMAT_VERSION = 1
MAGIC = b"KTOK0001"
TRAILER = struct.Struct("<IQ8s")
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.model"
MIN_CHUNK_BYTES, MAX_CHUNK_BYTES = 64 << 10, 4 << 20  # the upper one is a Lustre stripe
LARGEST_FOOTER = 64 << 10

Tokens = NDArray[np.unsignedinteger[Any]]


def token_dtype(vocab_size: int) -> str:
    """NumPy's name of the token type: two bytes while every id fits."""
    return "<u2" if vocab_size <= 65535 else "<u4"


def choose_chunk_bytes(payload_bytes: int, lanes: int = 64, chunks_per_lane: int = 8) -> int:
    """The largest power of two from 64 KiB to 4 MiB that leaves every lane its chunks; `payload_bytes` may be a guess."""
    chunk_bytes = MAX_CHUNK_BYTES
    while chunk_bytes > MIN_CHUNK_BYTES and payload_bytes // chunk_bytes < lanes * chunks_per_lane:
        chunk_bytes //= 2
    return chunk_bytes


@dataclass
class ShardInfo:
    """A shard as its manifest knows it. `hash` is the trailer's, in hex; `bytes` the whole file's size."""

    name: str
    bytes: int
    tokens: int
    documents: int
    hash: str


@dataclass
class Manifest:
    """A folder of shards. `text_bytes` counts UTF-8 bytes after the tokenizer's normalisation; `words` likewise."""

    split: str
    dtype: str
    chunk_bytes: int
    vocab_size: int
    tokenizer_sha256: str
    special_ids: dict[str, int]
    source: str
    tokens: int = 0
    documents: int = 0
    text_bytes: int = 0
    words: int = 0
    unknown: int = 0
    shards: list[ShardInfo] = field(default_factory=list)
    format_version: int = FORMAT_VERSION

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that the manifest says, but for where the text came from."""
        plain = asdict(self)
        del plain["source"]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        plain = {**asdict(self), "fingerprint": self.fingerprint()}
        with replace_file(folder / MANIFEST) as file:
            file.write((json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Reads and checks `folder`'s manifest; DataError if it is missing, damaged or of another format."""
        path = folder / MANIFEST
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            fingerprint = plain.pop("fingerprint")
            if plain["format_version"] != FORMAT_VERSION:
                raise DataError(f"{path}: format version {plain['format_version']!r}; this program reads {FORMAT_VERSION}")
            manifest = cls(**{**plain, "shards": [ShardInfo(**shard) for shard in plain["shards"]]})
            names = [Path(shard.name).name for shard in manifest.shards]
        except FileNotFoundError:
            raise DataError(f"{folder}: no {MANIFEST} there; make shards with `kogpt2 shard`") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a manifest of shards ({type(error).__name__}: {error})") from None
        if names != [shard.name for shard in manifest.shards] or manifest.dtype not in ("<u2", "<u4"):
            raise DataError(f"{path}: names shards outside its folder, or a token type that is not <u2 or <u4")
        if manifest.fingerprint() != fingerprint:
            raise DataError(f"{path}: does not match its own fingerprint; it was edited or damaged")
        return manifest


class ShardWriter:
    """Writes one set of shards into `folder`; tokens go in by :meth:`add`, :meth:`finish` commits the manifest.

    Parameters
    ----------
    folder : Path
        An existing empty folder.
    manifest : Manifest
        What is known beforehand; counts and shards are filled in here.
    shard_bytes : int
        Largest payload of a file; rounded down to whole chunks.
    """

    def __init__(self, folder: Path, manifest: Manifest, shard_bytes: int = 1 << 30):
        self.folder, self.manifest = folder, manifest
        self._limit = max(1, shard_bytes // manifest.chunk_bytes) * manifest.chunk_bytes
        self._itemsize = np.dtype(manifest.dtype).itemsize
        self._buffer = bytearray()
        self._ends: list[int] = []
        self._hashes: list[int] = []
        self._file: Optional[BinaryIO] = None
        self._written = 0  # payload bytes of the open shard

    def add(self, tokens: Tokens, document_lengths: Sequence[int]) -> None:
        """Appends whole documents: `tokens` (n,) of the manifest's dtype, and the length of each document in them."""
        assert tokens.dtype == np.dtype(self.manifest.dtype) and sum(document_lengths) == len(tokens)
        start = 0
        for length in document_lengths:
            self._append(tokens[start : start + length].tobytes())
            self._ends.append((self._written + len(self._buffer)) // self._itemsize)
            start += length
        self.manifest.tokens += len(tokens)
        self.manifest.documents += len(document_lengths)

    def finish(self) -> Manifest:
        """Writes what is left and the manifest."""
        if self._buffer:
            self._write_chunk(bytes(self._buffer))
            self._buffer.clear()
        self._close_shard()
        self.manifest.save(self.folder)
        return self.manifest

    def _append(self, data: bytes) -> None:
        self._buffer += data
        chunk_bytes = self.manifest.chunk_bytes
        while len(self._buffer) >= chunk_bytes:
            self._write_chunk(bytes(self._buffer[:chunk_bytes]))
            del self._buffer[:chunk_bytes]

    def _write_chunk(self, chunk: bytes) -> None:
        if self._written == self._limit:  # only now: a document that ends just there still belongs to the full shard
            self._close_shard()
        if self._file is None:
            self._file = (self.folder / self._name("tmp")).open("wb")
        self._file.write(chunk)
        self._hashes.append(xxhash.xxh3_64_intdigest(chunk))
        self._written += len(chunk)

    def _name(self, suffix: str) -> str:
        return f"{self.manifest.split}-{len(self.manifest.shards):05d}.{suffix}"

    def _close_shard(self) -> None:
        """Footer, fsync, rename: a file under its final name is whole."""
        if self._file is None:
            return
        tokens = self._written // self._itemsize
        ends = [end for end in self._ends if end <= tokens]
        # A document whose last tokens are still in the buffer ends in the next shard.
        self._ends = [end - tokens for end in self._ends if end > tokens]
        tail = self._metadata(tokens, ends)
        trailer_hash = xxhash.xxh3_64_intdigest(tail)
        footer_length = len(tail) - (len(ends) + len(self._hashes)) * 8
        self._file.write(tail + TRAILER.pack(footer_length, trailer_hash, MAGIC))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        path = self.folder / self._name("ktok")
        (self.folder / self._name("tmp")).rename(path)
        info = ShardInfo(path.name, path.stat().st_size, tokens, len(ends), f"{trailer_hash:016x}")
        self.manifest.shards.append(info)
        self._file, self._written, self._hashes = None, 0, []

    def _metadata(self, tokens: int, ends: list[int]) -> bytes:
        manifest = self.manifest
        footer = {
            "format_version": FORMAT_VERSION,
            "dtype": manifest.dtype,
            "chunk_bytes": manifest.chunk_bytes,
            "tokens": tokens,
            "documents": len(ends),
            "chunks": len(self._hashes),
            "vocab_size": manifest.vocab_size,
            "tokenizer_sha256": manifest.tokenizer_sha256,
            "special_ids": manifest.special_ids,
        }
        arrays = np.array(ends, "<u8").tobytes() + np.array(self._hashes, "<u8").tobytes()
        return arrays + json.dumps(footer, sort_keys=True).encode()


class ShardSet:
    """A folder of shards, open for reading. Memory is O(shards) until chunks are read.

    Shard files are compared with the manifest when first touched, chunks with their hash whenever they are read.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.manifest = Manifest.load(self.folder)
        self.fingerprint = self.manifest.fingerprint()
        self.dtype = np.dtype(self.manifest.dtype)
        self.chunk_tokens = self.manifest.chunk_bytes // self.dtype.itemsize
        counts = [-(-shard.tokens // self.chunk_tokens) for shard in self.manifest.shards]
        self._first_chunk = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._files: dict[int, int] = {}
        self._hashes: dict[int, NDArray[np.uint64]] = {}
        if self.manifest.tokens == 0:
            raise DataError(f"{self.folder}: the shards hold no tokens")
        if any(shard.tokens % self.chunk_tokens for shard in self.manifest.shards[:-1]):
            raise DataError(f"{self.folder / MANIFEST}: a shard before the last one ends within a chunk")
        self._check_sizes()

    @property
    def num_chunks(self) -> int:
        return int(self._first_chunk[-1])

    @property
    def tail_tokens(self) -> int:
        """Tokens of the short last chunk; 0 if all are full."""
        return self.manifest.tokens % self.chunk_tokens

    @property
    def num_full(self) -> int:
        """Full chunks."""
        return self.manifest.tokens // self.chunk_tokens

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / TOKENIZER

    def read_chunk(self, chunk: int) -> Tokens:
        """Tokens of a chunk, verified: (chunk_tokens,) or fewer for the last. DataError names shard and offset."""
        shard = int(np.searchsorted(self._first_chunk, chunk, side="right")) - 1
        within = chunk - int(self._first_chunk[shard])
        info = self.manifest.shards[shard]
        self._open(shard)
        start = within * self.chunk_tokens
        tokens = np.empty(min(self.chunk_tokens, info.tokens - start), dtype=self.dtype)
        offset = start * self.dtype.itemsize
        read = os.preadv(self._files[shard], [memoryview(tokens).cast("B")], offset)
        if read != tokens.nbytes or xxhash.xxh3_64_intdigest(memoryview(tokens).cast("B")) != self._hashes[shard][within]:
            raise DataError(f"{self.folder / info.name}: chunk {within} at byte {offset} is damaged; make this set again")
        return tokens

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def __enter__(self) -> ShardSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_sizes(self) -> None:
        for info in self.manifest.shards:
            path = self.folder / info.name
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise DataError(f"{path}: this shard is missing; the manifest beside it names it") from None
            if size != info.bytes:
                raise DataError(f"{path}: {size:,} bytes, its manifest says {info.bytes:,}; truncated or overwritten")

    def _open(self, shard: int) -> None:
        """Opens a shard once and ties it to the manifest by the trailer's hash."""
        if shard in self._files:
            return
        info = self.manifest.shards[shard]
        path = self.folder / info.name
        descriptor = os.open(path, os.O_RDONLY)
        self._files[shard] = descriptor
        payload = info.tokens * self.dtype.itemsize
        rest = os.pread(descriptor, info.bytes - payload, payload)
        if len(rest) < TRAILER.size or rest[-len(MAGIC) :] != MAGIC:
            raise DataError(f"{path}: no {MAGIC.decode()} at its end; not a whole .ktok file")
        footer_length, trailer_hash, _ = TRAILER.unpack(rest[-TRAILER.size :])
        tail = rest[: -TRAILER.size]
        chunks = int(self._first_chunk[shard + 1] - self._first_chunk[shard])
        if xxhash.xxh3_64_intdigest(tail) != trailer_hash or footer_length > min(len(tail), LARGEST_FOOTER):
            raise DataError(f"{path}: its footer is damaged (from byte {payload})")
        if f"{trailer_hash:016x}" != info.hash or len(tail) != footer_length + 8 * (info.documents + chunks):
            raise DataError(f"{path}: not the shard that the manifest beside it means; make this set again")
        self._hashes[shard] = np.frombuffer(tail, "<u8", count=chunks, offset=8 * info.documents)
