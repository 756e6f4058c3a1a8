"""Keys and keyed permutations: the same numbers on every machine, without a table or the state of a generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

_ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's step
_MASK64 = (1 << 64) - 1

UInt64Array = NDArray[np.uint64]
Int64Array = NDArray[np.int64]


def key_of(*parts: str | int) -> int:
    """Returns a 64-bit key made from texts and numbers."""
    return xxhash.xxh3_64_intdigest("/".join(map(str, parts)).encode())


def keys_of(key: int, index: Int64Array) -> UInt64Array:
    """Returns a 64-bit key for each of `index` (any shape, not negative): SplitMix64's sequence from `key` on."""
    return _mix(np.uint64(key) + (np.asarray(index).astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))


def permute(index: Int64Array, size: Any, key: Any) -> Int64Array:
    """Returns where a keyed permutation of ``range(size)`` sends each of `index` (n,), in O(1) each, without a table.

    `size` and `key` are whole numbers, or arrays (n,) with one for every element; sizes are below 2**53. It is a
    Feistel network over the next power of two (16 for sizes 5 to 8), applied until the result is below `size` (Black
    and Rogaway, 2002).
    """
    values = np.asarray(index).astype(np.uint64)
    sizes, keys, bits = (
        np.broadcast_to(array, values.shape)
        for array in (np.asarray(size, np.uint64), np.asarray(key, np.uint64), _bit_length(size))
    )
    result = np.empty(values.shape, np.int64)
    where = np.arange(len(values))
    while len(where):
        values = _feistel(values, bits, keys)
        outside = values >= sizes
        result[where] = values.view(np.int64)  # the values outside are overwritten in a later round
        if not outside.any():
            break
        where, values, sizes, keys, bits = (array[outside] for array in (where, values, sizes, keys, bits))
    return result


def _bit_length(size: Any) -> UInt64Array:
    """Counts the bits of ``size - 1``: a float64 holds every whole number below 2**53; its exponent is their number."""
    bits = np.frexp(np.asarray(size, np.float64) - 1)[1]
    return np.where(bits == 3, 4, bits).astype(np.uint64)  # with 2 + 1 bits, eight rounds are measurably unfair


def _feistel(values: UInt64Array, bits: UInt64Array, keys: UInt64Array) -> UInt64Array:
    """Permutes numbers of `bits` bits once: the upper and the lower half change in turn, each by the other."""
    low_bits = bits >> np.uint64(1)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << (bits - low_bits)) - np.uint64(1)
    high, low = values >> low_bits, values & low_mask
    for round_ in range(1, _ROUNDS + 1, 2):
        high ^= _scramble(low, keys, round_) & high_mask
        low ^= _scramble(high, keys, round_ + 1) & low_mask
    return np.asarray((high << low_bits) | low, np.uint64)


def _scramble(values: UInt64Array, keys: UInt64Array, round_: int) -> UInt64Array:
    """Returns 32 bits for each value under its key: two multiplications, and the second sees the top of the first."""
    mixed = keys + np.uint64(round_ * _GOLDEN & _MASK64)
    mixed += values
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed >>= np.uint64(32)
    return mixed


def _mix(values: UInt64Array) -> UInt64Array:
    """Applies SplitMix64's finaliser (Steele et al., 2014) to every element."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
