"""A spike: figures far above those of the last updates, and nothing else."""

from __future__ import annotations

import numpy as np

from kogpt2_gluon.training.spikes import remember, spike_of


def training_figures(steps: int, seed: int = 0) -> list[list[float]]:
    """The losses and gradient norms of a training that goes well: both fall, and vary from step to step."""
    draw, time = np.random.RandomState(seed), np.arange(steps)
    losses = 3 + 7.8 * np.exp(-time / 150) + 0.03 * draw.standard_normal(steps)
    norms = (0.3 + 2 * np.exp(-time / 100)) * np.exp(0.1 * draw.standard_normal(steps))
    return np.stack([losses, norms], axis=1).tolist()


def spikes_in(figures, window=128, sigmas=6.0):
    recent, found = [], {}
    for number, each in enumerate(figures):
        spike = spike_of(each, recent, window, sigmas)
        if spike:
            found[number] = spike
        remember(recent, each, window, sigmas)
        assert len(recent) <= window
    return found


def test_a_training_that_goes_well_has_none():
    for seed in range(2):
        assert spikes_in(training_figures(3000, seed)) == {}


def test_a_spike_of_the_loss_or_of_the_gradient_norm_is_found():
    figures = training_figures(3000)
    figures[1200][0] += 0.5
    figures[2000][1] *= 8
    found = spikes_in(figures)
    assert sorted(found) == [1200, 2000]
    assert found[1200].startswith("loss 3.4") and " deviations above the mean of the last 128, 3.0" in found[1200]
    assert found[2000].startswith("gradient norm ")


def test_a_fall_is_none_and_a_new_level_is_learnt():
    level = training_figures(1500)[1000:]
    assert spikes_in([[loss + 2, 2 * norm] for loss, norm in level] + level) == {}
    figures = training_figures(1500)[500:] + [[each[0] + 2, each[1]] for each in training_figures(2000)[1500:]]
    found = spikes_in(figures)
    assert 1000 in found and all(place < 1025 for place in found)  # the first ones at the new level, then no more


def test_one_spike_hides_no_other():
    figures = training_figures(3000)
    for place in (1200, 1201, 1203, 1230):
        figures[place][0] += 0.6
    assert sorted(spikes_in(figures)) == [1200, 1201, 1203, 1230]
    recent = [[3.0 + 0.1 * (-1) ** k, 1.0] for k in range(8)]
    remember(recent, (9.0, 0.5), 8, 6.0)
    assert len(recent) == 8 and abs(recent[-1][0] - 3.6) < 1e-9 and recent[-1][1] == 0.5


def test_the_rule_is_exactly_that_of_the_recipe():
    recent = [[3.0 + 0.1 * (-1) ** k, 1.0] for k in range(8)]  # mean 3.0, deviation 0.1
    assert spike_of((3.59, 1.0), recent, 8, 6.0) is None
    assert spike_of((3.61, 1.0), recent, 8, 6.0) == (
        "loss 3.61 is 6.1 deviations above the mean of the last 8, 3 (+-0.1)"
    )
    assert spike_of((3.61, 1.0), recent, 8, 7.0) is None
    assert spike_of((3.61, 1.0), recent[:3], 8, 6.0) is None  # less than half a window
    assert spike_of((3.61, 1.0), recent[:4], 8, 6.0)
    assert spike_of((3.61, 1.0), [[9.0, 9.0]] * 50 + recent, 8, 6.0)  # of a longer window from before a resume


def test_figures_that_are_all_alike_leave_room_for_the_next_digit():
    assert spike_of((2.0 + 1e-12, 1.0), [[2.0, 1.0]] * 20, 20, 6.0) is None
    assert spike_of((2.1, 1.0), [[2.0, 1.0]] * 20, 20, 6.0)
    assert spike_of((0.1, 0.0), [[0.0, 0.0]] * 20, 20, 6.0) == "loss 0.1 is above the mean of the last 20, 0 (+-0)"
    assert spike_of((0.0, 0.0), [[0.0, 0.0]] * 20, 20, 6.0) is None
