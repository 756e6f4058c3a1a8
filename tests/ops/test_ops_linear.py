"""kogpt2_linear and the operators around it against MXNet's own operators."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from tests.helpers import ROOT, run
from tests.ops.ops_helpers import (
    BFLOAT16,
    PRECISIONS,
    PREDICTION,
    SEED_SIZE,
    Case,
    array,
    assert_close,
    check_gradients_add_up,
    check_hybridized,
    check_refused,
    check_requests,
    check_threads,
    check_twin,
    dropout_mask,
    needs_bfloat16,
    round_to_bfloat16,
    training_seed,
)

# shape of the data, number of outputs
SIZES = [((1, 1, 1), 1), ((1, 1, 7), 5), ((2, 3, 16), 33), ((5, 768), 17), ((1, 33, 65), 100), ((3, 2, 2, 31), 64)]


def fully_connected(F, data, weight, bias):
    return F.FullyConnected(data, weight, bias, num_hidden=weight.shape[0], flatten=False)


def linear(shape=(2, 5, 13), outputs=9, **attributes) -> Case:
    rng = np.random.RandomState(outputs)
    return Case(
        "kogpt2_linear",
        lambda F, *arrays, **attributes: F.kogpt2_linear(*arrays, **attributes),
        fully_connected,
        [array(rng, *shape), array(rng, outputs, shape[-1]), array(rng, outputs)],
        wanted=[0, 1, 2],
        attributes=attributes,
    )


def mask_of(seed, shape, attributes):
    """The dropout mask of outputs of a certain shape, by NumPy."""
    rows = int(np.prod(shape[:-1]))
    mask = dropout_mask(seed, attributes.get("site", 0), attributes.get("p", 0.0), rows, shape[-1])
    return mx.nd.array(mask.reshape(shape))


def linear_dropout_residual(shape=(2, 5, 13), outputs=9, seed=PREDICTION, **attributes) -> Case:
    rng = np.random.RandomState(outputs)
    out_shape = (*shape[:-1], outputs)
    mask = mask_of(seed, out_shape, attributes)
    return Case(
        "kogpt2_linear_dropout_residual",
        lambda F, *arrays, **attributes: F.kogpt2_linear_dropout_residual(*arrays, **attributes),
        lambda F, data, weight, bias, residual, seed: residual + mask * fully_connected(F, data, weight, bias),
        [array(rng, *shape), array(rng, outputs, shape[-1]), array(rng, outputs), array(rng, *out_shape), seed],
        wanted=[0, 1, 2, 3],
        attributes=attributes,
    )


def gelu_linear_dropout_residual(shape=(2, 5, 13), outputs=9, seed=PREDICTION, **attributes) -> Case:
    case = linear_dropout_residual(shape, outputs, seed, **attributes)
    mask = mask_of(seed, (*shape[:-1], outputs), attributes)

    def stock(F, data, weight, bias, residual, seed):
        return residual + mask * fully_connected(F, F.LeakyReLU(data, act_type="gelu"), weight, bias)

    return replace(
        case,
        name="kogpt2_gelu_linear_dropout_residual",
        fused=lambda F, *arrays, **attributes: F.kogpt2_gelu_linear_dropout_residual(*arrays, **attributes),
        stock=stock,
    )


def norm_linear(shape=(2, 5, 13), outputs=9, **attributes) -> Case:
    rng = np.random.RandomState(outputs)

    def stock(F, data, gamma, beta, weight, bias):
        return fully_connected(F, F.LayerNorm(data, gamma, beta, axis=-1, eps=1e-5), weight, bias)

    return Case(
        "kogpt2_norm_linear",
        lambda F, *arrays, **attributes: F.kogpt2_norm_linear(*arrays, **attributes),
        stock,
        [
            array(rng, *shape),
            array(rng, shape[-1]),
            array(rng, shape[-1]),
            array(rng, outputs, shape[-1]),
            array(rng, outputs),
        ],
        wanted=[0, 1, 2, 3, 4],
        scale=1.0,  # the gradient of a row of one value is 0
        attributes=attributes,
    )


MAKERS = [linear, norm_linear, linear_dropout_residual, gelu_linear_dropout_residual]
WITH_DROPOUT = MAKERS[2:]
each_operator = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
each_dropout = pytest.mark.parametrize("make", WITH_DROPOUT, ids=lambda make: make.__name__)
each_size = pytest.mark.parametrize("size", SIZES, ids=str)
MIDDLE = ((2, 7, 19), 21)
ONE_MAP = ["data", "weight", "bias", "residual", "seed"]
WITH_NORM = ["data", "gamma", "beta", "weight", "bias"]


@each_size
@each_operator
def test_equals_stock(make, size):
    check_twin(make(*size))


@each_size
@each_dropout
def test_dropout_is_philox(make, size):
    """Forward and backward draw the mask that NumPy's Philox gives."""
    check_twin(make(*size, seed=training_seed(1), p=0.3, site=11))


@each_dropout
def test_mask_reaches_the_last_element(make):
    """A bias alone, so that the output is the mask: rows of 13 begin with new blocks of 8."""
    case = make((1, 40, 5), 13, seed=training_seed(2), p=0.5, site=1)
    for i in range(len(case.inputs) - 1):
        case.inputs[i][:] = 1.0 if i == ONE_MAP.index("bias") else 0.0
    np.testing.assert_array_equal(case.run_fused()[0][0], dropout_mask(case.inputs[-1], 1, 0.5, 40, 13))


@each_dropout
def test_off_in_prediction(make):
    case = make(*MIDDLE, p=0.9)
    case.inputs[-1] = mx.nd.Dropout(mx.nd.ones(SEED_SIZE), p=0.5).asnumpy()
    for actual, expected in zip(case.run_fused(), make(*MIDDLE).run_fused()):
        np.testing.assert_array_equal(actual, expected)


@each_dropout
def test_dropout_repeats_from_mxnets_seed(make):
    """Drawn inside of a hybridized graph, whose seed is MXNet's own Dropout."""

    class Net(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, *arrays):
            seed = F.Dropout(F.ones((SEED_SIZE,)), p=0.5)
            return case.fused(F, *arrays, seed, p=0.5)

    case = make(*MIDDLE)
    net = Net()
    net.hybridize(static_alloc=True)

    def drawn(value):
        mx.random.seed(value)
        return [case.run(lambda F, *arrays: net(*arrays[:-1]))[0] for _ in range(2)]

    first, second = drawn(7)
    assert (first != second).any()
    np.testing.assert_array_equal(drawn(7), [first, second])
    assert (drawn(8)[0] != first).any()
    prediction = net(*(mx.nd.array(values) for values in case.inputs[:-1]))
    np.testing.assert_array_equal(prediction.asnumpy(), case.run_fused()[0])


@each_operator
def test_requests(make):
    check_requests(make(*MIDDLE))


@each_dropout
def test_requests_with_dropout(make):
    check_requests(make(*MIDDLE, seed=training_seed(3), p=0.2))


@each_dropout
def test_gradient_of_the_seed_is_zero(make):
    case = make(*MIDDLE, seed=training_seed(3), p=0.2)
    case.wanted = [len(case.inputs) - 1]
    np.testing.assert_array_equal(case.run_fused(before=5.0)[1], 0.0)


@each_operator
def test_gradients_add_up(make):
    check_gradients_add_up(make(*MIDDLE))


@pytest.mark.parametrize("precision", PRECISIONS)
@each_operator
def test_hybridized(make, precision):
    check_hybridized(make(*MIDDLE, precision=precision))


@pytest.mark.parametrize("precision", PRECISIONS)
@each_operator
def test_threads(make, precision):
    check_threads(make((3, 33, 65), 130, precision=precision), 2e-6)


# ---- bfloat16 -------------------------------------------------------------------------------------------------------


@needs_bfloat16
@each_size
@each_operator
def test_bfloat16_is_near(make, size):
    case = make(*size)
    case.scale = 1.0  # of the factors: of one product alone little may be left
    check_twin(case, BFLOAT16, precision="bfloat16")


@needs_bfloat16
@each_size
def test_bfloat16_rounds_its_factors_and_nothing_else(size):
    """Products of rounded factors, sums in float32; bias and its gradient are not rounded at all."""
    case = linear(*size, precision="bfloat16")
    out, data_gradient, weight_gradient, bias_gradient = case.run_fused()
    data, weight = (round_to_bfloat16(values).astype(np.float64) for values in case.inputs[:2])
    gradient = case.out_gradient(out.shape)
    rounded = round_to_bfloat16(gradient).astype(np.float64)
    assert_close(out, data @ weight.T + case.inputs[2])
    assert_close(data_gradient, rounded @ weight)
    columns = rounded.reshape(-1, rounded.shape[-1])
    assert_close(weight_gradient, columns.T @ data.reshape(-1, data.shape[-1]))
    assert_close(bias_gradient, gradient.astype(np.float64).reshape(columns.shape).sum(0))


def test_gelu_far_out():
    """The erf form from -12 to 12 and beyond, and its derivative, against float64."""
    data = np.concatenate([np.linspace(-12, 12, 997), [-1e4, -100, 100, 1e4]]).astype(np.float32)[:, None]
    case = gelu_linear_dropout_residual((len(data), 1), 1)
    case.inputs[:4] = [data, np.ones((1, 1), np.float32), np.zeros(1, np.float32), np.zeros_like(data)]
    case.out_gradient = np.ones
    out, data_gradient = case.run_fused()[:2]
    x = data.astype(np.float64)
    cumulative = 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    assert_close(out[:997], (x * cumulative)[:997])
    assert_close(data_gradient, cumulative + x * density)
    np.testing.assert_allclose(out[997:, 0], [0, 0, 100, 1e4], rtol=0, atol=1e-37)


# ---- the interface's traps ------------------------------------------------------------------------------------------

FAN_OUT = """
import numpy as np
from tests.ops.ops_helpers import mx

class Net(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, data, weight, bias):
        return F.add_n(*(F.kogpt2_linear(data, weight, bias, req="write,null,null") for _ in range(12)))

net = Net()
net.hybridize(static_alloc=True, static_shape=True)
data = mx.nd.ones((1, 1))
data.attach_grad()
for _ in range(2):
    with mx.autograd.record():
        out = net(data, mx.nd.ones((1, 1)), mx.nd.zeros(1))
    out.backward()
print(int(data.grad.asscalar()))
"""


def fan_out(**variables: str) -> int:
    done = run(sys.executable, "-c", FAN_OUT, PYTHONPATH=str(ROOT), **variables)
    return int(done.stdout)


def test_an_array_with_many_readers():
    """The gradient of an array that 12 operators read, in static memory: 12 times that of one.

    From 8 gradients on MXNet adds them up in place, one operator into the other's array, which operators of a library
    do not know how to do; MXNET_EXEC_INPLACE_GRAD_SUM_CAP above the number of readers has it sum them instead.
    """
    assert fan_out() == 12  # the runtime sets it
    assert fan_out(MXNET_EXEC_INPLACE_GRAD_SUM_CAP="8") != 12  # MXNet's default, and the trap


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "place", "shape", "message"),
    [
        (linear, 1, (9, 12), r"^weight has shape \(9, 12\), expected \(9, 13\)$"),
        (linear, 1, (9,), r"^weight has shape \(9\), expected 2 axes$"),
        (linear, 2, (8,), r"^bias has shape \(8\), expected \(9\)$"),
        (linear_dropout_residual, 1, (9, 1), r"^weight has shape \(9, 1\), expected \(9, 13\)$"),
        (linear_dropout_residual, 2, (9, 1), r"^bias has shape \(9, 1\), expected \(9\)$"),
        (linear_dropout_residual, 3, (2, 5, 13), r"^residual has shape \(2, 5, 13\), expected \(2, 5, 9\)$"),
        (linear_dropout_residual, 4, (32,), r"^seed has shape \(32\), expected \(64\)$"),
        (norm_linear, 1, (12,), r"^gamma has shape \(12\), expected \(13\)$"),
        (norm_linear, 2, (1, 13), r"^beta has shape \(1, 13\), expected \(13\)$"),
        (norm_linear, 3, (9, 12), r"^weight has shape \(9, 12\), expected \(9, 13\)$"),
        (norm_linear, 4, (8,), r"^bias has shape \(8\), expected \(9\)$"),
        (gelu_linear_dropout_residual, 1, (20, 3), r"^weight has shape \(20, 3\), expected \(20, 13\)$"),
        (gelu_linear_dropout_residual, 3, (10, 9), r"^residual has shape \(10, 9\), expected \(2, 5, 9\)$"),
        (gelu_linear_dropout_residual, 4, (65,), r"^seed has shape \(65\), expected \(64\)$"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_wrong_shapes_are_refused(make, place, shape, message):
    case = make()
    case.inputs[place] = np.ones(shape, np.float32)
    arrays = [mx.nd.array(values) for values in case.inputs]
    check_refused(case.name, lambda: case.fused(mx.nd, *arrays), message)


@each_operator
def test_wrong_types_are_refused(make):
    case = make(*MIDDLE)
    names = WITH_NORM if make is norm_linear else ONE_MAP
    for place in range(len(case.inputs)):
        arrays = [mx.nd.array(values) for values in case.inputs]
        arrays[place] = arrays[place].astype("float16")
        message = f"^{names[place]} has type float16, expected float32$"
        check_refused(case.name, lambda arrays=arrays: case.fused(mx.nd, *arrays), message)


@each_operator
def test_wrong_attributes_are_refused(make):
    case = make(*MIDDLE)
    arrays = [mx.nd.array(values) for values in case.inputs]
    wrong = [({"precision": "float16"}, "^precision='float16': float32 or bfloat16$")]
    if make in WITH_DROPOUT:
        wrong.append(({"p": -0.1}, "^p=-0.1: a dropout probability is at least 0 and below 1$"))
        wrong.append(({"site": "first"}, "^site='first' is not a number$"))
    for attributes, message in wrong:
        check_refused(case.name, lambda attributes=attributes: case.fused(mx.nd, *arrays, **attributes), message)
