"""Three small sets of shards, and what the tests of the training reader read of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.reading import open_sets, shard_reader
from kogpt2_gluon.reading.shard_reader import ShardReader
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.reading.order_helpers import CHUNK, SEQ, write_set

FIRST = (1000, 1_000_000, 2_000_000)  # first tokens of the three sets
TOKENS = (70 * CHUNK + 61, 540 * CHUNK, 5 * CHUNK + 40)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sets of 70 full chunks and a tail, of 540 chunks, and of 5 chunks and a tail; no token is in two of them."""
    work = tmp_path_factory.mktemp("reader")
    for number, (first, tokens) in enumerate(zip(FIRST, TOKENS)):
        write_set(work / f"set{number}", tokens, first)
    return [work / f"set{number}" for number in range(3)]


@pytest.fixture()
def shards(folders: list[Path]) -> Iterator[ShardSet]:
    with ShardSet(folders[0]) as opened:
        yield opened


@pytest.fixture(params=["chunk", "sequence"])
def dealt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of dealing, whatever the set's size."""
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", 0 if request.param == "chunk" else 1 << 40)
    return str(request.param)


@pytest.fixture()
def by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", 0)


@pytest.fixture(autouse=True)
def little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """These updates are tiny: thousands of them would be made, in every test, to be thrown away."""
    monkeypatch.setattr(shard_reader, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(shard_reader, "READ_AHEAD_BYTES", 40_000)
    monkeypatch.setattr(shard_reader, "SPARE_BYTES", 20_000)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def recipe(total_batch_size: int = 8, **data: object) -> Recipe:
    settings = {"seq_length": SEQ, "window": 3, **data}
    return parse_recipe({"data": settings, "training": {"total_batch_size": total_batch_size, "seed": 5}})


def read(opened: ShardReader, updates: int) -> np.ndarray:
    """(updates, accumulate, batch_size, seq_length + 1)."""
    with opened:
        return np.stack([update for update, _ in zip(opened, range(updates))])
