"""The reader on sets of full size, made of holes: what it holds in memory, what it writes down, where it begins."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
import xxhash

from kogpt2_gluon.reading.mix import Mix
from kogpt2_gluon.reading.open_sets import training_mix
from kogpt2_gluon.reading.order import ChunkOrder
from kogpt2_gluon.reading.place import Place
from kogpt2_gluon.reading.shard_reader import ShardReader
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.shards.format import Manifest, ShardWriter
from kogpt2_gluon.shards.shard_set import ShardSet

CHUNK_BYTES = 4 << 20
ZEROS = bytes(CHUNK_BYTES)
HASH = xxhash.xxh3_64_intdigest(ZEROS)
MB = 1 << 20


class SparseWriter(ShardWriter):
    """Writes chunks that are all zero as holes: the files take no room but for their ends."""

    def add_holes(self, num_chunks: int) -> None:
        """So many chunks, which are one document."""
        for _ in range(num_chunks):
            self._write_chunk(ZEROS)
        tokens = num_chunks * CHUNK_BYTES // 2
        self._ends.append(self._written // 2)
        self.manifest.tokens += tokens
        self.manifest.documents += 1

    def _write_chunk(self, chunk: bytes) -> None:
        super()._write_chunk(b"")
        assert self._file is not None
        self._file.seek(len(chunk), os.SEEK_CUR)
        self._hashes[-1] = HASH
        self._written += len(chunk)


def write_sparse_set(folder: Path, num_chunks: int) -> None:
    """Shards of 1 GiB with chunks of 4 MiB."""
    folder.mkdir()
    special = {"unk": 0, "bos": 1, "eos": 2, "pad": 3}
    manifest = Manifest("train", "<u2", CHUNK_BYTES, 50_000, "0" * 64, special, "holes")
    with SparseWriter(folder, manifest) as writer:
        writer.add_holes(num_chunks)
        writer.finish()


def recipe(total_batch_size: int, seq_length: int = 1024) -> Recipe:
    settings = {"data": {"seq_length": seq_length}, "model": {"max_length": 1024}}
    return parse_recipe({**settings, "training": {"total_batch_size": total_batch_size, "batch_size": 1}})


@pytest.fixture(scope="module")
def ten_billion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 billion tokens in 19 shards."""
    folder = tmp_path_factory.mktemp("scale") / "set"
    write_sparse_set(folder, 4768)
    return folder


def open_reader(shards: ShardSet, rank: int, size: int, consumed: int) -> tuple[Mix, ShardReader]:
    mix = training_mix([shards], recipe(64), size)
    return mix, ShardReader([shards], mix, 1, 64 // size, rank, size, Place(consumed))


@pytest.mark.parametrize("consumed", [0, 64 * 10**6])
def test_one_worker_of_64_holds_little(ten_billion: Path, consumed: int) -> None:
    """From the start and from the middle: under 200 MB, a few chunks, and a small state."""
    tracemalloc.start()
    try:
        with ShardSet(ten_billion) as shards:
            assert shards.manifest.tokens > 9.99e9
            mix, opened = open_reader(shards, 17, 64, consumed)
            with opened:
                assert mix.lanes == 64 and isinstance(mix.orders[0], ChunkOrder)
                update = next(iter(opened))
                assert update.shape == (1, 1, 1025) and not update.any()
                assert len(json.dumps(opened.state())) < 1000 and opened.consumed == consumed + 64
                read = sum(shards._verified)  # of 4,768 chunks
                assert 1 <= read <= 2 * (8 + 1)
        assert tracemalloc.get_traced_memory()[1] < 200 * MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seq_length", [1, 4, 1024])
def test_memory_is_that_of_the_window(tmp_path: Path, seq_length: int) -> None:
    """lanes x (window + 1) x chunk + 100 MB, whatever the sequences' length; a chunk has 2 million tokens."""
    write_sparse_set(tmp_path / "set", 40)
    tracemalloc.start()
    try:
        with ShardSet(tmp_path / "set") as shards:
            mix = training_mix([shards], recipe(4, seq_length), 1)
            assert mix.lanes == 4
            with ShardReader([shards], mix, 4, 1) as opened:
                for _ in zip(range(3000), opened):
                    pass
        assert tracemalloc.get_traced_memory()[1] < 4 * (8 + 1) * CHUNK_BYTES + 100 * MB
    finally:
        tracemalloc.stop()
