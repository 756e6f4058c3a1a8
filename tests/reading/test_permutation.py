"""Keys and keyed permutations."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.reading.permutation import key_of, keys_of, permute


@pytest.mark.parametrize("size", [*range(1, 301), 1023, 1024, 1025, 65537, 300_001])
def test_permute_is_a_bijection(size: int) -> None:
    for key in (0, 1, 2**64 - 1):
        assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


def test_permute_needs_no_neighbours() -> None:
    whole = permute(np.arange(1000), 1000, 77)
    assert [int(permute(np.array([index]), 1000, 77)[0]) for index in range(0, 1000, 37)] == whole[::37].tolist()
    assert permute(np.arange(0), 10, 1).tolist() == []
    huge = permute(np.array([0, 1, 10**15]), 10**15 + 1, 5)
    assert len(set(huge.tolist())) == 3 and huge.min() >= 0 and huge.max() <= 10**15


def test_permute_takes_a_size_and_key_for_each_element() -> None:
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 5000, 400)
    index, keys = generator.integers(0, sizes), generator.integers(0, 2**64, 400, dtype=np.uint64)
    together = permute(index, sizes, keys)
    for one, size, key, found in zip(index.tolist(), sizes.tolist(), keys.tolist(), together.tolist()):
        assert permute(np.array([one]), size, key).tolist() == [found]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8, 9, 31, 100])
def test_permute_is_keyed_and_fair(size: int) -> None:
    """Every element lands everywhere about equally often, and so does a pair: chi-squares far from any extreme."""
    keys = 2000
    each_key = np.repeat(np.arange(keys, dtype=np.uint64) * np.uint64(0x9E3779B9), size)
    landed = permute(np.tile(np.arange(size), keys), size, each_key).reshape(keys, size)

    def check(counts: np.ndarray) -> None:
        chi_square = ((counts - keys / len(counts)) ** 2 / (keys / len(counts))).sum()
        assert chi_square < len(counts) - 1 + 6 * (2 * len(counts)) ** 0.5

    for element in {0, size // 2, size - 1}:
        check(np.bincount(landed[:, element], minlength=size))
    if size < 32:
        pairs = np.bincount(landed[:, 0] * size + landed[:, 1], minlength=size * size).reshape(size, size)
        check(pairs[~np.eye(size, dtype=bool)])


WORD = (1 << 64) - 1


def permute_one(index: int, size: int, key: int) -> int:
    """The permutation as its docstring puts it, with Python's own integers."""
    bits = (size - 1).bit_length()
    bits = 4 if bits == 3 else bits
    low_bits = bits // 2

    def scramble(value: int, round_: int) -> int:
        mixed = (key + round_ * 0x9E3779B97F4A7C15 + value) * 0xBF58476D1CE4E5B9 & WORD
        return ((mixed ^ (mixed >> 32)) * 0x94D049BB133111EB & WORD) >> 32

    while True:
        high, low = index >> low_bits, index & ((1 << low_bits) - 1)
        for round_ in range(1, 9, 2):
            high ^= scramble(low, round_) & ((1 << (bits - low_bits)) - 1)
            low ^= scramble(high, round_ + 1) & ((1 << low_bits) - 1)
        index = (high << low_bits) | low
        if index < size:
            return index


@pytest.mark.parametrize(
    ("size", "key"), [(1, 5), (2, 2**64 - 1), (6, 9), (10, 42), (1000, 7), (10**12, 123456789), (2**52 + 1, 3)]
)
def test_permute_is_the_same_without_numpy(size: int, key: int) -> None:
    indices = sorted({0, 1 % size, size // 3, size - 1})
    assert permute(np.array(indices), size, key).tolist() == [permute_one(index, size, key) for index in indices]


def test_keys_differ_by_every_part() -> None:
    keys = {*keys_of(5, np.arange(1000)).tolist(), *keys_of(6, np.arange(1000)).tolist()}
    assert len(keys) == 2000
    assert len({key_of("a", 1), key_of("a", 2), key_of("b", 1), key_of("a", 1, 1)}) == 4
    assert keys_of(2**64 - 1, np.array([[0, 1], [2, 3]])).shape == (2, 2)


def test_permute_never_changes() -> None:
    """Numbers written down once: an order that a run has begun must stay."""
    assert permute(np.arange(10), 10, 42).tolist() == [0, 8, 3, 9, 4, 2, 7, 1, 6, 5]
