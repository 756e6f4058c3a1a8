"""A cache that cannot be used, or a disk that fails, does not end a run."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.reading.cache.fetch import MARK, FullFetcher, WindowFetcher
from kogpt2_gluon.reading.cache.node_cache import NodeCache, claim_folder
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.reading.cache.cache_helpers import SECOND, chunks, copies, opened, straight, until
from tests.shards.shard_helpers import flip, read_back, write_documents


def test_a_folder_that_cannot_be_made(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with NodeCache("full", str(tmp_path / "file" / "cache"), 1) as cache:
        shards = cache.open(folder)
        cache.open(folder)
        cache.start()
        assert len(read_back(shards)) == 13000
    assert len(caplog.messages) == 1 and "continuing without it" in caplog.messages[0]


@pytest.mark.parametrize("kind", ["link", "unmarked", "file", "other user's"])
def test_a_folder_that_is_not_ours(
    folder: Path,
    root: Path,
    tmp_path: Path,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = ShardSet(folder).fingerprint
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / MARK).write_text("", encoding="utf-8")
    if kind == "link":
        (root / name).symlink_to(tmp_path / "elsewhere")
    elif kind == "unmarked":
        (root / name).mkdir()
    elif kind == "file":
        (root / name).write_text("", encoding="utf-8")
    else:
        claim_folder(root, name)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with NodeCache("full", str(root), 1) as cache:
        assert type(cache.open(folder)) is ShardSet
    assert len(caplog.messages) == 1 and "this user" in caplog.messages[0]


@pytest.mark.parametrize("mode", ["full", "window"])
def test_a_full_disk(
    folder: Path,
    root: Path,
    tokens: np.ndarray,
    mode: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FullFetcher, "_copy", no_space)
    monkeypatch.setattr(WindowFetcher, "_copy", no_space)
    with NodeCache(mode, str(root), 1) as cache:
        shards = opened(cache, folder)
        cache.start(straight, range(2), range(2))
        until(lambda: bool(caplog.messages))
        assert np.array_equal(read_back(shards), tokens)
    assert len(caplog.messages) == 1 and "No space left" in caplog.messages[0]


def test_a_disk_too_full_for_the_progress(
    folder: Path, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its space is taken before it is mapped: a write to a hole of a mapped file would kill the process."""

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with NodeCache("window", str(root), 1) as cache:
        shards = opened(cache, folder)
        cache.start(straight, range(2), range(2))
        assert len(read_back(shards)) == 13000
    assert len(caplog.messages) == 1 and "continuing without it" in caplog.messages[0]


@pytest.mark.parametrize("mode", ["full", "window"])
@pytest.mark.parametrize("change", ["another set", "no manifest"])
def test_a_set_that_changes_before_it_is_copied(
    folder: Path, root: Path, tmp_path: Path, mode: str, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_documents(tmp_path / "other", [99] * 130)
    with NodeCache(mode, str(root), 1) as cache:
        shards = opened(cache, folder)
        shutil.rmtree(folder)
        if change == "another set":
            (tmp_path / "other").rename(folder)
        cache.start(straight, range(2), range(2))
        until(lambda: bool(caplog.messages))
        assert cache._thread is not None and cache._thread.is_alive()  # and keeps the lock
    assert len(caplog.messages) == 1 and "no more copies are made there" in caplog.messages[0]
    assert copies(root, shards) == [] and chunks(root, shards) == []


def test_a_good_copy_stays_when_a_worker_finds_the_one_before_it_damaged(
    folder: Path, root: Path, tokens: np.ndarray
) -> None:
    """Several workers hold the damaged copy open; the first report has it replaced, the later ones come after that."""
    with NodeCache("full", str(root), 1) as cache:
        first = opened(cache, folder)
        cache.start()
        until(lambda: len(copies(root, first)) == 4)
    copy = root / first.fingerprint / f"{SECOND}.tokens"
    flip(copy, 2000)
    with NodeCache("full", str(root), 1) as cache:
        workers = [opened(cache, folder) for _ in range(2)]
        for worker in workers:
            worker.read_chunk(8)  # a whole chunk of it
        assert np.array_equal(workers[0].read_chunk(9), tokens[9 * 512 : 10 * 512]) and not copy.exists()
        cache.start()
        until(copy.exists)
        assert np.array_equal(workers[1].read_chunk(9), tokens[9 * 512 : 10 * 512])
        assert copy.exists()
        workers[1].hits = 0
        workers[1].read_chunk(9)
        assert workers[1].hits == 1  # the new one
