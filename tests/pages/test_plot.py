"""The report's plots: few points that keep every spike, round ticks, values where they should lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.pages.plot import (
    LABEL,
    Series,
    apart,
    downsample,
    line_plot,
    linear_axis,
    log_axis,
    short,
    smooth,
    tick_texts,
)


class TestPlot:
    def test_downsampling_keeps_every_spike(self):
        x = np.arange(100_000, dtype=float)
        y = np.random.default_rng(1).standard_normal(len(x))
        y[12_345], y[77_777], y[500:2000] = 99.0, -99.0, np.nan
        few_x, few_y = downsample(x, y, 300)
        assert len(few_x) <= 600 and np.all(np.diff(few_x) > 0)
        assert few_x[np.nanargmax(few_y)] == 12_345 and few_x[np.nanargmin(few_y)] == 77_777
        assert np.isnan(few_y).any(), "a gap stays a gap"

    def test_smoothing_keeps_a_line_and_leaves_nan_out(self):
        line = np.linspace(10.0, 0.0, 101)
        assert smooth(line, 20)[:90] == pytest.approx(line[:90])
        gap = np.array([1.0, np.nan, 3.0])
        assert smooth(gap, 3)[0] == 1.0 and np.isnan(smooth(gap, 3)[1])
        noise = np.random.default_rng(2).standard_normal(10_000)
        assert smooth(noise, 400)[500:-500].std() < 0.1
        assert smooth(np.empty(0), 3).shape == (0,)

    @pytest.mark.parametrize(
        "low, high", [(0, 1), (3.8, 10.9), (-5, 5), (0, 3e-4), (1e9, 3e9), (7, 7), (0, 0), (1e-300, 2e-300)]
    )
    def test_ticks_are_round_few_and_hold_the_range(self, low, high):
        axis = linear_axis(low, high, 6)
        assert axis.low <= low and axis.high >= high and 2 <= len(axis.ticks) <= 10
        assert len(set(tick_texts(axis))) == len(axis.ticks)

    @pytest.mark.parametrize("low, high", [(0.5, 9), (1e-6, 1e6), (1, 1), (0.1, 0.1), (3, 4), (1e-12, 1e12)])
    def test_log_ticks(self, low, high):
        axis = log_axis(low, high)
        assert axis.low <= low and axis.high >= high and axis.low < axis.high and 1 <= len(axis.ticks) <= 8

    def test_tick_texts(self):
        assert tick_texts(linear_axis(0, 3000, 6)) == ["0", "500", "1,000", "1,500", "2,000", "2,500", "3,000"]
        assert tick_texts(linear_axis(0, 200_000, 4)) == ["0", "50k", "100k", "150k", "200k"]
        assert tick_texts(linear_axis(0, 3e-4, 3)) == ["0", "1e-4", "2e-4", "3e-4"]
        assert tick_texts(linear_axis(3, 4, 4)) == ["3.0", "3.5", "4.0"]
        assert [short(value) for value in (124_242_432, 999_999, 1.5e12, 0, math.nan)] == [
            "124M",
            "1M",
            "1.5T",
            "0",
            "–",
        ]

    def test_values_lie_where_they_should(self):
        x, y = np.array([0.0, 5.0, 10.0]), np.array([0.0, 10.0, 5.0])
        svg = line_plot([Series(x, y, "train")], title="T", unit="u", width=324, height=264, from_zero=True)
        assert '<path class="train" d="M58.0 224.0L158.0 24.0L258.0 124.0"/>' in svg

    def test_a_value_between_gaps_is_a_dot(self):
        y = np.array([np.nan, 3.0, np.nan, 4.0, 5.0])
        svg = line_plot([Series(np.arange(5.0), y, "train")], title="T", unit="u")
        assert svg.count("<circle") == 1 and svg.count("M") == 2
        assert line_plot([Series(np.arange(2.0), np.full(2, np.nan), "train")], title="T", unit="u") == ""


@given(st.lists(st.floats(0, 200), max_size=5).map(sorted))
def test_end_labels_neither_overlap_nor_reach_the_axis_below(places):
    moved = apart(places, 188.0)
    assert all(second - first >= LABEL - 1e-9 for first, second in zip(moved, moved[1:]))
    assert not moved or moved[-1] <= 188
    alone = [place for place in places if place <= 188]
    if len(places) == 1 and alone:
        assert moved == places


def test_two_lines_that_end_at_the_bottom_leave_the_ticks_free():
    """A loss and a held-out loss end in this way: the second label was once moved onto the last tick."""
    x = np.arange(401, dtype=float)
    y = 10.0 - x / 50
    svg = line_plot(
        [Series(x, y, "train", "training"), Series(x, y - 0.01, "heldout", "held-out")], title="Loss", unit=""
    )
    places = [float(part.partition('"')[0]) for part in svg.split('class="end name" x="462" y="')[1:]]
    ticks = [
        float(part.partition('"')[0])
        for part in svg.split('class="tick" text-anchor="middle"')[1:]
        for part in [part.split(' y="')[1]]
    ]
    assert len(places) == 2 and max(places) <= min(ticks) - 12
