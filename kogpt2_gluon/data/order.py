"""The order of training sequences: a pure function of (data, seed, seq_length, lanes, window, place).

Chunks are dealt to a fixed number of *lanes*; a worker owns ``lanes / size`` of them, so a step is made of the same
sequences for any number of workers that divides the lanes.

- **Epochs.** The full chunks of epoch ``e`` are put in a keyed random order; the epochs' orders follow one another in
  one endless row, and place ``g`` of that row belongs to lane ``g % lanes``. Every chunk comes once an epoch, in one
  lane. Lanes pass the boundary of an epoch within one chunk of each other, and nothing is dropped there.
- **The tail.** A set's last chunk may be short. It comes once an epoch too: epoch ``e``'s goes to lane ``e % lanes``,
  after that lane's full chunks of the epoch.
- **Sequences.** A chunk of ``n`` tokens holds ``(n - 1) // seq_length`` sequences of ``seq_length + 1`` tokens, each
  sharing its last token with the first of the next one, none crossing the chunk. The remainder is left out, at the two
  ends, at a keyed offset of each epoch, so that no token is left out for ever.
- **The window.** A chunk's sequences are split at random into ``window`` strips; in slot ``t`` a lane emits, mixed,
  the first strip of its chunk ``t``, the second of chunk ``t - 1``, and so on. ``window`` chunks are in use at a time
  and one more is read for every slot: memory is lanes x (window + 1) x chunk, reading is steady.

Seeking needs no replay: the slot of any place is found by bisection over a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union

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


def choose_lanes(num_chunks: int, total_batch_size: int, max_lanes: int) -> int:
    """The largest power of two up to `max_lanes` that divides the batch and leaves every lane at least 8 chunks."""
    lanes = 1
    while (
        lanes * 2 <= max_lanes
        and total_batch_size % (lanes * 2) == 0
        and num_chunks >= lanes * 2 * MIN_CHUNKS_PER_LANE
    ):
        lanes *= 2
    return lanes


@dataclass(frozen=True)
class Slot:
    """A stretch of one lane: which sequences it emits, in order.

    ``place`` is the lane's count of sequences before it; for its i-th sequence, ``element[i]`` is the lane's chunk
    counter (the key under which a reader keeps the chunk), ``chunk[i]`` the chunk's number in the set and ``offset[i]``
    the first of its ``seq_length + 1`` tokens in that chunk.
    """

    place: int
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

    # A lane's chunks, counted by `element`: its share of the endless row of full chunks, and a tail now and then.

    def _first_tail(self, lane: int) -> int:
        """The element at which `lane` meets its first tail, that of epoch number `lane`; then every num_full + 1."""
        return -(-((lane + 1) * self.num_full - lane) // self.lanes)

    def _tails_before(self, lane: int, element: int) -> int:
        if self.tail_sequences == 0:
            return 0
        return max(0, -(-(element - self._first_tail(lane)) // (self.num_full + 1)))

    def lane_chunk(self, lane: int, element: int) -> tuple[int, int]:
        """(epoch, chunk) of a lane's element; the tail's chunk number is `num_full`."""
        tails = self._tails_before(lane, element)
        since = element - self._first_tail(lane)
        if self.tail_sequences and since >= 0 and since % (self.num_full + 1) == 0:
            return lane + tails * self.lanes, self.num_full
        place = (element - tails) * self.lanes + lane
        epoch, index = divmod(place, self.num_full)
        key = _key("chunks", self.fingerprint, self.seed, epoch)
        return epoch, int(permute(np.array([index]), self.num_full, key)[0])

    def _sequences_before(self, lane: int, element: int) -> int:
        """Sequences of all elements before `element`."""
        tails = self._tails_before(lane, element)
        return (element - tails) * self.full_sequences + tails * self.tail_sequences

    def _sequences_of(self, lane: int, element: int) -> int:
        return self._sequences_before(lane, element + 1) - self._sequences_before(lane, element)

    # Slots: `window` elements are in use at once, each giving one strip of its sequences to a slot.

    def _place_of_slot(self, lane: int, slot: int) -> int:
        """Sequences that the lane emits before `slot`."""
        first = max(0, slot - self.window + 1)  # elements before it are used up
        partly = sum((slot - e) * self._sequences_of(lane, e) // self.window for e in range(first, slot))
        return self._sequences_before(lane, first) + partly

    def slot_at(self, lane: int, place: int) -> int:
        """The slot that emits the lane's sequence number `place`."""
        low, high = 0, self.window
        while self._place_of_slot(lane, high) <= place:
            high *= 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._place_of_slot(lane, middle) <= place else (low, middle)
        return low

    def slot(self, lane: int, slot: int) -> Slot:
        """The sequences of one slot."""
        parts = [self._strip(lane, element, slot - element) for element in range(max(0, slot - self.window + 1), slot + 1)]
        element, chunk, offset = (np.concatenate(column) for column in zip(*parts))
        key = _key("slot", self.fingerprint, self.seed, lane, slot)
        mixed = permute(np.arange(len(chunk)), len(chunk), key) if len(chunk) else np.arange(0)
        return Slot(self._place_of_slot(lane, slot), element[mixed], chunk[mixed], offset[mixed])

    def _strip(self, lane: int, element: int, strip: int) -> tuple[Int64Array, Int64Array, Int64Array]:
        """(element, chunk, offset) of the sequences in one strip of one element."""
        epoch, chunk = self.lane_chunk(lane, element)
        tokens = self.chunk_tokens if chunk < self.num_full else self.tail_tokens
        count = (tokens - 1) // self.seq_length
        index = np.arange(strip * count // self.window, (strip + 1) * count // self.window, dtype=np.int64)
        if len(index):
            index = permute(index, count, _key("strips", self.fingerprint, self.seed, epoch, chunk))
        spare = tokens - 1 - count * self.seq_length
        shift = _key("shift", self.fingerprint, self.seed, epoch, chunk) % (spare + 1)
        return np.full(len(index), element), np.full(len(index), chunk), shift + index * self.seq_length

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
