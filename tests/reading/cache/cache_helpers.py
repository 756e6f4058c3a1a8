"""A small set, and what the tests of the node cache ask of its folder."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from kogpt2_gluon.reading.cache.node_cache import CachedShardSet, NodeCache
from kogpt2_gluon.shards.shard_set import ShardSet

LENGTHS = [100] * 130  # three shards of 8 chunks of 512 tokens, and a short one: 26 chunks
SECOND = "train-00001.ktok"
GIB = 1 << 30


def until(condition: Callable[[], bool]) -> None:
    """Waits for a background thread; half a minute is for a machine under load."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def opened(cache: NodeCache, folder: Path) -> CachedShardSet:
    shards = cache.open(folder)
    assert isinstance(shards, CachedShardSet)
    return shards


def copies(root: Path, shards: ShardSet) -> list[str]:
    return sorted(path.name for path in (root / shards.fingerprint).glob("*.tokens"))


def chunks(root: Path, shards: ShardSet) -> list[int]:
    return sorted(int(path.stem) for path in (root / shards.fingerprint).glob("*.chunk"))


def straight(lane: int, lanes: int = 2, count: int = 26) -> Iterator[tuple[int, int]]:
    """A plan: the lane's share of one set's chunks, over and over."""
    return itertools.cycle([(0, chunk) for chunk in range(lane, count, lanes)])
