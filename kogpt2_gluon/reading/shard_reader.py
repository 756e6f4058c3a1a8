"""The reader for ``data.source: shards``: endless shuffled sequences of one or several sets of token shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.cache.node_cache import NodeCache, node_lanes
from kogpt2_gluon.reading.damage import Damage
from kogpt2_gluon.reading.lanes import PIECE, ChunkStream, Lane, SequenceStream, Stream, read_whole
from kogpt2_gluon.reading.locating import locate
from kogpt2_gluon.reading.mix import PERIOD, Mix, show_passes
from kogpt2_gluon.reading.open_sets import open_shards
from kogpt2_gluon.reading.order import ChunkOrder, SequenceOrder
from kogpt2_gluon.reading.place import Place, find_place
from kogpt2_gluon.reading.read_ahead import ReadAhead
from kogpt2_gluon.reading.reader import Batch, SequenceReader
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.shards.shard_set import ShardSet

BLOCK_BYTES = 4 << 20  # of updates made at a time
READ_AHEAD_BYTES = 32 << 20  # of updates that wait for the training loop; at least one block waits
SPARE_BYTES = 32 << 20  # of chunks that are read ahead beyond the one a lane has in reserve
READ_THREADS = 4  # these read and check chunks; both release Python's lock


class ShardReader(SequenceReader):
    """The batches of one worker from token shards. A background thread makes many updates at a time.

    An error in a chunk is raised at most one block of updates before the update that needs the chunk.

    Parameters
    ----------
    sets : sequence of ShardSet
    mix : Mix
        Their order, from :func:`training_mix` or :func:`find_place`.
    batch_size, accumulate : int
        Sequences in a micro step, and micro steps in an update.
    rank, size : int
        This worker's number, and the number of workers; it owns ``mix.lanes / size`` neighbouring lanes.
    place : Place, optional
        Where it begins; by default at the first sequence.
    damage : Damage, optional
        It reads the chunks and decides about damaged ones; by default they raise CorruptChunkError.
    cache : NodeCache, optional
        The cache that the sets were opened with. The reader closes the cache and the sets together with itself.
    """

    def __init__(
        self,
        sets: Sequence[ShardSet],
        mix: Mix,
        batch_size: int,
        accumulate: int,
        rank: int = 0,
        size: int = 1,
        place: Place | None = None,
        damage: Damage | None = None,
        cache: NodeCache | None = None,
    ):
        place = place or Place()
        assert mix.lanes % size == 0 and place.consumed % mix.lanes == 0
        super().__init__(accumulate * batch_size * size, place.consumed)
        self.mix, self.notes = mix, [place.note] * bool(place.note)
        self._epochs_before, self._epoch_ended = place.epochs_before, place.epoch_ended
        self._sets, self._damage = sets, damage or Damage(sets, skip=False)
        self._cache = cache or NodeCache()
        self._shape = (accumulate, batch_size, mix.seq_length + 1)
        assert self.sequences_per_update % mix.lanes == 0
        update_bytes = int(np.prod(self._shape)) * 4
        self._block_updates = max(1, BLOCK_BYTES // update_bytes)
        waiting = max(1, READ_AHEAD_BYTES // (self._block_updates * update_bytes))
        self._ahead: ReadAhead[Batch] | None = None
        self._executor = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read-chunk")
        owned = mix.lanes // size
        try:
            self._lanes = self._open_lanes(range(rank * owned, (rank + 1) * owned), place.consumed // mix.lanes)
        except BaseException:
            self.close()
            raise
        self._ahead = ReadAhead(self._make_blocks(), waiting, name="read-ahead")

    def count_update(self) -> None:
        before, per_epoch = self.consumed, self.mix.sequences_per_epoch
        super().count_update()
        self._epoch_ended = self.consumed // per_epoch > before // per_epoch

    @property
    def epoch(self) -> float:
        return self._epochs_before + self.consumed / self.mix.sequences_per_epoch

    @property
    def epoch_ended(self) -> bool:
        return self._epoch_ended

    @property
    def fingerprint(self) -> str:
        return self.mix.fingerprint

    def notices(self) -> NDArray[np.float64]:
        return self._damage.notices()

    def agree(self, totals: NDArray[np.float64], worker: Worker) -> list[str]:
        return self._damage.agree(totals, worker)

    def gather(self, worker: Worker) -> None:
        """Does nothing: every worker knows the whole state."""

    def state(self) -> dict[str, Any]:
        """Returns a state under 1 kB. `skipped` counts damaged chunks; one met again after a resume counts again."""
        return {
            **self.mix.state(self.consumed),
            "skipped": self._damage.skipped,
            "epochs_before": self._epochs_before,
            "epoch_ended": self._epoch_ended,
        }

    def describe(self, num_sequences: int) -> str:
        """Returns one line for each set, and one for the whole mix."""
        lines = []
        for shards, share, passes in zip(self._sets, self.mix.shares, self.mix.passes(num_sequences)):
            line = f"{shards.folder}: {shards.manifest.tokens:,} tokens, {shards.num_chunks} chunks"
            several = f", {share / PERIOD:.2%} of the sequences, {show_passes(passes)} passes"
            lines.append(line + several * (len(self._sets) > 1))
        epochs = num_sequences / self.mix.sequences_per_epoch
        before = f" (after {show_passes(self._epochs_before)} in other orders)" if self._epochs_before else ""
        lines.append(f"{num_sequences:,} sequences are {show_passes(epochs)} epochs{before}; {self.mix.lanes} lanes")
        return "\n".join(lines)

    def sequences_of_last(self, updates: int) -> list[str]:
        first = max(0, self.consumed - updates * self.sequences_per_update)
        found = locate(self.mix, self._sets, first, self.consumed)
        return [f"{path} token {token:,}" for path, token in found]

    def blocks(self) -> Iterator[Batch]:
        assert self._ahead is not None
        while True:
            yield self._ahead.take()

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
        self._executor.shutdown(cancel_futures=True)
        self._cache.close()
        for shards in self._sets:
            shards.close()

    def _open_lanes(self, lanes: range, place: int) -> list[Lane]:
        """Opens each set's streams and waits for the chunks of their first sequences."""
        streams = [self._open_streams(k, lanes, place) for k in range(len(self._sets))]
        for each in streams:
            for stream in each:
                stream.wait(1)
        return [Lane(self.mix, lane, place, list(of_lane)) for lane, *of_lane in zip(lanes, *streams)]

    def _open_streams(self, k: int, lanes: range, place: int) -> list[Stream]:
        """Opens the streams of set `k`, one for each lane."""
        order, dtype, read = self.mix.orders[k], self._sets[k].dtype, partial(self._damage.read, k)
        own = [int(self.mix.own_places(lane, place)[k]) for lane in lanes]
        if isinstance(order, SequenceOrder):
            tokens = read_whole(order, dtype, read)
            return [SequenceStream(order, lane, start, tokens) for lane, start in zip(lanes, own)]
        assert isinstance(order, ChunkOrder)
        spare = SPARE_BYTES // (2 * len(lanes) * len(self._sets) * order.chunk_tokens * dtype.itemsize)
        group = 1 + min(spare, PIECE // max(1, order.full_sequences))
        return [ChunkStream(order, lane, start, group, dtype, read, self._executor) for lane, start in zip(lanes, own)]

    def _make_blocks(self) -> Iterator[Batch]:
        """Makes the blocks, in the thread that reads ahead. The first ones are small, so that they are ready sooner."""
        updates = 1
        while True:
            yield self._next_block(updates)
            updates = min(2 * updates, self._block_updates)

    def _next_block(self, updates: int) -> Batch:
        """Makes a block (updates, accumulate, batch_size, seq_length + 1), in which a lane has neighbouring rows."""
        block = np.empty((updates, *self._shape), dtype=np.int32)
        rows = block.reshape(updates, len(self._lanes), -1, self._shape[-1])
        for number, lane in enumerate(self._lanes):
            lane.fill(rows[:, number])
        return block


def check_shard_reader(
    recipe: Recipe,
    worker: Worker,
    saved_state: dict[str, Any] | None = None,
    source: str = "the checkpoint",
    changed: Mapping[str, Any] | None = None,
) -> list[str]:
    """Raises what :func:`open_shard_reader` would raise about sets, lanes and saved state; reads no sequence.

    Returns a line about the place to go on from if that has changed.
    """
    with ExitStack() as opened:
        sets = [opened.enter_context(open_shards(folder, "data.train", recipe)) for folder in recipe.data.train_sets]
        mix, place = find_place(sets, recipe, worker.size, saved_state, source, changed or {})
        lanes, _ = node_lanes(mix.lanes, worker.rank, worker.size, worker.local_rank, worker.local_size)
        NodeCache(recipe.data.cache, recipe.data.cache_dir, recipe.data.cache_gib).check_limit(sets, len(lanes))
    return [place.note] * bool(place.note)


def open_shard_reader(
    recipe: Recipe,
    worker: Worker,
    saved_state: dict[str, Any] | None = None,
    source: str = "the checkpoint",
    changed: Mapping[str, Any] | None = None,
) -> ShardReader:
    """Opens the reader of a recipe with ``data.source: shards`` on one worker; all workers open theirs together.

    Parameters
    ----------
    recipe : Recipe
    worker : Worker
    saved_state : dict, optional
        The state to go on from, as :meth:`ShardReader.state` returned it.
    source : str
        Where that state comes from, for messages.
    changed : mapping, optional
        Settings that this resume changes, with their values in that state; see :mod:`kogpt2_gluon.reading.place`.

    Raises
    ------
    RecipeError or DataError
        Sets, lanes, cache or saved state do not fit the recipe; the same on every worker.
    """
    cache = NodeCache(recipe.data.cache, recipe.data.cache_dir, recipe.data.cache_gib)
    sets = [open_shards(folder, "data.train", recipe, cache.open) for folder in recipe.data.train_sets]
    mix, place = find_place(sets, recipe, worker.size, saved_state, source, changed or {})
    node = node_lanes(mix.lanes, worker.rank, worker.size, worker.local_rank, worker.local_size)
    cache.start(lambda lane: mix.chunks_from(lane, place.consumed // mix.lanes), *node)
    return ShardReader(
        sets,
        mix,
        recipe.training.batch_size,
        recipe.accumulate(worker.size),
        worker.rank,
        worker.size,
        place,
        Damage(sets, recipe.data.corrupt == "skip", place.skipped),
        cache,
    )
