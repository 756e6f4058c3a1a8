"""Sets that cannot be read together, or not by so many workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.reading import open_sets
from kogpt2_gluon.reading.open_sets import training_mix
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.reading.order_helpers import CHUNK, SEQ, write_set


@pytest.fixture()
def shards(tmp_path: Path) -> Iterator[ShardSet]:
    """A set of 70 full chunks and a tail."""
    write_set(tmp_path / "first", 70 * CHUNK + 61)
    with ShardSet(tmp_path / "first") as opened:
        yield opened


@pytest.fixture()
def by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", 0)


def recipe(total_batch_size: int = 8, **data: object) -> Recipe:
    settings = {"seq_length": SEQ, "window": 3, **data}
    return parse_recipe({"data": settings, "training": {"total_batch_size": total_batch_size, "seed": 5}})


def test_too_few_tokens(tmp_path: Path) -> None:
    write_set(tmp_path / "set", 16)
    with ShardSet(tmp_path / "set") as shards, pytest.raises(DataError) as caught:
        training_mix([shards], recipe(), 1)
    assert str(tmp_path / "set") in str(caught.value) and "16 tokens" in str(caught.value)
    assert "data.seq_length=16" in str(caught.value) and "\n" not in str(caught.value)


def test_a_sequence_longer_than_a_chunk(shards: ShardSet) -> None:
    with pytest.raises(DataError, match="seq_length=100"):
        training_mix([shards], recipe(seq_length=CHUNK), 1)
    assert training_mix([shards], recipe(seq_length=CHUNK - 1), 1).sequences_per_epoch == 70


@pytest.mark.parametrize(
    ("size", "total_batch_size", "message"),
    [(3, 24, "a power of two"), (16, 16, "128 chunks"), (8, 12, "divisible by 8")],
)
def test_workers_that_cannot_share_the_lanes(
    shards: ShardSet, by_chunk: None, size: int, total_batch_size: int, message: str
) -> None:
    """A set above the limit that was forced into few chunks lowers the lanes."""
    with pytest.raises(RecipeError) as caught:
        training_mix([shards], recipe(total_batch_size), size)
    text = str(caught.value)
    assert text.startswith(f"{size} workers cannot share the") and message in text and "\n" not in text
    assert str(shards.folder) in text and f"total_batch_size={total_batch_size}" in text


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"tokenizer_sha256": "1" * 64}, "tokenizer_sha256"),
        ({"vocab_size": 10**7 + 1}, "vocab_size"),
        ({"special_ids": {"unk": 0, "bos": 2, "eos": 1, "pad": 3}}, "special_ids"),
    ],
)
def test_sets_that_do_not_fit_together(shards: ShardSet, tmp_path: Path, facts: dict[str, Any], named: str) -> None:
    write_set(tmp_path / "set", 1000, **facts)
    with ShardSet(tmp_path / "set") as other, pytest.raises(DataError, match=f"its {named} is") as caught:
        training_mix([shards, other], recipe(), 1)
    assert str(tmp_path / "set") in str(caught.value) and str(shards.folder) in str(caught.value)


def test_a_set_named_twice(shards: ShardSet) -> None:
    with ShardSet(shards.folder) as again, pytest.raises(DataError, match="the same shards as"):
        training_mix([shards, again], recipe(), 1)
