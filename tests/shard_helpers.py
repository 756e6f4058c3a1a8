"""How the tests of shards read a shard: through the package, and from the format's description alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import xxhash

from kogpt2_gluon.data.shards import ShardSet

SPECIAL = {"unk": 0, "bos": 1, "eos": 2, "pad": 3}


def read_back(shards: ShardSet) -> np.ndarray:
    return np.concatenate([shards.read_chunk(chunk) for chunk in range(shards.num_chunks)])


def parts_of(path: Path) -> tuple[dict, np.ndarray, np.ndarray, bytes]:
    """Footer, document ends, chunk hashes and payload of a shard, read from the format's description alone."""
    data = path.read_bytes()
    length, digest, magic = struct.unpack("<IQ8s", data[-20:])
    assert magic == b"KTOK0001"
    footer = json.loads(data[-20 - length : -20])
    payload = footer["tokens"] * np.dtype(footer["dtype"]).itemsize
    assert xxhash.xxh3_64_intdigest(data[payload:-20]) == digest
    ends = np.frombuffer(data, "<u8", footer["documents"], payload)
    hashes = np.frombuffer(data, "<u8", footer["chunks"], payload + ends.nbytes)
    assert payload + ends.nbytes + hashes.nbytes + length + 20 == len(data)
    return footer, ends, hashes, data[:payload]
