"""The held-out reader: every token once, for any number of workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.reading.held_out import HeldOutReader
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.reading.order_helpers import BOS, CHUNK, SEQ, write_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 full chunks and a tail of 61 tokens."""
    path = tmp_path_factory.mktemp("held_out") / "set"
    write_set(path, 70 * CHUNK + 61)
    return path


@pytest.mark.parametrize("num_tokens", [2, 16, 17, 18, 100, 1234, 1600, 1601])
def test_every_token_is_scored_once(tmp_path: Path, num_tokens: int) -> None:
    """For any number of workers and batch size: each but the first token is a label once, after the one before it."""
    tokens = write_set(tmp_path / "set", num_tokens)
    with ShardSet(tmp_path / "set") as shards:
        for size in (1, 2, 3, 7):
            for batch_size in (1, 4, 64):
                labels: list[int] = []
                for rank in range(size):
                    reader = HeldOutReader(shards, SEQ)
                    rows = min(batch_size, -(-reader.num_sequences // size))  # no more than there are
                    for batch in reader.batches(batch_size, rank, size):
                        assert batch.shape == (rows, SEQ + 1) and batch.dtype == np.int32
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


def test_max_sequences_are_evenly_spaced(folder: Path) -> None:
    shards = ShardSet(folder)
    reader = HeldOutReader(shards, SEQ, max_sequences=5)
    assert reader.num_sequences == 5
    both = [row for rank in (0, 1) for batch in reader.batches(2, rank, 2) for row in batch if row[0] != BOS]
    starts = sorted(int(row[0]) - 1000 for row in both)
    assert starts == [index * 442 // 5 * SEQ for index in range(5)]  # of 442 sequences
    assert HeldOutReader(shards, SEQ, max_sequences=10**6).num_sequences == -(-7060 // SEQ)
    shards.close()


@pytest.mark.parametrize(
    ("batch_size", "size", "max_sequences", "rows"),
    [(10_000, 1, 0, 442), (10_000, 4, 0, 111), (10**9, 1, 3, 3), (500, 7, 5, 1), (443, 1, 0, 442), (442, 1, 0, 442)],
)
def test_a_batch_is_not_larger_than_what_there_is(
    folder: Path, batch_size: int, size: int, max_sequences: int, rows: int
) -> None:
    with ShardSet(folder) as shards:
        reader = HeldOutReader(shards, SEQ, max_sequences)
        shapes = [batch.shape for rank in range(size) for batch in reader.batches(batch_size, rank, size)]
        assert set(shapes) == {(rows, SEQ + 1)} and len(shapes) <= size


def test_one_token_is_nothing_to_score(tmp_path: Path) -> None:
    write_set(tmp_path / "set", 1)
    with ShardSet(tmp_path / "set") as shards:
        assert HeldOutReader(shards, SEQ).num_sequences == 0
        assert list(HeldOutReader(shards, SEQ).batches(2)) == []
