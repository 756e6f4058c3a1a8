"""A damaged chunk under data.corrupt=skip: what is read instead, and that all workers say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading import open_sets, shard_reader
from kogpt2_gluon.reading.damage import Damage
from kogpt2_gluon.reading.open_sets import training_mix
from kogpt2_gluon.reading.shard_reader import ShardReader
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.shards.shard_set import CorruptChunkError, ShardSet
from tests.machine.thread_workers import on_workers
from tests.reading.order_helpers import CHUNK, SEQ, write_set


def damage(folder: Path, *chunks: int) -> None:
    """Flips a bit of some chunks of a set of 4 chunks a shard."""
    for chunk in chunks:
        path = folder / f"train-{chunk // 4:05d}.ktok"
        data = bytearray(path.read_bytes())
        data[(chunk % 4) * CHUNK * 4 + 50] ^= 1
        path.write_bytes(data)


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """70 full chunks and a tail."""
    write_set(tmp_path / "set", 70 * CHUNK + 61)
    return tmp_path / "set"


def read_chunk(folder: Path, chunk: int) -> tuple[np.ndarray, Damage]:
    with ShardSet(folder) as shards:
        account = Damage([shards], skip=True)
        out = np.zeros(CHUNK, "<u4")
        account.read(0, chunk, out)
        return out, account


@pytest.mark.parametrize(
    ("bad", "chunk", "instead"),
    [((5,), 5, 6), ((5, 6, 7), 5, 8), ((69,), 69, 0), ((69, 0, 1), 69, 2), ((70,), 70, 1), ((5,), 4, 4)],
)
def test_the_next_whole_chunk_stands_in(folder: Path, bad: tuple[int, ...], chunk: int, instead: int) -> None:
    damage(folder, *bad)
    out, account = read_chunk(folder, chunk)
    assert np.array_equal(out, np.arange(instead * CHUNK, (instead + 1) * CHUNK) + 1000)
    assert account.notices().tolist() == [0.0 if chunk == instead else len(bad)]


def test_a_set_without_a_whole_chunk(tmp_path: Path) -> None:
    write_set(tmp_path / "set", 2 * CHUNK)
    damage(tmp_path / "set", 0, 1)
    with pytest.raises(DataError, match="no chunk of it is whole"):
        read_chunk(tmp_path / "set", 0)


def test_all_workers_say_the_same(folder: Path) -> None:
    damage(folder, 3, 17, 41)

    def work(worker: Any) -> tuple[list[str], list[str], int, int]:
        with ShardSet(folder) as shards:
            account, out = Damage([shards], skip=True, skipped=10), np.zeros(CHUNK, "<u4")
            for chunk in {0: (17, 41), 1: (1, 2), 2: (3, 17), 3: ()}[worker.rank]:
                account.read(0, chunk, out)
            first = account.agree(worker.sum(account.notices()), worker)
            for chunk in (3, 17, 41):  # met again: known by now
                account.read(0, chunk, out)
            sums = worker.sums
            second = account.agree(worker.sum(account.notices()), worker)
            assert worker.sums == sums + 1  # nothing new costs nothing
            return first, second, account.skipped, len(account.notices())

    found = on_workers(4, work)
    assert all(each == found[0] for each in found)
    first, second, skipped, length = found[0]
    assert second == [] and skipped == 13 and length == 1
    places = [(0, 3), (4, 1), (10, 1)]
    assert len(first) == 3
    for line, (shard, within), number in zip(first, places, (11, 12, 13)):
        assert f"train-{shard:05d}.ktok: chunk {within} at byte {within * 4 * CHUNK} is damaged" in line
        assert f"({number} skipped so far)" in line and str(folder) in line


@pytest.mark.parametrize("small_set_bytes", [0, 1 << 40])
def test_training_goes_on_without_the_chunk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, small_set_bytes: int
) -> None:
    """Only the damaged chunk's sequences change: its neighbour's come twice, for 1 worker and for 2."""
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", small_set_bytes)
    monkeypatch.setattr(shard_reader, "BLOCK_BYTES", 20_000)
    settings = {"seq_length": SEQ, "window": 3, "max_lanes": 8}
    recipe = parse_recipe({"data": settings, "training": {"total_batch_size": 8}})

    def read(rank: int, size: int, skip: bool) -> tuple[np.ndarray, dict[str, Any]]:
        with ShardSet(folder) as shards:
            mix = training_mix([shards], recipe, size)
            account = Damage([shards], skip)
            with ShardReader([shards], mix, 8 // size, 1, rank, size, damage=account) as opened:
                rows = np.stack([update for update, _ in zip(opened, range(60))])
                account.agree(opened.notices(), Worker())
                return rows.reshape(60, -1, SEQ + 1), opened.state()

    whole, _ = read(0, 1, skip=False)
    damage(folder, 12)
    with pytest.raises(CorruptChunkError, match=r"train-00003.ktok: chunk 0 at byte 0 is damaged"):
        read(0, 1, skip=False)
    found, state = read(0, 1, skip=True)
    changed = (found != whole).any(axis=-1)
    assert set(((whole[changed] - 1000) // CHUNK).ravel().tolist()) == {12}
    assert np.array_equal(found[changed], whole[changed] + CHUNK)
    assert state["skipped"] == 1
    parts = [read(rank, 2, skip=True)[0] for rank in (0, 1)]
    assert np.array_equal(np.concatenate(parts, axis=1), found)
