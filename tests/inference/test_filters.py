"""Filters: what sorting gives, where only a few of many scores are looked at."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.inference import filters

SIZES = [5, 128, 1000, 40_000, 51_201]


def rows(size: int, seed: int) -> list[np.ndarray]:
    """Scores with many ties, with few, and all equal."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=size).astype(np.float32)
    return [scores.round(1), scores, np.zeros(size, np.float32)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 40, 127])
def test_the_largest_of_many(size, count):
    count = min(count, size)
    for scores in rows(size, count):
        in_order = np.sort(scores)[::-1]
        np.testing.assert_array_equal(filters.largest_first(scores, count), np.argsort(-scores, kind="stable")[:count])
        np.testing.assert_array_equal(filters.top_k(scores, count), np.flatnonzero(scores >= in_order[count - 1]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("mass", [0.01, 0.3, 0.9, 0.999])
def test_a_nucleus_of_many(size, spread, mass):
    """The nucleus and the typical set, found among few, by their definitions over all."""
    for scores in rows(size, 1):
        probabilities = np.exp(spread * scores.astype(np.float64))
        probabilities /= probabilities.sum()
        kept = filters.top_p(probabilities, mass)
        outside = np.delete(probabilities, kept)
        assert probabilities[kept].min() >= outside.max(initial=0)
        assert probabilities[kept].sum() >= mass - 1e-9
        assert kept.size == 1 or np.sort(probabilities[kept])[1:].sum() < mass + 1e-9
        assert len(set(kept)) == kept.size

        distance = np.abs(-np.log(probabilities) + (probabilities * np.log(probabilities)).sum())
        typical = filters.typical_p(probabilities, mass)
        outside = np.delete(distance, typical)
        border = distance[typical].max()
        assert border < outside.min(initial=np.inf)
        assert probabilities[typical].sum() >= mass - 1e-9
        assert probabilities[distance < border].sum() < mass + 1e-9


@pytest.mark.parametrize(
    ("mass", "nucleus", "typical"),
    [(0.25, [0], [1]), (0.5, [0], [0, 1]), (0.75, [0, 1], [0, 1]), (0.76, [0, 1, 3], None)],
)
def test_a_mass_that_is_met_exactly_is_enough(mass, nucleus, typical):
    """Others stop one token too late there, or too early. Of two equal ones one is enough for a nucleus."""
    probabilities = np.array([0.5, 0.25, 0.125, 0.125])
    assert sorted(filters.top_p(probabilities, mass)) == nucleus
    assert sorted(filters.typical_p(probabilities, mass)) == (typical or [0, 1, 2, 3])


def test_one_token_has_all_of_the_mass():
    for probabilities in (np.array([0.0, 1.0, 0.0]), np.eye(50_000)[7]):
        for mass in (1e-9, 0.5, 1 - 1e-9):
            assert filters.top_p(probabilities, mass).tolist() == [probabilities.argmax()]
            assert filters.typical_p(probabilities, mass).tolist() == [probabilities.argmax()]
