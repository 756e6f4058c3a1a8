"""Orders of small sets read from front to back, and sets whose tokens say where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.reading.order import ChunkOrder, Order, SequenceOrder
from kogpt2_gluon.shards.format import Manifest, ShardWriter

SEQ = 16
CHUNK = 100  # tokens
BOS = 1


def write_set(folder: Path, num_tokens: int, first: int = 1000, chunk: int = CHUNK, **facts: Any) -> np.ndarray:
    """Shards of four chunks; every token is its own place from `first` on, so a row says where it was read.

    `chunk` is in tokens; `facts` are of the manifest.
    """
    folder.mkdir()
    tokens = np.arange(num_tokens, dtype="<u4") + np.uint32(first)
    special = {"unk": 0, "bos": BOS, "eos": 2, "pad": 3}
    known = {"vocab_size": 10**7, "tokenizer_sha256": "0" * 64, "special_ids": special, **facts}
    manifest = Manifest(split="train", dtype="<u4", chunk_bytes=4 * chunk, source="a test", **known)
    with ShardWriter(folder, manifest, 16 * chunk) as writer:
        writer.add(tokens, [num_tokens])
        writer.finish()
    return tokens


def make_order(
    num_full: int,
    tail_tokens: int,
    lanes: int = 1,
    window: int = 8,
    seq_length: int = 7,
    kind: type[Order] = ChunkOrder,
) -> Order:
    return kind(
        fingerprint="f0",
        num_full=num_full,
        chunk_tokens=97,
        tail_tokens=tail_tokens,
        seed=3,
        seq_length=seq_length,
        lanes=lanes,
        window=window,
    )


def read_lane(order: Order, lane: int, count: int, run: int = 5) -> list[tuple[int, int]]:
    """(chunk, offset) of the lane's first sequences; a ChunkOrder's by runs of `run` slots."""
    if isinstance(order, SequenceOrder):
        chunks, offsets = order.sequences(lane, 0, count)
        return list(zip(chunks.tolist(), offsets.tolist()))
    assert isinstance(order, ChunkOrder)
    found: list[tuple[int, int]] = []
    epoch = slot = 0
    while len(found) < count:
        if slot == order.num_slots(lane, epoch):
            epoch, slot = epoch + 1, 0
            continue
        slots = order.slots(lane, epoch, slot, run)
        assert slots.place == len(found) and slots.slots.start == slot < slots.slots.stop
        elements, offsets = slots.sequences(0, slots.size)
        if len(elements):
            first = int(elements.min())
            chunks = order.elements(lane, first, int(elements.max()) - first + 1)[elements - first]
            found += zip(chunks.tolist(), offsets.tolist())
        slot = slots.slots.stop
    return found[:count]
