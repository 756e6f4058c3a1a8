"""The order of sequences: each once an epoch, the same for any number of workers, found again at any place."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.data.order import Order, Slot, choose_lanes, last_up_to, permute

SHAPES = [(0, 60), (1, 0), (1, 60), (5, 0), (5, 1), (5, 60), (5, 96), (300, 17), (200, 60)]


def make_order(num_full: int, tail_tokens: int, lanes: int = 1, window: int = 8, seq_length: int = 7) -> Order:
    return Order(
        fingerprint="f0",
        num_full=num_full,
        chunk_tokens=97,
        tail_tokens=tail_tokens,
        seed=3,
        seq_length=seq_length,
        lanes=lanes,
        window=window,
    )


def slots(order: Order, lane: int) -> Iterator[Slot]:
    number = 0
    while True:
        yield order.slot(lane, number)
        number += 1


def share(order: Order, lane: int, epoch: int) -> int:
    """Sequences of `epoch` that fall to the lane, counted one chunk at a time."""
    full = sum((epoch * order.num_full + index) % order.lanes == lane for index in range(order.num_full))
    tail = order.tail_sequences if epoch % order.lanes == lane else 0
    return full * order.full_sequences + tail


def read_epochs(order: Order, lane: int, epochs: int) -> list[list[tuple[int, int]]]:
    """(chunk, offset) of the lane's sequences in its order, epoch by epoch."""
    counts = [share(order, lane, epoch) for epoch in range(epochs)]
    found: list[tuple[int, int]] = []
    for slot in slots(order, lane):
        assert slot.place == len(found)
        found += zip(slot.chunk.tolist(), slot.offset.tolist())
        if len(found) >= sum(counts):
            break
    starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return [found[start : start + count] for start, count in zip(starts, counts)]


def check_epochs(order: Order, epochs: int) -> None:
    """Every chunk's sequences once an epoch, all of a chunk in one lane, inside the chunk, shifted alike."""
    lanes = [read_epochs(order, lane, epochs) for lane in range(order.lanes)]
    for epoch in range(epochs):
        owner: dict[int, int] = {}
        offsets: dict[int, list[int]] = {}
        for lane, of_lane in enumerate(lanes):
            for chunk, offset in of_lane[epoch]:
                assert owner.setdefault(chunk, lane) == lane
                offsets.setdefault(chunk, []).append(offset)
        assert set(offsets) == set(range(order.num_full + bool(order.tail_sequences)))
        for chunk, found in offsets.items():
            tokens = order.chunk_tokens if chunk < order.num_full else order.tail_tokens
            count, first = (tokens - 1) // order.seq_length, min(found)
            assert sorted(found) == [first + index * order.seq_length for index in range(count)]
            assert first >= 0 and max(found) + order.seq_length < tokens


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_sequence_comes_once_an_epoch(shape: tuple[int, int], window: int) -> None:
    check_epochs(make_order(*shape, lanes=1, window=window), epochs=3 if shape[0] < 100 else 1)


@pytest.mark.parametrize("lanes", [2, 4, 8, 64])
@pytest.mark.parametrize("shape", [(5, 0), (5, 60), (300, 17), (512, 0)])
def test_every_sequence_comes_once_an_epoch_over_all_lanes(shape: tuple[int, int], lanes: int) -> None:
    check_epochs(make_order(*shape, lanes=lanes), epochs=lanes // 4 + 3 if shape[0] < 10 else 1)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    num_full=st.integers(0, 40),
    chunk_tokens=st.integers(2, 40),
    tail=st.floats(0, 0.999),
    lanes=st.sampled_from([1, 2, 4, 8, 16]),
    window=st.integers(1, 8),
    seq_length=st.integers(1, 12),
    seed=st.integers(0, 2**63),
)
def test_any_shape_gives_every_sequence_once_an_epoch(
    num_full: int, chunk_tokens: int, tail: float, lanes: int, window: int, seq_length: int, seed: int
) -> None:
    tail_tokens = int(tail * chunk_tokens)
    order = Order("any", num_full, chunk_tokens, tail_tokens, seed, seq_length, lanes, window)
    if order.full_sequences and num_full:
        check_epochs(order, epochs=3)
    elif order.tail_sequences:  # a set of one short chunk is never given to more than one lane
        check_epochs(replace(order, lanes=1, num_full=0), epochs=3)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    num_full=st.integers(1, 50),
    tail_tokens=st.integers(0, 96),
    lanes=st.sampled_from([1, 2, 8, 64]),
    window=st.integers(1, 8),
    seq_length=st.sampled_from([1, 7, 40, 96]),
    place=st.integers(0, 10**12),
)
def test_slot_at_is_the_inverse_of_place(
    num_full: int, tail_tokens: int, lanes: int, window: int, seq_length: int, place: int
) -> None:
    order = make_order(num_full, tail_tokens, lanes, window, seq_length)
    for lane in {0, lanes // 2, lanes - 1}:
        number = order.slot_at(lane, place)
        slot = order.slot(lane, number)
        assert slot.place <= place < slot.place + len(slot)
        assert order.slot(lane, number + 1).place == slot.place + len(slot)


def test_places_of_slots_add_up() -> None:
    order = make_order(13, 60, lanes=4, window=3)
    for lane in range(4):
        place = 0
        for number, slot in zip(range(200), slots(order, lane)):
            assert slot.place == place
            for within in {0, len(slot) // 2, len(slot) - 1} if len(slot) else ():
                assert order.slot_at(lane, place + within) == number
            place += len(slot)


@pytest.mark.parametrize("shape", [(1, 96), (3, 50), (16, 0), (17, 96), (200, 60)])
def test_lanes_pass_the_end_of_an_epoch_within_two_chunks(shape: tuple[int, int]) -> None:
    """And do not drift apart further with the epochs."""
    order = make_order(*shape, lanes=8)
    done = [0] * order.lanes
    for epoch in range(3 * order.lanes):
        done = [before + share(order, lane, epoch) for lane, before in enumerate(done)]
        assert max(done) - min(done) <= 2 * order.full_sequences
        mean = Fraction((epoch + 1) * order.sequences_per_epoch, order.lanes)
        assert all(abs(count - mean) <= 2 * order.full_sequences for count in done)


def test_at_most_window_chunks_are_in_use() -> None:
    order = make_order(40, 60, lanes=2, window=5)
    last_seen: dict[int, int] = {}
    for number, slot in zip(range(100), slots(order, 1)):
        in_use = set(slot.element.tolist())
        assert len(in_use) <= 5
        assert not in_use or (min(in_use) >= slot.first and max(in_use) < slot.first + 5)
        for element in in_use:
            last_seen[element] = number
            assert not number - last_seen[element] > 5
    assert len(last_seen) > 60


def test_tiny_chunks_and_large_windows_leave_slots_empty_and_lose_nothing() -> None:
    order = Order("f", 6, 5, 0, 0, 4, 2, 8)  # one sequence a chunk, eight strips
    assert order.full_sequences == 1
    sizes = [len(order.slot(0, number)) for number in range(12)]
    assert 0 in sizes and sum(sizes) >= 3
    check_epochs(order, epochs=4)


def test_sequences_are_mixed_and_epochs_differ() -> None:
    order = make_order(64, 0, window=8)
    first, second = read_epochs(order, 0, 2)
    assert [chunk for chunk, _ in first] != [chunk for chunk, _ in second]
    neighbours = sum(one[0] == other[0] and other[1] - one[1] == 7 for one, other in zip(first, first[1:]))
    assert neighbours < len(first) / 20  # sequences that also follow each other in the text
    middle = [chunk for chunk, _ in first[200:300]]
    assert len(set(middle)) >= 12
    assert len({offset for _, offset in first}) > 60  # the remainder is left out at different places
    for changed in (replace(order, seed=4), replace(order, fingerprint="f1")):
        assert read_epochs(changed, 0, 1)[0] != first
        assert Counter(chunk for chunk, _ in read_epochs(changed, 0, 1)[0]) == Counter(chunk for chunk, _ in first)


def test_the_remainder_is_left_out_at_every_place_in_turn() -> None:
    order = make_order(4, 0, window=2, seq_length=40)  # 2 x 40 + 1 of 97 tokens: 16 are left out
    starts = {chunk: set() for chunk in range(4)}
    for epoch in read_epochs(order, 0, 120):
        for chunk, offset in epoch:
            starts[chunk].add(offset % 40)
    assert all(found == set(range(17)) for found in starts.values())


# --- the keyed permutation


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


@pytest.mark.parametrize("size", [5, 31, 100])
def test_permute_is_keyed_and_fair(size: int) -> None:
    """Every element lands everywhere about equally often: a chi-square far from any extreme."""
    keys = 2000
    landed = np.stack([permute(np.arange(size), size, key * 0x9E3779B9) for key in range(keys)])
    for element in (0, size // 2, size - 1):
        counts = np.bincount(landed[:, element], minlength=size)
        chi_square = ((counts - keys / size) ** 2 / (keys / size)).sum()
        assert chi_square < size - 1 + 6 * (2 * size) ** 0.5


def test_last_up_to() -> None:
    starts = [0, 0, 3, 3, 10]
    found = [last_up_to(lambda n: starts[n] if n < 5 else 10 * n, place) for place in (0, 2, 3, 9, 10, 49, 50)]
    assert found == [1, 1, 3, 3, 4, 4, 5]


# --- what a run is told


@pytest.mark.parametrize(
    ("num_chunks", "total_batch_size", "max_lanes", "lanes"),
    [
        (1, 64, 64, 1),
        (15, 64, 64, 1),
        (16, 64, 64, 2),
        (511, 64, 64, 32),
        (512, 64, 64, 64),
        (10**6, 512, 64, 64),
        (10**6, 512, 63, 32),
        (10**6, 48, 64, 16),
        (10**6, 7, 64, 1),
    ],
)
def test_choose_lanes(num_chunks: int, total_batch_size: int, max_lanes: int, lanes: int) -> None:
    assert choose_lanes(num_chunks, total_batch_size, max_lanes) == lanes


def test_state_is_small_and_json() -> None:
    order = replace(make_order(10**7, 1, lanes=64), fingerprint="0" * 64, seed=2**62)
    state = order.state(10**15)
    assert len(json.dumps(state)) < 1000
    assert json.loads(json.dumps(state)) == state
    assert set(state) == {"fingerprint", "seed", "seq_length", "lanes", "window", "consumed"}


def permute_one(index: int, size: int, key: int) -> int:
    """The permutation as its docstring puts it, with Python's own integers."""
    word = (1 << 64) - 1
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        left, right = index >> half, index & ((1 << half) - 1)
        for round_ in range(1, 7):
            mixed = (right + key + round_ * 0x9E3779B97F4A7C15) & word
            mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & word
            mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & word
            mixed ^= mixed >> 31
            left, right = right, left ^ (mixed & ((1 << half) - 1))
        index = (left << half) | right
        if index < size:
            return index


@pytest.mark.parametrize(("size", "key"), [(1, 5), (2, 2**64 - 1), (10, 42), (1000, 7), (10**12, 123456789)])
def test_permute_is_the_same_without_numpy(size: int, key: int) -> None:
    indices = sorted({0, 1 % size, size // 3, size - 1})
    assert permute(np.array(indices), size, key).tolist() == [permute_one(index, size, key) for index in indices]


def test_the_order_never_changes() -> None:
    """Numbers written down once: a run that resumes must find the order it left."""
    assert permute(np.arange(10), 10, 42).tolist() == [3, 5, 2, 6, 4, 9, 0, 7, 8, 1]
    order = Order("golden", 37, 1000, 500, 1234, 64, 4, 3)
    slot = order.slot(2, 9)
    assert (slot.place, slot.first, len(slot)) == (120, 7, 10)
    assert slot.element[:8].tolist() == [8, 7, 7, 7, 8, 8, 7, 8]
    assert slot.chunk[:8].tolist() == [11, 3, 3, 3, 11, 11, 3, 11]
    assert slot.offset[:8].tolist() == [416, 537, 345, 857, 736, 224, 601, 160]
    assert order.slot_at(3, 10**9) == 81850533
    assert order.slot(3, 81850533).chunk[:4].tolist() == [13, 28, 13, 3]
    assert order.slot(3, 81850533).offset[:4].tolist() == [904, 797, 520, 5]
