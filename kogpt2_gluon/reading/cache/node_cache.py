"""Copies of chunks on a node's own disk, so that a node asks the shared file system for each chunk once.

There are two kinds: `full` copies the tokens of all shards; `window` copies only the chunks that this node's workers
read next, and removes them when they have been read. All workers of a node share one folder::

    CACHE_DIR/lock                          held by the one process of the node that copies
    CACHE_DIR/<fingerprint of a set>/       one folder a set
        kogpt2-cache                        marks the folder as ours; its time of change is the last use
        NAME.tokens                         full: the tokens of shard NAME, without the rest of the shard
        NUMBER.chunk                        window: one chunk
        progress-KEY                        window: how many chunks each lane of a run has read, <u8 for each

The copying itself is in :mod:`kogpt2_gluon.reading.cache.fetch`; this file has the readers' side. A cache changes how
fast a chunk comes, never its tokens: the hash of a chunk is checked on its first read wherever it comes from, and a
damaged copy is removed and the chunk read from the set itself. No fault of the cache's disk ends a run.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.reading.cache.fetch import (
    MARK,
    FullFetcher,
    Plan,
    WindowFetcher,
    chunk_path,
    chunks_ahead,
    copy_path,
    is_ours,
    run_fetcher,
)
from kogpt2_gluon.shards.file_pool import FilePool
from kogpt2_gluon.shards.format import Tokens
from kogpt2_gluon.shards.shard_set import ChunkPlace, ShardSet

logger = logging.getLogger(__name__)


class NodeCache:
    """The cache of one node, as one of its workers uses it.

    :meth:`open` every set of the run, in the order in which the plans number them; then :meth:`start`; at the end
    :meth:`close`. If `mode` is off, or the folder cannot be used (which is reported once), :meth:`open` returns plain
    sets, and the other methods do nothing.

    Parameters
    ----------
    mode : str
        ``off``, ``window`` or ``full``.
    folder : str
        The folder of the copies, on a local disk; made if missing. Only its owner can use the folder of a set in it.
    gib : float
        The most GiB that the whole cache may take.
    """

    def __init__(self, mode: str = "off", folder: str = "", gib: float = 100.0) -> None:
        if mode != "off" and not folder:
            raise RecipeError(f"data.cache={mode} needs a folder on the node's own disk: data.cache_dir=DIR")
        self.mode, self.root, self.limit = mode, Path(folder), int(gib * (1 << 30))
        self.sets: list[CachedShardSet] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._progress: _Progress | None = None

    def open(self, folder: Path) -> ShardSet:
        """Opens a set of shards whose chunks are looked for in the cache first.

        DataError as in :class:`ShardSet`; RecipeError if `full` copies of all sets opened here are above the limit.
        """
        if self.mode == "off":
            return ShardSet(folder)
        opened = CachedShardSet(folder, self)
        self.check_limit([*self.sets, opened])
        try:
            claim_folder(self.root, opened.fingerprint)
        except OSError as error:
            logger.warning("%s: cannot be used as a cache (%s); continuing without it", self.root, error.strerror)
            self.mode = "off"
            return ShardSet(folder)
        self.sets.append(opened)
        return opened

    def check_limit(self, sets: Sequence[ShardSet], lanes: int = 0) -> None:
        """RecipeError if the limit is too small for the `sets`, or for a chunk for each of the node's `lanes`."""
        if self.mode == "full":
            size = sum({each.fingerprint: each.num_bytes for each in sets}.values())
            if size > self.limit:
                raise RecipeError(
                    f"data.cache=full would copy {size / (1 << 30):.3g} GiB, more than "
                    f"data.cache_gib={self.limit / (1 << 30):.3g}; raise that, or set data.cache=window"
                )
        elif self.mode == "window" and lanes:
            chunk_bytes = max(each.manifest.chunk_bytes for each in sets)
            if not chunks_ahead(lanes, chunk_bytes, self.limit):
                raise RecipeError(
                    f"data.cache_gib={self.limit / (1 << 30):.3g} is too small for a chunk of {chunk_bytes >> 10} KiB "
                    f"for each of this node's {lanes} lanes; raise it, or set data.cache=off"
                )

    def start(self, plan: Plan | None = None, lanes: Sequence[int] = (), own: Sequence[int] = ()) -> None:
        """Starts to copy in the background, unless another process of the node does so already.

        For `window`: `plan(lane)` returns an iterator over the (set, chunk) that the lane reads from now on; `lanes`
        are the lanes of all workers of the node, the same list in each of them, and `own` are those of this worker.
        RecipeError if the limit leaves less than a chunk for each lane.
        """
        if self.mode == "off":
            return
        folders = [self.root / opened.fingerprint for opened in self.sets]
        fetcher: FullFetcher | WindowFetcher
        if self.mode == "full":
            fetcher = FullFetcher(self.root, self.sets, folders, self.limit, self._stop)
        else:
            assert plan is not None and set(own) <= set(lanes)
            self.check_limit(self.sets, len(lanes))
            try:
                self._progress = _Progress(folders[0], [each.fingerprint for each in self.sets], plan, lanes, own)
            except OSError as error:
                logger.warning("%s: cannot be used as a cache (%s); continuing without it", self.root, error.strerror)
                return
            fetcher = WindowFetcher(self.root, self.sets, folders, self.limit, plan, lanes, self._progress.counts)
        arguments = (self.root, folders, fetcher, self._stop)
        self._thread = threading.Thread(target=run_fetcher, args=arguments, name="node-cache", daemon=True)
        self._thread.start()

    def note_read(self, opened: CachedShardSet, chunk: int) -> None:
        """Reports to the process that copies that this worker has read a chunk."""
        if self._progress is not None:
            self._progress.note((self.sets.index(opened), chunk))

    def close(self) -> None:
        """Ends the background thread; the copies stay for the next run."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> NodeCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def node_lanes(lanes: int, rank: int, size: int, local_rank: int, local_size: int) -> tuple[range, range]:
    """Returns the lanes of all workers of this node, and those of this worker, if a node's ranks follow one another.

    If they do not, the wrong chunks are copied ahead, and nothing else happens.
    """
    owned, first = lanes // size, max(0, rank - local_rank)
    node = range(first * owned, min(size, first + local_size) * owned)
    return node, range(rank * owned, (rank + 1) * owned)


def claim_folder(root: Path, name: str) -> Path:
    """Returns the folder of a set below `root`, made if it is missing; OSError if it cannot be trusted or made.

    A folder of another user, or a link, under this name could hold anything: hashes here guard only against accidents.
    """
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(folder):
        partial = root / f".{uuid.uuid4().hex[:12]}.partial"
        partial.mkdir(mode=0o700)
        (partial / MARK).write_text("Copies of token shards by `kogpt2 train`; may be removed.\n", encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(partial)
    if not is_ours(folder):
        raise PermissionError(1, f"{name} there is not a folder that this user's runs made")
    return folder


class CachedShardSet(ShardSet):
    """A set of shards that looks for a chunk in the node's cache before it reads the set itself.

    `hits` counts the chunks that were read from the cache, `misses` the others.
    """

    def __init__(self, folder: Path, cache: NodeCache) -> None:
        super().__init__(folder)
        self.hits = self.misses = 0
        self._cache = cache
        self._copies = cache.root / self.fingerprint
        self._copy_pool = FilePool(random_access=self._drop)
        self._copy_pool.on_change = self._forget_copy
        self._copy_verified = bytearray(self.num_chunks)

    def read_into(self, chunk: int, out: Tokens, verify: bool = False) -> int:
        """Reads a chunk into `out` like :meth:`ShardSet.read_into`, from the cache if possible.

        A chunk's first read from the cache is checked, and so is its first read from the set.
        """
        place = self.locate(chunk)
        read = self._read_window if self._cache.mode == "window" else self._read_full
        if read(chunk, place, self._bytes_of(out, place), verify):
            self.hits += 1
            tokens = place.tokens
        else:
            self.misses += 1
            tokens = super().read_into(chunk, out, verify)
        self._cache.note_read(self, chunk)
        return tokens

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        super().close()
        self._copy_pool.close()

    def _read_full(self, chunk: int, place: ChunkPlace, view: memoryview, verify: bool) -> bool:
        path = copy_path(self._copies, self, place.shard)
        try:
            read = self._copy_pool.read_once(path, view, place.offset, self._drop)
        except FileNotFoundError:
            return False
        except OSError as error:
            return self._discard_full(path, error.strerror)
        check = verify or not self._copy_verified[chunk]
        if read < len(view) or (check and xxhash.xxh3_64_intdigest(view) != self.chunk_hash(chunk)):
            return self._discard_full(path, f"damaged at byte {place.offset}")
        self._copy_verified[chunk] = 1
        return True

    def _read_window(self, chunk: int, place: ChunkPlace, view: memoryview, verify: bool) -> bool:
        """Reads a copied chunk and checks it every time, because it is read only once; returns False if it cannot."""
        path = chunk_path(self._copies, chunk)
        try:
            with path.open("rb", buffering=0) as file:
                read = file.readinto(view)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except FileNotFoundError:
            return False
        except OSError as error:
            return self._discard(path, error.strerror)
        if read < len(view) or xxhash.xxh3_64_intdigest(view) != self.chunk_hash(chunk):
            return self._discard(path, "damaged")
        return True

    def _discard_full(self, path: Path, reason: str | None) -> bool:
        """Discards a copy like :meth:`_discard`, unless a good one has replaced it after another worker's report."""
        if self._copy_pool.is_current(path):
            return self._discard(path, reason)
        self._copy_pool.forget(path)
        self._forget_copy(path)
        return False

    def _discard(self, path: Path, reason: str | None) -> bool:
        """Removes a copy that is not as it should be; returns False, as if there were no copy."""
        logger.warning("%s: removed from the cache (%s); read from %s instead", path, reason, self.folder)
        self._copy_pool.forget(path)
        self._forget_copy(path)
        with contextlib.suppress(OSError):  # it is gone already, or on a read-only disk, and is checked again next time
            path.unlink()
        return False

    def _forget_copy(self, path: Path) -> None:
        """Forgets that chunks of a copy were good, because the copy was replaced."""
        shards = [shard.name for shard in self.manifest.shards]
        if path.stem in shards:
            chunks = self.chunks_of(shards.index(path.stem))
            self._copy_verified[chunks.start : chunks.stop] = bytes(len(chunks))


class _Progress:
    """How many chunks each lane of a node has read, in a small file that all its workers map into memory.

    The file's name identifies the run: the same sets, the same lanes, the same chunks at the start. Each worker writes
    the counts of its own lanes; the process that copies reads all of them.
    """

    def __init__(
        self, folder: Path, fingerprints: Sequence[str], plan: Plan, lanes: Sequence[int], own: Sequence[int]
    ) -> None:
        starts = [list(islice(plan(lane), 2)) for lane in lanes]
        key = xxhash.xxh3_64_hexdigest(repr((list(fingerprints), list(lanes), starts)).encode())
        descriptor = os.open(folder / f"progress-{key}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, 8 * len(lanes))
            os.posix_fallocate(descriptor, 0, 8 * len(lanes))  # a write to a mapped hole on a full disk would kill us
            self.counts: NDArray[np.uint64] = np.frombuffer(mmap.mmap(descriptor, 8 * len(lanes)), np.uint64)
        finally:
            os.close(descriptor)
        self._lanes = {lane: _Upcoming(plan(lane)) for lane in own}
        self._index = {lane: list(lanes).index(lane) for lane in own}
        self._lock = threading.Lock()
        for index in self._index.values():
            self.counts[index] = 0  # this run may start again where an earlier one did

    def note(self, item: tuple[int, int]) -> None:
        """Counts a chunk as read in each of this worker's lanes that was about to read it."""
        with self._lock:
            for lane, upcoming in self._lanes.items():
                if (count := upcoming.pass_over(item)) is not None:
                    self.counts[self._index[lane]] = count


class _Upcoming:
    """The chunks that a lane reads next, and how many it has read."""

    NEAR = 16  # threads read a lane's chunks in about its order; a later place of the same chunk is of another pass

    def __init__(self, items: Iterator[tuple[int, int]]) -> None:
        self._items, self._count = items, 0
        self._next: deque[tuple[int, int]] = deque(islice(items, self.NEAR))

    def pass_over(self, item: tuple[int, int]) -> int | None:
        """Returns the new count if `item` is among the next; None if it is of another lane, or was counted before."""
        if item not in self._next:
            return None
        while self._next.popleft() != item:
            self._count += 1
        self._count += 1
        self._next.extend(islice(self._items, self.NEAR - len(self._next)))
        return self._count
