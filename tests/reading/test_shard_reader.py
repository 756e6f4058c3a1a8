"""The training reader: the stream that the order promises, for any number of workers and after any stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogpt2_gluon.reading import lanes, open_sets, shard_reader
from kogpt2_gluon.reading.locating import locate
from kogpt2_gluon.reading.mix import Mix
from kogpt2_gluon.reading.open_sets import training_mix
from kogpt2_gluon.reading.order import ChunkOrder, SequenceOrder
from kogpt2_gluon.reading.place import Place
from kogpt2_gluon.reading.shard_reader import ShardReader
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.reading.order_helpers import CHUNK, SEQ, read_lane, write_set
from tests.reading.shard_reader_helpers import (
    FIRST,
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


def set_of(rows: np.ndarray) -> np.ndarray:
    """The set of each row, by its first token."""
    return np.searchsorted(FIRST, rows[..., 0], side="right") - 1


def expected_rows(mix: Mix, lane: int, count: int, which: tuple[int, ...] = (0,)) -> np.ndarray:
    """The lane's first sequences, cut from the sets' token arrays."""
    sets = np.concatenate([mix.sets(lane, period) for period in range(count // 10_000 + 1)])[:count]
    rows = np.empty((count, SEQ + 1), np.int64)
    for k, order in enumerate(mix.orders):
        where = np.flatnonzero(sets == k)
        for row, (chunk, offset) in zip(where, read_lane(order, lane, len(where))):
            start = FIRST[which[k]] + chunk * CHUNK + offset
            rows[row] = np.arange(start, start + SEQ + 1)
    return rows


# --- the stream


def test_the_sequences_are_those_of_the_order(shards: ShardSet, dealt: str) -> None:
    mix = training_mix([shards], recipe(), 1)
    assert (mix.lanes, mix.orders[0].num_full, mix.orders[0].tail_tokens) == (8, 70, 61)
    assert isinstance(mix.orders[0], ChunkOrder if dealt == "chunk" else SequenceOrder)
    updates = 2 * mix.sequences_per_epoch // 8
    found = read(ShardReader([shards], mix, batch_size=4, accumulate=2), updates)
    assert found.shape == (updates, 2, 4, SEQ + 1) and found.dtype == np.int32
    of_lane = found.reshape(updates, 8, SEQ + 1)
    for lane in range(8):
        assert np.array_equal(of_lane[:, lane], expected_rows(mix, lane, updates))


def test_every_sequence_can_be_found_in_the_shards(folders: list[Path], dealt: str) -> None:
    """In one set and in a mix of three, at the beginning and in a later epoch."""
    for which in ([0], [0, 1, 2]):
        sets = [ShardSet(folders[k]) for k in which]
        mix = training_mix(sets, recipe(train={str(folders[k]): 1.0 + k for k in which}), 1)
        for consumed in (0, 8 * (mix.sequences_per_epoch // 8 + 3)):
            with ShardReader([ShardSet(folders[k]) for k in which], mix, 8, 2, place=Place(consumed)) as opened:
                for rows, _ in zip(opened, range(3)):
                    found = list(locate(mix, sets, opened.consumed - 16, opened.consumed))
                    assert opened.sequences_of_last(1) == [f"{path} token {token:,}" for path, token in found]
                    firsts = [FIRST[folders.index(path.parent)] + start_of(path) + token for path, token in found]
                    by_lane = rows.reshape(2, 8, SEQ + 1)[..., 0].T.ravel()
                    assert sorted(firsts) == sorted(by_lane.tolist())
        for each in sets:
            each.close()


def start_of(path: Path) -> int:
    """The tokens of a set before one of its shards."""
    with ShardSet(path.parent) as opened:
        names = [shard.name for shard in opened.manifest.shards]
        return sum(shard.tokens for shard in opened.manifest.shards[: names.index(path.name)])


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (lanes, "PIECE", 1),
        (lanes, "PIECE", 5),
        (lanes, "LARGEST_TABLE", 3),
        (lanes, "TASK_BYTES", 1),
        (shard_reader, "SPARE_BYTES", 0),
        (shard_reader, "SPARE_BYTES", 30_000),
        (shard_reader, "BLOCK_BYTES", 1),
        (shard_reader, "BLOCK_BYTES", 200_000),
        (shard_reader, "READ_AHEAD_BYTES", 1),
        (shard_reader, "READ_THREADS", 1),
    ],
)
def test_how_much_is_made_at_a_time_changes_nothing(
    shards: ShardSet, by_chunk: None, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: int
) -> None:
    mix = training_mix([shards], recipe(), 1)
    monkeypatch.setattr(module, name, value)
    if name == "PIECE":
        monkeypatch.setattr(shard_reader, name, value)
    found = read(ShardReader([shards], mix, 8, 1), 120).reshape(120, 8, SEQ + 1)
    for lane in (0, 5):
        assert np.array_equal(found[:, lane], expected_rows(mix, lane, 120))


def test_one_lane_reads_each_sequence_once_an_epoch(shards: ShardSet, dealt: str) -> None:
    mix = training_mix([shards], recipe(max_lanes=1), 1)
    per_epoch = mix.sequences_per_epoch
    assert per_epoch == 70 * 6 + 3
    rows = read(ShardReader([shards], mix, 1, 1), 3 * per_epoch).reshape(3, per_epoch, SEQ + 1)
    for epoch in rows:
        starts = np.sort(epoch[:, 0])
        assert (np.diff(starts) >= SEQ).all()  # no two overlap, so each is there once
    assert not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("size", [2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("number", [1, 2])
def test_an_update_is_the_same_set_for_any_number_of_workers(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, number: int, size: int
) -> None:
    """Both for a large set and for a small one with far fewer chunks than workers."""
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", 10_000)
    with ShardSet(folders[number]) as shards:
        mix = training_mix([shards], recipe(64), size)
        assert mix.lanes == 64 and isinstance(mix.orders[0], ChunkOrder if number == 1 else SequenceOrder)
        one = read(ShardReader([shards], mix, 16, 4), 12)
        parts = [read(ShardReader([shards], mix, 1, 64 // size, rank, size), 12) for rank in range(size)]
    rows = np.concatenate([part.reshape(12, -1, SEQ + 1) for part in parts], axis=1)
    assert np.array_equal(rows, one.reshape(12, 64, SEQ + 1))  # even in the same order, worker after worker


def test_a_chunk_of_a_large_set_is_read_by_one_worker_only(shards: ShardSet, by_chunk: None) -> None:
    """Within an epoch: the rows of two workers never come from the same chunk."""
    mix = training_mix([shards], recipe(), 2)
    updates = mix.sequences_per_epoch // 8 - mix.orders[0].full_sequences  # every lane is still in its first epoch
    chunks = [
        set(((read(ShardReader([shards], mix, 4, 1, rank, 2), updates)[..., 0] - 1000) // CHUNK).ravel().tolist())
        for rank in (0, 1)
    ]
    assert chunks[0] and chunks[1] and not chunks[0] & chunks[1]


@pytest.mark.parametrize("done", [1, 2, 17, 60, 153])
def test_goes_on_exactly_where_it_stopped(shards: ShardSet, dealt: str, done: int) -> None:
    mix = training_mix([shards], recipe(), 2)
    whole = read(ShardReader([shards], mix, 2, 2, 1, 2), done + 20)
    with ShardReader([shards], mix, 2, 2, 1, 2) as opened:
        for _, update in zip(range(done), opened):
            assert update.shape == (2, 2, SEQ + 1)
        state = opened.state()  # however much was read ahead
    ended = 8 * done // mix.sequences_per_epoch > 8 * (done - 1) // mix.sequences_per_epoch
    assert state == {**mix.state(8 * done), "skipped": 0, "epochs_before": 0.0, "epoch_ended": ended}
    resumed = read(ShardReader([shards], mix, 2, 2, 1, 2, place=Place(state["consumed"])), 20)
    assert np.array_equal(resumed, whole[done:])
    other_size = read(ShardReader([shards], mix, 4, 1, 1, 2, place=Place(state["consumed"])), 20)
    assert np.array_equal(other_size.reshape(20, 4, -1), whole[done:].reshape(20, 4, -1))


def test_epoch_counts_what_was_consumed(shards: ShardSet) -> None:
    mix = training_mix([shards], recipe(), 1)
    with ShardReader([shards], mix, 8, 1) as opened:
        ended, updates = [], iter(opened)
        for _ in range(110):
            next(updates)
            ended.append(opened.epoch_ended)
        assert opened.epoch == 110 * 8 / 423
    assert [number + 1 for number, end in enumerate(ended) if end] == [53, 106]  # the first update past 423 and 846


def test_updates_can_be_wrapped_and_are_never_written_again(shards: ShardSet) -> None:
    mix = training_mix([shards], recipe(), 1)
    with ShardReader([shards], mix, 4, 2) as opened:
        kept = [(update, update.copy()) for update, _ in zip(opened, range(3000))]
    for update, copy in kept:
        assert update.flags.c_contiguous and update.dtype == np.int32 and np.array_equal(update, copy)


@pytest.mark.parametrize("dealt", ["chunk", "sequence"], indirect=True)
def test_one_short_chunk_is_enough(tmp_path: Path, dealt: str) -> None:
    tokens = write_set(tmp_path / "set", 40)
    with ShardSet(tmp_path / "set") as shards:
        mix = training_mix([shards], recipe(4), 1)
        assert mix.lanes == (1 if dealt == "chunk" else 4)
        assert (mix.orders[0].num_full, mix.sequences_per_epoch) == (0, 2)
        rows = read(ShardReader([shards], mix, 4, 1), 50).reshape(200, SEQ + 1)
    for row in rows:
        start = int(row[0]) - 1000
        assert np.array_equal(row, tokens[start : start + SEQ + 1])
    if dealt == "chunk":
        assert all(abs(int(one[0]) - int(other[0])) == SEQ for one, other in rows.reshape(100, 2, SEQ + 1))


# --- several sets


@pytest.fixture()
def three(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ShardSet]]:
    """Two sets dealt by the chunk and one by the sequence."""
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", 10_000)
    sets = [ShardSet(folder) for folder in folders]
    yield sets
    for opened in sets:
        opened.close()


def mixed(folders: list[Path], total_batch_size: int = 8) -> Recipe:
    return recipe(total_batch_size, train={str(folder): weight for folder, weight in zip(folders, (0.5, 0.3, 0.2))})


def test_a_mix_is_its_sets_each_in_its_own_order(folders: list[Path], three: list[ShardSet]) -> None:
    mix = training_mix(three, mixed(folders), 1)
    assert [type(order) for order in mix.orders] == [ChunkOrder, ChunkOrder, SequenceOrder] and mix.lanes == 8
    found = read(ShardReader(three, mix, 8, 1), 1300).reshape(1300, 8, SEQ + 1)
    for lane in (0, 3, 7):
        assert np.array_equal(found[:, lane], expected_rows(mix, lane, 1300, which=(0, 1, 2)))
    shares = np.bincount(set_of(found).ravel()) / found[..., 0].size
    assert np.abs(shares - [0.5, 0.3, 0.2]).max() < 0.02


def test_a_mix_repeats_nothing_within_a_sets_own_pass(folders: list[Path], three: list[ShardSet]) -> None:
    one_lane = mixed(folders, 1)
    mix = training_mix(three, one_lane, 1)
    rows = read(ShardReader(three, mix, 1, 1), 3000).reshape(3000, SEQ + 1)
    for k, order in enumerate(mix.orders):
        own = rows[set_of(rows) == k][:, 0]
        per_epoch = order.sequences_per_epoch
        passes = [own[start : start + per_epoch] for start in range(0, len(own), per_epoch)]
        assert len(passes) > 1 or k == 1
        for each in passes:
            assert (np.diff(np.sort(each)) >= SEQ).all()


@pytest.mark.parametrize("size", [2, 8])
def test_a_mix_is_the_same_for_any_number_of_workers_and_resumes(
    folders: list[Path], three: list[ShardSet], size: int
) -> None:
    mix = training_mix(three, mixed(folders), size)
    one = read(ShardReader(three, mix, 8, 1), 1500).reshape(1500, 8, SEQ + 1)
    per_worker = 8 // size
    for done in (0, 1, 1249, 1250, 1490):  # 1,250 updates of 8 are a period
        parts = [
            read(ShardReader(three, mix, per_worker, 1, rank, size, place=Place(8 * done)), 10) for rank in range(size)
        ]
        rows = np.concatenate([part.reshape(10, -1, SEQ + 1) for part in parts], axis=1)
        assert np.array_equal(rows, one[done : done + 10])


def test_a_list_of_sets_is_one_corpus(folders: list[Path], three: list[ShardSet]) -> None:
    mix = training_mix(three, recipe(train=[str(folder) for folder in folders]), 1)
    sizes = np.array([order.sequences_per_epoch for order in mix.orders])
    assert np.abs(np.array(mix.shares) / 10_000 - sizes / sizes.sum()).max() < 1e-4
    with ShardReader(three, mix, 8, 1) as opened:
        lines = opened.describe(10 * mix.sequences_per_epoch).splitlines()
    assert len(lines) == 4 and "are 10.00 epochs; 8 lanes" in lines[3]
    for folder, line in zip(folders, lines):
        passes = float(line.rsplit(", ", 1)[1].split()[0])
        assert line.startswith(f"{folder}: ") and abs(passes - 10) < 0.2


# --- reading ahead


def test_chunks_in_use_are_bounded_and_read_once_an_epoch(
    shards: ShardSet, by_chunk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory: a lane holds `window` chunks and one more. Reading: once each, though some strips are empty."""
    mix = training_mix([shards], recipe(1, window=8), 1)
    assert mix.lanes == 1 and mix.orders[0].full_sequences < 8
    reads: list[int] = []
    whole = shards.read_into
    monkeypatch.setattr(shards, "read_into", lambda chunk, out: reads.append(chunk) or whole(chunk, out))
    monkeypatch.setattr(shard_reader, "SPARE_BYTES", 0)
    monkeypatch.setattr(shard_reader, "BLOCK_BYTES", 1)
    monkeypatch.setattr(shard_reader, "READ_THREADS", 1)  # one after the other
    with ShardReader([shards], mix, 1, 1) as opened:
        (stream,) = opened._lanes[0]._streams
        assert len(stream._tokens) == 9 * CHUNK
        for _ in zip(range(3 * mix.sequences_per_epoch), opened):
            pass
    for epoch in range(3):
        assert sorted(reads[71 * epoch : 71 * (epoch + 1)]) == list(range(71))
