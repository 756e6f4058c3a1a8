"""Readers: the stream that the order promises, for any number of workers and after any stop, and an end to it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest

from kogpt2_gluon.data.order import Order
from kogpt2_gluon.data.reader import READ_AHEAD, HeldOutReader, TrainingReader, training_order
from kogpt2_gluon.data.shards import Manifest, ShardSet, ShardWriter
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import parse_recipe

SEQ = 16
CHUNK = 100  # tokens
BOS = 1


def write_set(folder: Path, num_tokens: int) -> np.ndarray:
    """Shards of four chunks; every token is its own place, so that a row tells where it was read."""
    folder.mkdir()
    tokens = np.arange(num_tokens, dtype="<u4") + 1000
    special = {"unk": 0, "bos": BOS, "eos": 2, "pad": 3}
    manifest = Manifest("train", "<u4", 4 * CHUNK, 10**6, "0" * 64, special, "a test")
    with ShardWriter(folder, manifest, 16 * CHUNK) as writer:
        writer.add(tokens, [num_tokens])
        writer.finish()
    return tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 full chunks and a tail of 61 tokens."""
    path = tmp_path_factory.mktemp("reader") / "set"
    write_set(path, 70 * CHUNK + 61)
    return path


@pytest.fixture()
def shards(folder: Path) -> Iterator[ShardSet]:
    with ShardSet(folder) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def recipe(total_batch_size: int = 8, **data: object):
    settings = {"seq_length": SEQ, "window": 3, **data}
    return parse_recipe({"data": settings, "training": {"total_batch_size": total_batch_size, "seed": 5}})


def read(reader: TrainingReader, updates: int) -> np.ndarray:
    """(updates, accumulate, batch_size, seq_length + 1)."""
    with reader:
        return np.stack([update for update, _ in zip(reader, range(updates))])


def expected_rows(order: Order, tokens: np.ndarray, lane: int, count: int) -> np.ndarray:
    """The lane's first sequences, cut from the whole token array."""
    rows: list[np.ndarray] = []
    number = 0
    while len(rows) < count:
        slot = order.slot(lane, number)
        for chunk, offset in zip(slot.chunk.tolist(), slot.offset.tolist()):
            start = chunk * order.chunk_tokens + offset
            rows.append(tokens[start : start + order.seq_length + 1])
        number += 1
    return np.stack(rows[:count])


# --- training


def test_the_sequences_are_those_of_the_order(shards: ShardSet) -> None:
    order = training_order(shards, recipe(), 1)
    assert (order.lanes, order.window, order.num_full, order.tail_tokens) == (8, 3, 70, 61)
    tokens = np.arange(70 * CHUNK + 61) + 1000
    updates = 2 * order.sequences_per_epoch // 8
    found = read(TrainingReader(shards, order, batch_size=4, accumulate=2), updates)
    assert found.shape == (updates, 2, 4, SEQ + 1) and found.dtype == np.int32
    of_lane = found.reshape(updates, 8, SEQ + 1)
    for lane in range(8):
        assert np.array_equal(of_lane[:, lane], expected_rows(order, tokens, lane, updates))


def test_one_lane_reads_each_sequence_once_an_epoch(shards: ShardSet) -> None:
    order = training_order(shards, recipe(max_lanes=1), 1)
    per_epoch = order.sequences_per_epoch
    assert per_epoch == 70 * 6 + 3
    reader = TrainingReader(shards, order, batch_size=1, accumulate=1)
    rows = read(reader, 3 * per_epoch).reshape(3, per_epoch, SEQ + 1)
    for epoch in rows:
        starts = np.sort(epoch[:, 0])
        assert (np.diff(starts) >= SEQ).all()  # no two overlap, so each is there once
    assert not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("size", [2, 4, 8])
def test_an_update_is_the_same_set_for_any_number_of_workers(shards: ShardSet, size: int) -> None:
    order = training_order(shards, recipe(16), size)
    one = read(TrainingReader(shards, order, 4, 4), 60)
    parts = [read(TrainingReader(shards, order, 2, 8 // size, rank, size), 60) for rank in range(size)]
    rows = np.concatenate([part.reshape(60, -1, SEQ + 1) for part in parts], axis=1)
    assert np.array_equal(rows, one.reshape(60, 16, SEQ + 1))  # even in the same order, worker after worker


def test_a_chunk_is_read_by_one_worker_only(shards: ShardSet) -> None:
    """Within an epoch: the rows of two workers never come from the same chunk."""
    order = training_order(shards, recipe(), 2)
    updates = order.sequences_per_epoch // 8 - order.full_sequences  # every lane is still in its first epoch
    chunks = [
        set(((read(TrainingReader(shards, order, 4, 1, rank, 2), updates)[..., 0] - 1000) // CHUNK).ravel().tolist())
        for rank in (0, 1)
    ]
    assert chunks[0] and chunks[1] and not chunks[0] & chunks[1]


@pytest.mark.parametrize("done", [1, 2, 17, 60, 153])
def test_goes_on_exactly_where_it_stopped(shards: ShardSet, done: int) -> None:
    order = training_order(shards, recipe(), 2)
    whole = read(TrainingReader(shards, order, 2, 2, 1, 2), done + 20)
    with TrainingReader(shards, order, 2, 2, 1, 2) as reader:
        for _, update in zip(range(done), reader):
            assert update.shape == (2, 2, SEQ + 1)
        state = reader.state()  # however much was read ahead
    assert state == order.state(8 * done)
    resumed = read(TrainingReader(shards, order, 2, 2, 1, 2, consumed=state["consumed"]), 20)
    assert np.array_equal(resumed, whole[done:])
    other_size = read(TrainingReader(shards, order, 4, 1, 1, 2, consumed=state["consumed"]), 20)
    assert np.array_equal(other_size.reshape(20, 4, -1), whole[done:].reshape(20, 4, -1))


def test_epoch_counts_what_was_consumed(shards: ShardSet) -> None:
    order = training_order(shards, recipe(), 1)
    with TrainingReader(shards, order, 8, 1) as reader:
        ended, updates = [], iter(reader)
        for _ in range(110):
            next(updates)
            ended.append(reader.epoch_ended)
        assert reader.epoch == 110 * 8 / 423
    assert [number + 1 for number, end in enumerate(ended) if end] == [53, 106]  # the first update past 423 and 846


def test_chunks_in_use_are_bounded_and_read_once_an_epoch(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory: a lane holds `window` chunks. Reading: once each, though some strips of a short chunk are empty."""
    order = training_order(shards, recipe(1, window=8), 1)
    assert order.lanes == 1 and order.full_sequences < order.window
    reads: list[int] = []
    whole = shards.read_chunk
    monkeypatch.setattr(shards, "read_chunk", lambda chunk: reads.append(chunk) or whole(chunk))
    with TrainingReader(shards, order, 1, 1) as reader:
        for _ in zip(range(order.sequences_per_epoch - READ_AHEAD - 2), reader):
            assert len(reader._lanes[0]._chunks) <= order.window
    assert len(reads) == len(set(reads)) <= 71


def test_one_short_chunk_is_enough(tmp_path: Path) -> None:
    tokens = write_set(tmp_path / "set", 40)
    with ShardSet(tmp_path / "set") as shards:
        order = training_order(shards, recipe(4), 1)
        assert (order.lanes, order.num_full, order.sequences_per_epoch) == (1, 0, 2)
        rows = read(TrainingReader(shards, order, 4, 1), 50).reshape(200, SEQ + 1)
    for row in rows:
        start = int(row[0]) - 1000
        assert np.array_equal(row, tokens[start : start + SEQ + 1])
    assert all(abs(int(one[0]) - int(other[0])) == SEQ for one, other in rows.reshape(100, 2, SEQ + 1))


# --- the background thread


def test_reads_ahead_but_not_for_ever(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    order = training_order(shards, recipe(), 1)
    made = threading.Semaphore(0)
    whole = TrainingReader._next_update
    monkeypatch.setattr(TrainingReader, "_next_update", lambda self: (whole(self), made.release())[0])
    with TrainingReader(shards, order, 8, 1) as reader:
        for _ in range(READ_AHEAD + 1):  # the queue, and the one that waits to get in
            assert made.acquire(timeout=30)
        assert not made.acquire(timeout=0.2)
        next(iter(reader))
        assert made.acquire(timeout=30)


@pytest.mark.parametrize("consume", [0, 1, 7])
def test_close_ends_the_thread(shards: ShardSet, consume: int) -> None:
    order = training_order(shards, recipe(), 1)
    reader = TrainingReader(shards, order, 8, 1)
    thread = reader._thread
    for _ in zip(range(consume), reader):
        pass
    reader.close()
    reader.close()
    assert not thread.is_alive()
    with pytest.raises(AssertionError, match="after close"):
        next(iter(reader))


def test_close_at_any_moment(shards: ShardSet) -> None:
    order = training_order(shards, recipe(), 1)
    for pause in np.linspace(0, 0.02, 25):
        reader = TrainingReader(shards, order, 8, 1)
        time.sleep(pause)
        reader.close()
        assert not reader._thread.is_alive()


def test_an_error_while_reading_ahead_reaches_the_loop(tmp_path: Path) -> None:
    """After every update that was still good."""
    write_set(tmp_path / "set", 70 * CHUNK)
    with ShardSet(tmp_path / "set") as shards:
        order = training_order(shards, recipe(), 1)
        whole = read(TrainingReader(shards, order, 8, 1), 50)
    later = int(order.slot(5, 6).chunk[0])  # not among the chunks that are read when the reader is made
    path = tmp_path / "set" / f"train-{later // 4:05d}.ktok"
    data = bytearray(path.read_bytes())
    data[(later % 4) * CHUNK * 4 + 50] ^= 1
    path.write_bytes(data)
    good = 0
    with ShardSet(tmp_path / "set") as shards, TrainingReader(shards, order, 8, 1) as reader:
        updates = iter(reader)
        with pytest.raises(DataError, match=rf"{path.name}: chunk {later % 4} at byte {(later % 4) * 400}"):
            while good < 50:
                assert np.array_equal(next(updates), whole[good])
                good += 1
        assert 5 < good < 50 and reader.consumed == 8 * good
        with pytest.raises(DataError):  # and again for whoever asks again: it does not wait for ever
            next(iter(reader))


def test_an_error_at_the_start_leaves_no_thread(tmp_path: Path) -> None:
    write_set(tmp_path / "set", 70 * CHUNK)
    with ShardSet(tmp_path / "set") as shards:
        order = training_order(shards, recipe(), 1)
        for path in (tmp_path / "set").glob("*.ktok"):
            path.write_bytes(bytes(path.stat().st_size))
        with pytest.raises(DataError):
            TrainingReader(shards, order, 8, 1)


# --- what cannot work


def test_too_few_tokens(tmp_path: Path) -> None:
    write_set(tmp_path / "set", 16)
    with ShardSet(tmp_path / "set") as shards, pytest.raises(DataError) as caught:
        training_order(shards, recipe(), 1)
    assert str(tmp_path / "set") in str(caught.value) and "16 tokens" in str(caught.value)
    assert "data.seq_length=16" in str(caught.value) and "\n" not in str(caught.value)


def test_a_sequence_longer_than_a_chunk(shards: ShardSet) -> None:
    with pytest.raises(DataError, match="seq_length=100"):
        training_order(shards, recipe(seq_length=CHUNK), 1)
    assert training_order(shards, recipe(seq_length=CHUNK - 1), 1).sequences_per_epoch == 70


@pytest.mark.parametrize(
    ("size", "total_batch_size", "message"),
    [(3, 24, "a power of two"), (16, 16, "128 chunks"), (8, 12, "divisible by 8")],
)
def test_workers_that_cannot_share_the_lanes(shards: ShardSet, size: int, total_batch_size: int, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        training_order(shards, recipe(total_batch_size), size)
    text = str(caught.value)
    assert text.startswith(f"{size} workers cannot share the") and message in text and "\n" not in text
    assert str(shards.folder) in text and f"total_batch_size={total_batch_size}" in text


# --- held-out


@pytest.mark.parametrize("num_tokens", [2, 16, 17, 18, 100, 1234, 1600, 1601])
def test_every_token_is_scored_once(tmp_path: Path, num_tokens: int) -> None:
    """For any number of workers and batch size: each but the first token is a label once, after the one before it."""
    tokens = write_set(tmp_path / "set", num_tokens)
    with ShardSet(tmp_path / "set") as shards:
        for size in (1, 2, 3, 7):
            for batch_size in (1, 4, 64):
                labels: list[int] = []
                for rank in range(size):
                    for batch in HeldOutReader(shards, SEQ).batches(batch_size, rank, size):
                        assert batch.shape == (batch_size, SEQ + 1) and batch.dtype == np.int32
                        real = batch[:, 1:] != BOS
                        assert np.array_equal(batch[:, :-1][real], batch[:, 1:][real] - 1)
                        labels += batch[:, 1:][real].tolist()
                        padding = batch[batch < 1000]
                        assert (padding == BOS).all()
                assert sorted(labels) == tokens[1:].tolist()


def test_held_out_sequences_run_on_across_chunks_and_shards(tmp_path: Path) -> None:
    tokens = write_set(tmp_path / "set", 950)
    with ShardSet(tmp_path / "set") as shards:
        assert len(shards.manifest.shards) == 3
        reader = HeldOutReader(shards, seq_length=237)  # longer than a chunk
        rows = np.concatenate(list(reader.batches(2)))
        assert reader.num_sequences == 5 and rows.shape == (6, 238)
        for number in range(4):
            assert np.array_equal(rows[number], tokens[number * 237 : number * 237 + 238])
        assert np.array_equal(rows[4], [*tokens[948:], *[BOS] * 236]) and (rows[5] == BOS).all()


def test_max_sequences_are_evenly_spaced(shards: ShardSet) -> None:
    reader = HeldOutReader(shards, SEQ, max_sequences=5)
    assert reader.num_sequences == 5
    both = [row for rank in (0, 1) for batch in reader.batches(2, rank, 2) for row in batch if row[0] != BOS]
    starts = sorted(int(row[0]) - 1000 for row in both)
    assert starts == [index * 442 // 5 * SEQ for index in range(5)]  # of 442 sequences
    assert HeldOutReader(shards, SEQ, max_sequences=10**6).num_sequences == -(-7060 // SEQ)


def test_one_token_is_nothing_to_score(tmp_path: Path) -> None:
    write_set(tmp_path / "set", 1)
    with ShardSet(tmp_path / "set") as shards:
        assert HeldOutReader(shards, SEQ).num_sequences == 0
        assert list(HeldOutReader(shards, SEQ).batches(2)) == []
