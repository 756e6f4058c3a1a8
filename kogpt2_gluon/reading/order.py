"""The order of training sequences: a pure function of (data, seed, seq_length, lanes, window, place).

Sequences are dealt to a fixed number of *lanes*; a worker owns ``lanes / size`` of them, so a step is made of the same
sequences for any number of workers that divides the lanes. Common to both ways of dealing:

- **Sequences.** A chunk of ``n`` tokens holds ``(n - 1) // seq_length`` sequences of ``seq_length + 1`` tokens, each
  sharing its last token with the first of the next one, none crossing the chunk. They run on across documents: where
  one ends plays no part. The chunk's remainder is left out, at its two ends, at a keyed offset of each epoch, so that
  no token is left out for ever.
- **The tail.** A set's last chunk may be short. It has its sequences once an epoch like any other.

:class:`ChunkOrder` deals a large set by the chunk:

- **Epochs.** The full chunks of epoch ``e`` are put in a keyed random order; the epochs' orders follow one another in
  one endless row, and place ``g`` of that row belongs to lane ``g % lanes``. Every chunk comes once an epoch, in one
  lane, and nothing is dropped at the end. The tail of epoch ``e`` goes to lane ``e % lanes``, after that lane's full
  chunks of the epoch.
- **The window.** A chunk's sequences are split at random into ``window`` strips; in slot ``t`` of an epoch a lane
  emits, mixed, the first strip of its chunk ``t``, the second of chunk ``t - 1``, and so on. ``window`` chunks are in
  use at a time and one more is read for every slot: memory is lanes x (window + 1) x chunk.
- **The boundary.** The window runs empty at the end of an epoch: a lane has emitted all of its share before it begins
  the next. Lanes have all but the same share, so that they pass the boundary within two chunks of each other.

:class:`SequenceOrder` deals a small set (up to SMALL_SET_BYTES of tokens) by the sequence: all sequences of an epoch
are put in one keyed random order, and place ``g`` of the endless row belongs to lane ``g % lanes``. Any number of lanes
gets its share, down to one chunk; the price is that every worker holds the whole set in memory.

Seeking needs no replay: any place is found by bisection over a closed form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from kogpt2_gluon.reading.permutation import Int64Array, UInt64Array, key_of, keys_of, permute

MIN_CHUNKS_PER_LANE = 8
SMALL_SET_BYTES = 32 << 20  # larger sets have at least 512 chunks, unless they were made with --chunk-kib


def last_up_to(start: Callable[[int], int], place: int) -> int:
    """The largest n with ``start(n) <= place``, of a function that begins at 0 and never falls, but grows for ever."""
    low, high = 0, 1
    while start(high) <= place:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if start(middle) <= place else (low, middle)
    return low


def choose_lanes(num_chunks: int, total_batch_size: int, max_lanes: int) -> int:
    """The largest power of two up to `max_lanes` that divides the batch and leaves every lane at least 8 chunks.

    Of a small set, dealt by the sequence, `num_chunks` is as good as endless.
    """
    lanes = 1
    while (
        lanes * 2 <= max_lanes and total_batch_size % (lanes * 2) == 0 and num_chunks >= lanes * 2 * MIN_CHUNKS_PER_LANE
    ):
        lanes *= 2
    return lanes


@dataclass(frozen=True)
class Order(ABC):
    """What both ways of dealing share: the shape of a set.

    Parameters
    ----------
    fingerprint : str
        The set's fingerprint, from its manifest.
    num_full, chunk_tokens, tail_tokens : int
        Full chunks, tokens of each, and tokens of the short last chunk (0: there is none), whose number is `num_full`.
    seed, seq_length, lanes, window : int
        As in the recipe; `lanes` from :func:`choose_lanes`. A SequenceOrder has no use for the window.
    """

    fingerprint: str
    num_full: int
    chunk_tokens: int
    tail_tokens: int
    seed: int
    seq_length: int
    lanes: int
    window: int

    @property
    def full_sequences(self) -> int:
        """Sequences of a full chunk."""
        return (self.chunk_tokens - 1) // self.seq_length

    @property
    def tail_sequences(self) -> int:
        """Sequences of the short last chunk."""
        return max(0, self.tail_tokens - 1) // self.seq_length

    @property
    def sequences_per_epoch(self) -> int:
        """Sequences of one pass over the set."""
        return self.num_full * self.full_sequences + self.tail_sequences

    @abstractmethod
    def chunks_from(self, lane: int, place: int) -> Iterator[int]:
        """The chunks that the lane is going to read from its sequence number `place` on, in order."""

    def _key(self, purpose: str, *parts: int) -> int:
        return key_of(purpose, self.fingerprint, self.seed, *parts)

    def _shift(self, keys: UInt64Array, chunks: Int64Array) -> Int64Array:
        """Tokens left out at the front of each chunk, from a key for each."""
        spare = np.full(chunks.shape, (self.chunk_tokens - 1) % self.seq_length)
        spare[chunks == self.num_full] = max(0, self.tail_tokens - 1) % self.seq_length
        return (keys % (spare + 1).astype(np.uint64)).astype(np.int64)


@dataclass(frozen=True)
class SequenceOrder(Order):
    """The order over one small set, dealt by the sequence."""

    def sequences(self, lane: int, place: int, count: int) -> tuple[Int64Array, Int64Array]:
        """Chunk and offset (first token in it) of `count` sequences of the lane, from its number `place` on."""
        row = np.arange(place, place + count, dtype=np.int64) * self.lanes + lane
        epochs, index = np.divmod(row, self.sequences_per_epoch)
        mixed = permute(index, self.sequences_per_epoch, keys_of(self._key("sequences"), epochs))
        chunks, number = np.divmod(mixed, self.full_sequences)
        keys = keys_of(self._key("shift"), epochs * (self.num_full + 1) + chunks)
        return chunks, self._shift(keys, chunks) + number * self.seq_length

    def chunks_from(self, lane: int, place: int) -> Iterator[int]:
        """Every chunk once: the set is read whole."""
        return iter(range(self.num_full + (self.tail_tokens > 0)))


@dataclass(frozen=True)
class ChunkOrder(Order):
    """The order over one large set, dealt by the chunk.

    A lane counts the chunks of its row as *elements*; its sequences are found by epoch and slot of that epoch.
    """

    def find(self, lane: int, place: int) -> tuple[int, int]:
        """Epoch, and slot of that epoch, that emits the lane's sequence number `place`."""
        epoch = last_up_to(lambda epoch: self._places_before(lane, epoch), place)
        return epoch, last_up_to(lambda slot: self._place_of_slot(lane, epoch, slot), place)

    def slots(self, lane: int, epoch: int, slot: int, count: int) -> Slots:
        """A run of at most `count` slots, which ends with the epoch at the latest."""
        return Slots(self, lane, epoch, slot, count)

    def num_slots(self, lane: int, epoch: int) -> int:
        """Slots of the lane in an epoch: the window slides from its first chunk alone to its last one alone."""
        return self.share(lane, epoch)[1] + self.window - 1

    def elements(self, lane: int, start: int, count: int) -> Int64Array:
        """Chunk numbers of the lane's elements from `start` on, over as many epochs as it takes."""
        first, last = (
            last_up_to(lambda epoch: self.elements_before(lane, epoch), element)
            for element in (start, start + count - 1)
        )
        before = np.array([self.elements_before(lane, epoch) for epoch in range(first, last + 1)])
        element = np.arange(start, start + count, dtype=np.int64)
        epoch = np.searchsorted(before, element, side="right") - 1
        return self._chunks(lane, first + epoch, element - before[epoch])

    def chunks_from(self, lane: int, place: int) -> Iterator[int]:
        """Endless, epoch after epoch; the first are those in use at `place`."""
        slots = self.slots(lane, *self.find(lane, place), 1)
        return self.elements_from(lane, slots.elements(slots.slots).start)

    def elements_from(self, lane: int, element: int) -> Iterator[int]:
        """Chunk numbers of the lane's elements from `element` on, endlessly."""
        while True:
            yield from self.elements(lane, element, 128).tolist()
            element += 128

    # A lane's share of an epoch: some full chunks, and in every `lanes`-th epoch the tail, which is then the last.

    def elements_before(self, lane: int, epoch: int) -> int:
        """The lane's elements before `epoch`."""
        return self._full_before(lane, epoch) + self._tails_before(lane, epoch)

    def share(self, lane: int, epoch: int) -> tuple[int, int]:
        """The lane's full chunks of an epoch, and all its chunks of it."""
        full = self._full_before(lane, epoch + 1) - self._full_before(lane, epoch)
        return full, self.elements_before(lane, epoch + 1) - self.elements_before(lane, epoch)

    def _full_before(self, lane: int, epoch: int) -> int:
        """Full chunks of the lane before `epoch`: places of the endless row that are `lane` modulo `lanes`."""
        return -(-(epoch * self.num_full - lane) // self.lanes)

    def _tails_before(self, lane: int, epoch: int) -> int:
        return -(-(epoch - lane) // self.lanes) if self.tail_sequences else 0

    def _places_before(self, lane: int, epoch: int) -> int:
        """Sequences of the lane before `epoch`."""
        full, tails = self._full_before(lane, epoch), self._tails_before(lane, epoch)
        return full * self.full_sequences + tails * self.tail_sequences

    def _chunks(self, lane: int, epoch: Any, index: Int64Array) -> Int64Array:
        """Numbers of chunks of the lane's shares, by epoch (one, or one for each) and index; a tail's is `num_full`."""
        epochs = np.broadcast_to(np.asarray(epoch, np.int64), index.shape)
        first = -((lane - epochs * self.num_full) // self.lanes) * self.lanes + lane - epochs * self.num_full
        places = first + index * self.lanes
        chunks = np.full(len(places), self.num_full)
        full = places < self.num_full
        keys = keys_of(self._key("chunks"), epochs[full])
        chunks[full] = permute(places[full], self.num_full, keys)
        return chunks

    def _place_of_slot(self, lane: int, epoch: int, slot: int) -> int:
        """Sequences that the lane emits before a slot. It grows on past the epoch's last slot, as bisection asks."""
        full, share = self.share(lane, epoch)
        over = slot - (share + self.window - 1)
        if over > 0:
            return self._places_before(lane, epoch + 1) + over
        first = max(0, slot - self.window + 1)  # chunks before it are used up
        used_up = self._places_before(lane, epoch) + min(first, full) * self.full_sequences
        used_up += max(0, first - full) * self.tail_sequences
        counts = ((i, self.full_sequences if i < full else self.tail_sequences) for i in range(first, min(slot, share)))
        return used_up + sum((slot - i) * count // self.window for i, count in counts)


class Slots:
    """A run of slots of one lane in one epoch. Its tables are of the slots' size; sequences are worked out when asked.

    place : the lane's sequences before it. size : its own.
    slots : the slots of the epoch that it covers.
    """

    def __init__(self, order: ChunkOrder, lane: int, epoch: int, slot: int, count: int):
        share = order.share(lane, epoch)[1]
        count = min(count, share + order.window - 1 - slot)
        in_use = range(max(0, slot - order.window + 1), min(slot + count, share))
        self.slots = range(slot, slot + count)
        self.place = order._place_of_slot(lane, epoch, slot)
        self._before, self._share, self._window = order.elements_before(lane, epoch), share, order.window
        self._first, self._seq_length = self._before + in_use.start, order.seq_length

        # Of the chunks in use: sequences, the key that orders them, and the first one's offset.
        chunks = order._chunks(lane, epoch, np.array(in_use, dtype=np.int64))
        self._counts = np.where(chunks == order.num_full, order.tail_sequences, order.full_sequences)
        self._keys = keys_of(order._key("strips", epoch), chunks)
        self._shifts = order._shift(keys_of(order._key("shift", epoch), chunks), chunks)

        # Of the strips, slot by slot (count, window): the chunk, and the part of it that belongs to the strip.
        slots, strips = np.arange(slot, slot + count, dtype=np.int64), np.arange(order.window, dtype=np.int64)
        index = slots[:, None] - strips - in_use.start
        inside = (index >= 0) & (index < len(in_use)) & (slots[:, None] - strips >= 0)
        index[~inside] = 0
        counts = np.where(inside, self._counts[index] if len(in_use) else 0, 0)
        begin = strips * counts // order.window
        lengths = (strips + 1) * counts // order.window - begin
        self._strip_index, self._strip_begin = index.ravel(), begin.ravel()
        self._strip_start = _starts(lengths.ravel())

        # Of the slots: where each begins, its length and its key.
        self._slot_lengths = lengths.sum(axis=1)
        self._slot_start = _starts(self._slot_lengths)
        self._slot_keys = keys_of(order._key("slots", lane, epoch), slots)
        self.size = int(self._slot_lengths.sum())

    def elements(self, slots: range) -> range:
        """The elements that are in use in some of the slots."""
        first = max(0, slots.start - self._window + 1)
        return range(self._before + first, self._before + max(first, min(slots.stop, self._share)))

    def start(self, slot: int) -> int:
        """Sequences of the run before a slot of it, or before the slot after its last one."""
        return int(self._slot_start[slot - self.slots.start]) if slot < self.slots.stop else self.size

    def sequences(self, start: int, stop: int) -> tuple[Int64Array, Int64Array]:
        """Element and offset (first token in its chunk) of the run's sequences from number `start` to `stop`."""
        place = np.arange(start, stop, dtype=np.int64)
        slot = np.searchsorted(self._slot_start, place, side="right") - 1
        slot_start = self._slot_start[slot]
        mixed = slot_start + permute(place - slot_start, self._slot_lengths[slot], self._slot_keys[slot])
        strip = np.searchsorted(self._strip_start, mixed, side="right") - 1
        within = mixed - self._strip_start[strip] + self._strip_begin[strip]
        index = self._strip_index[strip]
        number = permute(within, self._counts[index], self._keys[index])
        return self._first + index, self._shifts[index] + number * self._seq_length


def _starts(lengths: Int64Array) -> Int64Array:
    """Where each of neighbouring stretches begins; of empty ones the search finds the one after them."""
    starts: Int64Array = np.cumsum(lengths) - lengths
    return starts
