"""How the tests of shards read a shard: through the package, and from the format's description alone."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import numpy as np
import xxhash

from kogpt2_gluon.shards.format import MANIFEST, TOKENIZER, Manifest, ShardWriter
from kogpt2_gluon.shards.shard_set import ShardSet

SPECIAL = {"unk": 0, "bos": 1, "eos": 2, "pad": 3}


def read_back(shards: ShardSet) -> np.ndarray:
    return np.concatenate([shards.read_chunk(chunk) for chunk in range(shards.num_chunks)])


def parts_of(path: Path) -> tuple[dict, np.ndarray, np.ndarray, bytes]:
    """Footer, document ends, chunk hashes and payload of a shard, read from the format's description alone."""
    data = path.read_bytes()
    length, digest, magic = struct.unpack("<IQ8s", data[-20:])
    assert magic == b"KTOK0002"
    footer = json.loads(data[-20 - length : -20])
    payload = footer["tokens"] * np.dtype(footer["dtype"]).itemsize
    ends = np.frombuffer(data, "<u8", footer["documents"], payload)
    assert xxhash.xxh3_64_hexdigest(ends.tobytes()) == footer["document_ends_hash"]
    assert xxhash.xxh3_64_intdigest(data[payload + ends.nbytes : -20]) == digest
    hashes = np.frombuffer(data, "<u8", footer["chunks"], payload + ends.nbytes)
    assert payload + ends.nbytes + hashes.nbytes + length + 20 == len(data)
    return footer, ends, hashes, data[:payload]


def empty_manifest(chunk_bytes: int = 256, dtype: str = "<u2") -> Manifest:
    return Manifest("train", dtype, chunk_bytes, 50000 if dtype == "<u2" else 70000, "5a" * 32, SPECIAL, "a test")


def write_set(
    folder: Path,
    lengths: list[int],
    chunk_bytes: int = 256,
    shard_bytes: int = 1024,
    dtype: str = "<u2",
    batch: int = 3,
) -> np.ndarray:
    """Writes documents of these lengths, `batch` at a time; returns all tokens."""
    folder.mkdir(parents=True)
    tokens = np.random.RandomState(sum(lengths)).randint(0, 50000, sum(lengths)).astype(dtype)
    with ShardWriter(folder, empty_manifest(chunk_bytes, dtype), shard_bytes) as writer:
        start = 0
        for first in range(0, len(lengths), batch):
            group = lengths[first : first + batch]
            writer.add(tokens[start : start + sum(group)], group)
            start += sum(group)
        writer.finish()
    return tokens


def write_documents(
    folder: Path,
    lengths: Sequence[int],
    chunk_bytes: int = 1024,
    shard_bytes: int = 8192,
    dtype: str = "<u2",
    tokenizer: bytes = b"a tokenizer",
) -> np.ndarray:
    """A set of documents `<s> ... </s>` of these lengths (2 or more), tokenizer and all; returns all tokens."""
    folder.mkdir(parents=True)
    (folder / TOKENIZER).write_bytes(tokenizer)
    vocab_size = 50000 if dtype == "<u2" else 70000
    sha256 = hashlib.sha256(tokenizer).hexdigest()
    manifest = Manifest("train", dtype, chunk_bytes, vocab_size, sha256, SPECIAL, "a test", 0, 0, 9000, 900, 90)
    tokens = np.random.RandomState(sum(lengths)).randint(4, vocab_size, sum(lengths)).astype(dtype)
    ends = np.cumsum(lengths)
    tokens[ends - lengths], tokens[ends - 1] = SPECIAL["bos"], SPECIAL["eos"]
    with ShardWriter(folder, manifest, shard_bytes) as writer:
        writer.add(tokens, lengths)
        writer.finish()
    return tokens


def flip(path: Path, offset: int) -> None:
    """Changes one bit of a file's byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def edit_manifest(folder: Path, change: Callable[[dict], None], sign: bool) -> None:
    """Changes a manifest; with `sign`, as somebody would who knows how its fingerprint is made."""
    plain = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(plain)
    if sign:
        stated = {key: value for key, value in plain.items() if key not in ("fingerprint", "source")}
        plain["fingerprint"] = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(plain), encoding="utf-8")


def reseal(path: Path, change: Callable[[dict, np.ndarray, bytearray], None]) -> str:
    """Rewrites a shard after a change of (footer, document ends, payload), with hashes that fit; returns its hash."""
    footer, ends, _, payload = parts_of(path)
    ends, payload, size = ends.copy(), bytearray(payload), footer["chunk_bytes"]
    change(footer, ends, payload)
    cut = [bytes(payload[start : start + size]) for start in range(0, len(payload), size)]
    hashes = np.array([xxhash.xxh3_64_intdigest(chunk) for chunk in cut], "<u8").tobytes()
    footer["document_ends_hash"] = xxhash.xxh3_64_hexdigest(ends.tobytes())
    text = json.dumps(footer, sort_keys=True).encode()
    digest = xxhash.xxh3_64_intdigest(hashes + text)
    trailer = struct.pack("<IQ8s", len(text), digest, b"KTOK0002")
    path.write_bytes(bytes(payload) + ends.tobytes() + hashes + text + trailer)
    return f"{digest:016x}"
