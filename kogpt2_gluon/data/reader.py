"""Readers over token shards: the endless shuffled one of training, and the plain one of evaluation."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.data.order import MIN_CHUNKS_PER_LANE, Order, Slot, choose_lanes
from kogpt2_gluon.data.shards import ShardSet, Tokens
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import Recipe

Batch = NDArray[np.int32]
READ_AHEAD = 4  # updates that the background thread may be ahead of the training loop


def training_order(shards: ShardSet, recipe: Recipe, size: int) -> Order:
    """The order in which `recipe` reads `shards`; says in one line why it cannot, for this many workers."""
    data, training = recipe.data, recipe.training
    lanes = choose_lanes(shards.num_chunks, training.total_batch_size, data.max_lanes)
    order = Order(
        fingerprint=shards.fingerprint,
        num_full=shards.num_full,
        chunk_tokens=shards.chunk_tokens,
        tail_tokens=shards.tail_tokens,
        seed=training.seed,
        seq_length=data.seq_length,
        lanes=lanes,
        window=data.window,
    )
    if order.sequences_per_epoch == 0:
        raise DataError(
            f"{shards.folder}: {shards.manifest.tokens:,} tokens are too few for one sequence of "
            f"data.seq_length={data.seq_length}; use more text or a smaller seq_length"
        )
    if lanes % size:
        raise RecipeError(
            f"{size} workers cannot share the {lanes} reading lanes of {shards.folder} ({shards.num_chunks} chunks, "
            f"training.total_batch_size={training.total_batch_size}, data.max_lanes={data.max_lanes}); "
            + _way_out(size, lanes)
        )
    return order


def _way_out(size: int, lanes: int) -> str:
    if size & (size - 1):
        return "lanes are a power of two, so run a number of workers that is one"
    return (
        f"run a number of workers that divides {lanes}, or make more of them: total_batch_size and max_lanes divisible "
        f"by {size}, and {size * MIN_CHUNKS_PER_LANE} chunks (more text, or `kogpt2 shard --chunk-kib 64`)"
    )


class _Lane:
    """One lane's stream of sequences, with the chunks it has in use."""

    def __init__(self, shards: ShardSet, order: Order, lane: int, place: int):
        self._shards, self._order, self._lane = shards, order, lane
        self._chunks: dict[int, Tokens] = {}  # by element
        self._number = order.slot_at(lane, place)
        self._slot = self._load(self._number)
        self._next = place - self._slot.place

    def fill(self, rows: Batch) -> None:
        """Writes the lane's next sequences into `rows` (count, seq_length + 1)."""
        for row in rows:
            while self._next == len(self._slot):
                self._number += 1
                self._slot, self._next = self._load(self._number), 0
            start = self._slot.offset[self._next]
            row[:] = self._chunks[int(self._slot.element[self._next])][start : start + len(row)]
            self._next += 1

    def _load(self, number: int) -> Slot:
        slot = self._order.slot(self._lane, number)
        # A chunk of few sequences can have an empty strip here and one to come: it stays until the window has passed.
        self._chunks = {element: tokens for element, tokens in self._chunks.items() if element >= slot.first}
        for element, chunk in dict(zip(slot.element.tolist(), slot.chunk.tolist())).items():
            if element not in self._chunks:
                self._chunks[element] = self._shards.read_chunk(chunk)
        return slot


class TrainingReader:
    """The batches of one worker, read ahead by a background thread.

    Parameters
    ----------
    shards, order : ShardSet, Order
        From :func:`training_order`.
    batch_size, accumulate : int
        Sequences of a micro step, and micro steps of an update.
    rank, size : int
        This worker and their number; the worker owns ``order.lanes / size`` neighbouring lanes.
    consumed : int
        Sequences, over all workers, that earlier updates used.

    Iterating gives one array of int32, shape (accumulate, batch_size, seq_length + 1), for every update, endlessly.
    """

    def __init__(
        self,
        shards: ShardSet,
        order: Order,
        batch_size: int,
        accumulate: int,
        rank: int = 0,
        size: int = 1,
        consumed: int = 0,
    ):
        assert order.lanes % size == 0 and consumed % order.lanes == 0
        self.order, self.consumed = order, consumed
        self._shape = (accumulate, batch_size, order.seq_length + 1)
        self._per_update = accumulate * batch_size * size
        assert self._per_update % order.lanes == 0
        owned = order.lanes // size
        place = consumed // order.lanes
        self._lanes = [_Lane(shards, order, lane, place) for lane in range(rank * owned, (rank + 1) * owned)]
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=READ_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_ahead, name="read-ahead", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> float:
        """Passes over the data so far, counting what the training loop has consumed."""
        return self.consumed / self.order.sequences_per_epoch

    @property
    def epoch_ended(self) -> bool:
        """Whether the last update was the one that completed a pass over the data."""
        before, per_epoch = max(0, self.consumed - self._per_update), self.order.sequences_per_epoch
        return self.consumed // per_epoch > before // per_epoch

    def state(self) -> dict[str, Any]:
        """For the checkpoint: consumed sequences only, whatever was read ahead."""
        return self.order.state(self.consumed)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            assert not self._stop.is_set(), "read after close"
            update = self._queue.get()
            if isinstance(update, Exception):
                self._queue.put(update)  # the thread has ended: who asks again must not wait for it
                raise update
            self.consumed += self._per_update
            yield update

    def __enter__(self) -> TrainingReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the background thread."""
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):  # a full queue would hold the thread
                self._queue.get(timeout=0.05)

    def _read_ahead(self) -> None:
        try:
            while not self._stop.is_set():
                self._queue.put(self._next_update())
        except Exception as error:  # raised again where the loop waits for it
            self._queue.put(error)

    def _next_update(self) -> Batch:
        update = np.empty(self._shape, dtype=np.int32)
        rows = update.reshape(len(self._lanes), -1, self._shape[-1])
        for lane, lane_rows in zip(self._lanes, rows):
            lane.fill(lane_rows)
        return update


class HeldOutReader:
    """Held-out tokens in their own order, cut into sequences of ``seq_length + 1`` that share an end token.

    The sequences are dealt to workers in turn. The last one is filled up with `<s>`, which evaluation leaves out of
    its sums, so that any number of workers adds up the same tokens. With `max_sequences`, so many of them are read,
    evenly spaced, since a set often begins with one source and ends with another.
    """

    def __init__(self, shards: ShardSet, seq_length: int, max_sequences: int = 0):
        self._shards, self._seq_length = shards, seq_length
        self._all = -(-(shards.manifest.tokens - 1) // seq_length)
        self.num_sequences = min(self._all, max_sequences) if max_sequences else self._all
        self._chunk: Optional[tuple[int, Tokens]] = None

    def batches(self, batch_size: int, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """This worker's sequences as int32 arrays (batch_size, seq_length + 1), the last filled up with `<s>`."""
        mine = range(rank, self.num_sequences, size)
        for first in range(0, len(mine), batch_size):
            batch = np.full((batch_size, self._seq_length + 1), self._shards.manifest.special_ids["bos"], np.int32)
            for row, sequence in zip(batch, mine[first : first + batch_size]):
                self._copy(row, sequence * self._all // self.num_sequences * self._seq_length)
            yield batch

    def _copy(self, row: Batch, start: int) -> None:
        """Copies tokens from `start` on, across chunks, as far as there are any."""
        done, tokens = 0, self._shards.manifest.tokens
        while done < len(row) and start + done < tokens:
            chunk, offset = divmod(start + done, self._shards.chunk_tokens)
            if self._chunk is None or self._chunk[0] != chunk:
                self._chunk = (chunk, self._shards.read_chunk(chunk))
            part = self._chunk[1][offset : offset + len(row) - done]
            row[done : done + len(part)] = part
            done += len(part)
