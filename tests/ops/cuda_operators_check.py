"""The MXNet face of the CUDA operators, their kernels run on the host, against MXNet's own operators.

    python tests/ops/cuda_operators_check.py LIBRARY

LIBRARY is build_for_host's, made with MXNet's folder. Prints one JSON object, {check: "" or what went wrong}. A script,
because MXNet keeps a library that it has loaded for as long as the process lives.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any, Callable

import numpy as np

from kogpt2_gluon.machine.runtime import mx
from tests.ops.cuda_kernel_helpers import assert_close, philox_mask, training_seed

SEED = training_seed(4)
CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def random(*shape: int, dtype: str = "float32", number: int = 0) -> Any:
    return mx.nd.array(np.random.RandomState(sum(shape) + number).standard_normal(shape), dtype=dtype)


def gradients(function: Callable, arrays: list[Any], head: Any, requests: list[str]) -> list[np.ndarray]:
    """The output and the gradients of function(*arrays), on top of ones where `requests` says add."""
    for array, request in zip(arrays, requests):
        array.attach_grad(grad_req=request)
        if request != "null":
            array.grad[:] = 1
    with mx.autograd.record():
        out = function(*arrays)
    out.backward(head)
    return [out.asnumpy(), *(a.grad.asnumpy() for a, request in zip(arrays, requests) if request != "null")]


def compare(
    fused: Callable, stock: Callable, arrays: list[Any], head: Any, requests: list[str], **limits: float
) -> None:
    ours, theirs = (gradients(function, arrays, head, requests) for function in (fused, stock))
    assert len(ours) == len(theirs) > 1
    for i, (mine, other) in enumerate(zip(ours, theirs)):
        assert_close(mine, other.astype(np.float64), f"array {i}, requests {requests}", **limits)


def each_request(count: int) -> list[list[str]]:
    """All written; all added; and each one alone, the others left."""
    alone = [["write" if i == k else "null" for i in range(count)] for k in range(count)]
    return [["write"] * count, ["add"] * count, *alone]


@check
def bias_gelu() -> None:
    seed, head = mx.nd.ones(64), random(3, 5, 24, number=1)
    for requests in each_request(2):
        req = ",".join([*requests, "null"])
        compare(
            lambda data, bias, req=req: mx.nd.kogpt2_cuda_bias_gelu(data, bias, seed, p=0.3, req=req),
            lambda data, bias: mx.nd.LeakyReLU(mx.nd.broadcast_add(data, bias), act_type="gelu"),
            [random(3, 5, 24), random(24)],
            head,
            requests,
            relative=1e-5,
        )


@check
def bias_gelu_with_dropout() -> None:
    mask = mx.nd.array(philox_mask(SEED, 0.3, 6, 15, 20).reshape(3, 5, 20))
    seed = mx.nd.array(SEED)
    compare(
        lambda data, bias: mx.nd.kogpt2_cuda_bias_gelu(data, bias, seed, p=0.3, site=6, req="write,add,null"),
        lambda data, bias: mask * mx.nd.LeakyReLU(mx.nd.broadcast_add(data, bias), act_type="gelu"),
        [random(3, 5, 20), random(20)],
        random(3, 5, 20, number=1),
        ["write", "add"],
        relative=1e-5,
    )


@check
def bias_dropout_residual() -> None:
    mask = mx.nd.array(philox_mask(SEED, 0.2, 2, 6, 21).reshape(2, 3, 21))
    seed = mx.nd.array(SEED)
    for requests in each_request(3):
        req = ",".join([*requests, "null"])
        compare(
            lambda data, bias, residual, req=req: mx.nd.kogpt2_cuda_bias_dropout_residual(
                data, bias, residual, seed, p=0.2, site=2, req=req
            ),
            lambda data, bias, residual: residual + mask * mx.nd.broadcast_add(data, bias),
            [random(2, 3, 21), random(21), random(2, 3, 21, number=2)],
            random(2, 3, 21, number=1),
            requests,
        )


@check
def layer_norm() -> None:
    for requests in each_request(3):
        req = ",".join(requests)
        compare(
            lambda data, gamma, beta, req=req: mx.nd.kogpt2_cuda_layer_norm(data, gamma, beta, epsilon=1e-3, req=req)[
                0
            ],
            lambda data, gamma, beta: mx.nd.LayerNorm(data, gamma, beta, eps=1e-3),
            [random(2, 3, 40), random(40), random(40, number=1)],
            random(2, 3, 40, number=1),
            requests,
            relative=1e-5,
        )


@check
def causal_softmax() -> None:
    mask = mx.nd.array(philox_mask(SEED, 0.2, 3, 2 * 4 * 5, 9).reshape(2, 4, 5, 9))
    hidden = mx.nd.array(np.triu(np.ones((5, 9)), 9 - 5 + 1) * -1e9).reshape((1, 1, 5, 9))
    seed = mx.nd.array(SEED)
    for request in ("write", "add"):
        compare(
            lambda scores, request=request: mx.nd.kogpt2_cuda_causal_softmax(
                scores, seed, scale=0.5, p=0.2, site=3, req=f"{request},null"
            )[0],
            lambda scores: mask * mx.nd.softmax(mx.nd.broadcast_add(scores * 0.5, hidden)),
            [random(2, 4, 5, 9)],
            random(2, 4, 5, 9, number=1),
            [request],
            relative=1e-5,
        )


@check
def cross_entropy() -> None:
    labels = mx.nd.array([[1, 2, 49], [0, 7, 7]], dtype="int32")
    for request in ("write", "add"):
        compare(
            lambda logits, request=request: mx.nd.kogpt2_cuda_cross_entropy(logits, labels, req=f"{request},null")[0],
            lambda logits: -mx.nd.pick(mx.nd.log_softmax(logits), labels),
            [random(2, 3, 50)],
            random(2, 3, number=1),
            [request],
            relative=1e-5,
        )


@check
def float16_with_float32_sums_beside_it() -> None:
    data, gamma, beta = (
        random(4, 40, dtype="float16"),
        random(40, dtype="float16"),
        random(40, dtype="float16", number=1),
    )
    data.attach_grad()
    with mx.autograd.record():
        out, mean, inverse_std = mx.nd.kogpt2_cuda_layer_norm(data, gamma, beta)
        loss, _ = mx.nd.kogpt2_cuda_cross_entropy(out, mx.nd.array([1, 2, 3, 39], dtype="int32"))
    loss.backward()
    assert [a.dtype for a in (out, mean, inverse_std, loss, data.grad)] == [np.float16, *[np.float32] * 3, np.float16]
    wide = data.asnumpy().astype(np.float64)
    normal = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    expected = normal * gamma.asnumpy() + beta.asnumpy()
    assert_close(out.asnumpy(), expected)
    assert_close(mean.asnumpy(), wide.mean(1))
    assert np.abs(data.grad.asnumpy()).max() > 0.01


@check
def no_gradient_reaches_seed_and_labels() -> None:
    seed, data, bias = mx.nd.array(SEED), random(2, 8), random(8)
    for array in (seed, data, bias):
        array.attach_grad()
    seed.grad[:] = 7
    with mx.autograd.record():
        out = mx.nd.kogpt2_cuda_bias_gelu(data, bias, seed, p=0.1)
    out.backward()
    assert not seed.grad.asnumpy().any()


@check
def gradient_norm() -> None:
    arrays = [random(3, 4, dtype="float16"), random(700, dtype="float16"), random(1, dtype="float16")]
    expected = sum((a.asnumpy().astype(np.float64) ** 2).sum() for a in arrays) / 64.0
    result = mx.nd.kogpt2_cuda_gradient_norm(*arrays, num_tensors=3, loss_scale=8.0)
    assert result.dtype == np.float64
    assert_close(result.asnumpy(), np.array([expected, 0.0]), relative=1e-6)
    arrays[1][699] = np.inf
    assert mx.nd.kogpt2_cuda_gradient_norm(*arrays, num_tensors=3).asnumpy()[1] == 1


@check
def fused_update() -> None:
    shapes, decays = [(3, 40), (20000,), (5,)], [0.1, 0.0, 0.01]
    for optimizer in ("adamw", "lamb"):
        weights = [random(*shape, number=1) for shape in shapes]
        before = [w.asnumpy().astype(np.float64) for w in weights]
        means, variances = ([mx.nd.zeros(shape) for shape in shapes] for _ in range(2))
        copies = [mx.nd.zeros(shape, dtype="float16") for shape in shapes]
        grads = [random(*shape, dtype="float16", number=2) for shape in shapes]
        rule = {
            "learning_rate": 0.01,
            "beta1": 0.9,
            "beta2": 0.99,
            "epsilon": 1e-8,
            "loss_scale": 4.0,
            "clip_factor": 0.5,
        }
        mx.nd.kogpt2_cuda_fused_update(
            *weights, *means, *variances, *grads, *copies, num_tensors=3, copies=1, optimizer=optimizer, step=1,
            weight_decays=",".join(map(str, decays)), **rule,
        ).wait_to_read()  # fmt: skip
        for i, decay in enumerate(decays):
            # At the first step m / b1 is g and v / b2 is g squared.
            g = grads[i].asnumpy().astype(np.float64) / 8
            u = g / (np.abs(g) + 1e-8) + decay * before[i]
            ratio = np.linalg.norm(before[i]) / np.linalg.norm(u) if optimizer == "lamb" else 1.0
            way = weights[i].asnumpy() - before[i]
            assert_close(way, -0.01 * ratio * u, f"{optimizer}, weights {i}", relative=5e-5)
            assert_close(means[i].asnumpy(), 0.1 * g, f"{optimizer}, mean {i}")
            assert_close(variances[i].asnumpy(), 0.01 * g * g, f"{optimizer}, variance {i}")
            assert np.array_equal(copies[i].asnumpy(), weights[i].asnumpy().astype(np.float16))


def main() -> None:
    mx.library.load(sys.argv[1], verbose=False)
    results = {}
    for function in CHECKS:
        try:
            function()
            results[function.__name__] = ""
        except Exception:
            results[function.__name__] = traceback.format_exc()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
