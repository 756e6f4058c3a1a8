"""The tied embedding's gradient as rows: two operators against NumPy and MXNet, and the network with and without."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from tests.model.model_helpers import assert_same, gradients_of, make_net, tokens_of
from tests.ops.ops_helpers import (
    PREDICTION,
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
    threads,
    training_seed,
)

POS, ROWS = 2, 4  # places of the inputs with a gradient


def case(batch=2, length=5, vocab=11, units=13, max_length=9, offset=2, seed=PREDICTION, **attributes) -> Case:
    """kogpt2_embedding_rows, and a twin in which `rows` is added to what the matrix gives."""
    rng = np.random.RandomState(units)
    tokens = rng.randint(0, vocab, (batch, length)).astype(np.int32)
    mask = dropout_mask(seed, attributes.get("site", 0), attributes.get("p", 0.0), batch * length, units)

    def stock(F, tokens, embed_weight, pos_weight, seed, rows):
        embedded = F.Embedding(tokens, embed_weight, input_dim=vocab, output_dim=units)
        positions = F.slice_axis(pos_weight, axis=0, begin=offset, end=offset + length).expand_dims(0)
        return F.broadcast_add(embedded + rows, positions) * mx.nd.array(mask.reshape(batch, length, units))

    return Case(
        "kogpt2_embedding_rows",
        lambda F, *arrays, **attributes: F.kogpt2_embedding_rows(*arrays, **attributes),
        stock,
        [tokens, array(rng, vocab, units), array(rng, max_length, units), seed, np.zeros((batch, length, units), "f")],
        wanted=[POS, ROWS],
        attributes={"offset": offset, **attributes},
    )


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1, 0), (3, 4, 50, 200, 9, 2), (2, 33, 11, 129, 64, 31)], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_equals_stock(sizes, p):
    check_twin(case(*sizes, seed=training_seed(1), p=p, site=5))


def test_requests():
    check_requests(case(seed=training_seed(2), p=0.2))


def test_gradients_add_up():
    check_gradients_add_up(case())


def test_hybridized():
    check_hybridized(case(seed=training_seed(3), p=0.4))


def test_threads_change_nothing():
    check_threads(case(2, 33, 3, 400, 64, 1, seed=training_seed(4), p=0.1), tolerance=0)


def test_values_of_rows_are_not_read():
    one, other = case(), case()
    other.inputs[ROWS] = np.full_like(other.inputs[ROWS], np.nan)
    np.testing.assert_array_equal(other.run_fused()[0], one.run_fused()[0])


def test_refusals():
    arrays = [mx.nd.array(values, dtype=values.dtype) for values in case().inputs]
    wrong = [*arrays[:ROWS], mx.nd.zeros((2, 5, 12))]
    message = r"^rows has shape \(2, 5, 12\), expected \(2, 5, 13\)$"
    check_refused("kogpt2_embedding_rows", lambda: mx.nd.kogpt2_embedding_rows(*wrong), message)
    arrays[1].attach_grad()
    with mx.autograd.record():
        out = mx.nd.kogpt2_embedding_rows(*arrays, req="null,write,null,null,null")

    def backward():
        out.backward()
        return arrays[1].grad

    check_refused("kogpt2_embedding_rows", backward, "^the gradient of embed_weight is that of rows: req null")


# ---- kogpt2_add_rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", ["int32", "float32"])
@pytest.mark.parametrize(("shape", "vocab", "units"), [((1,), 1, 1), ((2, 5), 3, 13), ((4, 50), 90, 300)], ids=str)
def test_adds_rows_in_place(shape, vocab, units, ids):
    rng = np.random.RandomState(0)
    gradient, rows = array(rng, vocab, units), array(rng, *shape, units)
    tokens = rng.randint(0, vocab, shape)
    expected = gradient.copy()
    np.add.at(expected, tokens.ravel(), rows.reshape(-1, units))  # one after the other, as the operator does
    for count in (1, 2, 3):
        with threads(count):
            actual = mx.nd.array(gradient)
            mx.nd.kogpt2_add_rows(actual, mx.nd.array(tokens, dtype=ids), mx.nd.array(rows))
            np.testing.assert_array_equal(actual.asnumpy(), expected)  # MXNet knows that it has changed


def test_nothing_is_added_when_an_id_is_outside():
    gradient = mx.nd.zeros((3, 4))
    tokens = mx.nd.array([0, 3], dtype="int32")
    message = r"^id 3 at place 1 is outside of 0 \.\. 2: another tokenizer's?"
    check_refused("kogpt2_add_rows", lambda: mx.nd.kogpt2_add_rows(gradient, tokens, mx.nd.ones((2, 4))), message)


def test_wrong_shapes_are_refused():
    tokens = mx.nd.zeros((2, 5), dtype="int32")
    message = r"^rows has shape \(2, 4\), expected \(2, 5, 4\)$"
    check_refused(
        "kogpt2_add_rows", lambda: mx.nd.kogpt2_add_rows(mx.nd.ones((3, 4)), tokens, mx.nd.ones((2, 4))), message
    )
    message = r"^gradient has shape \(3\), expected 2 axes$"
    check_refused("kogpt2_add_rows", lambda: mx.nd.kogpt2_add_rows(mx.nd.ones(3), tokens, mx.nd.ones((2, 5))), message)


# ---- the network ----------------------------------------------------------------------------------------------------


def passes(net, rows_apart: bool, shapes: list, hybridize: bool) -> tuple[list, dict]:
    """Losses and gradients of a pass for each shape; only the last counts unless gradients add up."""
    loss_block = LanguageModelLoss(net, rows_apart=rows_apart)
    if hybridize:
        loss_block.hybridize(static_alloc=True, static_shape=True)
    losses = []
    for number, shape in enumerate(shapes):
        mx.random.seed(number)
        with mx.autograd.record():
            losses.append(loss_block(tokens_of(shape)))
        losses[-1].backward()
        loss_block.complete_gradients()
        gradients = gradients_of(net)
        loss_block(tokens_of((1, 4)))  # as evaluation does between steps
    return [loss.asnumpy() for loss in losses], gradients


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_the_same_gradients(grad_req, hybridize):
    """The gradients are those of MXNet's own sum, dropout included; shapes change, micro steps add up."""
    results = []
    for rows_apart in (False, True):
        net = make_net(FusedCpuOps(dropout=0.2), dropout=0.2)
        for parameter in net.collect_params().values():
            parameter.grad_req = grad_req
        results.append(passes(net, rows_apart, [(2, 18), (3, 9), (2, 18)], hybridize))
    (losses, expected), (same_losses, actual) = results
    for one, other in zip(same_losses, losses):
        np.testing.assert_array_equal(one, other)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(actual[name], gradient, 1e-6, scale=1e-2)


def test_a_pass_between_forward_and_backward_takes_no_logits_away():
    """The logits of the recorded pass are in the gradient's memory; a pass that is not recorded has its own."""
    results = []
    for between in (False, True):
        net = make_net(FusedCpuOps())
        loss_block = LanguageModelLoss(net, rows_apart=True)
        with mx.autograd.record():
            loss = loss_block(tokens_of((2, 18)))
        if between:
            loss_block(tokens_of((3, 9), seed=1)).wait_to_read()
        loss.backward()
        loss_block.complete_gradients()
        results.append(gradients_of(net))
    for name, gradient in results[0].items():
        np.testing.assert_array_equal(results[1][name], gradient)


def test_without_them_something_is_missing():
    """So the rows matter, and forgetting add_embedding_gradient shows."""
    net = make_net(FusedCpuOps())
    loss_block = LanguageModelLoss(net, rows_apart=True)
    with mx.autograd.record():
        loss = loss_block(tokens_of((2, 18)))
    loss.backward()
    before = gradients_of(net)
    loss_block.complete_gradients()
    changed = [name for name, gradient in gradients_of(net).items() if (gradient != before[name]).any()]
    assert changed == ["_embed.weight"]


def test_each_recorded_pass_wants_its_rows_added_once():
    """Two passes before a backward pass would add the rows of both at the places of one."""
    loss_block = LanguageModelLoss(make_net(FusedCpuOps()), rows_apart=True)
    with pytest.raises(AssertionError, match="once after each recorded pass"):
        loss_block.complete_gradients()
    with mx.autograd.record():
        loss = loss_block(tokens_of((2, 18)))
        with pytest.raises(AssertionError, match="still lacks its call"):
            loss_block(tokens_of((3, 18)))
    loss.backward()
    loss_block.complete_gradients()
    with mx.autograd.record():
        loss_block(tokens_of((3, 18)))


@pytest.mark.parametrize("hybridize", [False, True])
def test_a_frozen_matrix_stays_as_it_is(hybridize):
    net = make_net(FusedCpuOps())
    net._embed.weight.grad_req = "null"
    (losses, gradients), (same_losses, expected) = (passes(net, apart, [(2, 18)], hybridize) for apart in (True, False))
    assert_same((losses[0], gradients), (same_losses[0], expected))


def test_stock_operators_have_no_rows():
    net = make_net()
    assert net.embedding_rows() is None
    (losses, gradients), (same_losses, expected) = (passes(net, apart, [(2, 18)], True) for apart in (True, False))
    assert_same((losses[0], gradients), (same_losses[0], expected), 1e-12)
