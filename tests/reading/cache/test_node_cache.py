"""The node cache: right tokens whatever lies in it, one process that copies, a bound that holds."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading import open_sets, shard_reader
from kogpt2_gluon.reading.cache import node_cache as cache_module
from kogpt2_gluon.reading.cache.fetch import MARK, FullFetcher, make_room
from kogpt2_gluon.reading.cache.node_cache import NodeCache, claim_folder, node_lanes
from kogpt2_gluon.reading.training_data import open_training_reader
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.shards.shard_set import CorruptChunkError, ShardSet
from tests.reading.cache.cache_helpers import GIB, SECOND, chunks, copies, opened, straight, until
from tests.reading.cache.window_helpers import settle, window
from tests.shards.shard_helpers import flip, read_back, write_documents

# --- off, and what cannot be


def test_off_is_a_plain_set(folder: Path) -> None:
    with NodeCache() as cache:
        assert type(cache.open(folder)) is ShardSet
        cache.start()


@pytest.mark.parametrize("mode", ["window", "full"])
def test_a_cache_needs_a_folder(mode: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.cache_dir=DIR"):
        NodeCache(mode)


def test_full_refuses_sets_beyond_its_limit(folder: Path, root: Path, tmp_path: Path) -> None:
    write_documents(tmp_path / "other", [99] * 130)
    size = sum(path.stat().st_size for path in folder.glob("*.ktok"))
    cache = NodeCache("full", str(root), 1.5 * size / GIB)
    cache.open(folder)
    cache.open(folder)  # the same set again takes no more
    with pytest.raises(RecipeError, match=r"data.cache=full would copy .* GiB, more than data.cache_gib="):
        cache.open(tmp_path / "other")


def test_window_refuses_less_than_a_chunk_a_lane(folder: Path, root: Path) -> None:
    cache = NodeCache("window", str(root), 3 * 1024 / GIB)
    cache.open(folder)
    with pytest.raises(RecipeError, match="4 lanes"):
        cache.start(straight, range(4), range(4))


# --- full


def test_full_copies_all_and_reads_from_there(folder: Path, root: Path, tokens: np.ndarray) -> None:
    with NodeCache("full", str(root), 1) as cache:
        shards = opened(cache, folder)
        assert np.array_equal(read_back(shards), tokens) and shards.hits == 0  # nothing there yet
        cache.start()
        until(lambda: len(copies(root, shards)) == 4)
        shards.hits = shards.misses = 0
        for _ in range(2):
            assert np.array_equal(read_back(shards), tokens)
        assert (shards.hits, shards.misses) == (52, 0)
        shards.close()
    stored = b"".join(path.read_bytes() for path in sorted((root / shards.fingerprint).glob("*.tokens")))
    assert stored == tokens.tobytes()
    with NodeCache("full", str(root), 1) as cache:  # the next run finds them
        shards = opened(cache, folder)
        read_back(shards)
        assert (shards.hits, shards.misses) == (26, 0)


@pytest.mark.parametrize("damage", [lambda path: flip(path, 2000), lambda path: os.truncate(path, 3000)])
def test_a_damaged_copy_is_replaced(
    folder: Path, root: Path, tokens: np.ndarray, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    with NodeCache("full", str(root), 1) as cache:
        shards = opened(cache, folder)
        cache.start()
        until(lambda: len(copies(root, shards)) == 4)
    copy = root / shards.fingerprint / f"{SECOND}.tokens"
    damage(copy)
    with NodeCache("full", str(root), 1) as cache:
        shards = opened(cache, folder)
        assert np.array_equal(read_back(shards), tokens)
        assert not copy.exists() and 0 < shards.misses < 9
        assert sum("removed from the cache" in line and str(copy) in line for line in caplog.messages) == 1
        cache.start()
        until(copy.exists)
        shards.hits = shards.misses = 0
        assert np.array_equal(read_back(shards), tokens) and shards.misses == 0


def test_a_copy_that_goes_bad_is_not_made_for_ever(
    folder: Path, root: Path, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NodeCache("full", str(root), 1) as cache:
        shards = opened(cache, folder)
        cache.start()
        copy = root / shards.fingerprint / f"{SECOND}.tokens"
        for _ in range(FullFetcher.TRIES):
            until(copy.exists)
            until(lambda: len(copies(root, shards)) == 4)
            copy.unlink()
        time.sleep(0.2)
        assert not copy.exists()
        assert np.array_equal(read_back(shards), tokens)


def test_a_damaged_chunk_of_the_set_is_not_copied(folder: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    flip(folder / SECOND, 2000)
    with NodeCache("full", str(root), 1) as cache:
        shards = opened(cache, folder)
        cache.start()
        until(lambda: len(copies(root, shards)) == 3 and "not copied into the cache" in caplog.text)
        with pytest.raises(CorruptChunkError, match=str(folder / SECOND)):
            read_back(shards)
    assert "is damaged" in caplog.text and "data.corrupt=skip" not in caplog.text  # it may be set already
    assert copies(root, shards) == [f"train-0000{number}.ktok.tokens" for number in (0, 2, 3)]
    assert not list((root / shards.fingerprint).glob(".*.partial"))


# --- one process that copies


def test_one_copies_and_another_takes_over(folder: Path, root: Path) -> None:
    first, second = NodeCache("full", str(root), 1), NodeCache("full", str(root), 1)
    shards = opened(first, folder)
    first.start()
    until(lambda: len(copies(root, shards)) == 4)
    second.open(folder)
    second.start()
    copy = root / shards.fingerprint / f"{SECOND}.tokens"
    first.close()
    copy.unlink()  # only whoever holds the lock makes it again
    until(copy.exists)
    second.close()


def test_only_the_holder_of_the_lock_copies(folder: Path, root: Path, tmp_path: Path) -> None:
    write_documents(tmp_path / "other", [99] * 130)
    with NodeCache("full", str(root), 1) as first, NodeCache("full", str(root), 1) as second:
        shards, other = opened(first, folder), opened(second, tmp_path / "other")
        first.start()
        until(lambda: len(copies(root, shards)) == 4)
        second.start()
        time.sleep(0.3)
        assert copies(root, other) == []
        first.close()
        until(lambda: len(copies(root, other)) == 4)


HOLDER = """
import sys, time
from pathlib import Path
from kogpt2_gluon.reading.cache.node_cache import NodeCache
cache = NodeCache("full", sys.argv[2], 1)
cache.open(Path(sys.argv[1]))
cache.start()
print("started", flush=True)
time.sleep(600)
"""


def test_a_killed_process_gives_the_lock_up(folder: Path, root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(folder), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "started\n"
        fingerprint = ShardSet(folder).fingerprint
        until(lambda: len(list((root / fingerprint).glob("*.tokens"))) == 4)
        leftover = root / fingerprint / ".x.tokens.0123.partial"
        leftover.write_bytes(b"half")  # as if it was copying
        holder.kill()
        holder.wait()
    (root / fingerprint / f"{SECOND}.tokens").unlink()
    with NodeCache("full", str(root), 1) as cache:
        shards = opened(cache, folder)
        cache.start()
        until(lambda: len(copies(root, shards)) == 4)
        assert not leftover.exists()


# --- room


def test_the_least_recently_used_sets_make_room(tmp_path: Path) -> None:
    sets = {}
    for number, name in enumerate("abcd"):
        sets[name] = claim_folder(tmp_path, name)
        (sets[name] / "x.tokens").write_bytes(bytes(1000))
        os.utime(sets[name] / MARK, (number, number))
    (tmp_path / "mine").mkdir()  # without a mark
    (tmp_path / "mine" / "precious").write_bytes(bytes(5000))
    (tmp_path / "link").symlink_to(sets["a"])
    make_room(tmp_path, [sets["a"]], 2200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "d", "link", "mine"]
    make_room(tmp_path, [sets["a"]], 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link", "mine"]
    assert (tmp_path / "mine" / "precious").exists()


def test_folders_that_may_not_be_looked_into_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk's lost+found, or the sets of another user."""
    claim_folder(tmp_path, "old")
    (tmp_path / "lost+found").mkdir()
    plain = Path.is_file

    def is_file(path: Path) -> bool:
        if "lost+found" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    make_room(tmp_path, [], 0)
    assert [path.name for path in tmp_path.iterdir()] == ["lost+found"]


def test_one_kind_removes_what_the_other_left(folder: Path, root: Path) -> None:
    with NodeCache("full", str(root), 1) as cache:
        shards = opened(cache, folder)
        cache.start()
        until(lambda: len(copies(root, shards)) == 4)
    fetcher = window(root, folder, straight, lanes=2, limit=6 * 1024)
    settle(fetcher)
    assert copies(root, shards) == [] and len(chunks(root, shards)) == 6


# --- through the training reader


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("mode", ["full", "window"])
def test_training_reads_the_same_with_a_cache(
    shards: Path, tmp_path: Path, root: Path, mode: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run, and a resume from its middle with a warm cache; on a set dealt by the chunk and a small one together."""
    with ShardSet(shards / "test") as small:
        monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", small.manifest.tokens * small.dtype.itemsize)
    monkeypatch.setattr(shard_reader, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(shard_reader, "READ_AHEAD_BYTES", 8000)

    def read(kind: str, rank: int, count: int, state: dict[str, Any] | None = None) -> tuple[np.ndarray, dict, int]:
        data = {"train": {str(shards / "train"): 3, str(shards / "test"): 1}, "seq_length": 32, "cache": kind}
        data |= {"cache_dir": "" if kind == "off" else str(root), "cache_gib": 0.001, "window": 2}
        recipe = parse_recipe(
            {
                "model": {"vocab_size": 1200, "max_length": 32, "units": 32, "num_heads": 2},
                "data": data,
                "training": {"batch_size": 4, "total_batch_size": 8},
            }
        )
        worker = Worker()
        worker.rank = worker.local_rank = rank
        worker.size = worker.local_size = size
        with open_training_reader(recipe, worker, state) as reader:  # type: ignore[attr-defined]
            if kind != "off" and state is not None:
                until(lambda: any(root.glob("*/*.tokens")) or any(root.glob("*/*.chunk")))
            updates = np.stack([update for _, update in zip(range(count), reader)])
            hits = sum(getattr(each, "hits", 0) for each in reader._sets)
            return updates, reader.state(), hits

    for rank in range(size):
        plain, state, hits = read("off", rank, 40)
        found, cached_state, _ = read(mode, rank, 40)
        assert np.array_equal(found, plain) and cached_state == state and hits == 0
        _, middle, _ = read("off", rank, 15)
        warm, end, hits = read(mode, rank, 25, middle)
        assert np.array_equal(warm, plain[15:]) and end == state
        assert hits > 0 or mode == "window"  # in so short a run the readers may be faster than the window's copies


def test_a_missing_shard_is_refused_in_spite_of_its_copy(folder: Path, root: Path) -> None:
    with NodeCache("full", str(root), 1) as cache:
        shards = opened(cache, folder)
        cache.start()
        until(lambda: len(copies(root, shards)) == 4)
        (folder / SECOND).unlink()
        with pytest.raises(DataError, match=f"{SECOND}: this shard is missing"):
            cache.open(folder)


@pytest.mark.parametrize(
    ("arguments", "node", "own"),
    [
        ((64, 0, 1, 0, 1), range(64), range(64)),
        ((64, 9, 64, 1, 8), range(8, 16), range(9, 10)),
        ((64, 5, 16, 1, 4), range(16, 32), range(20, 24)),
        ((8, 3, 4, 1, 2), range(4, 8), range(6, 8)),
    ],
)
def test_node_lanes(arguments: tuple[int, int, int, int, int], node: range, own: range) -> None:
    assert node_lanes(*arguments) == (node, own)


def test_progress_goes_forward_whatever_the_order_of_reading() -> None:
    upcoming = cache_module._Upcoming(straight(0, count=200))
    assert upcoming.pass_over((0, 0)) == 1
    assert upcoming.pass_over((0, 6)) == 4
    assert upcoming.pass_over((0, 4)) is None  # passed already
    assert upcoming.pass_over((0, 3)) is None  # another lane's
    assert upcoming.pass_over((0, 100)) is None  # far ahead
    assert upcoming.pass_over((0, 8)) == 5
