"""The order of sequences: each once an epoch, the same for any number of workers, found again at any place."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.reading.order import ChunkOrder, Order, SequenceOrder, choose_lanes, last_up_to
from tests.reading.order_helpers import make_order, read_lane

SHAPES = [(0, 60), (1, 0), (1, 60), (5, 0), (5, 1), (5, 60), (5, 96), (300, 17), (200, 60)]


def share(order: Order, lane: int, epoch: int) -> int:
    """Sequences of `epoch` that fall to the lane, counted one by one."""
    if isinstance(order, SequenceOrder):
        per_epoch = order.sequences_per_epoch
        return sum(place % order.lanes == lane for place in range(epoch * per_epoch, (epoch + 1) * per_epoch))
    full = sum((epoch * order.num_full + index) % order.lanes == lane for index in range(order.num_full))
    tail = order.tail_sequences if epoch % order.lanes == lane else 0
    return full * order.full_sequences + tail


def read_epochs(order: Order, lane: int, epochs: int) -> list[list[tuple[int, int]]]:
    """(chunk, offset) of the lane's sequences in its order, epoch by epoch."""
    counts = [share(order, lane, epoch) for epoch in range(epochs)]
    found = read_lane(order, lane, sum(counts))
    starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return [found[start : start + count] for start, count in zip(starts, counts)]


def check_epochs(order: Order, epochs: int) -> None:
    """Every chunk's sequences once an epoch, inside the chunk, shifted alike; of a ChunkOrder all in one lane."""
    lanes = [read_epochs(order, lane, epochs) for lane in range(order.lanes)]
    for epoch in range(epochs):
        owner: dict[int, int] = {}
        offsets: dict[int, list[int]] = {}
        for lane, of_lane in enumerate(lanes):
            for chunk, offset in of_lane[epoch]:
                assert isinstance(order, SequenceOrder) or owner.setdefault(chunk, lane) == lane
                offsets.setdefault(chunk, []).append(offset)
        full = range(order.num_full) if order.full_sequences else range(0)
        assert set(offsets) == {*full, *([order.num_full] if order.tail_sequences else [])}
        for chunk, found in offsets.items():
            tokens = order.chunk_tokens if chunk < order.num_full else order.tail_tokens
            count, first = (tokens - 1) // order.seq_length, min(found)
            assert sorted(found) == [first + index * order.seq_length for index in range(count)]
            assert first >= 0 and max(found) + order.seq_length < tokens


@pytest.mark.parametrize("kind", [ChunkOrder, SequenceOrder])
@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_sequence_comes_once_an_epoch(shape: tuple[int, int], window: int, kind: type[Order]) -> None:
    check_epochs(make_order(*shape, lanes=1, window=window, kind=kind), epochs=3 if shape[0] < 100 else 1)


@pytest.mark.parametrize("lanes", [2, 4, 8, 64])
@pytest.mark.parametrize("shape", [(5, 0), (5, 60), (300, 17), (512, 0)])
def test_every_sequence_comes_once_an_epoch_over_all_lanes(shape: tuple[int, int], lanes: int) -> None:
    check_epochs(make_order(*shape, lanes=lanes), epochs=lanes // 4 + 3 if shape[0] < 10 else 1)


@pytest.mark.parametrize("lanes", [2, 8, 64])
@pytest.mark.parametrize("shape", [(0, 60), (1, 0), (5, 60), (60, 17)])
def test_a_small_set_has_something_for_every_lane(shape: tuple[int, int], lanes: int) -> None:
    """Down to one chunk; lanes pass the end of an epoch within one sequence of each other."""
    order = make_order(*shape, lanes=lanes, kind=SequenceOrder)
    check_epochs(order, epochs=5)
    counts = [sum(share(order, lane, epoch) for epoch in range(5)) for lane in range(lanes)]
    assert max(counts) - min(counts) <= 1


def test_thousands_of_chunks_are_dealt_out_whole() -> None:
    order = replace(make_order(5000, 60, lanes=64), chunk_tokens=10**6, tail_tokens=4000)
    for epoch in (0, 1, 77):
        dealt = []
        for lane in range(64):
            before, after = order.elements_before(lane, epoch), order.elements_before(lane, epoch + 1)
            dealt += order.elements(lane, before, after - before).tolist()
        assert sorted(dealt) == list(range(5001))


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    num_full=st.integers(0, 40),
    chunk_tokens=st.integers(2, 40),
    tail=st.floats(0, 0.999),
    lanes=st.sampled_from([1, 2, 4, 8, 16]),
    window=st.integers(1, 8),
    seq_length=st.integers(1, 12),
    seed=st.integers(0, 2**63),
    kind=st.sampled_from([ChunkOrder, SequenceOrder]),
)
def test_any_shape_gives_every_sequence_once_an_epoch(
    num_full: int,
    chunk_tokens: int,
    tail: float,
    lanes: int,
    window: int,
    seq_length: int,
    seed: int,
    kind: type[Order],
) -> None:
    order = kind("any", num_full, chunk_tokens, int(tail * chunk_tokens), seed, seq_length, lanes, window)
    if order.sequences_per_epoch and (order.full_sequences or kind is SequenceOrder):
        check_epochs(order, epochs=3)


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("shape", [(1, 60), (6, 0), (40, 96)])
def test_a_run_of_slots_is_its_slots_one_after_the_other(shape: tuple[int, int], window: int) -> None:
    """However many are worked out at a time, and in pieces."""
    order = make_order(*shape, lanes=2, window=window)
    whole = read_lane(order, 1, 400, run=1)
    for run in (2, 7, 1000):
        assert read_lane(order, 1, 400, run=run) == whole
    slots = order.slots(0, 0, 0, 50)
    element, offset = slots.sequences(0, slots.size)
    for start, stop in [(0, 1), (3, slots.size), (slots.size // 2, slots.size - 2), (4, 4)]:
        part = slots.sequences(start, stop)
        assert np.array_equal(part[0], element[start:stop]) and np.array_equal(part[1], offset[start:stop])


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    num_full=st.integers(1, 50),
    tail_tokens=st.integers(0, 96),
    lanes=st.sampled_from([1, 2, 8, 64]),
    window=st.integers(1, 8),
    seq_length=st.sampled_from([1, 7, 40, 96]),
    place=st.integers(0, 10**12),
)
def test_find_is_the_inverse_of_place(
    num_full: int, tail_tokens: int, lanes: int, window: int, seq_length: int, place: int
) -> None:
    order = make_order(num_full, tail_tokens, lanes, window, seq_length)
    for lane in {0, lanes // 2, lanes - 1}:
        epoch, slot = order.find(lane, place)
        slots = order.slots(lane, epoch, slot, 1)
        assert slots.place <= place < slots.place + slots.size
        more = order.slots(lane, epoch, slot, 4)
        assert more.place == slots.place and more.start(slot) == 0 and more.start(slot + 1) == slots.size


def test_places_of_slots_add_up() -> None:
    order = make_order(13, 60, lanes=4, window=3)
    for lane in range(4):
        place = 0
        for epoch in range(6):
            for slot in range(order.num_slots(lane, epoch)):
                slots = order.slots(lane, epoch, slot, 1)
                assert slots.place == place
                for within in {0, slots.size // 2, slots.size - 1} if slots.size else ():
                    assert order.find(lane, place + within) == (epoch, slot)
                place += slots.size


def test_seeking_does_not_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 10 million chunks, a trillion sequences in: a few dozen looks at a closed form."""
    order = replace(make_order(10**7, 60, lanes=64), chunk_tokens=1 << 21, seq_length=1024)
    looks = 0
    whole = ChunkOrder._place_of_slot

    def counted(self: ChunkOrder, lane: int, epoch: int, slot: int) -> int:
        nonlocal looks
        looks += 1
        return whole(self, lane, epoch, slot)

    monkeypatch.setattr(ChunkOrder, "_place_of_slot", counted)
    epoch, _ = order.find(63, 10**12)
    assert epoch == 3126 and looks < 100
    small = make_order(5, 60, lanes=64, kind=SequenceOrder)
    assert len(small.sequences(63, 10**15, 10)[0]) == 10


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


@pytest.mark.parametrize("tail_tokens", [0, 60])
def test_the_window_slides_over_the_chunks(tail_tokens: int) -> None:
    """Slot t of an epoch holds strip s of chunk t - s, for every s below the window, and nothing else."""
    order = make_order(40, tail_tokens, lanes=2, window=5)
    before = order.elements_before(1, 3)
    full, chunks = order.share(1, 3)
    assert (full, chunks) == (20, 20 + (tail_tokens > 0))
    for slot in range(order.num_slots(1, 3)):
        slots = order.slots(1, 3, slot, 1)
        expected = Counter()
        for strip in range(5):
            if 0 <= slot - strip < chunks:
                count = order.full_sequences if slot - strip < full else order.tail_sequences
                expected[before + slot - strip] = (strip + 1) * count // 5 - strip * count // 5
        assert Counter(slots.sequences(0, slots.size)[0].tolist()) == +expected
        in_use = slots.elements(slots.slots)
        assert set(expected) == set(in_use) and len(in_use) <= 5


def test_tiny_chunks_and_large_windows_leave_slots_empty_and_lose_nothing() -> None:
    order = ChunkOrder("f", 6, 5, 0, 0, 4, 2, 8)  # one sequence a chunk, eight strips
    assert order.full_sequences == 1
    sizes = [order.slots(0, 0, slot, 1).size for slot in range(order.num_slots(0, 0))]
    assert 0 in sizes and sum(sizes) == 3
    check_epochs(order, epochs=4)


@pytest.mark.parametrize("kind", [ChunkOrder, SequenceOrder])
def test_sequences_are_mixed_and_epochs_differ(kind: type[Order]) -> None:
    order = make_order(64, 0, window=8, kind=kind)
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


@pytest.mark.parametrize("kind", [ChunkOrder, SequenceOrder])
def test_the_remainder_is_left_out_at_every_place_in_turn(kind: type[Order]) -> None:
    order = make_order(4, 0, window=2, seq_length=40, kind=kind)  # 2 x 40 + 1 of 97 tokens: 16 are left out
    starts = {chunk: set() for chunk in range(4)}
    for epoch in read_epochs(order, 0, 120):
        for chunk, offset in epoch:
            starts[chunk].add(offset % 40)
    assert all(found == set(range(17)) for found in starts.values())


def test_chunks_from_names_what_a_lane_reads_in_order() -> None:
    order = make_order(30, 60, lanes=4, window=3)
    from_start = list(islice(order.chunks_from(2, 0), 40))
    assert from_start == order.elements(2, 0, 40).tolist()
    found = read_lane(order, 2, 400)
    assert list(dict.fromkeys(chunk for chunk, _ in found[:60]))  # some are met in another order, within the window
    for place in (0, 1, 100, 250):
        upcoming = list(islice(order.chunks_from(2, place), 12))
        needed = {chunk for chunk, _ in found[place : place + 50]}
        assert needed <= set(upcoming)
    small = make_order(5, 60, lanes=4, kind=SequenceOrder)
    assert list(small.chunks_from(3, 10**6)) == [0, 1, 2, 3, 4, 5]


def test_last_up_to() -> None:
    starts = [0, 0, 3, 3, 10]
    found = [last_up_to(lambda n: starts[n] if n < 5 else 10 * n, place) for place in (0, 2, 3, 9, 10, 49, 50)]
    assert found == [1, 1, 3, 3, 4, 4, 5]


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


def test_the_order_never_changes() -> None:
    """Numbers written down once: a run that resumes must find the order it left. Else raise mix.STATE_VERSION."""
    order = ChunkOrder("golden", 37, 1000, 500, 1234, 64, 4, 3)
    slots = order.slots(2, 0, 9, 2)
    elements, offsets = slots.sequences(0, slots.size)
    assert (slots.place, slots.size) == (120, 15)
    assert elements[:8].tolist() == [7, 7, 8, 7, 7, 8, 8, 7]
    assert offsets[:8].tolist() == [650, 138, 26, 522, 202, 730, 922, 714]
    assert order.find(3, 10**9) == (7117437, 8)
    assert order.elements(3, 10**9, 6).tolist() == [1, 33, 27, 21, 6, 19]
    small = SequenceOrder("golden", 3, 1000, 500, 1234, 64, 4, 3)
    chunks, offsets = small.sequences(3, 10**9, 6)
    assert chunks.tolist() == [3, 3, 0, 0, 0, 0] and offsets.tolist() == [414, 394, 97, 417, 609, 737]
