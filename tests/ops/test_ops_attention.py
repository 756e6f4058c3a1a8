"""kogpt2_attention, kogpt2_attention_cached and kogpt2_attention_step against MXNet's own operators and each other."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops.build import load_cpu_operators
from tests.helpers import ROOT, run
from tests.ops.ops_helpers import (
    BFLOAT16,
    FLOAT32,
    PREDICTION,
    SEED_SIZE,
    Case,
    array,
    assert_close,
    assert_same,
    check_gradients_add_up,
    check_hybridized,
    check_refused,
    check_requests,
    check_threads,
    check_twin,
    dropout_mask,
    round_to_bfloat16,
    threads,
    training_seed,
)
from tests.ops.test_ops_memory import LIMIT, growth

needs_bfloat16 = pytest.mark.skipif(
    not load_cpu_operators().isa.has_bfloat16, reason="oneDNN has bfloat16 products from AVX-512 on"
)
PRECISIONS = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]
TOLERANCES = [("float32", FLOAT32), pytest.param("bfloat16", BFLOAT16, marks=needs_bfloat16)]
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


def stock_attention(F, qkv, num_heads: int, mask: np.ndarray | None = None):
    """(B, T, 3C) to (B, T, C) by MXNet's batch_dot and softmax; mask: multipliers of the weights (B H, T, T)."""
    length, columns = qkv.shape[1], qkv.shape[2] // 3 // num_heads
    later = mx.nd.array(np.triu(np.full((1, length, length), -1e9, np.float32), 1))
    parts = F.split(qkv, num_outputs=3, axis=2)
    query, key, value = (
        part.reshape((0, 0, -4, num_heads, -1)).transpose((0, 2, 1, 3)).reshape((-3, 0, 0)) for part in parts
    )
    scores = F.batch_dot(query, key, transpose_b=True) / columns**0.5
    weights = F.softmax(F.broadcast_add(scores, later), axis=-1)
    if mask is not None:
        weights = weights * mx.nd.array(mask)
    context = F.batch_dot(weights, value).reshape((-4, -1, num_heads, 0, 0))
    return context.transpose((0, 2, 1, 3)).reshape((0, 0, -3))


def weight_mask(seed, site, p, batch, length, num_heads) -> np.ndarray:
    """Multipliers of the attention weights by NumPy's Philox: (B H, T, T)."""
    rows = batch * num_heads * length
    return dropout_mask(seed, site, p, rows, length).reshape(batch * num_heads, length, length)


def case(batch=2, length=70, num_heads=2, columns=8, seed=PREDICTION, size=1.0, **attributes) -> Case:
    """Normal queries, keys and values times `size`."""
    rng = np.random.RandomState(length + columns)
    qkv = size * array(rng, batch, length, 3 * num_heads * columns)
    mask = weight_mask(seed, attributes.get("site", 0), attributes.get("p", 0.0), batch, length, num_heads)
    return Case(
        "kogpt2_attention",
        lambda F, *inputs, **options: F.kogpt2_attention(*inputs, **options)[0],
        lambda F, qkv, seed: stock_attention(F, qkv, num_heads, mask),
        [qkv, seed],
        wanted=[0],
        attributes={"num_heads": num_heads, **attributes},
        # At length 1 the gradients of queries and keys are 0, and those of values are the output's.
        scale=1.0,
    )


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


# ---- generation -----------------------------------------------------------------------------------------------------


def split_heads(data: np.ndarray, num_heads: int) -> np.ndarray:
    """(B, T, C) to (B, H, T, D)."""
    return data.reshape(*data.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)


# batch, past, new tokens, heads, columns of a head: few queries are computed in another way than many
CACHED = [(1, 1, 1, 1, 1), (2, 9, 1, 3, 64), (1, 40, 2, 2, 5), (2, 17, 3, 2, 13), (1, 5, 130, 2, 8), (1, 550, 7, 1, 8)]


def whole_and_split(batch, past, new, num_heads, columns, precision="float32"):
    """Packed tokens, the uncached output, and keys and values of them all as (B, H, P + T, D)."""
    qkv = array(np.random.RandomState(past + new), batch, past + new, 3 * num_heads * columns)
    seed = mx.nd.ones(SEED_SIZE)
    out = mx.nd.kogpt2_attention(mx.nd.array(qkv), seed, num_heads=num_heads, precision=precision)[0].asnumpy()
    _, key, value = np.split(qkv, 3, axis=2)
    return qkv, out, split_heads(key, num_heads), split_heads(value, num_heads)


@pytest.mark.parametrize(("precision", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("sizes", CACHED, ids=str)
def test_cached_equals_uncached(sizes, precision, tolerance):
    past, num_heads = sizes[1], sizes[3]
    qkv, expected, key, value = whole_and_split(*sizes, precision=precision)
    out, new_key, new_value = mx.nd.kogpt2_attention_cached(
        mx.nd.array(qkv[:, past:]),
        mx.nd.array(key[:, :, :past]),
        mx.nd.array(value[:, :, :past]),
        num_heads=num_heads,
        precision=precision,
    )
    assert_same([new_key.asnumpy(), new_value.asnumpy()], [key, value])
    assert_close(out.asnumpy(), expected[:, past:], tolerance)


@pytest.mark.parametrize("sizes", CACHED, ids=str)
def test_step_equals_cached(sizes):
    """In place: the past is not touched, the new tokens follow it, and what is beyond them stays as it was."""
    batch, past, new, num_heads, columns = sizes
    qkv, _, key, value = whole_and_split(*sizes)
    tokens = mx.nd.array(qkv[:, past:])
    states = [mx.nd.array(part[:, :, :past]) for part in (key, value)]
    expected = mx.nd.kogpt2_attention_cached(tokens, *states, num_heads=num_heads)[0]
    caches = [np.full((batch, num_heads, past + new + 3, columns), np.nan, np.float32) for _ in range(2)]
    for cache, part in zip(caches, (key, value)):
        cache[:, :, :past] = part[:, :, :past]
    in_place = [mx.nd.array(cache) for cache in caches]
    position = mx.nd.array([past], dtype="int32")
    out = mx.nd.kogpt2_attention_step(tokens, *in_place, position, num_heads=num_heads)
    assert_same([out.asnumpy()], [expected.asnumpy()])
    for cache, after, part in zip(caches, in_place, (key, value)):
        cache[:, :, past : past + new] = part[:, :, past:]
        np.testing.assert_array_equal(after.asnumpy(), cache)


class Step(mx.gluon.HybridBlock):
    """One layer's attention of generation."""

    def hybrid_forward(self, F, qkv, key_cache, value_cache, position):
        return F.kogpt2_attention_step(qkv * 1, key_cache, value_cache, position, num_heads=3)


@pytest.mark.parametrize("position_type", ["int32", "float32"])
@pytest.mark.parametrize("options", [None, {}, {"static_alloc": True}, {"static_alloc": True, "static_shape": True}])
def test_generation_step_by_step(options, position_type):
    """A prompt, then tokens one by one and several at once, through one pair of arrays from position 0 on."""
    qkv, expected, *_ = whole_and_split(2, 10, 13, 3, 8)
    net = Step()
    if options is not None:
        net.hybridize(**options)
    caches = [mx.nd.full((2, 3, 23, 8), np.nan) for _ in range(2)]
    outs, begin = [], 0
    for count in (7, 1, 1, 4, 1, 2, 7):
        tokens = mx.nd.array(qkv[:, begin : begin + count])
        outs.append(net(tokens, *caches, mx.nd.array([begin], dtype=position_type)).asnumpy())
        begin += count
    assert begin == qkv.shape[1]
    assert_close(np.concatenate(outs, axis=1), expected)


@pytest.mark.parametrize("options", [{}, {"static_alloc": True, "static_shape": True}])
def test_cached_hybridized(options):
    class Net(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, *inputs):
            return F.kogpt2_attention_cached(*inputs, num_heads=2)

    qkv, _, key, value = whole_and_split(2, 9, 3, 2, 8)
    inputs = [mx.nd.array(part) for part in (qkv[:, 9:], key[:, :, :9], value[:, :, :9])]
    net = Net()
    net.hybridize(**options)
    expected = [part.asnumpy() for part in mx.nd.kogpt2_attention_cached(*inputs, num_heads=2)]
    for _ in range(2):
        assert_same([part.asnumpy() for part in net(*inputs)], expected)


def test_threads_change_nothing_when_cached():
    qkv, _, key, value = whole_and_split(2, 30, 9, 3, 8)
    results = []
    for new in (1, 9):
        inputs = [mx.nd.array(part) for part in (qkv[:, 30 : 30 + new], key[:, :, :30], value[:, :, :30])]
        for count in (1, 2, 3):
            with threads(count):
                results.append(mx.nd.kogpt2_attention_cached(*inputs, num_heads=3)[0].asnumpy())
        assert_same(results[-2:], [results[-3]] * 2)


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


@pytest.mark.parametrize("name", ["kogpt2_attention_cached", "kogpt2_attention_step"])
def test_generation_has_no_gradient(name):
    qkv = mx.nd.ones((1, 2, 12))
    qkv.attach_grad()
    inputs = [qkv, mx.nd.ones((1, 2, 5, 2)), mx.nd.ones((1, 2, 5, 2)), mx.nd.array([1], dtype="int32")]
    with mx.autograd.record():
        out = getattr(mx.nd, name)(*(inputs if name.endswith("step") else inputs[:3]), num_heads=2)
    out = out if name.endswith("step") else out[0]

    def backward():
        out.backward()
        return qkv.grad

    check_refused(name, backward, "has no gradient; train with kogpt2_attention$")


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": (2, 2, 5)}, r"^past_key has shape \(2, 2, 5\), expected 4 axes$"),
        ({"key": (2, 3, 5, 2)}, r"^past_key has shape \(2, 3, 5, 2\), expected \(2, 2, 5, 2\)$"),
        ({"value": (2, 2, 4, 2)}, r"^past_value has shape \(2, 2, 4, 2\), expected \(2, 2, 5, 2\)$"),
    ],
    ids=str,
)
def test_cached_refusals(changes, message):
    shapes = {"qkv": (2, 1, 12), "key": (2, 2, 5, 2), "value": (2, 2, 5, 2)}
    arrays = [mx.nd.zeros(changes.get(name, shape)) for name, shape in shapes.items()]
    call = lambda: mx.nd.kogpt2_attention_cached(*arrays, num_heads=2)[0]  # noqa: E731
    check_refused("kogpt2_attention_cached", call, message)


@pytest.mark.parametrize(
    ("changes", "position", "message"),
    [
        ({}, 5, "^position 5, from which 1 tokens are written, does not fit a cache for 5$"),
        ({}, -1, "^position -1, from which 1 tokens are written, does not fit a cache for 5$"),
        ({"qkv": (2, 6, 12)}, 0, "^position 0, from which 6 tokens are written, does not fit a cache for 5$"),
        ({"value": (2, 2, 4, 2)}, 0, r"^value_cache has shape \(2, 2, 4, 2\), expected \(2, 2, 5, 2\)$"),
        ({"position": (2,)}, 0, r"^position has shape \(2\), expected \(1\)$"),
    ],
    ids=str,
)
def test_step_refusals(changes, position, message):
    shapes = {"qkv": (2, 1, 12), "key": (2, 2, 5, 2), "value": (2, 2, 5, 2), "position": (1,)}
    arrays = [mx.nd.zeros(changes.get(name, shape)) for name, shape in shapes.items()]
    arrays[3] = mx.nd.full(arrays[3].shape, position, dtype="int32")
    call = lambda: mx.nd.kogpt2_attention_step(*arrays, num_heads=2)  # noqa: E731
    check_refused("kogpt2_attention_step", call, message)


def test_wrong_types_are_refused():
    qkv, seed = mx.nd.zeros((1, 2, 6)), mx.nd.ones(SEED_SIZE)
    for kind in ("float64", "float16", "int32"):
        message = f"^qkv has type {kind}, expected float32$"
        wrong = qkv.astype(kind)
        call = lambda wrong=wrong: mx.nd.kogpt2_attention(wrong, seed, num_heads=1)[0]  # noqa: E731
        check_refused("kogpt2_attention", call, message)
