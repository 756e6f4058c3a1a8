"""The report's plots: few points that keep every spike, round ticks, values where they should lie."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.pages.labels import LABEL, Label, apart, elided, place
from kogpt2_gluon.pages.parallel import Quantity, parallel_plot
from kogpt2_gluon.pages.plot import (
    Series,
    downsample,
    line_plot,
    linear_axis,
    log_axis,
    short,
    smooth,
    tick_texts,
)
from kogpt2_gluon.wording import width_of


class TestPlot:
    def test_downsampling_keeps_every_spike(self):
        x = np.arange(100_000, dtype=float)
        y = np.random.default_rng(1).standard_normal(len(x))
        y[12_345], y[77_777], y[500:2000] = 99.0, -99.0, np.nan
        few_x, few_y = downsample(x, y, 300)
        assert len(few_x) <= 600 and np.all(np.diff(few_x) > 0)
        assert few_x[np.nanargmax(few_y)] == 12_345 and few_x[np.nanargmin(few_y)] == 77_777
        assert np.isnan(few_y).any(), "a gap stays a gap"

    def test_downsampling_keeps_the_extremes_of_each_strip(self):
        """Compared with a search through each strip; the values are few, so that many are the same."""
        draw = np.random.default_rng(7)
        x = np.sort(draw.uniform(0, 1, 1000))
        y = np.where(draw.uniform(size=1000) < 0.1, np.nan, draw.integers(0, 30, 1000).astype(float))
        few_x, few_y = downsample(x, y, 50)
        edges = np.linspace(x[0], x[-1], 51)
        for number, (low, high) in enumerate(zip(edges, edges[1:])):
            inside = (x >= low) & ((x < high) | (number == 49))
            kept = (few_x >= low) & ((few_x < high) | (number == 49))
            assert kept.sum() <= 2 and few_y[kept].min() == np.nanmin(y[inside])
            assert few_y[kept].max() == np.nanmax(y[inside])

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


NAMES = st.sampled_from(["", "a", "held-out", "…_lr1e-3", "가나다라마바사", "x" * 14])
ENDS = st.lists(st.tuples(st.integers(58, 1000), st.integers(24, 328), NAMES), max_size=8)


@given(ENDS)
def test_labels_are_next_to_the_ends_of_their_lines_and_cover_none(ends):
    labels = [Label(x, y, "1.234", name, number) for number, (x, y, name) in enumerate(ends)]
    placed = place(labels, 58, 1000, 1072, 328)
    assert sorted(label.number for label in placed) == list(range(len(ends)))
    for label in placed:
        x = ends[label.number][0]
        near = x >= 1000 - 0.06 * 942 - 1e-6
        assert (
            label.x == 1008 if near and label.x >= 1008 else label.x <= x + 8 and label.x >= min(x, 1072 - label.width)
        )
        assert label.y <= 328
    for number, one in enumerate(placed):
        for other in placed[number + 1 :]:
            aside = one.x + one.width <= other.x + 1e-9 or other.x + other.width <= one.x + 1e-9
            assert aside or abs(one.y - other.y) >= LABEL - 1e-9


def test_a_line_that_ends_early_has_its_label_and_a_dot_there():
    long, early = np.arange(101.0), np.arange(11.0)
    svg = line_plot(
        [Series(long, 2 - long / 100, "a", "long"), Series(early, 2 - early / 20, "b", "early")], title="T", unit=""
    )
    (place_of_early,) = re.findall(r'<text class="end b" x="([\d.]+)"', svg)
    (place_of_long,) = re.findall(r'<text class="end a" x="([\d.]+)"', svg)
    ((dot, _),) = re.findall(r'<circle class="b dot" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert float(dot) == pytest.approx(58 + (520 - 58 - 66) / 10, abs=0.1)
    assert float(place_of_early) == pytest.approx(float(dot) + 8, abs=0.1) and float(place_of_long) == 520 - 66 + 8
    assert "a dot" not in svg


def test_a_frame_is_cut_at_both_ends():
    x, y = np.arange(4.0), np.array([0.1, 0.80, 0.84, 0.85])
    svg = line_plot([Series(x, y, "a", "x")], title="T", unit="", bottom=0.8)
    ticks = [float(text) for text in re.findall(r'text-anchor="end"[^>]*>([\d.]+)<', svg)]
    assert min(ticks) == 0.8 and max(ticks) == pytest.approx(0.85)


def test_long_labels_have_room_and_very_long_ones_an_ellipsis():
    series = [Series(np.arange(9.0), np.ones(9), "a", "a_run_with_a_name")]
    assert ">a_run_with_a_name<" in line_plot(series, title="T", unit="", width=1072)
    series[0].label = "a_run_with_a_name" * 5
    narrow = line_plot(series, title="T", unit="", width=354)
    (shown,) = re.findall(r'<text class="end name"[^>]*>([^<]*)<', narrow)
    assert "…" in shown and len(shown) <= 13 and shown[0] == "a" and shown[-1] == "e"


@given(st.text("가나다abc_-/1", max_size=40), st.integers(3, 30))
def test_an_elided_text_fits_and_keeps_its_ends(text, columns):
    short_text = elided(text, columns)
    assert width_of(short_text) <= columns
    assert short_text == text or (width_of(text) > columns and short_text.count("…") == 1)
    head, _, tail = short_text.partition("…")
    assert text.startswith(head) and text.endswith(tail)


def test_long_texts_of_parallel_coordinates_have_an_ellipsis():
    texts = Quantity("schedule", ["a-very-long-name-of-a-schedule", "cosine"])
    svg = parallel_plot([texts, Quantity("loss", [1.0, 2.0])], [1.0, 0.5], ["", ""], "T")
    assert ">a-very-long-…-a-schedule<" in svg and ">cosine<" in svg
