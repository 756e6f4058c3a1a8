"""kogpt2_attention_cached and kogpt2_attention_step, for generation, against kogpt2_attention and each other."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from tests.ops.attention_helpers import TOLERANCES
from tests.ops.ops_helpers import (
    SEED_SIZE,
    array,
    assert_close,
    assert_same,
    check_refused,
    threads,
)


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
