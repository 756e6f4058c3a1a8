"""Token shards: the `.ktok` file and the folder of them with its `manifest.json`.

A shard file, front to back::

    tokens          little-endian <u2 (vocabulary up to 65,535) or <u4, in chunks of `chunk_bytes`
    document ends   <u8 each: token index, within the shard, after each document that ends in it
    chunk hashes    <u8 each: xxh3-64 of every chunk
    footer          JSON, UTF-8: format, dtype, counts, tokenizer, xxh3-64 of the document ends
    trailer         <u4 length of the footer, <u8 xxh3-64 of chunk hashes and footer, the magic ``KTOK0002``

The trailer's hash covers the hashes of all other parts, so one comparison with the manifest ties a whole shard to it.
A reader of tokens needs the chunk hashes (8 bytes a chunk) and the parts after them, but never the document ends: there
can be more of them than of the tokens that one worker reads. Within a set, documents run on from one shard to the next,
and all chunks are full except the very last one. A folder's manifest is written last: a folder without one was never
finished.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.folders import MANIFEST as MANIFEST  # who reads or writes sets imports them from here
from kogpt2_gluon.shards.folders import SUFFIX, why_no_manifest
from kogpt2_gluon.shards.folders import TOKENIZER as TOKENIZER
from kogpt2_gluon.storage.files import commit_file, write_file
from kogpt2_gluon.storage.links import read_file
from kogpt2_gluon.tokens.tokenizer import NO_TOKEN, unscored_id

FORMAT_VERSION = 2
MAGIC = b"KTOK0002"
TRAILER = struct.Struct("<IQ8s")
MIN_CHUNK_BYTES, MAX_CHUNK_BYTES = 64 << 10, 4 << 20  # the upper one is a Lustre stripe
LARGEST_FOOTER = 64 << 10
LARGEST_CHUNK = 1 << 30  # bytes that a manifest or footer may ask a reader to hold
LARGEST_SHARD = 1 << 40  # tokens
READ_SIZE = 1 << 20
UNFINISHED = ".tmp"  # instead of SUFFIX, while a shard is written
SHARD_NAME = re.compile(rf"\w[\w.-]*{re.escape(SUFFIX)}")  # a plain name: never a path

Tokens = NDArray[np.unsignedinteger[Any]]


def token_dtype(vocab_size: int) -> str:
    """Returns NumPy's name of the token type: two bytes if every id fits, else four."""
    return "<u2" if vocab_size <= 65535 else "<u4"


def choose_chunk_bytes(payload_bytes: int, lanes: int = 64, chunks_per_lane: int = 8) -> int:
    """Returns the largest power of two from 64 KiB to 4 MiB that leaves every lane its chunks; if none does, 64 KiB.

    `payload_bytes`, the size of all tokens, may be a guess: too low a guess gives small chunks.
    """
    chunk_bytes = MAX_CHUNK_BYTES
    while chunk_bytes > MIN_CHUNK_BYTES and payload_bytes // chunk_bytes < lanes * chunks_per_lane:
        chunk_bytes //= 2
    return chunk_bytes


@dataclass
class ShardInfo:
    """A shard's entry in the manifest. `hash` is the trailer's, in hex; `bytes` is the size of the whole file."""

    name: str
    bytes: int
    tokens: int
    documents: int
    hash: str


@dataclass
class Manifest:
    """The content of a set's manifest. `text_bytes` (UTF-8) and `words` count text as the tokenizer normalises it."""

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
        """Returns a SHA-256 (hex) of everything in the manifest except `source`, where the text came from."""
        plain = asdict(self)
        del plain["source"]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def compare_vocabulary(self, vocab_size: int, folder: Path) -> str:
        """Returns a note if a model of `vocab_size` has unused rows, else "". DataError if it has too few rows."""
        if self.vocab_size > vocab_size:
            raise DataError(
                f"{folder}: its tokenizer has {self.vocab_size} tokens, more than model.vocab_size={vocab_size}; "
                f"set model.vocab_size={self.vocab_size} or more"
            )
        if self.vocab_size == vocab_size:
            return ""
        return (
            f"note: {folder}: its tokenizer has {self.vocab_size} tokens, so {vocab_size - self.vocab_size} rows of "
            f"the model's embedding are never used; model.vocab_size={self.vocab_size} would do without them"
        )

    @property
    def unscored_id(self) -> int:
        """The id that evaluation leaves out and that fills up batches: `kogpt2_gluon.tokens.tokenizer.unscored_id`."""
        return unscored_id(self.special_ids["bos"], self.special_ids["eos"])

    @property
    def scored_tokens(self) -> int:
        """The tokens of the text and those that end documents."""
        return self.tokens - self.documents * (self.unscored_id != NO_TOKEN)

    def save(self, folder: Path) -> None:
        plain = {**asdict(self), "fingerprint": self.fingerprint()}
        write_file(folder / MANIFEST, (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Reads and checks the manifest in `folder`. DataError if it is missing, damaged or of another format."""
        path = folder / MANIFEST
        try:
            plain = json.loads(read_file(path).decode())
            fingerprint = plain.pop("fingerprint")
            if plain["format_version"] != FORMAT_VERSION:
                found = plain["format_version"]
                raise DataError(f"{path}: format version {found!r}; this program reads {FORMAT_VERSION}")
            manifest = cls(**{**plain, "shards": [ShardInfo(**shard) for shard in plain["shards"]]})
            if manifest.fingerprint() != fingerprint:
                raise DataError(f"{path}: does not match its own fingerprint; it was edited or damaged")
            manifest.check(path)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(why_no_manifest(folder)) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}: not a manifest of shards ({type(error).__name__}: {error})") from None
        return manifest

    def check(self, path: Path) -> None:
        """Raises DataError if these facts cannot all be true. `path` names the manifest in the message."""
        names = [shard.name for shard in self.shards]
        for name in names:
            if not SHARD_NAME.fullmatch(name):
                raise DataError(
                    f"{path}: names a shard {name!r}; a shard's name is a plain file name ending in {SUFFIX}"
                )
        if len(set(names)) < len(names):
            raise DataError(f"{path}: it names a shard twice")
        self._check_types(path)
        itemsize = check_chunk_bytes(self.chunk_bytes, self.dtype, str(path))
        counts = [shard.tokens for shard in self.shards]
        if not counts or min(counts) < 1 or max(counts) > LARGEST_SHARD:
            raise DataError(f"{path}: a set has one shard or more, and each has 1 to {LARGEST_SHARD:,} tokens")
        if sum(counts) != self.tokens:
            raise DataError(f"{path}: says {self.tokens:,} tokens, but its {len(counts)} shards have {sum(counts):,}")
        if any(count % (self.chunk_bytes // itemsize) for count in counts[:-1]):
            raise DataError(f"{path}: a shard before the last one ends within a chunk")

    def _check_types(self, path: Path) -> None:
        """Raises DataError for a value of another type: JSON can hold anything in the place of a count or a word."""
        facts = asdict(self)
        words = {name: facts[name] for name in ("split", "dtype", "tokenizer_sha256", "source")}
        counts = {name: facts[name] for name in ("vocab_size", "tokens", "documents", "text_bytes", "words", "unknown")}
        special = facts["special_ids"]
        if not isinstance(special, dict) or not {"bos", "eos"} <= special.keys():
            raise DataError(f"{path}: its special_ids are {special!r}; they must name bos and eos")
        counts.update({f"special_ids.{name}": token for name, token in special.items()})
        for shard in facts["shards"]:
            words[f"hash of {shard['name']}"] = shard["hash"]
            counts.update({f"{name} of {shard['name']}": shard[name] for name in ("bytes", "tokens", "documents")})
        for name, word in words.items():
            if not isinstance(word, str):
                raise DataError(f"{path}: its {name} is {word!r}, which is not a text")
        for name, count in counts.items():
            if type(count) is not int or count < 0:
                raise DataError(f"{path}: its {name} is {count!r}, which is not a count")


def check_chunk_bytes(chunk_bytes: Any, dtype: Any, place: str) -> int:
    """Returns the bytes of a token. DataError, naming `place`, if chunks of that size and type are impossible."""
    itemsize = {"<u2": 2, "<u4": 4}.get(str(dtype), 0)
    possible = itemsize and type(chunk_bytes) is int and itemsize <= chunk_bytes <= LARGEST_CHUNK
    if not possible or chunk_bytes % itemsize:
        raise DataError(f"{place}: impossible chunks: {chunk_bytes!r} bytes of {dtype!r} tokens")
    return itemsize


class ShardWriter:
    """Writes one set of shards into `folder`: :meth:`add` takes tokens, :meth:`finish` commits the manifest.

    Use it as a context manager: if the block is left before `finish`, the unfinished file is removed.

    Parameters
    ----------
    folder : Path
        An existing empty folder.
    manifest : Manifest
        The facts that are known in advance; counts and shards are filled in here.
    shard_bytes : int
        The largest payload of a file, which is rounded down to whole chunks.
    skip : int
        That many of the first tokens are in the shards that `manifest` names already.
    """

    def __init__(self, folder: Path, manifest: Manifest, shard_bytes: int = 1 << 30, skip: int = 0):
        self.folder, self.manifest = folder, manifest
        self._skip = skip
        self._limit = max(1, shard_bytes // manifest.chunk_bytes) * manifest.chunk_bytes
        self._itemsize = np.dtype(manifest.dtype).itemsize
        self._buffer = bytearray()
        self._ends = array("Q")  # 8 bytes a document of the open shard; a list of ints would take 40
        self._hashes: list[int] = []
        self._file: BinaryIO | None = None
        self._written = 0  # payload bytes of the open shard

    def add(self, tokens: Tokens, document_lengths: Sequence[int] | NDArray[np.int64]) -> None:
        """Appends whole documents: `tokens` (n,) of the manifest's dtype, and the length of each document in them."""
        ends = np.cumsum(document_lengths, dtype=np.int64)
        assert tokens.dtype == np.dtype(self.manifest.dtype) and len(tokens) == (ends[-1] if len(ends) else 0)
        self.manifest.tokens += len(tokens)
        self.manifest.documents += len(ends)
        if self._skip:
            assert self._skip <= len(tokens), (self._skip, len(tokens))
            tokens, ends = tokens[self._skip :], ends[ends > self._skip] - self._skip
            self._skip = 0
        # Ends go first: a shard that is closed on the way takes the ends that lie in it.
        ends += (self._written + len(self._buffer)) // self._itemsize
        self._ends.frombytes(ends.astype(np.uint64).tobytes())
        self._append(tokens.tobytes())

    def finish(self) -> Manifest:
        """Writes the rest of the tokens, then the manifest, which is returned."""
        if self._buffer:
            self._write_chunk(bytes(self._buffer))
            self._buffer.clear()
        self._close_shard()
        self.manifest.save(self.folder)  # last: the shards that it names are on disk under their names
        return self.manifest

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()  # this writes what is buffered, and fails on a full disk
            finally:
                (self.folder / self._name(UNFINISHED)).unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        self._buffer += data
        chunk_bytes = self.manifest.chunk_bytes
        while len(self._buffer) >= chunk_bytes:
            self._write_chunk(bytes(self._buffer[:chunk_bytes]))
            del self._buffer[:chunk_bytes]

    def _write_chunk(self, chunk: bytes) -> None:
        if self._written == self._limit:  # not sooner: a document that ends just there still belongs to the full shard
            self._close_shard()
        if self._file is None:
            self._file = (self.folder / self._name(UNFINISHED)).open("wb")
        self._file.write(chunk)
        self._hashes.append(xxhash.xxh3_64_intdigest(chunk))
        self._written += len(chunk)

    def _name(self, suffix: str) -> str:
        return f"{self.manifest.split}-{len(self.manifest.shards):05d}{suffix}"

    def _close_shard(self) -> None:
        """Writes the footer and gives the file its final name: a file under that name is whole."""
        if self._file is None:
            return
        tokens = self._written // self._itemsize
        ends = np.array(self._ends, np.uint64)
        documents = int(np.searchsorted(ends, np.uint64(tokens), side="right"))
        ends_of_shard = ends[:documents].astype("<u8").tobytes()
        hashes, footer = np.array(self._hashes, "<u8").tobytes(), self._footer(tokens, ends_of_shard)
        digest = xxhash.xxh3_64_intdigest(hashes + footer)
        for part in (ends_of_shard, hashes, footer, TRAILER.pack(len(footer), digest, MAGIC)):
            self._file.write(part)
        path = self.folder / self._name(SUFFIX)
        commit_file(self._file, path)
        info = ShardInfo(path.name, path.stat().st_size, tokens, documents, f"{digest:016x}")
        self.manifest.shards.append(info)
        # A document whose last tokens are still in the buffer ends in the next shard.
        self._ends = array("Q", (ends[documents:] - np.uint64(tokens)).tobytes())
        self._file, self._written, self._hashes = None, 0, []

    def _footer(self, tokens: int, document_ends: bytes) -> bytes:
        manifest = self.manifest
        footer = {
            "format_version": FORMAT_VERSION,
            "dtype": manifest.dtype,
            "chunk_bytes": manifest.chunk_bytes,
            "tokens": tokens,
            "documents": len(document_ends) // 8,
            "document_ends_hash": xxhash.xxh3_64_hexdigest(document_ends),
            "chunks": len(self._hashes),
            "vocab_size": manifest.vocab_size,
            "tokenizer_sha256": manifest.tokenizer_sha256,
            "special_ids": manifest.special_ids,
        }
        return json.dumps(footer, sort_keys=True).encode()
