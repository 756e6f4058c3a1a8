"""The sequences of a lane: chunks are read ahead into reused buffers, and rows are gathered from them.

A row is a window of ``seq_length + 1`` tokens in a buffer. One fancy index over a view of all windows gathers many
rows, and copies only these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Any, Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kogpt2_gluon.reading.mix import PERIOD, Mix
from kogpt2_gluon.reading.order import ChunkOrder, Order, SequenceOrder, Slots
from kogpt2_gluon.reading.permutation import Int64Array
from kogpt2_gluon.shards.format import Tokens

PIECE = 4096  # sequences whose positions are computed at a time, to spread NumPy's cost of a call over them
LARGEST_TABLE = 8192  # strips in the tables of a run of slots
TASK_BYTES = 1 << 20  # chunks smaller than this are read several at a time

# Reads a chunk into an array of at least its length; DataError if it cannot.
ReadChunk = Callable[[int, Tokens], Any]


class Stream(ABC):
    """The endless sequences of one lane in one set, in their order.

    `tokens` is the buffer that they are cut from; :meth:`_refill` finds their positions in it.
    """

    def __init__(self, tokens: Tokens, seq_length: int):
        self._windows = sliding_window_view(tokens, seq_length + 1)
        self._positions: Int64Array = np.empty(0, np.int64)  # where the next sequences begin in `tokens`
        self._next, self._ready = 0, 0  # indices of the next position, and of the first not yet in the buffer

    def rows(self, count: int) -> Tokens:
        """Returns the next `count` > 0 sequences in a new array, (count, seq_length + 1) of the set's dtype."""
        parts = []
        while count:
            found = self.wait(count)
            parts.append(self._windows[self._positions[self._next : self._next + found]])
            self._next += found
            count -= found
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def wait(self, count: int) -> int:
        """Waits until at least one of the next `count` sequences is in the buffer; returns how many are.

        DataError if a chunk cannot be read.
        """
        while self._next == self._ready:
            self._refill()
        count = min(count, self._ready - self._next)
        self._wait(self._next, self._next + count)
        return count

    @abstractmethod
    def _wait(self, start: int, stop: int) -> None:
        """Waits until the chunks of ``_positions[start:stop]`` are in the buffer."""

    @abstractmethod
    def _refill(self) -> None:
        """Takes a step towards more sequences that are ready. It is called when all earlier rows have been copied."""


class SequenceStream(Stream):
    """The sequences of a small set, which `tokens` holds whole, chunk after chunk."""

    def __init__(self, order: SequenceOrder, lane: int, place: int, tokens: Tokens):
        super().__init__(tokens, order.seq_length)
        self._order, self._lane, self._place = order, lane, place

    def _wait(self, start: int, stop: int) -> None:
        """Does nothing: all chunks are in the buffer."""

    def _refill(self) -> None:
        chunk, offset = self._order.sequences(self._lane, self._place, PIECE)
        self._positions = chunk * self._order.chunk_tokens + offset
        self._next, self._ready = 0, PIECE
        self._place += PIECE


class ChunkStream(Stream):
    """The sequences of a large set, from a ring of chunks, in which element ``e`` of the lane has place ``e % ring``.

    The lane uses `group` slots at a time, which need ``window + group - 1`` chunks, while `group` more chunks are read
    into the rest of the ring: with ``group=1``, ``window + 1`` chunks in all. The order is computed for longer runs of
    slots.
    """

    def __init__(
        self,
        order: ChunkOrder,
        lane: int,
        place: int,
        group: int,
        dtype: np.dtype[Any],
        read: ReadChunk,
        executor: Executor,
    ):
        self._order, self._lane, self._group = order, lane, group
        self._read, self._executor = read, executor
        self._ring = order.window + 2 * group - 1
        self._tokens = np.empty(self._ring * order.chunk_tokens, dtype)
        super().__init__(self._tokens, order.seq_length)
        self._epoch, slot = order.find(lane, place)
        self._run = self._slots_from(slot)
        self._done = place - self._run.place  # sequences of the run up to the end of `_positions`
        self._in_use = self._group_from(slot)
        self._elements: Int64Array = np.empty(0, np.int64)  # the element of each of `_positions`
        self._asked = self._run.elements(self._in_use).start  # all elements before it were read or are being read
        self._chunks = order.elements_from(lane, self._asked)
        self._reads: dict[int, Future[None]] = {}  # by element: the reads that nobody has waited for
        self._complete = False  # True if all chunks in use are in the buffer
        self._refill()
        self._read_ahead(first=int(self._elements[0]))  # so that the first update is there sooner

    def _wait(self, start: int, stop: int) -> None:
        if self._complete:
            return
        missing = [element for element in self._run.elements(self._in_use) if element in self._reads]
        needed = set(np.unique(self._elements[start:stop]).tolist())
        for element in missing:
            if element in needed:
                self._reads.pop(element).result()
        self._complete = needed.issuperset(missing)

    def _refill(self) -> None:
        """Computes more positions if none are left, else moves to the next group of slots."""
        first = self._done - len(self._positions)  # sequences of the run before `_positions`
        if first + self._ready == self._run.start(self._in_use.stop):
            self._advance()
            first = self._done - len(self._positions)
        if self._next == len(self._positions):
            first, self._done = self._done, min(self._run.size, self._done + PIECE)
            self._elements, offset = self._run.sequences(first, self._done)
            self._positions = self._elements % self._ring * self._order.chunk_tokens + offset
            self._next = 0
        self._ready = min(len(self._positions), self._run.start(self._in_use.stop) - first)

    def _advance(self) -> None:
        """Moves to the next group of slots; chunks that are used up make room for others."""
        slot = self._in_use.stop
        if slot == self._run.slots.stop:
            if slot == self._order.num_slots(self._lane, self._epoch):
                self._epoch, slot = self._epoch + 1, 0
            self._run, self._done = self._slots_from(slot), 0
            self._positions, self._next, self._ready = self._positions[:0], 0, 0
        self._in_use, self._complete = self._group_from(slot), False
        self._read_ahead()

    def _slots_from(self, slot: int) -> Slots:
        """Returns a run of whole groups with about PIECE sequences, and with tables of a bounded size."""
        slots = min(PIECE // self._order.full_sequences + 1, LARGEST_TABLE // self._order.window)
        groups = max(1, slots // self._group)
        return self._order.slots(self._lane, self._epoch, slot, groups * self._group)

    def _group_from(self, slot: int) -> range:
        return range(slot, min(slot + self._group, self._run.slots.stop))

    def _read_ahead(self, first: int = -1) -> None:
        """Asks for every chunk that the ring has room for: the task with element `first`, then the lane's order."""
        stop = self._run.elements(self._in_use).start + self._ring
        at_a_time = max(1, TASK_BYTES // (self._order.chunk_tokens * self._tokens.itemsize))
        tasks = []
        while self._asked < stop:
            tasks.append((self._asked, list(islice(self._chunks, min(at_a_time, stop - self._asked)))))
            self._asked += len(tasks[-1][1])
        tasks.sort(key=lambda task: not task[0] <= first < task[0] + len(task[1]))
        for start, chunks in tasks:
            reading = self._executor.submit(self._read_chunks, start, chunks)
            self._reads.update(dict.fromkeys(range(start, start + len(chunks)), reading))

    def _read_chunks(self, element: int, chunks: list[int]) -> None:
        for place, chunk in enumerate(chunks, start=element):
            start = place % self._ring * self._order.chunk_tokens
            self._read(chunk, self._tokens[start : start + self._order.chunk_tokens])


def read_whole(order: Order, dtype: np.dtype[Any], read: ReadChunk) -> Tokens:
    """Reads all chunks of a small set, one after the other, into one array."""
    num_chunks = order.num_full + (order.tail_tokens > 0)
    tokens = np.empty(num_chunks * order.chunk_tokens, dtype)
    for chunk in range(num_chunks):
        read(chunk, tokens[chunk * order.chunk_tokens : (chunk + 1) * order.chunk_tokens])
    return tokens


class Lane:
    """One lane of a mix: it takes each sequence from the stream of the set whose turn it is."""

    def __init__(self, mix: Mix, lane: int, place: int, streams: list[Stream]):
        self._mix, self._lane, self._place, self._streams = mix, lane, place, streams
        self._sets = mix.sets(lane, place // PERIOD)

    def fill(self, rows: NDArray[np.int32]) -> None:
        """Writes the lane's next sequences into `rows` (..., seq_length + 1)."""
        count = rows[..., 0].size
        if len(self._streams) == 1:
            rows[:] = self._streams[0].rows(count).reshape(rows.shape)
            return
        sets = self._upcoming(count)
        mixed = np.empty((count, rows.shape[-1]), np.int32)
        for k in np.unique(sets).tolist():
            where = np.flatnonzero(sets == k)
            mixed[where] = self._streams[k].rows(len(where))
        rows[:] = mixed.reshape(rows.shape)

    def _upcoming(self, count: int) -> NDArray[np.int16]:
        """Returns the number of the set for each of the next `count` places."""
        parts = []
        while count:
            period, within = divmod(self._place, PERIOD)
            if within == 0:
                self._sets = self._mix.sets(self._lane, period)
            parts.append(self._sets[within : within + count])
            self._place += len(parts[-1])
            count -= len(parts[-1])
        return np.concatenate(parts)
