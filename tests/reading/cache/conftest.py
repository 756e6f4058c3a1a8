"""A set of shards, its tokens, and a folder for copies whose threads look often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.reading.cache import fetch as cache_fetch
from kogpt2_gluon.reading.cache.fetch import FullFetcher
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.reading.cache.cache_helpers import LENGTHS
from tests.shards.shard_helpers import read_back, write_documents


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    write_documents(tmp_path / "set", LENGTHS)
    return tmp_path / "set"


@pytest.fixture()
def tokens(folder: Path) -> np.ndarray:
    with ShardSet(folder) as shards:
        return read_back(shards)


@pytest.fixture()
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache_fetch, "LOCK_POLL", 0.02)
    monkeypatch.setattr(FullFetcher, "LOOK", 0.02)
    return tmp_path / "cache"
