"""Token shards: what goes in comes out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.reading.order import choose_lanes
from kogpt2_gluon.shards.format import Manifest, choose_chunk_bytes, token_dtype
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.shards.shard_helpers import SPECIAL, parts_of, read_back, write_set

# --- round trip


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    lengths=st.lists(
        st.one_of(st.integers(0, 40), st.sampled_from([0, 16, 32, 64, 128, 200])), min_size=1, max_size=60
    ),
    dtype=st.sampled_from(["<u2", "<u4"]),
    chunk_bytes=st.sampled_from([32, 64, 128]),
    chunks_a_shard=st.integers(1, 4),
    batch=st.integers(1, 9),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    dtype: str,
    chunk_bytes: int,
    chunks_a_shard: int,
    batch: int,
) -> None:
    folder = tmp_path_factory.mktemp("round") / "set"
    if not sum(lengths):
        lengths = [*lengths, 1]
    tokens = write_set(folder, lengths, chunk_bytes, chunks_a_shard * chunk_bytes, dtype, batch)
    with ShardSet(folder) as shards:
        assert np.array_equal(read_back(shards), tokens)
        assert shards.manifest.tokens == len(tokens) and shards.manifest.documents == len(lengths)
        assert shards.num_chunks == shards.num_full + bool(shards.tail_tokens)
        ends, before = [], 0
        for info in shards.manifest.shards:
            footer, of_shard, hashes, payload = parts_of(folder / info.name)
            assert footer["tokens"] == info.tokens <= chunks_a_shard * shards.chunk_tokens
            assert footer["documents"] == info.documents == len(of_shard)
            assert payload == tokens[before : before + info.tokens].tobytes()
            cut = [payload[start : start + chunk_bytes] for start in range(0, len(payload), chunk_bytes)]
            assert hashes.tolist() == [xxhash.xxh3_64_intdigest(chunk) for chunk in cut]
            ends += (of_shard.astype(np.int64) + before).tolist()
            before += info.tokens
        assert ends == np.cumsum(lengths).tolist()
    shutil.rmtree(folder)


def test_a_document_that_ends_at_a_border_belongs_to_what_it_fills(tmp_path: Path) -> None:
    tokens = write_set(tmp_path / "set", [128, 384, 512, 512, 7], chunk_bytes=256, shard_bytes=1024, batch=1)
    shards = Manifest.load(tmp_path / "set").shards
    assert [shard.tokens for shard in shards] == [512, 512, 512, 7]
    assert [parts_of(tmp_path / "set" / shard.name)[1].tolist() for shard in shards] == [[128, 512], [512], [512], [7]]
    with ShardSet(tmp_path / "set") as opened:
        assert (opened.num_full, opened.tail_tokens, opened.num_chunks) == (12, 7, 13)
        assert np.array_equal(read_back(opened), tokens)


def test_no_short_chunk_when_the_tokens_fill_the_last(tmp_path: Path) -> None:
    write_set(tmp_path / "set", [1024])
    with ShardSet(tmp_path / "set") as shards:
        assert (shards.num_full, shards.tail_tokens, shards.num_chunks) == (8, 0, 8)


def test_the_footer_names_what_the_file_is(tmp_path: Path) -> None:
    write_set(tmp_path / "set", [700], dtype="<u4")
    footer, *_ = parts_of(tmp_path / "set" / "train-00000.ktok")
    assert footer == {
        "format_version": 2,
        "dtype": "<u4",
        "chunk_bytes": 256,
        "tokens": 256,
        "documents": 0,
        "document_ends_hash": xxhash.xxh3_64_hexdigest(b""),
        "chunks": 4,
        "vocab_size": 70000,
        "tokenizer_sha256": "5a" * 32,
        "special_ids": SPECIAL,
    }


def test_memory_does_not_grow_with_the_documents(tmp_path: Path) -> None:
    """Only the chunk hashes of a shard's metadata stay in memory: 8 bytes each."""
    write_set(tmp_path / "set", [1] * 20000, chunk_bytes=4096, shard_bytes=1 << 20, batch=20000)
    with ShardSet(tmp_path / "set") as shards:
        read_back(shards)
        hashes = shards._hashes[0]
        assert hashes.base is None and hashes.nbytes == 8 * shards.num_chunks


def test_short_reads_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may give less than was asked for."""
    tokens = write_set(tmp_path / "set", [300] * 5)
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: whole(file, [buffers[0][:13]], offset))
    with ShardSet(tmp_path / "set") as shards:
        assert np.array_equal(read_back(shards), tokens)


def test_same_tokens_give_the_same_files_and_fingerprint(tmp_path: Path) -> None:
    write_set(tmp_path / "one", [50] * 40, batch=1)
    write_set(tmp_path / "two", [50] * 40, batch=7)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["manifest.json", "train-00000.ktok", "train-00001.ktok", "train-00002.ktok", "train-00003.ktok"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    write_set(tmp_path / "three", [50] * 39 + [51])
    prints = [Manifest.load(tmp_path / name).fingerprint() for name in ("one", "two", "three")]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(("vocab", "dtype"), [(8, "<u2"), (65535, "<u2"), (65536, "<u4"), (100_000, "<u4")])
def test_token_dtype(vocab: int, dtype: str) -> None:
    assert token_dtype(vocab) == dtype
    assert np.array([vocab - 1]).astype(dtype)[0] == vocab - 1


@pytest.mark.parametrize(
    ("payload", "chunk_bytes"),
    [(0, 64 << 10), (32 << 20, 64 << 10), (64 << 20, 128 << 10), ((64 << 20) - 1, 64 << 10), (10**12, 4 << 20)],
)
def test_choose_chunk_bytes(payload: int, chunk_bytes: int) -> None:
    assert choose_chunk_bytes(payload) == chunk_bytes


def test_chosen_chunks_give_every_lane_its_share() -> None:
    """From 32 MiB of tokens on, all 64 lanes have at least 8 chunks."""
    for exponent in range(25, 36):
        for payload in (1 << exponent, (1 << exponent) * 5 // 4, (2 << exponent) - 1):
            assert choose_lanes(payload // choose_chunk_bytes(payload), 64, 64) == 64
