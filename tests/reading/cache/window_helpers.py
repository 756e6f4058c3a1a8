"""A window of copies, by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kogpt2_gluon.reading.cache import fetch as cache_fetch
from kogpt2_gluon.reading.cache.fetch import POLL, WindowFetcher
from kogpt2_gluon.reading.cache.node_cache import claim_folder
from kogpt2_gluon.shards.shard_set import ShardSet


def window(root: Path, folder: Path, plan: cache_fetch.Plan, lanes: int, limit: int) -> WindowFetcher:
    shards = ShardSet(folder)
    claim_folder(root, shards.fingerprint)
    progress = np.zeros(lanes, np.uint64)
    fetcher = WindowFetcher(root, [shards], [root / shards.fingerprint], limit, plan, range(lanes), progress)
    fetcher.prepare()
    return fetcher


def settle(fetcher: WindowFetcher) -> None:
    while fetcher.step() != POLL:
        pass
