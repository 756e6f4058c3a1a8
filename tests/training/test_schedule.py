"""The learning rate over steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.recipe_sections import TrainingRecipe
from kogpt2_gluon.training.schedule import learning_rate


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_warm_up_peak_and_end(schedule):
    recipe = TrainingRecipe(
        num_steps=100, warmup_ratio=0.1, learning_rate=1.0, final_learning_rate=0.1, schedule=schedule
    )
    rates = [learning_rate(recipe, step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in zip(rates[9:], rates[10:]))
    assert rates[54] == pytest.approx(0.55)  # both decays are half-way down half-way through


@given(
    st.integers(1, 500),
    st.floats(0, 1),
    st.sampled_from(["linear", "cosine"]),
    st.floats(0, 1e-2),
)
def test_rates_stay_in_range(num_steps, warmup_ratio, schedule, final):
    recipe = TrainingRecipe(
        num_steps=num_steps, warmup_ratio=warmup_ratio, learning_rate=1e-2, final_learning_rate=final, schedule=schedule
    )
    for step in (1, num_steps // 2 + 1, num_steps):
        assert 0 <= learning_rate(recipe, step) <= 1e-2 * (1 + 1e-12)
