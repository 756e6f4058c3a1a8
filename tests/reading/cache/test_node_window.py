"""The node cache in the mode `window`: what is read next is there, within its bound."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.reading.cache.node_cache import NodeCache
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.reading.cache.cache_helpers import GIB, LENGTHS, chunks, opened, straight, until
from tests.reading.cache.window_helpers import settle, window
from tests.shards.shard_helpers import flip, read_back, write_documents


def test_window_keeps_what_is_read_next(folder: Path, root: Path) -> None:
    fetcher = window(root, folder, straight, lanes=2, limit=6 * 1024)  # three chunks a lane
    shards = ShardSet(folder)
    settle(fetcher)
    assert chunks(root, shards) == [0, 1, 2, 3, 4, 5]
    fetcher._progress[:] = 2, 1
    settle(fetcher)
    assert chunks(root, shards) == [3, 4, 5, 6, 7, 8]
    fetcher._progress[:] = 12, 12  # the readers were faster: what they passed is not copied
    settle(fetcher)
    assert chunks(root, shards) == [0, 1, 2, 3, 24, 25]
    fetcher._progress[:] = 0, 0  # the run begins again
    settle(fetcher)
    assert chunks(root, shards) == [0, 1, 2, 3, 4, 5]
    fetcher.close()


def test_window_copies_the_nearest_first(folder: Path, root: Path) -> None:
    fetcher = window(root, folder, straight, lanes=2, limit=GIB)
    fetcher.step()
    assert chunks(root, ShardSet(folder)) == list(range(fetcher.BATCH))


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    plans=st.lists(st.lists(st.integers(0, 25), max_size=30), min_size=1, max_size=4),
    ahead=st.integers(1, 5),
    moves=st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), max_size=6),
)
def test_window_holds_its_bound_and_what_is_next(
    tmp_path_factory: pytest.TempPathFactory, plans: list[list[int]], ahead: int, moves: list[list[int]]
) -> None:
    work = tmp_path_factory.mktemp("window")
    write_documents(work / "set", LENGTHS)
    shards, lanes = ShardSet(work / "set"), len(plans)
    items = [[(0, chunk) for chunk in plan] for plan in plans]
    fetcher = window(work, work / "set", lambda lane: iter(items[lane]), lanes, limit=lanes * ahead * 1024)
    for move in [[0] * 4, *moves]:
        for lane in range(lanes):
            fetcher._progress[lane] += np.uint64(move[lane])
        wait = 0.0
        while wait == 0.0:
            wait = fetcher.step()
            assert len(chunks(work, shards)) <= lanes * ahead
        places = [int(place) for place in fetcher._progress]
        next_ones = {chunk for plan, place in zip(plans, places) for chunk in plan[place : place + ahead]}
        assert set(chunks(work, shards)) == next_ones
    fetcher.close()
    shutil.rmtree(work)


def test_window_follows_its_readers(folder: Path, root: Path, tokens: np.ndarray) -> None:
    """Through the threads: what a worker read is removed, what comes next appears, for two workers of a node."""
    limit = 8 * 1024 / GIB
    with NodeCache("window", str(root), limit) as first, NodeCache("window", str(root), limit) as second:
        sets = [opened(cache, folder) for cache in (first, second)]
        first.start(straight, range(2), [0])
        second.start(straight, range(2), [1])
        until(lambda: chunks(root, sets[0]) == list(range(8)))
        out = np.empty(512, "<u2")
        for chunk in range(8):
            worker = sets[chunk % 2]
            count = worker.read_into(chunk, out)
            assert np.array_equal(out[:count], tokens[chunk * 512 : chunk * 512 + count])
        until(lambda: chunks(root, sets[0]) == list(range(8, 16)))
        assert sum(each.hits for each in sets) == 8


def test_a_damaged_window_copy_is_read_from_the_set(
    folder: Path, root: Path, tokens: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with NodeCache("window", str(root), 1) as cache:
        shards = opened(cache, folder)
        (root / shards.fingerprint / "3.chunk").write_bytes(tokens[512:1024].tobytes())  # another chunk's
        (root / shards.fingerprint / "4.chunk").write_bytes(b"")
        assert np.array_equal(read_back(shards), tokens)
        assert shards.misses == 26 and chunks(root, shards) == []
        assert sum("damaged" in line for line in caplog.messages) == 2


def test_window_leaves_damaged_chunks_of_the_set_to_the_reader(folder: Path, root: Path) -> None:
    flip(folder / "train-00000.ktok", 1024 * 3)
    fetcher = window(root, folder, straight, lanes=2, limit=6 * 1024)
    settle(fetcher)
    assert chunks(root, ShardSet(folder)) == [0, 1, 2, 4, 5]
