"""The training reader's threads: they read ahead within bounds, end with it, and their errors reach the loop."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.reading import shard_reader
from kogpt2_gluon.reading.open_sets import training_mix
from kogpt2_gluon.reading.order import ChunkOrder
from kogpt2_gluon.reading.shard_reader import ShardReader
from kogpt2_gluon.shards.shard_set import CorruptChunkError, ShardSet
from tests.reading.order_helpers import CHUNK, SEQ, write_set
from tests.reading.shard_reader_helpers import (
    by_chunk,
    dealt,
    folders,
    little_ahead,
    no_thread_is_left,
    read,
    recipe,
    shards,
)

__all__ = ["by_chunk", "dealt", "folders", "little_ahead", "no_thread_is_left", "shards"]


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_reads_ahead_but_not_for_ever(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    update_bytes = 8 * (SEQ + 1) * 4
    monkeypatch.setattr(shard_reader, "BLOCK_BYTES", 2 * update_bytes)
    monkeypatch.setattr(shard_reader, "READ_AHEAD_BYTES", 5 * update_bytes)  # two blocks of two
    mix = training_mix([shards], recipe(), 1)
    made = threading.Semaphore(0)
    whole = ShardReader._next_block
    monkeypatch.setattr(ShardReader, "_next_block", lambda self, updates: (whole(self, updates), made.release())[0])
    with ShardReader([shards], mix, 8, 1) as opened:
        for _ in range(3):  # the queue, and the one that waits to get in
            assert made.acquire(timeout=30)
        assert not made.acquire(timeout=0.2)
        next(iter(opened))
        assert made.acquire(timeout=30)


@pytest.mark.parametrize("consume", [0, 1, 7])
def test_close_ends_the_threads(shards: ShardSet, dealt: str, consume: int) -> None:
    opened = ShardReader([shards], training_mix([shards], recipe(), 1), 8, 1)
    for _ in zip(range(consume), opened):
        pass
    opened.close()
    opened.close()
    assert not threads_named("read-ahead")
    with pytest.raises(AssertionError, match="after close"):
        next(iter(opened))


def test_close_at_any_moment(shards: ShardSet, dealt: str) -> None:
    mix = training_mix([shards], recipe(), 1)
    for pause in np.linspace(0, 0.02, 25):
        opened = ShardReader([shards], mix, 8, 1)
        time.sleep(pause)
        opened.close()
        assert not threads_named("read-ahead")


def test_an_error_while_reading_ahead_reaches_the_loop(
    tmp_path: Path, by_chunk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the updates of every block that was still good."""
    monkeypatch.setattr(shard_reader, "SPARE_BYTES", 0)
    monkeypatch.setattr(shard_reader, "BLOCK_BYTES", 1)
    write_set(tmp_path / "set", 70 * CHUNK)
    with ShardSet(tmp_path / "set") as shards:
        mix = training_mix([shards], recipe(), 1)
        whole = read(ShardReader([shards], mix, 8, 1), 50)
    order = mix.orders[0]
    assert isinstance(order, ChunkOrder)
    later = int(order.elements(5, 6, 1)[0])  # not among the chunks that are read when the reader is made
    path = tmp_path / "set" / f"train-{later // 4:05d}.ktok"
    data = bytearray(path.read_bytes())
    data[(later % 4) * CHUNK * 4 + 50] ^= 1
    path.write_bytes(data)
    good = 0
    with ShardSet(tmp_path / "set") as shards, ShardReader([shards], mix, 8, 1) as opened:
        updates = iter(opened)
        with pytest.raises(CorruptChunkError, match=rf"{path.name}: chunk {later % 4} at byte {(later % 4) * 400}"):
            while good < 50:
                assert np.array_equal(next(updates), whole[good])
                good += 1
        assert 5 < good < 50 and opened.consumed == 8 * good
        with pytest.raises(DataError):  # and again for whoever asks again: it does not wait for ever
            next(iter(opened))


def test_an_error_at_the_start_leaves_no_thread(tmp_path: Path, dealt: str) -> None:
    write_set(tmp_path / "set", 70 * CHUNK)
    with ShardSet(tmp_path / "set") as shards:
        mix = training_mix([shards], recipe(), 1)
        for path in (tmp_path / "set").glob("*.ktok"):
            path.write_bytes(bytes(path.stat().st_size))
        with pytest.raises(DataError):
            ShardReader([shards], mix, 8, 1)
