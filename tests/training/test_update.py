"""One update: the optimizers against their formulas in NumPy, fused and stock, clipping, decay, the norm at size."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest

from kogpt2_gluon import recipe_sections
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.build import OperatorsUnavailable, load_cpu_operators
from kogpt2_gluon.recipe_sections import TrainingRecipe
from kogpt2_gluon.training.optimizers import OPTIMIZERS
from kogpt2_gluon.training.update import Update
from tests.helpers import ROOT, run

pytest_plugins = ["tests.ops.cuda_kernel_fixtures"]

SETTINGS = {"learning_rate": 0.01, "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "clip_norm": 0.0}
MATRIX, VECTOR = "_ffn_layers.0._hidden_map.weight", "_ffn_layers.0._hidden_map.bias"


@pytest.fixture(scope="module")
def operators():
    try:
        load_cpu_operators()
    except OperatorsUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(params=[False, True], ids=["stock", "fused"])
def fused(request):
    """True: update by the fused operators."""
    if request.param:
        request.getfixturevalue("operators")
    return request.param


def make(optimizer, accumulate=1, step=0, fused=False, **changes):
    mx.random.seed(0)
    net = GPT2Model(units=8, vocab_size=20, max_length=8, num_layers=1, num_heads=2)
    net.initialize(mx.init.Normal(0.3))
    settings = TrainingRecipe(optimizer=optimizer, **{**SETTINGS, **changes})
    return Update(net, settings, Worker(), accumulate, step, fused)


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
    assert optimizer == "lamb", f"{optimizer} has no formula here"
    step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + epsilon) + decay * w
    ratio = np.linalg.norm(w) / np.linalg.norm(step) if w.any() else 1.0  # a bias that is still 0 has no trust ratio
    return w - rate * ratio * step, m, v


def test_recipes_and_training_know_the_same_optimizers():
    assert list(recipe_sections.OPTIMIZERS) == list(OPTIMIZERS)
    choices = {entry.name: entry.metadata for entry in dataclasses.fields(TrainingRecipe)}["optimizer"]
    assert list(choices["choices"]) == list(OPTIMIZERS)
    assert all(f"{name}: {choice.meaning}" in choices["help"] for name, choice in recipe_sections.OPTIMIZERS.items())
    for name in OPTIMIZERS:
        kept = make(name).moments()
        estimated = recipe_sections.OPTIMIZERS[name].arrays * len(make(name).parameters)
        assert len(kept) == estimated


@pytest.mark.parametrize("clip_norm", [0.0, 0.7])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_follow_their_formulas(optimizer, clip_norm, fused):
    update = make(optimizer, clip_norm=clip_norm, fused=fused)
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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fused_and_stock_updates_are_the_same(optimizer, operators):
    """To float32 rounding, over 20 steps of gradients from 1e-6 to 1, a loss scale in them, clipped and not."""
    updates = [make(optimizer, fused=fused, clip_norm=1.0) for fused in (False, True)]
    norms = []
    for step in range(20):
        for update in updates:
            fill(update, step)
            for number, parameter in enumerate(update.parameters.values()):
                parameter.grad()[:] *= 1024 * 10.0 ** (number % 5 - 4 - step % 3)
        norm, other = (math.sqrt(update.reduce()) / 1024 for update in updates)
        assert other == pytest.approx(norm, rel=1e-6)
        for update in updates:
            update.apply(0.001, norm, loss_scale=1024)
        norms.append(norm)
    assert min(norms) < 1 < max(norms)
    stock, own = ({n: p.data().asnumpy() for n, p in u.parameters.items()} | as_numpy(u.moments()) for u in updates)
    assert list(stock) == list(own)
    for name, array in stock.items():
        largest = np.abs(array).max()
        assert np.abs(own[name] - array).max() <= 2e-6 * largest, name


CUDA = """
import sys
import numpy as np
from kogpt2_gluon.recipe_sections import TrainingRecipe
from kogpt2_gluon import recipe_sections
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.training.optimizers import OPTIMIZERS, FusedCudaOptimizer, StockOptimizer

mx.library.load(sys.argv[1], verbose=False)  # the CUDA operators, their kernels compiled for the host
shapes = {"matrix": (30, 40), "vector": (40,), "larger": (300, 100)}
for name in OPTIMIZERS:
    for dtype in ("float16", "float32"):
        recipe = TrainingRecipe(optimizer=name, weight_decay=0.1, beta1=0.8, beta2=0.95, epsilon=1e-3)
        both = []
        for kind in (StockOptimizer, FusedCudaOptimizer):
            parameters, masters, rng = {}, {}, np.random.RandomState(0)
            for key, shape in shapes.items():
                parameters[key] = parameter = mx.gluon.Parameter(key, shape=shape)
                parameter.initialize()
                parameter.set_data(mx.nd.array(rng.randn(*shape)))
                parameter.wd_mult = float(len(shape) > 1)
                masters[key] = parameter.data()
                if dtype == "float16":
                    parameter.cast(dtype)
            optimizer = kind(parameters, masters, recipe, step=5)
            norms = []
            for step in range(4):
                for parameter in parameters.values():
                    parameter.grad()[:] = rng.randn(*parameter.shape) * 256
                norms.append(optimizer.squared_norm())
                optimizer.apply(0.01, 0.5 / 256)
            arrays = [*masters.values(), *(a for pair in optimizer.moments.values() for a in pair)]
            assert all(array.dtype == np.float32 for array in arrays)
            for key, parameter in parameters.items():
                assert parameter.data().dtype == np.dtype(dtype)
                assert (parameter.data().asnumpy() == masters[key].asnumpy().astype(dtype)).all()
            both.append((norms, [array.asnumpy() for array in arrays]))
        np.testing.assert_allclose(both[1][0], both[0][0], rtol=1e-5)
        for stock, fused in zip(both[0][1], both[1][1]):
            assert np.abs(stock - fused).max() <= 2e-6 * np.abs(stock).max(), (name, dtype)
        print("fine", name, dtype)
"""


def test_the_cuda_update_is_the_stock_one(host_library):
    """With float16 parameters and gradients too, as on a GPU."""
    done = run(sys.executable, "-c", CUDA, host_library, PYTHONPATH=str(ROOT))
    assert done.stdout.count("fine") == 8


def test_decay_reaches_matrices_only(fused):
    update = make("adamw", weight_decay=0.5, fused=fused)
    before = {name: update.parameters[name].data().asnumpy() for name in (MATRIX, VECTOR)}
    for parameter in update.parameters.values():
        parameter.grad()[:] = 0
    update.apply(0.1, 0.0)
    np.testing.assert_allclose(update.parameters[MATRIX].data().asnumpy(), before[MATRIX] * 0.95, rtol=1e-5)
    np.testing.assert_array_equal(update.parameters[VECTOR].data().asnumpy(), before[VECTOR])


def as_numpy(arrays: dict) -> dict:
    return {name: array.asnumpy() for name, array in arrays.items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_goes_over_to_another_update(optimizer, fused):
    first = make(optimizer, fused=fused)
    for seed in (1, 2):
        fill(first, seed)
        first.apply(0.01, 1.0)
    second = make(optimizer, step=2, fused=fused)
    for name, parameter in second.parameters.items():
        parameter.set_data(first.parameters[name].data())
    second.load_moments(as_numpy(first.moments()))
    for update in (first, second):
        fill(update, 3)
        update.apply(0.01, 1.0)
    for name, parameter in first.parameters.items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), second.parameters[name].data().asnumpy())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_may_change_its_operators(optimizer, fused, operators):
    """Two steps by either, the third by the other: as three by one, to rounding."""
    first, whole = make(optimizer, fused=fused), make(optimizer, fused=fused)
    for seed in (1, 2, 3):
        fill(whole, seed)
        whole.apply(0.01, 1.0)
    for seed in (1, 2):
        fill(first, seed)
        first.apply(0.01, 1.0)
    other = make(optimizer, step=2, fused=not fused)
    for name, parameter in other.parameters.items():
        parameter.set_data(first.parameters[name].data())
    other.load_moments(as_numpy(first.moments()))
    fill(other, 3)
    other.apply(0.01, 1.0)
    for name, parameter in whole.parameters.items():
        theirs = other.parameters[name].data().asnumpy()
        np.testing.assert_allclose(parameter.data().asnumpy(), theirs, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30])
def test_the_norm_tells_what_is_not_finite(value, fused):
    update = make("adamw", fused=fused)
    fill(update, 0)
    update.parameters[VECTOR].grad()[3] = value
    assert not math.isfinite(update.reduce())


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


def test_norm_of_an_embedding_of_full_size(fused):
    """50,000 x 768: adding its squares up one by one in float32 would lose 9% of them."""
    net = GPT2Model(units=768, vocab_size=50000, max_length=8, num_layers=1, num_heads=12)
    net.initialize(mx.init.Zero())
    update = Update(net, TrainingRecipe(), Worker(), accumulate=1, fused=fused)
    for parameter in update.parameters.values():
        parameter.grad()[:] = 0
    update.parameters["_embed.weight"].grad()[:] = mx.nd.random.normal(shape=(50000, 768))
    exact = float((update.parameters["_embed.weight"].grad().asnumpy().astype(np.float64) ** 2).sum())
    assert update.reduce() == pytest.approx(exact, rel=1e-7 if fused else 1e-4)
