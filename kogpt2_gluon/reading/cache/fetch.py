"""The copying side of the node cache: a thread in one process of a node fills the folder that all its processes read.

A lock on CACHE_DIR/lock decides which process copies; when its holder ends, however it ends, another one takes over. A
copy is checked against the hashes of its shard while it is made, and gets its name by a rename, so every copy with a
name is whole.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Callable, Protocol

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.shard_set import CorruptChunkError, ShardSet
from kogpt2_gluon.storage.files import replace_file
from kogpt2_gluon.wording import gib

MARK = "kogpt2-cache"  # the file that makes a folder ours: nothing else is ever removed
AHEAD = 64  # most chunks that are copied ahead of a lane
POLL = 0.05  # seconds between looks at the readers' progress
LOCK_POLL = 1.0  # seconds between attempts to get the lock
TOUCH = 60.0  # seconds between touches that mark a set as in use
KEEP_PROGRESS = 7 * 86400.0  # seconds without a change after which the run of a progress file has ended

Plan = Callable[[int], Iterator[tuple[int, int]]]  # lane -> all (set, chunk) that it reads, in order, from the start

logger = logging.getLogger(__name__)


class Fetcher(Protocol):
    """One kind of copying, which :func:`run_fetcher` drives."""

    def prepare(self) -> None:
        """Prepares the folders. It is called once, when the lock is held."""

    def step(self) -> float:
        """Copies something; returns for how many seconds there is nothing more to do."""

    def close(self) -> None:
        """Closes what is open."""


class _StoppedError(Exception):
    """Raised in the middle of a copy if the run has ended."""


def run_fetcher(root: Path, folders: Sequence[Path], fetcher: Fetcher, stop: threading.Event) -> None:
    """Waits for the lock, then copies until `stop`: the life of a cache's thread.

    A full or failing disk is reported once, and so is a set that has changed since the run opened it. The lock is kept
    in that case, so that the node's other processes do not try too.
    """
    try:
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        logger.warning("%s: cannot be used as a cache (%s); continuing without it", root, error.strerror)
        return
    try:
        while not _lock(descriptor):
            _touch(folders)
            if stop.wait(LOCK_POLL):
                return
        fetcher.prepare()
        touched = -TOUCH
        while not stop.is_set():
            if time.monotonic() - touched >= TOUCH:
                _touch(folders)
                touched = time.monotonic()
            if wait := fetcher.step():
                stop.wait(wait)
    except OSError as error:
        logger.warning("%s: no more copies are made there (%s); continuing without them", root, error.strerror)
        stop.wait()
    except DataError as error:  # the readers need that set, so they decide what happens to the run
        logger.warning("%s: no more copies are made there: %s", root, error)
        stop.wait()
    except _StoppedError:
        pass
    finally:
        fetcher.close()
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _touch(folders: Sequence[Path]) -> None:
    for folder in folders:
        os.utime(folder / MARK)


def is_ours(folder: Path) -> bool:
    """Returns True if this user's runs made the folder. Others, such as a disk's lost+found, may even be unreadable."""
    try:
        status = folder.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and (folder / MARK).is_file()
    except OSError:
        return False


def make_room(root: Path, keep: Sequence[Path], limit: int) -> None:
    """Removes the least recently used sets, except `keep`, until those that remain take at most `limit` bytes."""
    others = []
    for folder in root.iterdir():
        if folder not in keep and is_ours(folder):
            size = sum(file.lstat().st_size for file in folder.iterdir())
            others.append(((folder / MARK).stat().st_mtime, size, folder))
    others.sort()
    total = sum(size for _, size, _ in others)
    for _, size, folder in others:
        if total <= limit:
            return
        logger.info("%s: removed from the cache (%s, least recently used)", folder, gib(size))
        shutil.rmtree(folder)
        total -= size


def _remove(folder: Path, pattern: str, older: float = 0.0) -> None:
    for path in folder.glob(pattern):
        if path.stat().st_mtime <= time.time() - older:
            path.unlink(missing_ok=True)


def open_sources(sets: Sequence[ShardSet]) -> list[ShardSet]:
    """Opens the sets once more, to copy from without filling the page cache; DataError if one has been replaced."""
    sources = [ShardSet(opened.folder, drop_behind=True) for opened in sets]
    for source, opened in zip(sources, sets):
        if source.fingerprint != opened.fingerprint:
            raise DataError(f"{source.folder}: holds another set than when this run opened it")
    return sources


class FullFetcher:
    """Copies the tokens of all shards; copies those that a reader found damaged once more."""

    TRIES = 2  # a disk that damages one copy after another is not used any more
    LOOK = 2.0  # seconds between looks for copies that were removed

    def __init__(
        self, root: Path, sets: Sequence[ShardSet], folders: Sequence[Path], limit: int, stop: threading.Event
    ) -> None:
        self._root, self._sets, self._folders, self._limit, self._stop = root, sets, folders, limit, stop
        self._sources: list[ShardSet] = []
        self._left = {
            (number, shard): self.TRIES for number, opened in enumerate(sets) for shard in range(opened.num_shards)
        }

    def prepare(self) -> None:
        """Removes what a killed process or the other kind of cache left, then sets that were used longest ago."""
        for folder in self._folders:
            _remove(folder, ".*.partial")
            _remove(folder, "*.chunk")
        self._sources = open_sources(self._sets)
        needed = sum(opened.num_bytes for opened in self._sets)
        make_room(self._root, self._folders, self._limit - needed)

    def step(self) -> float:
        """Copies one shard; returns 0, or LOOK if there is none to copy."""
        for (number, shard), tries in self._left.items():
            path = copy_path(self._folders[number], self._sets[number], shard)
            if tries and not path.exists():
                self._left[number, shard] -= 1
                try:
                    self._copy(self._sources[number], shard, path)
                except DataError as error:
                    logger.warning("not copied into the cache: %s", _without_advice(error))
                    self._left[number, shard] = 0
                return 0.0
        return self.LOOK

    def close(self) -> None:
        """Closes what is open."""
        for source in self._sources:
            source.close()

    def _copy(self, source: ShardSet, shard: int, path: Path) -> None:
        buffer = np.empty(source.chunk_tokens, source.dtype)
        with replace_file(path) as file:
            for chunk in source.chunks_of(shard):
                if self._stop.is_set():
                    raise _StoppedError
                file.write(buffer[: source.read_into(chunk, buffer, verify=True)].data)


def _without_advice(error: DataError) -> str:
    """Returns the message without advice: data.corrupt=skip lets the run continue, else the reader gives the advice."""
    return error.damage if isinstance(error, CorruptChunkError) else str(error)


def copy_path(folder: Path, opened: ShardSet, shard: int) -> Path:
    """Returns the path of the copy of a shard's tokens."""
    return folder / f"{opened.manifest.shards[shard].name}.tokens"


def chunk_path(folder: Path, chunk: int) -> Path:
    """Returns the path of the copy of a chunk."""
    return folder / f"{chunk}.chunk"


class _Lane:
    """The chunks that a lane reads next."""

    def __init__(self, plan: Plan, lane: int) -> None:
        self._plan, self._lane = plan, lane
        self._begin()

    def _begin(self) -> None:
        self._items, self._place = self._plan(self._lane), 0
        self.next: deque[tuple[int, int]] = deque()

    def move_to(self, place: int, ahead: int) -> None:
        """Forgets the chunks before `place`, and finds the next `ahead` from there."""
        if place < self._place:  # the run was started again
            self._begin()
        while self._place < place and self.next:
            self.next.popleft()
            self._place += 1
        self._place += sum(1 for _ in islice(self._items, place - self._place))
        self.next.extend(islice(self._items, max(0, ahead - len(self.next))))


class WindowFetcher:
    """Copies the chunks that the node's lanes read next, nearest first, and removes those that no lane reads soon.

    `progress` (lanes,) counts how many chunks of its plan each lane has read, as its worker reports. As many chunks of
    each lane are kept as :func:`chunks_ahead` allows.
    """

    BATCH = 8  # chunks copied between two looks at the progress

    def __init__(
        self,
        root: Path,
        sets: Sequence[ShardSet],
        folders: Sequence[Path],
        limit: int,
        plan: Plan,
        lanes: Sequence[int],
        progress: NDArray[np.uint64],
    ) -> None:
        self._root, self._sets, self._folders, self._limit = root, sets, folders, limit
        self._plan, self._lane_numbers, self._progress = plan, lanes, progress
        self._chunk_bytes = max(opened.manifest.chunk_bytes for opened in sets)
        self._ahead = chunks_ahead(len(lanes), self._chunk_bytes, limit)
        self._sources: list[ShardSet] = []
        self._there: set[tuple[int, int]] = set()
        self._unreadable: set[tuple[int, int]] = set()

    def prepare(self) -> None:
        """Finds the copies of an earlier holder of the lock; removes what a killed one or the other kind left."""
        for number, folder in enumerate(self._folders):
            _remove(folder, ".*.partial")
            _remove(folder, "*.tokens")
            _remove(folder, "progress-*", KEEP_PROGRESS)
            self._there |= {(number, int(path.stem)) for path in folder.glob("*.chunk") if path.stem.isdigit()}
        self._lanes = [_Lane(self._plan, lane) for lane in self._lane_numbers]
        self._sources = open_sources(self._sets)
        self._buffers = [np.empty(opened.chunk_tokens, opened.dtype) for opened in self._sets]
        make_room(self._root, self._folders, self._limit - self._ahead * len(self._lanes) * self._chunk_bytes)

    def step(self) -> float:
        """Removes what was read, and copies a few chunks; returns 0, or POLL if there are none to copy."""
        for lane, place in zip(self._lanes, self._progress.tolist()):
            lane.move_to(place, self._ahead)
        wanted: dict[tuple[int, int], None] = {}  # in order: the first chunk of each lane, the second of each lane, ...
        for distance in range(self._ahead):
            wanted.update(dict.fromkeys(lane.next[distance] for lane in self._lanes if distance < len(lane.next)))
        for number, chunk in self._there - wanted.keys():
            chunk_path(self._folders[number], chunk).unlink(missing_ok=True)
        self._there &= wanted.keys()
        missing = [item for item in wanted if item not in self._there and item not in self._unreadable]
        for item in missing[: self.BATCH]:
            self._copy(*item)
        return 0.0 if missing else POLL

    def close(self) -> None:
        """Closes what is open."""
        for source in self._sources:
            source.close()

    def _copy(self, number: int, chunk: int) -> None:
        """Copies a chunk without fsync: if a power cut leaves half a copy, its hash shows that to every reader."""
        try:
            tokens = self._sources[number].read_into(chunk, self._buffers[number], verify=True)
        except DataError as error:  # the reader that needs it decides what happens to the run
            logger.warning("not copied into the cache: %s", _without_advice(error))
            self._unreadable.add((number, chunk))
            return
        path = chunk_path(self._folders[number], chunk)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
        try:
            with partial.open("xb") as file:
                file.write(self._buffers[number][:tokens].data)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self._there.add((number, chunk))


def chunks_ahead(lanes: int, chunk_bytes: int, limit: int) -> int:
    """Returns how many chunks of each lane fit into `limit` bytes, at most AHEAD."""
    return min(AHEAD, limit // max(1, lanes * chunk_bytes))
