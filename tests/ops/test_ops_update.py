"""kogpt2_adam_update against the optimizer classes that it stands for, and kogpt2_squared_norm against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.recipe_sections import TrainingRecipe
from kogpt2_gluon.training.optimizers import create_optimizer
from tests.ops.ops_helpers import array, assert_close, check_refused, threads

RULES = ["adamw", "bertadam", "adam", "lamb"]
SETTINGS = {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}
# One element, odd sizes, more than one piece of 65,536, and no multiple of it.
SHAPES = [(1,), (7, 5), (3,), (300, 221), (2, 3, 4), (65536,)]
DECAYS = [0.1, 0.1, 0.0, 0.1, 0.05, 0.0]


class Parameters:
    """Weights, gradients and moments of the shapes above, and fused updates of them."""

    def __init__(self, seed: int = 0, size: float = 1.0):
        rng = np.random.RandomState(seed)
        self.weights = [mx.nd.array(array(rng, *shape)) for shape in SHAPES]
        self.gradients = [mx.nd.array(array(rng, *shape) * size) for shape in SHAPES]
        self.means = [mx.nd.zeros(shape) for shape in SHAPES]
        self.variances = [mx.nd.zeros(shape) for shape in SHAPES]

    def apply(self, rule: str, step: int, scale: float = 1.0, **changes):
        four = zip(self.weights, self.gradients, self.means, self.variances)
        attributes = {
            **SETTINGS,
            "num_arrays": len(SHAPES),
            "weight_decays": ",".join(map(repr, DECAYS)),
            **changes,
        }
        arrays = [each for arrays in four for each in arrays]
        return mx.nd.kogpt2_adam_update(*arrays, rule=rule, step=step, scale=scale, **attributes)

    def results(self) -> list[np.ndarray]:
        return [each.asnumpy() for each in (*self.weights, *self.means, *self.variances)]


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("first_step", [1, 1000])
@pytest.mark.parametrize("rule", RULES)
def test_equals_the_optimizer_class(rule, first_step, scale):
    """Three steps, from the first one on or from far along: weights and both moments."""
    fused, stock = Parameters(), Parameters()
    recipe = TrainingRecipe(optimizer=rule, weight_decay=1.0, **SETTINGS)
    optimizer = create_optimizer(recipe)
    optimizer.begin_num_update = first_step - 1
    optimizer.set_wd_mult(dict(enumerate(DECAYS)))
    optimizer.rescale_grad = scale
    states = [optimizer.create_state(i, weight) for i, weight in enumerate(stock.weights)]
    rng = np.random.RandomState(1)
    for step in range(first_step, first_step + 3):
        for one, other in zip(fused.gradients, stock.gradients):
            one[:] = other[:] = array(rng, *one.shape)
        done = fused.apply(rule, step, scale)
        for i, weight in enumerate(stock.weights):
            optimizer.update(i, weight, stock.gradients[i], states[i])
    assert done.asscalar() == step
    stock.means, stock.variances = zip(*states)
    for actual, expected in zip(fused.results(), stock.results()):
        assert_close(actual, expected)


@pytest.mark.parametrize("rule", RULES)
def test_equals_float64(rule):
    """The formulas themselves, one step: what the classes above have in common could be wrong in both."""
    fused = Parameters()
    before = [weight.asnumpy().astype(np.float64) for weight in fused.weights]
    fused.apply(rule, 3, scale=0.5)
    rate, epsilon = SETTINGS["learning_rate"], SETTINGS["epsilon"]
    for w, gradient, decay, actual in zip(before, fused.gradients, DECAYS, fused.weights):
        g = 0.5 * gradient.asnumpy().astype(np.float64) + (decay * w if rule == "adam" else 0.0)
        m, v = 0.2 * g, 0.05 * g * g
        m_hat, v_hat = m / (1 - 0.8**3), v / (1 - 0.95**3)
        if rule == "bertadam":
            expected = w - rate * (m / (np.sqrt(v) + epsilon) + decay * w)
        elif rule == "adam":
            expected = w - rate * math.sqrt(1 - 0.95**3) / (1 - 0.8**3) * m / (np.sqrt(v) + epsilon)
        else:
            direction = m_hat / (np.sqrt(v_hat) + epsilon) + decay * w
            ratio = np.linalg.norm(w) / np.linalg.norm(direction) if rule == "lamb" else 1.0
            expected = w - rate * ratio * direction
        assert_close(actual.asnumpy(), expected, 1e-6)


def test_lamb_without_a_norm():
    """An array of zeros has no trust ratio: its step is that of ratio 1; without any gradient it stays."""
    fused = Parameters()
    fused.weights[0][:], fused.weights[1][:], fused.gradients[1][:] = 0.0, 0.0, 0.0
    fused.apply("lamb", 1)
    g = fused.gradients[0].asnumpy()
    assert_close(fused.weights[0].asnumpy(), -0.01 * g / (np.abs(g) + 1e-3))
    np.testing.assert_array_equal(fused.weights[1].asnumpy(), 0.0)


@pytest.mark.parametrize("rule", RULES)
def test_threads_change_nothing(rule):
    results = []
    for count in (1, 2, 3):
        parameters = Parameters()
        with threads(count):
            parameters.apply(rule, 1)
            parameters.apply(rule, 2)
            results.append(parameters.results())
    for other in results[1:]:
        for one, two in zip(results[0], other):
            np.testing.assert_array_equal(one, two)


def test_gradients_are_only_read():
    parameters = Parameters()
    before = [gradient.asnumpy() for gradient in parameters.gradients]
    parameters.apply("adam", 1, scale=0.1)
    for gradient, expected in zip(parameters.gradients, before):
        np.testing.assert_array_equal(gradient.asnumpy(), expected)


def test_later_reads_wait_for_the_update():
    """MXNet knows that weights and moments change: what is queued after the update sees the new values."""
    parameters = Parameters()
    for step in range(1, 40):
        before = parameters.weights[3] + 0
        parameters.apply("adamw", step)
        change = (parameters.weights[3] - before).abs().min()
    assert change.asscalar() > 0
    parameters.apply("adamw", 40)
    parameters.weights[3][:] = 1.0  # a write after the update is not overwritten
    np.testing.assert_array_equal(parameters.weights[3].asnumpy(), 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "sgd"}, "^rule='sgd': adamw, bertadam, adam or lamb$"),
        ({"step": 0}, "^step=0 is not a whole number from 1 on$"),
        ({"beta1": 1.0}, "^beta1=1: at least 0 and below 1$"),
        ({"beta2": -0.1}, "^beta2=-0.1: at least 0 and below 1$"),
        ({"weight_decays": "0.1,0.1"}, "^weight_decays has 2 numbers, expected 1$"),
        ({"weight_decays": "much"}, "^weight_decays='much' is not a number$"),
        ({"learning_rate": "fast"}, "^learning_rate='fast' is not a number$"),
        ({"m": (2,)}, r"^m of array 0 has shape \(2\), expected \(3\)$"),
        ({"gradient": (3, 1)}, r"^gradient of array 0 has shape \(3, 1\), expected \(3\)$"),
    ],
    ids=str,
)
def test_refusals(changes, message):
    names = ("weight", "gradient", "m", "v")
    arrays = [mx.nd.ones(changes.get(name, (3,))) for name in names]
    attributes = {"rule": "adamw", "num_arrays": 1, "step": 1, "weight_decays": "0.0"}
    attributes.update((name, value) for name, value in changes.items() if name not in names)
    check_refused("kogpt2_adam_update", lambda: mx.nd.kogpt2_adam_update(*arrays, **attributes), message)


def test_wrong_counts_and_types_are_refused():
    three, four = [mx.nd.ones(3)] * 3, [mx.nd.ones(3) for _ in range(4)]
    with pytest.raises(mx.MXNetError, match="expects 4 inputs, but got 3"):
        mx.nd.kogpt2_adam_update(*three, num_arrays=1, weight_decays="0")
    with pytest.raises(mx.MXNetError, match="expects 8 inputs, but got 4"):
        mx.nd.kogpt2_adam_update(*four, num_arrays=2, weight_decays="0,0")
    four[1] = four[1].astype("float16")
    message = "^gradient of array 0 has type float16, expected float32$"
    check_refused(
        "kogpt2_adam_update", lambda: mx.nd.kogpt2_adam_update(*four, num_arrays=1, weight_decays="0"), message
    )
    with pytest.raises(mx.MXNetError, match="num_arrays= is missing"):
        mx.nd.kogpt2_squared_norm(mx.nd.ones(3))
    double = mx.nd.ones(3, dtype="float64")
    message = "^gradient of array 0 has type float64, expected float32$"
    check_refused("kogpt2_squared_norm", lambda: mx.nd.kogpt2_squared_norm(double, num_arrays=1), message)


# ---- the norm -------------------------------------------------------------------------------------------------------


def squared_norm(*arrays) -> np.ndarray:
    return mx.nd.kogpt2_squared_norm(*arrays, num_arrays=len(arrays)).asnumpy()


def test_squared_norm_is_rounded_once():
    """Ten million equal squares, which float32 would have stopped adding at 2**24 of them or lost digits of before."""
    gradients = [*Parameters().gradients, mx.nd.full((10_000_019,), 0.1)]
    exact = sum(float((each.asnumpy().astype(np.float64) ** 2).sum()) for each in gradients)
    value, not_finite = squared_norm(*gradients)
    assert value == np.float32(exact)
    assert not_finite == 0


def test_squared_norm_beyond_single_squares():
    """Squares that float32 cannot hold, of elements that it can."""
    assert squared_norm(mx.nd.full((3,), 1e-30))[0] == 0.0
    assert squared_norm(mx.nd.full((100,), 1e-22))[0] == pytest.approx(1e-42, rel=1e-3)
    assert squared_norm(mx.nd.full((2,), 1e20)).tolist() == [np.inf, 0.0]


def test_what_is_not_finite_is_counted():
    gradients = Parameters().gradients
    gradients[3][4, 4:7] = np.inf
    gradients[3][299, 220] = -np.inf
    gradients[0][0] = np.nan
    value, not_finite = squared_norm(*gradients)
    assert not np.isfinite(value)
    assert not_finite == 5


def test_squared_norm_does_not_depend_on_threads():
    gradients = [mx.nd.array(array(np.random.RandomState(i), 123_457)) for i in range(5)]
    values = []
    for count in (1, 2, 3):
        with threads(count):
            values.append(squared_norm(*gradients).tolist())
    assert values[0] == values[1] == values[2]
