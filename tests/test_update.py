"""One update: the optimizers against their formulas in NumPy, clipping, decay, and the gradient norm at size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.recipe import TrainingRecipe
from kogpt2_gluon.runtime import mx
from kogpt2_gluon.training.update import Update
from kogpt2_gluon.training.worker import Worker

SETTINGS = {"learning_rate": 0.01, "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "clip_norm": 0.0}
MATRIX, VECTOR = "_ffn_layers.0._hidden_map.weight", "_ffn_layers.0._hidden_map.bias"


def make(optimizer, accumulate=1, step=0, **changes):
    mx.random.seed(0)
    net = GPT2Model(units=8, vocab_size=20, max_length=8, num_layers=1, num_heads=2)
    net.initialize(mx.init.Normal(0.3))
    recipe = TrainingRecipe(optimizer=optimizer, **{**SETTINGS, **changes})
    return Update(net, recipe, Worker(), accumulate, step)


def fill(update, seed):
    """Sets every gradient to random values; returns copies."""
    rng = np.random.RandomState(seed)
    gradients = {}
    for name, parameter in update.parameters.items():
        gradients[name] = rng.randn(*parameter.shape).astype(np.float32)
        parameter.grad()[:] = gradients[name]
    return gradients


def reference(optimizer, w, m, v, g, t, rate, decay):
    """One step in float64: (weight, first moment, second moment)."""
    b1, b2, epsilon = SETTINGS["beta1"], SETTINGS["beta2"], SETTINGS["epsilon"]
    if optimizer == "adam":
        g = g + decay * w  # L2, as MXNet's Adam has it
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    if optimizer == "bertadam":
        return w - rate * (m / (np.sqrt(v) + epsilon) + decay * w), m, v
    if optimizer == "adamw":
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + epsilon)
        return w - rate * (step + decay * w), m, v
    if optimizer == "adam":
        return w - rate * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + epsilon), m, v
    step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + epsilon) + decay * w  # LAMB
    ratio = np.linalg.norm(w) / np.linalg.norm(step) if w.any() else 1.0  # a bias that is still 0 has no trust ratio
    return w - rate * ratio * step, m, v


@pytest.mark.parametrize("clip_norm", [0.0, 0.7])
@pytest.mark.parametrize("optimizer", ["bertadam", "adamw", "adam", "lamb"])
def test_optimizers_follow_their_formulas(optimizer, clip_norm):
    update = make(optimizer, clip_norm=clip_norm)
    weights = {name: p.data().asnumpy().astype(np.float64) for name, p in update.parameters.items()}
    moments = {name: (np.zeros(p.shape), np.zeros(p.shape)) for name, p in update.parameters.items()}
    for t in range(1, 4):
        gradients = fill(update, t)
        norm = math.sqrt(update.reduce())
        assert norm == pytest.approx(
            math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients.values()))
        )
        rate = 0.01 * t
        update.apply(rate, norm)
        scale = min(1.0, clip_norm / norm) if clip_norm else 1.0
        for name, gradient in gradients.items():
            decay = SETTINGS["weight_decay"] if gradient.ndim > 1 else 0.0
            weights[name], *moments[name] = reference(
                optimizer, weights[name], *moments[name], gradient.astype(np.float64) * scale, t, rate, decay
            )
    for name, parameter in update.parameters.items():
        np.testing.assert_allclose(parameter.data().asnumpy(), weights[name], rtol=2e-4, atol=2e-6, err_msg=name)
    assert norm > 0.7  # the clipped case was clipped


def test_decay_reaches_matrices_only():
    update = make("adamw", weight_decay=0.5)
    before = {name: update.parameters[name].data().asnumpy() for name in (MATRIX, VECTOR)}
    for parameter in update.parameters.values():
        parameter.grad()[:] = 0
    update.apply(0.1, 0.0)
    np.testing.assert_allclose(update.parameters[MATRIX].data().asnumpy(), before[MATRIX] * 0.95, rtol=1e-5)
    np.testing.assert_array_equal(update.parameters[VECTOR].data().asnumpy(), before[VECTOR])


@pytest.mark.parametrize("optimizer", ["bertadam", "adamw", "adam", "lamb"])
def test_state_goes_over_to_another_update(optimizer):
    first = make(optimizer)
    for seed in (1, 2):
        fill(first, seed)
        first.apply(0.01, 1.0)
    second = make(optimizer, step=2)
    for name, parameter in second.parameters.items():
        parameter.set_data(first.parameters[name].data())
    second.load_arrays(first.arrays())
    for update in (first, second):
        fill(update, 3)
        update.apply(0.01, 1.0)
    for name, parameter in first.parameters.items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), second.parameters[name].data().asnumpy())


def test_gradients_add_up_over_micro_steps():
    update = make("adamw", accumulate=2)
    weight = update.parameters[MATRIX]
    for _ in range(2):  # the second update starts from nothing again
        update.start()
        for factor in (1.0, 2.0):
            with mx.autograd.record():
                loss = (weight.data() * factor).sum()
            loss.backward()
        np.testing.assert_array_equal(weight.grad().asnumpy(), np.full(weight.shape, 3.0))


def test_norm_of_an_embedding_of_full_size():
    """50,000 x 768: adding its squares up one by one in float32 would lose 9% of them."""
    net = GPT2Model(units=768, vocab_size=50000, max_length=8, num_layers=1, num_heads=12)
    net.initialize(mx.init.Zero())
    update = Update(net, TrainingRecipe(), Worker(), accumulate=1)
    for parameter in update.parameters.values():
        parameter.grad()[:] = 0
    update.parameters["_embed.weight"].grad()[:] = mx.nd.random.normal(shape=(50000, 768))
    exact = float((update.parameters["_embed.weight"].grad().asnumpy().astype(np.float64) ** 2).sum())
    assert update.reduce() == pytest.approx(exact, rel=1e-4)
