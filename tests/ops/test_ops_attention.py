"""kogpt2_attention against MXNet's own operators; its memory, and what it refuses."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops.build import load_cpu_operators
from tests.helpers import ROOT, run
from tests.ops.attention_helpers import PRECISIONS, TOLERANCES, case, needs_bfloat16, weight_mask
from tests.ops.ops_helpers import (
    PREDICTION,
    SEED_SIZE,
    array,
    assert_close,
    assert_same,
    check_gradients_add_up,
    check_hybridized,
    check_refused,
    check_requests,
    check_threads,
    check_twin,
    round_to_bfloat16,
    threads,
    training_seed,
)
from tests.ops.test_ops_memory import LIMIT, growth

# batch, length, heads, columns of a head: around the blocks of 64 queries and of 128 keys, and past 512 keys
SIZES = [
    (1, 1, 1, 1),
    (2, 1, 3, 64),
    (2, 7, 3, 5),
    (1, 63, 2, 8),
    (2, 64, 1, 5),
    (1, 65, 2, 64),
    (2, 130, 2, 1),
    (1, 130, 3, 64),
    (1, 129, 1, 13),
    (1, 600, 1, 8),
]


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_stock(sizes, precision, tolerance):
    check_twin(case(*sizes), tolerance, precision=precision)


@pytest.mark.parametrize(("precision", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_dropout_is_philox(sizes, precision, tolerance):
    """Forward and backward draw the same mask, which NumPy's Philox gives too."""
    check_twin(case(*sizes, seed=training_seed(1), p=0.3, site=5), tolerance, precision=precision)


def test_every_weight_has_its_own_multiplier():
    """Values that are the unit matrix show the dropped weights: 0 where NumPy's mask is, and nowhere else."""
    batch, length, num_heads, p = 2, 133, 2, 0.4
    seed = training_seed(6)
    qkv = array(np.random.RandomState(0), batch, length, 3, num_heads, length)
    qkv[:, :, 2] = np.eye(length)[:, None]
    packed = mx.nd.array(qkv.reshape(batch, length, -1))
    out, _ = mx.nd.kogpt2_attention(packed, mx.nd.array(seed), num_heads=num_heads, p=p, site=3)
    weights = out.asnumpy().reshape(batch, length, num_heads, length).transpose(0, 2, 1, 3)
    mask = weight_mask(seed, 3, p, batch, length, num_heads).reshape(weights.shape)
    np.testing.assert_array_equal(weights != 0, np.tril(mask) != 0)


def test_log_sum_exp():
    """The second output is what the backward pass divides by: the logarithm of the softmax's sum."""
    one = case(2, 70, 2, 8)
    _, actual = mx.nd.kogpt2_attention(*map(mx.nd.array, one.inputs), num_heads=2)
    query, key, _ = one.inputs[0].astype(np.float64).reshape(2, 70, 3, 2, 8).transpose(2, 0, 3, 1, 4)
    scores = np.where(np.tri(70), query @ key.swapaxes(2, 3) / 8**0.5, -np.inf)
    assert_close(actual.asnumpy(), np.log(np.exp(scores).sum(-1)))


@pytest.mark.parametrize("size", [0.0, 5.0])
def test_flat_and_peaked_weights(size):
    """Equal scores, and scores around 100, whose exponentials float32 cannot hold."""
    check_twin(case(1, 90, 2, 16, size=size))


@needs_bfloat16
def test_bfloat16_rounds_the_values():
    """At length 1 the weight is 1 and the output the value, rounded."""
    one = case(3, 1, 2, 9)
    out = one.run_fused(precision="bfloat16")[0]
    np.testing.assert_array_equal(out, round_to_bfloat16(one.inputs[0][:, :, -18:]))
    np.testing.assert_array_equal(one.run_fused()[0], one.inputs[0][:, :, -18:])


def test_off_in_prediction():
    """The seed that MXNet's Dropout gives in prediction mode switches the operator's own off."""
    dropped = case(seed=PREDICTION, p=0.9)
    dropped.inputs[1] = mx.nd.Dropout(mx.nd.ones(SEED_SIZE), p=0.5).asnumpy()
    assert_same(dropped.run_fused(), case().run_fused())


def test_repeats_from_mxnets_seed():
    qkv = mx.nd.array(case().inputs[0])

    def drawn(value):
        mx.random.seed(value)
        with mx.autograd.train_mode():
            seeds = [mx.nd.Dropout(mx.nd.ones(SEED_SIZE), p=0.5) for _ in range(2)]
        return [mx.nd.kogpt2_attention(qkv, seed, num_heads=2, p=0.5)[0].asnumpy() for seed in seeds]

    first, second = drawn(7)
    assert (first != second).any()
    assert_same(drawn(7), [first, second])
    assert (drawn(8)[0] != first).any()


def test_sites_differ():
    one = case(seed=training_seed(2), p=0.5)
    assert (one.run_fused(site=0)[0] != one.run_fused(site=1)[0]).any()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_requests(precision):
    check_requests(case(2, 150, 2, 9, seed=training_seed(2), p=0.2, precision=precision))


def test_gradients_add_up():
    check_gradients_add_up(case())


def test_hybridized():
    """With the constant mask of one seed."""
    check_hybridized(case(seed=training_seed(3), p=0.4, site=2))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sizes", [(1, 200, 1, 16), (2, 140, 3, 20)], ids=str)
def test_threads_change_nothing(sizes, precision):
    check_threads(case(*sizes, seed=training_seed(4), p=0.1), tolerance=0, precision=precision)


def test_gradient_of_the_seed_is_zero():
    """Nobody wants it; should somebody, it is not what stood in memory."""
    one = case()
    one.wanted = [1]
    np.testing.assert_array_equal(one.run_fused(before=5.0)[1], 0.0)


def measure() -> None:
    """Prints, for each operator, its name and the bytes that 1,000 calls add; see test_ops_memory.py."""
    tokens, position = mx.nd.ones((2, 1, 48)), mx.nd.array([5], dtype="int32")
    caches = [mx.nd.ones((2, 2, 40, 8)) for _ in range(2)]

    def generate(count):
        for _ in range(count):
            mx.nd.kogpt2_attention_step(tokens, *caches, position, num_heads=2).wait_to_read()
            mx.nd.kogpt2_attention_cached(tokens, *caches, num_heads=2)[0].wait_to_read()

    one = case(2, 40, 2, 8, seed=training_seed(5), p=0.1)
    with threads(1):
        print("generation", growth(generate))
        print("float32", growth(lambda count: one.run_fused(times=count)))
        if load_cpu_operators().isa.has_bfloat16:
            print("bfloat16", growth(lambda count: one.run_fused(times=count, precision="bfloat16")))


def test_memory_is_flat():
    done = run(
        sys.executable,
        "-c",
        "from tests.ops import test_ops_attention; test_ops_attention.measure()",
        PYTHONPATH=str(ROOT),
    )
    grown = {name: int(size) for name, size in (line.split() for line in done.stdout.splitlines())}
    assert {"generation", "float32"} <= set(grown)
    assert max(grown.values()) < LIMIT, grown


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qkv": (2, 12)}, r"^qkv has shape \(2, 12\), expected 3 axes$"),
        ({"num_heads": 3}, r"^qkv has shape \(2, 4, 12\): 12 columns are not 3 times 3 heads$"),
        ({"num_heads": 0}, "^num_heads=0 is not a whole number from 1 on$"),
        ({"num_heads": 1.5}, "^num_heads=1.5 is not a whole number from 1 on$"),
        ({"seed": (63,)}, r"^seed has shape \(63\), expected \(64\)$"),
        ({"p": 1.0}, "^p=1: a dropout probability is at least 0 and below 1$"),
        ({"precision": "float16"}, "^precision='float16': float32 or bfloat16$"),
    ],
    ids=str,
)
def test_refusals(changes, message):
    shapes = {"qkv": (2, 4, 12), "seed": (64,)}
    arrays = [mx.nd.zeros(changes.get(name, shape)) for name, shape in shapes.items()]
    attributes = {"num_heads": 2, **{name: value for name, value in changes.items() if name not in shapes}}
    check_refused("kogpt2_attention", lambda: mx.nd.kogpt2_attention(*arrays, **attributes)[0], message)


def test_wrong_types_are_refused():
    qkv, seed = mx.nd.zeros((1, 2, 6)), mx.nd.ones(SEED_SIZE)
    for kind in ("float64", "float16", "int32"):
        message = f"^qkv has type {kind}, expected float32$"
        wrong = qkv.astype(kind)
        call = lambda wrong=wrong: mx.nd.kogpt2_attention(wrong, seed, num_heads=1)[0]  # noqa: E731
        check_refused("kogpt2_attention", call, message)
