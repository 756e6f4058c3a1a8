"""kogpt2_layer_norm against MXNet's LayerNorm and against float64."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from tests.ops.ops_helpers import (
    Case,
    array,
    assert_close,
    check_gradients_add_up,
    check_hybridized,
    check_refused,
    check_requests,
    check_threads,
    check_twin,
)

SHAPES = [(1, 1, 1), (1, 1, 768), (2, 3, 5), (1, 7, 16), (3, 33, 17), (70, 768), (5, 1, 1000), (2, 2, 2, 31)]


def case(*shape: int, epsilon: float = 1e-5) -> Case:
    rng = np.random.RandomState(len(shape) * 1000 + shape[-1])
    inputs = [array(rng, *shape) + 0.5, array(rng, shape[-1]), array(rng, shape[-1])]
    return Case(
        "kogpt2_layer_norm",
        lambda F, *arrays, **attributes: F.kogpt2_layer_norm(*arrays, **attributes),
        lambda F, *arrays: F.LayerNorm(*arrays, axis=-1, eps=epsilon),
        inputs,
        wanted=[0, 1, 2],
        # Of one value a row, mean and value are the same, and 1 / sqrt(epsilon) is what rounding is multiplied with.
        scale=epsilon**-0.5 if shape[-1] == 1 else 0.0,
        attributes={"epsilon": epsilon} if epsilon != 1e-5 else {},
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_stock(shape):
    check_twin(case(*shape))


def test_epsilon():
    check_twin(case(4, 9, epsilon=0.3))


def test_far_from_zero():
    """The variance of values around 3,000: the mean of squares less the mean's square would have no digit left."""
    far = case(20, 50)
    far.inputs[0] = np.round(far.inputs[0] * 16) / 16 + np.float32(3000)  # exact in float32
    data, gamma, beta = (values.astype(np.float64) for values in far.inputs)
    normalized = (data - data.mean(-1, keepdims=True)) / np.sqrt(data.var(-1, keepdims=True) + 1e-5)
    assert_close(far.run_fused()[0], gamma * normalized + beta, 3e-4)  # half a unit in the mean's last place is 1.2e-4


@pytest.mark.parametrize("shape", [(3, 5), (2, 40, 33)], ids=str)
def test_requests(shape):
    check_requests(case(*shape))


def test_gradients_add_up():
    check_gradients_add_up(case(3, 7, 19))


def test_hybridized():
    check_hybridized(case(3, 7, 19))


@pytest.mark.parametrize("shape", [(3, 5), (2, 40, 33), (100, 768)], ids=str)
def test_threads_change_nothing(shape):
    check_threads(case(*shape), tolerance=0)


def test_refusals():
    def call(*shapes, **attributes):
        return lambda: mx.nd.kogpt2_layer_norm(*(mx.nd.ones(shape) for shape in shapes), **attributes)

    name = "kogpt2_layer_norm"
    check_refused(name, call((2, 3), (4,), (3,)), r"^gamma has shape \(4\), expected \(3\)$")
    check_refused(name, call((2, 3), (3,), (1, 3)), r"^beta has shape \(1, 3\), expected \(3\)$")
    check_refused(name, call((2, 3), (3,), (3,), epsilon=0), "^epsilon=0: a number above 0$")
    check_refused(name, call((2, 3), (3,), (3,), epsilon="small"), "^epsilon='small' is not a number$")
    wrong = [mx.nd.ones((2, 3), dtype="float16"), mx.nd.ones(3), mx.nd.ones(3)]
    check_refused(name, lambda: mx.nd.kogpt2_layer_norm(*wrong), "^data has type float16, expected float32$")


@pytest.mark.parametrize("req", ["write,write", "write,write,write,write", "write,write,maybe"])
def test_wrong_requests(req):
    data, gamma, beta = mx.nd.ones((2, 3)), mx.nd.ones(3), mx.nd.ones(3)
    call = lambda: mx.nd.kogpt2_layer_norm(data, gamma, beta, req=req)  # noqa: E731
    check_refused("kogpt2_layer_norm", call, "^req")


def test_shapes_that_follow_from_the_data_are_filled_in():
    norm = mx.sym.kogpt2_layer_norm(*map(mx.sym.var, ("data", "gamma", "beta")))
    assert norm.infer_shape(data=(2, 5, 3)) == ([(2, 5, 3), (3,), (3,)], [(2, 5, 3)], [])
    assert norm.infer_shape_partial(gamma=(3,), beta=(3,))[1] == [()], "nothing is known of the output yet"
    with pytest.raises(mx.MXNetError, match=r"gamma has shape \(4\), expected \(3\)"):
        norm.infer_shape(data=(2, 5, 3), gamma=(4,))
