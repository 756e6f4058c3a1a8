"""The order of training sequences: a pure function of (data, seed, seq_length, lanes, window, course, place).

The sequences are dealt to a fixed number of *lanes*, and a worker owns ``lanes / size`` of them. So a step consists of
the same sequences for any number of workers that divides the lanes. There are two ways to deal; both share this:

- **Sequences.** A chunk of ``n`` tokens holds ``(n - 1) // seq_length`` sequences of ``seq_length + 1`` tokens. Each
  shares its last token with the next one, and none crosses the end of the chunk. They run on across documents: it does
  not matter where a document ends. The tokens that remain are left out, at both ends of the chunk, at a keyed offset
  that changes with the epoch, so no token is left out for ever.
- **The tail.** The last chunk of a set may be short. Its sequences come once an epoch like all others.

:class:`ChunkOrder` deals a large set by the chunk:

- **Epochs.** The full chunks of epoch ``e`` are put in a keyed random order. The orders of the epochs follow one
  another in one endless row, and place ``g`` of that row belongs to lane ``g % lanes``. Every chunk comes once an
  epoch, in one lane, and nothing is dropped at the end. The tail of epoch ``e`` goes to lane ``e % lanes``, after that
  lane's full chunks of the epoch.
- **The window.** The sequences of a chunk are split at random into ``window`` strips. In slot ``t`` of an epoch a lane
  emits, mixed, the first strip of its chunk ``t``, the second strip of chunk ``t - 1``, and so on. ``window`` chunks
  are in use at a time, and one more is read for every slot: the memory is lanes x (window + 1) x chunk.
- **The boundary.** The window runs empty at the end of an epoch: a lane emits all of its share before it begins the
  next epoch. The shares of all lanes are almost equal, so they pass the boundary within two chunks of each other.

:class:`SequenceOrder` deals a small set (up to SMALL_SET_BYTES of tokens) by the sequence: all sequences of an epoch
are put in one keyed random order, and place ``g`` of the endless row belongs to lane ``g % lanes``. Any number of lanes
gets its share, down to one chunk. The price is that every worker holds the whole set in memory.

Seeking needs no replay: bisection over a closed form finds any place.

A run that resumes with another seq_length, or with a batch that its lanes do not divide, needs another order: it begins
a new *course*, whose epochs are not those of the courses before (reading/place.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from kogpt2_gluon.reading.permutation import Int64Array, UInt64Array, key_of, keys_of, permute

MIN_CHUNKS_PER_LANE = 8
SMALL_SET_BYTES = 32 << 20  # a larger set has at least 512 chunks, unless it was made with --chunk-kib


def last_up_to(start: Callable[[int], int], place: int) -> int:
    """Returns the largest n with ``start(n) <= place``. `start` begins at 0, never falls, and grows for ever."""
    low, high = 0, 1
    while start(high) <= place:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if start(middle) <= place else (low, middle)
    return low


def choose_lanes(num_chunks: int, total_batch_size: int, max_lanes: int) -> int:
    """Returns the largest power of two up to `max_lanes` that divides the batch and gives every lane 8 chunks or more.

    For a small set, which is dealt by the sequence, pass a `num_chunks` that sets no limit.
    """
    lanes = 1
    while (
        lanes * 2 <= max_lanes and total_batch_size % (lanes * 2) == 0 and num_chunks >= lanes * 2 * MIN_CHUNKS_PER_LANE
    ):
        lanes *= 2
    return lanes


def of_course(purpose: str, course: int) -> str:
    """Returns the purpose of a key for one course of a run; the first one has the bare purpose."""
    return f"{purpose} of course {course}" if course else purpose


@dataclass(frozen=True)
class Order(ABC):
    """The order of one set: the base of both ways to deal it.

    Parameters
    ----------
    fingerprint : str
        The set's fingerprint, from its manifest.
    num_full, chunk_tokens, tail_tokens : int
        Full chunks, tokens in each, and tokens in the short last chunk (0 if there is none). Chunks are numbered from
        0, so the number of the short one is `num_full`.
    seed, seq_length, lanes, window : int
        The recipe's settings; `lanes` comes from :func:`choose_lanes`. A SequenceOrder does not use the window.
    course : int
        The orders of the run before this one.
    """

    fingerprint: str
    num_full: int
    chunk_tokens: int
    tail_tokens: int
    seed: int
    seq_length: int
    lanes: int
    window: int
    course: int = 0

    @property
    def full_sequences(self) -> int:
        """Sequences in a full chunk."""
        return (self.chunk_tokens - 1) // self.seq_length

    @property
    def tail_sequences(self) -> int:
        """Sequences in the short last chunk."""
        return max(0, self.tail_tokens - 1) // self.seq_length

    @property
    def sequences_per_epoch(self) -> int:
        """Sequences in one pass over the set."""
        return self.num_full * self.full_sequences + self.tail_sequences

    @abstractmethod
    def chunks_from(self, lane: int, place: int) -> Iterator[int]:
        """Yields the chunks that the lane reads from its sequence number `place` on, in order."""

    @abstractmethod
    def sequence_at(self, lane: int, place: int) -> tuple[int, int]:
        """Returns the chunk of the lane's sequence number `place`, and the offset of its first token in it."""

    def _key(self, purpose: str, *parts: int) -> int:
        return key_of(of_course(purpose, self.course), self.fingerprint, self.seed, *parts)

    def _shift(self, keys: UInt64Array, chunks: Int64Array) -> Int64Array:
        """Returns the tokens left out at the front of each of `chunks` (n,), drawn by `keys` (n,)."""
        spare = np.full(chunks.shape, (self.chunk_tokens - 1) % self.seq_length)
        spare[chunks == self.num_full] = max(0, self.tail_tokens - 1) % self.seq_length
        return (keys % (spare + 1).astype(np.uint64)).astype(np.int64)


@dataclass(frozen=True)
class SequenceOrder(Order):
    """The order of one small set, dealt by the sequence."""

    def sequences(self, lane: int, place: int, count: int) -> tuple[Int64Array, Int64Array]:
        """Returns the chunks, and the offsets of the first token in them, of the lane's sequences from `place` on.

        Both are arrays (count,).
        """
        row = np.arange(place, place + count, dtype=np.int64) * self.lanes + lane
        epochs, index = np.divmod(row, self.sequences_per_epoch)
        mixed = permute(index, self.sequences_per_epoch, keys_of(self._key("sequences"), epochs))
        chunks, number = np.divmod(mixed, self.full_sequences)
        keys = keys_of(self._key("shift"), epochs * (self.num_full + 1) + chunks)
        return chunks, self._shift(keys, chunks) + number * self.seq_length

    def chunks_from(self, lane: int, place: int) -> Iterator[int]:
        """Yields every chunk once: a small set is read whole."""
        return iter(range(self.num_full + (self.tail_tokens > 0)))

    def sequence_at(self, lane: int, place: int) -> tuple[int, int]:
        chunks, offsets = self.sequences(lane, place, 1)
        return int(chunks[0]), int(offsets[0])


@dataclass(frozen=True)
class ChunkOrder(Order):
    """The order of one large set, dealt by the chunk.

    The chunks that a lane reads, one after the other over all epochs, are its *elements*, numbered from 0. Its
    sequences are found by the epoch and the slot of that epoch.
    """

    def find(self, lane: int, place: int) -> tuple[int, int]:
        """Returns the epoch, and the slot of that epoch, that emits the lane's sequence number `place`."""
        epoch = last_up_to(lambda epoch: self._places_before(lane, epoch), place)
        return epoch, last_up_to(lambda slot: self._place_of_slot(lane, epoch, slot), place)

    def slots(self, lane: int, epoch: int, slot: int, count: int) -> Slots:
        """Returns a run of at most `count` slots, which ends with the epoch at the latest."""
        return Slots(self, lane, epoch, slot, count)

    def num_slots(self, lane: int, epoch: int) -> int:
        """Returns the lane's slots in an epoch: the window slides from only its first chunk to only its last one."""
        return self.share(lane, epoch)[1] + self.window - 1

    def elements(self, lane: int, start: int, count: int) -> Int64Array:
        """Returns the chunk numbers (count,) of the lane's elements from `start` on, over as many epochs as needed."""
        first, last = (
            last_up_to(lambda epoch: self.elements_before(lane, epoch), element)
            for element in (start, start + count - 1)
        )
        before = np.array([self.elements_before(lane, epoch) for epoch in range(first, last + 1)])
        element = np.arange(start, start + count, dtype=np.int64)
        epoch = np.searchsorted(before, element, side="right") - 1
        return self._chunks(lane, first + epoch, element - before[epoch])

    def chunks_from(self, lane: int, place: int) -> Iterator[int]:
        """Yields chunks endlessly, epoch after epoch; the first ones are in use at `place`."""
        slots = self.slots(lane, *self.find(lane, place), 1)
        return self.elements_from(lane, slots.elements(slots.slots).start)

    def sequence_at(self, lane: int, place: int) -> tuple[int, int]:
        run = self.slots(lane, *self.find(lane, place), 1)
        elements, offsets = run.sequences(place - run.place, place - run.place + 1)
        return int(self.elements(lane, int(elements[0]), 1)[0]), int(offsets[0])

    def elements_from(self, lane: int, element: int) -> Iterator[int]:
        """Yields the chunk numbers of the lane's elements from `element` on, endlessly."""
        while True:
            yield from self.elements(lane, element, 128).tolist()
            element += 128

    # A lane's share of an epoch: some full chunks, and in every `lanes`-th epoch the tail, which comes last.

    def elements_before(self, lane: int, epoch: int) -> int:
        """Returns the number of the lane's elements before `epoch`."""
        return self._full_before(lane, epoch) + self._tails_before(lane, epoch)

    def share(self, lane: int, epoch: int) -> tuple[int, int]:
        """Returns how many full chunks the lane has in an epoch, and how many chunks in all."""
        full = self._full_before(lane, epoch + 1) - self._full_before(lane, epoch)
        return full, self.elements_before(lane, epoch + 1) - self.elements_before(lane, epoch)

    def _full_before(self, lane: int, epoch: int) -> int:
        """Returns the lane's full chunks before `epoch`: places of the endless row that are `lane` modulo `lanes`."""
        return -(-(epoch * self.num_full - lane) // self.lanes)

    def _tails_before(self, lane: int, epoch: int) -> int:
        return -(-(epoch - lane) // self.lanes) if self.tail_sequences else 0

    def _places_before(self, lane: int, epoch: int) -> int:
        """Returns the lane's sequences before `epoch`."""
        full, tails = self._full_before(lane, epoch), self._tails_before(lane, epoch)
        return full * self.full_sequences + tails * self.tail_sequences

    def _chunks(self, lane: int, epoch: Any, index: Int64Array) -> Int64Array:
        """Returns the numbers of the chunks at `index` (n,) of the lane's share of an epoch; a tail's is `num_full`.

        `epoch` is one number, or one for each index (n,).
        """
        epochs = np.broadcast_to(np.asarray(epoch, np.int64), index.shape)
        first = -((lane - epochs * self.num_full) // self.lanes) * self.lanes + lane - epochs * self.num_full
        places = first + index * self.lanes
        chunks = np.full(len(places), self.num_full)
        full = places < self.num_full
        keys = keys_of(self._key("chunks"), epochs[full])
        chunks[full] = permute(places[full], self.num_full, keys)
        return chunks

    def _place_of_slot(self, lane: int, epoch: int, slot: int) -> int:
        """Returns the sequences that the lane emits before a slot.

        The number also grows past the epoch's last slot, because bisection needs that.
        """
        full, share = self.share(lane, epoch)
        over = slot - (share + self.window - 1)
        if over > 0:
            return self._places_before(lane, epoch + 1) + over
        first = max(0, slot - self.window + 1)  # the chunks before it are used up
        used_up = self._places_before(lane, epoch) + min(first, full) * self.full_sequences
        used_up += max(0, first - full) * self.tail_sequences
        counts = ((i, self.full_sequences if i < full else self.tail_sequences) for i in range(first, min(slot, share)))
        return used_up + sum((slot - i) * count // self.window for i, count in counts)


class Slots:
    """A run of slots of one lane in one epoch: which sequence comes at which place.

    Its tables grow with the slots, not with their sequences, which are computed only when they are asked for. In the
    shapes below, ``S`` is the number of slots, ``W`` the window (the strips in a slot), and ``C`` the number of chunks
    that are in use in any of the slots; a table's row ``c`` is about element ``first + c`` of the lane.

    Attributes
    ----------
    slots : range
        The slots of the epoch that the run covers.
    place : int
        The lane's sequences before the run.
    size : int
        The sequences in the run.
    """

    def __init__(self, order: ChunkOrder, lane: int, epoch: int, slot: int, count: int):
        self._window, self._seq_length = order.window, order.seq_length
        self._share = order.share(lane, epoch)[1]  # the lane's chunks in this epoch
        self._before = order.elements_before(lane, epoch)  # its elements before this epoch
        self.slots = range(slot, slot + min(count, order.num_slots(lane, epoch) - slot))
        self.place = order._place_of_slot(lane, epoch, slot)
        in_use = self.elements(self.slots)
        self._first = in_use.start
        self._tabulate_chunks(order, lane, epoch, np.array(in_use, dtype=np.int64) - self._before)
        self._tabulate_slots(order, lane, epoch, self._tabulate_strips())

    def _tabulate_chunks(self, order: ChunkOrder, lane: int, epoch: int, index: Int64Array) -> None:
        """Makes the tables (C,) of the chunks in use, from their `index` (C,) among the lane's chunks of the epoch."""
        chunks = order._chunks(lane, epoch, index)
        self._chunk_lengths = np.where(chunks == order.num_full, order.tail_sequences, order.full_sequences)
        self._chunk_keys = keys_of(order._key("strips", epoch), chunks)  # these order a chunk's sequences
        self._chunk_shifts = order._shift(keys_of(order._key("shift", epoch), chunks), chunks)

    def _tabulate_strips(self) -> Int64Array:
        """Makes the tables (S * W,) of the strips, slot by slot; returns how many sequences each has, (S, W).

        Strip ``k`` of slot ``t`` is part ``k`` of chunk ``t - k``. It is empty where the lane has no such chunk.
        """
        slots = np.arange(self.slots.start, self.slots.stop, dtype=np.int64)[:, None]  # (S, 1)
        strips = np.arange(self._window, dtype=np.int64)  # (W,)
        rows = slots - strips - (self._first - self._before)  # (S, W), of the tables of chunks
        num_chunks = len(self._chunk_lengths)
        rows[(rows < 0) | (rows >= num_chunks)] = num_chunks  # one more row is for chunks that are not there
        chunk_lengths = np.append(self._chunk_lengths, 0)[rows]  # (S, W)
        begins = strips * chunk_lengths // self._window
        lengths: Int64Array = (strips + 1) * chunk_lengths // self._window - begins
        self._strip_chunks = rows.ravel()
        self._strip_begins = begins.ravel()  # the strip's first sequence among those of its chunk
        self._strip_starts = _starts(lengths.ravel())
        return lengths

    def _tabulate_slots(self, order: ChunkOrder, lane: int, epoch: int, strip_lengths: Int64Array) -> None:
        """Makes the tables (S,) of the slots, from the lengths (S, W) of their strips."""
        self._slot_lengths = strip_lengths.sum(axis=1)
        self._slot_starts = _starts(self._slot_lengths)
        self._slot_keys = keys_of(order._key("slots", lane, epoch), np.array(self.slots, dtype=np.int64))
        self.size = int(self._slot_lengths.sum())

    def elements(self, slots: range) -> range:
        """Returns the lane's elements that are in use in any of `slots`."""
        first = max(0, slots.start - self._window + 1)
        return range(self._before + first, self._before + max(first, min(slots.stop, self._share)))

    def start(self, slot: int) -> int:
        """Returns the sequences of the run before one of its slots, or before the slot after its last one."""
        return int(self._slot_starts[slot - self.slots.start]) if slot < self.slots.stop else self.size

    def sequences(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """Finds the run's sequences from number `start` to `stop`: (n,) elements, and (n,) offsets in their chunks.

        An offset is the number of a sequence's first token in its chunk.
        """
        place = np.arange(start, stop, dtype=np.int64)  # (n,), and so are all arrays below
        slot = np.searchsorted(self._slot_starts, place, side="right") - 1
        slot_start = self._slot_starts[slot]
        mixed = slot_start + permute(place - slot_start, self._slot_lengths[slot], self._slot_keys[slot])
        strip = np.searchsorted(self._strip_starts, mixed, side="right") - 1
        within = mixed - self._strip_starts[strip] + self._strip_begins[strip]
        chunk = self._strip_chunks[strip]
        number = permute(within, self._chunk_lengths[chunk], self._chunk_keys[chunk])
        return self._first + chunk, self._chunk_shifts[chunk] + number * self._seq_length


def _starts(lengths: Int64Array) -> Int64Array:
    """Returns where each stretch begins, if they follow one another; a search skips the empty ones."""
    starts: Int64Array = np.cumsum(lengths) - lengths
    return starts
