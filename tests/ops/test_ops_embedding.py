"""kogpt2_embedding against MXNet's Embedding, and its dropout against an independent Philox."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from tests.ops.ops_helpers import (
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
    philox4x32,
    training_seed,
)

EMBED, POS = 1, 2  # places of the inputs
# batch, length, vocabulary, units, max_length, offset
SIZES = [
    (1, 1, 1, 1, 1, 0),
    (1, 1, 7, 768, 4, 3),
    (2, 5, 3, 13, 5, 0),
    (3, 4, 50, 200, 9, 2),
    (2, 33, 11, 129, 64, 31),
    (5, 1, 4, 128, 2, 1),
]


def case(
    batch=2, length=5, vocab=11, units=13, max_length=9, offset=2, ids=np.float32, seed=PREDICTION, **attributes
) -> Case:
    """With tokens that occur in several places, and a twin that multiplies with NumPy's mask."""
    rng = np.random.RandomState(units)
    tokens = rng.randint(0, vocab, (batch, length)).astype(ids)
    mask = dropout_mask(seed, attributes.get("site", 0), attributes.get("p", 0.0), batch * length, units)

    def stock(F, tokens, embed_weight, pos_weight, seed):
        embedded = F.Embedding(tokens, embed_weight, input_dim=vocab, output_dim=units)
        positions = F.slice_axis(pos_weight, axis=0, begin=offset, end=offset + length).expand_dims(0)
        return F.broadcast_add(embedded, positions) * mx.nd.array(mask.reshape(batch, length, units))

    return Case(
        "kogpt2_embedding",
        lambda F, *arrays, **attributes: F.kogpt2_embedding(*arrays, **attributes),
        stock,
        [tokens, array(rng, vocab, units), array(rng, max_length, units), seed],
        wanted=[EMBED, POS],
        attributes={"offset": offset, **attributes} if offset else attributes,
    )


@pytest.mark.parametrize("ids", [np.float32, np.int32])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_stock(sizes, ids):
    check_twin(case(*sizes, ids=ids))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_dropout_is_philox(sizes):
    """Forward and backward draw the same mask, which NumPy's Philox gives too."""
    check_twin(case(*sizes, seed=training_seed(1), p=0.3, site=5))


def test_philox_is_the_published_one():
    """Known answers of Philox4x32-7, from the authors' own library (Random123, kat_vectors)."""
    ones = 0xFFFFFFFF
    digits_of_pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    counters = np.array([[0] * 4, [ones] * 4, digits_of_pi], np.uint64)
    keys = [(0, 0), (ones, ones), (0xA4093822, 0x299F31D0)]
    answers = [
        (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48),
        (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662),
        (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A),
    ]
    for counter, key, answer in zip(counters, keys, answers):
        assert tuple(philox4x32(counter[None], key, 7)[0]) == answer


def test_off_in_prediction():
    """The seed that MXNet's Dropout gives in prediction mode switches the operator's own off."""
    dropped = case(seed=PREDICTION, p=0.9)
    dropped.inputs[3] = mx.nd.Dropout(mx.nd.ones(SEED_SIZE), p=0.5).asnumpy()
    for actual, expected in zip(dropped.run_fused(), case().run_fused()):
        np.testing.assert_array_equal(actual, expected)


def dropped_ones(batch: int, length: int, units: int, p: float, site: int = 0) -> np.ndarray:
    """Masks that a training graph draws, its seed from MXNet's generator: (batch, length, units)."""
    with mx.autograd.train_mode():
        seed = mx.nd.Dropout(mx.nd.ones(SEED_SIZE), p=0.5)
    tokens, zeros = mx.nd.zeros((batch, length)), mx.nd.zeros((length, units))
    return mx.nd.kogpt2_embedding(tokens, mx.nd.ones((1, units)), zeros, seed, p=p, site=site).asnumpy()


def test_repeats_from_mxnets_seed():
    def drawn(value):
        mx.random.seed(value)
        return [dropped_ones(2, 3, 50, 0.5) for _ in range(2)]

    first, second = drawn(7)
    assert (first != second).any()
    np.testing.assert_array_equal(drawn(7), [first, second])
    assert (drawn(8)[0] != first).any()


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_statistics_are_mxnets(p):
    """Mean and variance over 983,040 values as MXNet's Dropout has them, 4 standard errors wide; sites independent."""
    shape = (16, 80, 768)
    count = np.prod(shape)
    mx.random.seed(3)
    ours = dropped_ones(*shape, p=p)
    with mx.autograd.train_mode():
        stock = mx.nd.Dropout(mx.nd.ones(shape), p=p).asnumpy()
    error = 4 * np.sqrt(p * (1 - p) / count)  # of the share of zeros
    for values in (ours, stock):
        assert abs((values == 0).mean() - p) < error
        assert abs(values.mean() - 1) < error / (1 - p)
        assert abs(values.var() - p / (1 - p)) < 3 * error / (1 - p) ** 2
    mx.random.seed(3)
    other_site = dropped_ones(*shape, p=p, site=1)
    agreement = ((ours == 0) & (other_site == 0)).mean()
    assert abs(agreement - p * p) < 4 * np.sqrt(p * p / count)
    neighbours = ((ours[..., 1:] == 0) & (ours[..., :-1] == 0)).mean()
    assert abs(neighbours - p * p) < 8 * np.sqrt(p * p / count)  # pairs overlap
    assert np.unique(ours.reshape(-1, 768), axis=0).shape[0] == 16 * 80  # no two rows alike


def test_requests():
    check_requests(case(3, 4, 5, 130, 9, 2, seed=training_seed(2), p=0.2))


def test_gradients_add_up():
    check_gradients_add_up(case())


def test_hybridized():
    """With the constant mask of one seed."""
    check_hybridized(case(seed=training_seed(3), p=0.4, site=2))


def test_threads_change_nothing():
    check_threads(case(2, 33, 3, 400, 64, 1, seed=training_seed(4), p=0.1), tolerance=0)


def test_gradients_of_ids_and_seed_are_zero():
    """Nobody wants them; should somebody, they are not what stood in memory."""
    one = case()
    one.wanted = [0, 3]
    for gradient in one.run_fused(before=5.0)[1:]:
        np.testing.assert_array_equal(gradient, 0.0)


def test_many_places_of_one_token():
    """2,000 places of 3 tokens: the sum is in float32, in order, as MXNet's."""
    many = case(8, 250, 3, 40, 300, 5)
    check_twin(many)
    total = many.out_gradient((8, 250, 40)).astype(np.float64)
    assert_close(many.run_fused()[1].sum(0), total.sum((0, 1)), 1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": (6,)}, r"^tokens has shape \(6\), expected 2 axes$"),
        ({"embed_weight": (4, 3, 1)}, r"^embed_weight has shape \(4, 3, 1\), expected 2 axes$"),
        ({"pos_weight": (7, 4)}, r"^pos_weight has shape \(7, 4\), expected \(7, 3\)$"),
        ({"seed": (63,)}, r"^seed has shape \(63\), expected \(64\)$"),
        ({"offset": 6}, "^offset=6 and a length of 2 go beyond max_length=7, the rows of pos_weight$"),
        ({"offset": -1}, "^offset=-1 is not a whole number from 0 on$"),
        ({"offset": 0.5}, "^offset=0.5 is not a whole number from 0 on$"),
        ({"p": 1.0}, "^p=1: a dropout probability is at least 0 and below 1$"),
    ],
    ids=str,
)
def test_refusals(changes, message):
    shapes = {"tokens": (3, 2), "embed_weight": (4, 3), "pos_weight": (7, 3), "seed": (64,)}
    arrays = [mx.nd.zeros(changes.get(name, shape)) for name, shape in shapes.items()]
    attributes = {name: value for name, value in changes.items() if name not in shapes}
    check_refused("kogpt2_embedding", lambda: mx.nd.kogpt2_embedding(*arrays, **attributes), message)


@pytest.mark.parametrize("ids", [np.float32, np.int32])
@pytest.mark.parametrize("wrong", [-1, 11, 2**30])
def test_ids_outside_are_refused(wrong, ids):
    one = case(ids=ids)
    one.inputs[0][1, 3] = wrong
    arrays = [mx.nd.array(values, dtype=values.dtype) for values in one.inputs]
    message = rf"^id {wrong} at place 8 is outside of 0 \.\. 10: another tokenizer's?"
    check_refused("kogpt2_embedding", lambda: mx.nd.kogpt2_embedding(*arrays), message)


def test_wrong_types_are_refused():
    arrays = [mx.nd.array(values) for values in case().inputs]
    arrays[0] = arrays[0].astype("int64")
    message = "^tokens has type int64, expected float32 or int32$"
    check_refused("kogpt2_embedding", lambda: mx.nd.kogpt2_embedding(*arrays), message)
    arrays[0] = arrays[0].astype("int32")
    arrays[1] = arrays[1].astype("float64")
    message = "^embed_weight has type float64, expected float32$"
    check_refused("kogpt2_embedding", lambda: mx.nd.kogpt2_embedding(*arrays), message)
