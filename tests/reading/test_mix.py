"""Several sets with weights: each at its own rate, each in its own order, and the state that says so."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.reading.mix import PERIOD, STATE_VERSION, Mix, shares_of
from kogpt2_gluon.reading.order import SequenceOrder
from tests.reading.order_helpers import make_order


def make_mix(*weights: float, lanes: int = 4) -> Mix:
    orders = [
        replace(make_order(20 + 10 * k, 60, lanes=lanes), fingerprint=f"set {k}")
        if k % 2
        else replace(make_order(3 + k, 60, lanes=lanes, kind=SequenceOrder), fingerprint=f"set {k}")
        for k in range(len(weights))
    ]
    return Mix(tuple(orders), shares_of(weights))


def with_orders(mix: Mix, **change: Any) -> Mix:
    return replace(mix, orders=tuple(replace(order, **change) for order in mix.orders))


# --- shares


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([5], (10_000,)),
        ([7, 3], (7000, 3000)),
        ([1, 1, 1], (3334, 3333, 3333)),
        ([2, 2, 2, 1], (2857, 2857, 2857, 1429)),
        ([1, 1e-12], (9999, 1)),
        ([1e-9, 1, 1e-9], (1, 9998, 1)),
    ],
)
def test_shares(weights: list[float], shares: tuple[int, ...]) -> None:
    assert shares_of(weights) == shares


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60))
def test_shares_add_up_and_are_near_the_weights(weights: list[float]) -> None:
    shares = shares_of(weights)
    assert sum(shares) == PERIOD and min(shares) >= 1
    exact = np.array(weights) / sum(weights) * PERIOD
    assert all(abs(share - each) < 1 or share == 1 or each < share + 60 for share, each in zip(shares, exact))
    if exact.min() >= 1:
        assert np.abs(np.array(shares) - exact).max() < 1


def test_more_sets_than_shares() -> None:
    assert shares_of([1.0] * PERIOD) == (1,) * PERIOD
    with pytest.raises(DataError, match="10,001 sets"):
        shares_of([1.0] * (PERIOD + 1))


# --- who comes where


def test_in_every_period_each_set_has_its_share() -> None:
    mix = make_mix(0.6, 0.3, 0.1)
    for lane in range(4):
        for period in (0, 1, 2, 10**9):
            assert Counter(mix.sets(lane, period).tolist()) == {0: 6000, 1: 3000, 2: 1000}
    assert not np.array_equal(mix.sets(0, 0), mix.sets(1, 0)) and not np.array_equal(mix.sets(0, 0), mix.sets(0, 1))


def test_an_update_of_all_lanes_holds_about_each_share() -> None:
    """Lanes are out of phase: among 64 of them, none is ever far from half and half."""
    mix = make_mix(0.5, 0.5, lanes=64)
    of_update = np.stack([mix.sets(lane, 0) for lane in range(64)]).sum(axis=0)
    assert of_update.min() > 10 and of_update.max() < 54
    assert 3.5 < of_update.std() < 4.5  # of a fair coin: 4


def test_own_places_count_what_came_before() -> None:
    mix = make_mix(0.6, 0.3, 0.1)
    sets = np.concatenate([mix.sets(2, period) for period in range(3)])
    for place in (0, 1, 777, PERIOD - 1, PERIOD, PERIOD + 1, 2 * PERIOD + 5000):
        assert mix.own_places(2, place).tolist() == np.bincount(sets[:place], minlength=3).tolist()
    assert mix.own_places(2, 10**12).tolist() == [6 * 10**11, 3 * 10**11, 10**11]


def test_one_set_alone_is_its_own_order() -> None:
    mix = make_mix(3.0)
    assert mix.own_places(1, 123).tolist() == [123] and not mix.sets(1, 7).any()
    assert mix.fingerprint == "set 0" and mix.sequences_per_epoch == mix.orders[0].sequences_per_epoch


def test_an_epoch_is_that_of_the_whole_mix() -> None:
    mix = make_mix(0.5, 0.5)
    per_epoch = mix.sequences_per_epoch
    assert per_epoch == sum(order.sequences_per_epoch for order in mix.orders)
    passes = mix.passes(per_epoch)
    assert passes == [per_epoch / 2 / order.sequences_per_epoch for order in mix.orders]
    by_size = Mix(mix.orders, shares_of([order.sequences_per_epoch for order in mix.orders]))
    assert all(abs(passed - 1) < 0.01 for passed in by_size.passes(per_epoch))


def test_chunks_from_interleaves_the_sets_by_rate() -> None:
    mix = make_mix(0.2, 0.5, 0.1, 0.2)
    found = list(islice(mix.chunks_from(1, 0), 300))
    for k in (0, 2):  # small sets: whole, at once
        chunks = list(mix.orders[k].chunks_from(1, 0))
        assert [chunk for which, chunk in found[:12] if which == k] == chunks
        assert sum(which == k for which, _ in found) == len(chunks)
    for k in (1, 3):
        own = [chunk for which, chunk in found if which == k]
        assert own == list(islice(mix.orders[k].chunks_from(1, 0), len(own)))
    later = Counter(which for which, _ in found[40:])
    assert later[1] / later[3] == pytest.approx(2.5, rel=0.1)


# --- state


def test_state_is_under_1_kb_for_any_number_of_sets() -> None:
    orders = [replace(make_order(10**6, 1, lanes=64), fingerprint=f"{k:064x}", seed=2**62) for k in range(1000)]
    mix = Mix(tuple(orders), shares_of([1.0] * 1000))
    state = mix.state(10**15)
    assert len(json.dumps({**state, "skipped": 10**9})) < 1000
    mix.check_state(json.loads(json.dumps(state)), "here")


@pytest.mark.parametrize(
    ("change", "way_out"),
    [
        (lambda mix: replace(mix, shares=shares_of([0.6, 0.4])), "the same weights"),
        (lambda mix: replace(mix, orders=mix.orders[::-1]), "in the same order"),
        (
            lambda mix: replace(mix, orders=(replace(mix.orders[0], fingerprint="other"), mix.orders[1])),
            "train on the same shards",
        ),
        (lambda mix: with_orders(mix, seed=9), "restore training.seed"),
        (lambda mix: with_orders(mix, window=9), "restore data.window"),
        (lambda mix: with_orders(mix, lanes=8), "restore data.max_lanes and training.total_batch_size"),
        (lambda mix: with_orders(mix, seq_length=9), "restore data.seq_length"),
    ],
)
def test_another_mix_is_refused(change: Any, way_out: str) -> None:
    mix = make_mix(0.5, 0.5)
    with pytest.raises(DataError, match=rf"runs/a/step-1: its data had \w+ .* now it is .*{way_out}") as caught:
        change(mix).check_state(mix.state(8), "runs/a/step-1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("found", [{"version": None}, {"version": STATE_VERSION + 1}, {"source": "text"}])
def test_a_state_of_another_version_is_refused(found: dict[str, Any]) -> None:
    mix = make_mix(1.0)
    state = {key: value for key, value in {**mix.state(8), **found}.items() if value is not None}
    with pytest.raises(DataError, match=r"runs/a/step-1: saved with data\.source=") as caught:
        mix.check_state(state, "runs/a/step-1")
    assert "\n" not in str(caught.value) and "run_dir" in str(caught.value)


def test_the_mix_never_changes() -> None:
    """Numbers written down once, as for the order."""
    mix = make_mix(0.5, 0.3, 0.2)
    assert mix.sets(3, 5)[:20].tolist() == [0, 2, 1, 1, 0, 1, 1, 1, 1, 2, 1, 0, 2, 2, 0, 0, 2, 0, 0, 1]
