"""The order of training sequences: a pure function of (data, seed, seq_length, lanes, window, place).

Chunks are dealt to a fixed number of *lanes*; a worker owns ``lanes / size`` of them, so a step is made of the same
sequences for any number of workers that divides the lanes.

- **Epochs.** The full chunks of epoch ``e`` are put in a keyed random order; the epochs' orders follow one another in
  one endless row, and place ``g`` of that row belongs to lane ``g % lanes``. Every chunk comes once an epoch, in one
  lane, and nothing is dropped at the end.
- **The tail.** A set's last chunk may be short. It comes once an epoch too: epoch ``e``'s goes to lane ``e % lanes``,
  after that lane's full chunks of the epoch.
- **Sequences.** A chunk of ``n`` tokens holds ``(n - 1) // seq_length`` sequences of ``seq_length + 1`` tokens, each
  sharing its last token with the first of the next one, none crossing the chunk. The remainder is left out, at the two
  ends, at a keyed offset of each epoch, so that no token is left out for ever.
- **The window.** A chunk's sequences are split at random into ``window`` strips; in slot ``t`` of an epoch a lane
  emits, mixed, the first strip of its chunk ``t``, the second of chunk ``t - 1``, and so on. ``window`` chunks are in
  use at a time and one more is read for every slot: memory is lanes x (window + 1) x chunk.
- **The boundary.** The window runs empty at the end of an epoch: a lane has emitted all of its share before it begins
  the next. Lanes have all but the same share, so that they pass the boundary within two chunks of each other.

Seeking needs no replay: the slot of any place is found by bisection over a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Union

import numpy as np
import xxhash
from numpy.typing import NDArray

MIN_CHUNKS_PER_LANE = 8
_ROUNDS = 6
_MASK64 = (1 << 64) - 1

UInt64Array = NDArray[np.uint64]
Int64Array = NDArray[np.int64]


def _key(*parts: Union[str, int]) -> int:
    """A 64-bit key from texts and numbers, the same on every machine."""
    return xxhash.xxh3_64_intdigest("/".join(map(str, parts)).encode())


def _mix(values: UInt64Array) -> UInt64Array:
    """SplitMix64's finaliser (Steele et al., 2014), element by element."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permute(index: Int64Array, size: int, key: int) -> Int64Array:
    """Where a keyed permutation of ``range(size)`` sends each of `index`; O(1) an element, no table.

    A Feistel network over the next even power of two, walked until it lands inside (Black and Rogaway, 2002).
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64((key + round_ * 0x9E3779B97F4A7C15) & _MASK64) for round_ in range(1, _ROUNDS + 1)]
    values = np.asarray(index, dtype=np.uint64).copy()
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        left, right = values[outside] >> half, values[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right + round_key) & mask)
        values[outside] = (left << half) | right
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


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
    """The largest power of two up to `max_lanes` that divides the batch and leaves every lane at least 8 chunks."""
    lanes = 1
    while (
        lanes * 2 <= max_lanes and total_batch_size % (lanes * 2) == 0 and num_chunks >= lanes * 2 * MIN_CHUNKS_PER_LANE
    ):
        lanes *= 2
    return lanes


@dataclass(frozen=True)
class Slot:
    """A stretch of one lane: which sequences it emits, in order.

    ``place`` is the lane's count of sequences before it, and ``first`` the first of its chunks still in use, in the
    lane's own count of chunks. For the slot's i-th sequence, ``element[i]`` is that count (the key under which a reader
    keeps the chunk), ``chunk[i]`` the chunk's number in the set and ``offset[i]`` the first of its ``seq_length + 1``
    tokens in that chunk.
    """

    place: int
    first: int
    element: Int64Array
    chunk: Int64Array
    offset: Int64Array

    def __len__(self) -> int:
        return len(self.chunk)


@dataclass(frozen=True)
class Order:
    """The order over one set of shards.

    Parameters
    ----------
    fingerprint : str
        The set's fingerprint, from its manifest.
    num_full, chunk_tokens, tail_tokens : int
        Full chunks, tokens of each, and tokens of the short last chunk (0: there is none).
    seed, seq_length, lanes, window : int
        As in the recipe; `lanes` from :func:`choose_lanes`.
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

    # A lane's share of an epoch: some full chunks, and in every `lanes`-th epoch the tail, which is then the last.

    def _full_before(self, lane: int, epoch: int) -> int:
        """Full chunks of the lane before `epoch`: places of the endless row that are `lane` modulo `lanes`."""
        return -(-(epoch * self.num_full - lane) // self.lanes)

    def _tails_before(self, lane: int, epoch: int) -> int:
        return -(-(epoch - lane) // self.lanes) if self.tail_sequences else 0

    def _elements_before(self, lane: int, epoch: int) -> int:
        return self._full_before(lane, epoch) + self._tails_before(lane, epoch)

    def _chunks(self, lane: int, epoch: int, indices: range) -> Int64Array:
        """Numbers of some chunks of the lane's share; the tail's is `num_full`."""
        first = self._full_before(lane, epoch) * self.lanes + lane - epoch * self.num_full
        places = first + np.array(indices, dtype=np.int64) * self.lanes
        full = places < self.num_full
        chunks = np.full(len(places), self.num_full)
        chunks[full] = permute(places[full], self.num_full, _key("chunks", self.fingerprint, self.seed, epoch))
        return chunks

    # Slots of an epoch: the window slides over the lane's share, from its first chunk alone to its last alone.

    def _first_slot(self, lane: int, epoch: int) -> int:
        return self._elements_before(lane, epoch) + epoch * (self.window - 1)

    def _in_use(self, lane: int, slot: int) -> tuple[int, int, range]:
        """Of a slot: its epoch, its number in the epoch, and which chunks of the lane's share give a strip to it."""
        epoch = last_up_to(lambda epoch: self._first_slot(lane, epoch), slot)
        number = slot - self._first_slot(lane, epoch)
        share = self._elements_before(lane, epoch + 1) - self._elements_before(lane, epoch)
        return epoch, number, range(max(0, number - self.window + 1), min(number + 1, share))

    def _place_of_slot(self, lane: int, slot: int) -> int:
        """Sequences that the lane emits before `slot`."""
        epoch, number, in_use = self._in_use(lane, slot)
        full_before = self._full_before(lane, epoch)
        full = self._full_before(lane, epoch + 1) - full_before  # of this epoch; the tail comes after them
        used_up = (full_before + in_use.start) * self.full_sequences
        used_up += self._tails_before(lane, epoch) * self.tail_sequences
        counts = ((number - i, self.full_sequences if i < full else self.tail_sequences) for i in in_use)
        return used_up + sum(strips * count // self.window for strips, count in counts)

    def slot_at(self, lane: int, place: int) -> int:
        """The slot that emits the lane's sequence number `place`."""
        return last_up_to(lambda slot: self._place_of_slot(lane, slot), place)

    def slot(self, lane: int, slot: int) -> Slot:
        """The sequences of one slot."""
        epoch, number, in_use = self._in_use(lane, slot)
        before = self._elements_before(lane, epoch)
        chunks = self._chunks(lane, epoch, in_use)
        strips = [self._strip(epoch, int(chunk), number - index) for index, chunk in zip(in_use, chunks)]
        lengths = [len(strip) for strip in strips]
        element = np.repeat(before + np.array(in_use, dtype=np.int64), lengths)
        chunk, offset = np.repeat(chunks, lengths), np.concatenate([np.empty(0, np.int64), *strips])
        if len(offset):
            mixed = permute(np.arange(len(offset)), len(offset), _key("slot", self.fingerprint, self.seed, lane, slot))
            element, chunk, offset = element[mixed], chunk[mixed], offset[mixed]
        return Slot(self._place_of_slot(lane, slot), before + in_use.start, element, chunk, offset)

    def _strip(self, epoch: int, chunk: int, strip: int) -> Int64Array:
        """Offsets of the sequences in one strip of a chunk."""
        tokens = self.chunk_tokens if chunk < self.num_full else self.tail_tokens
        count = (tokens - 1) // self.seq_length
        place = np.arange(strip * count // self.window, (strip + 1) * count // self.window, dtype=np.int64)
        if len(place):
            place = permute(place, count, _key("strips", self.fingerprint, self.seed, epoch, chunk))
        spare = tokens - 1 - count * self.seq_length
        shift = _key("shift", self.fingerprint, self.seed, epoch, chunk) % (spare + 1)
        return shift + place * self.seq_length

    def state(self, consumed: int) -> dict[str, Any]:
        """What a resume needs and checks: under 1 kB. `consumed` counts sequences over all lanes."""
        return {
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "seq_length": self.seq_length,
            "lanes": self.lanes,
            "window": self.window,
            "consumed": consumed,
        }
