"""kogpt2_cross_entropy against FullyConnected, log_softmax and pick."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from tests.ops.ops_helpers import (
    BFLOAT16,
    PRECISIONS,
    Case,
    array,
    assert_close,
    check_gradients_add_up,
    check_hybridized,
    check_refused,
    check_requests,
    check_threads,
    check_twin,
    needs_bfloat16,
    round_to_bfloat16,
)

# shape of the labels, units, vocabulary; the last ones go over several strips of the vocabulary
SIZES = [
    ((1, 1), 1, 1),
    ((1, 1), 7, 2),
    ((2, 3), 5, 11),
    ((4,), 16, 33),
    ((1, 33), 65, 3072),
    ((3, 5), 17, 3073),
    ((2, 3), 8, 4607),
    ((5,), 6, 4609),
    ((2, 2, 2), 9, 12345),
]


def case(rows=(2, 5), units=13, vocab=50, ids=np.float32, **attributes) -> Case:
    rng = np.random.RandomState(units)
    inputs = [array(rng, *rows, units), array(rng, vocab, units), rng.randint(0, vocab, rows).astype(ids)]

    def stock(F, hidden, weight, labels):
        logits = F.FullyConnected(hidden, weight, num_hidden=vocab, no_bias=True, flatten=False)
        return -F.pick(F.log_softmax(logits), labels, axis=-1)

    return Case(
        "kogpt2_cross_entropy",
        lambda F, *arrays, **attributes: F.kogpt2_cross_entropy(*arrays, **attributes),
        stock,
        inputs,
        wanted=[0, 1],
        # Of one word the loss and its gradients are 0.
        scale=1.0 if vocab == 1 else 0.0,
        attributes=attributes,
    )


@pytest.mark.parametrize("ids", [np.float32, np.int32])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_stock(sizes, ids):
    check_twin(case(*sizes, ids=ids))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_loss_in_float64(sizes):
    one = case(*sizes)
    hidden, weight = (values.astype(np.float64) for values in one.inputs[:2])
    logits = hidden @ weight.T
    picked = np.take_along_axis(logits, one.inputs[2].astype(int)[..., None], -1)[..., 0]
    assert_close(one.run_fused()[0], np.log(np.exp(logits).sum(-1)) - picked, scale=one.scale)


@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_large_logits(shift):
    """exp() of the logits overflows or vanishes in float32; the loss does not. The greatest is in the last strip.

    Against float64: MXNet's own operators are wrong by 1.2e-5 here.
    """
    one = case((1, 4), 3, 9000)
    one.inputs[0][..., 0], one.inputs[1][:, 0] = 1.0, shift
    one.inputs[1][8999, 0] += 30.0
    hidden, weight = (values.astype(np.float64) for values in one.inputs[:2])
    logits = (hidden @ weight.T)[0]
    rows, labels = np.arange(4), one.inputs[2][0].astype(int)
    log_sum_exp = np.log(np.exp(logits - shift).sum(-1)) + shift
    gradient = np.exp(logits - log_sum_exp[:, None])
    gradient[rows, labels] -= 1.0
    gradient *= one.out_gradient((1, 4)).T
    loss, hidden_gradient, weight_gradient = one.run_fused()
    assert_close(loss[0], log_sum_exp - logits[rows, labels])
    assert_close(hidden_gradient[0], gradient @ weight)
    assert_close(weight_gradient, gradient.T @ hidden[0])


def test_logits_that_are_not_finite():
    """They must not come out as a finite loss."""
    for bad in (np.nan, np.inf):
        one = case((1, 3), 4, 5000)
        one.inputs[0][..., 0], one.inputs[1][4500, 0] = 1.0, bad
        assert not np.isfinite(one.run_fused()[0]).any()


def test_rows_without_a_loss():
    """A gradient of 0 from above, as padding has it, gives no gradient to its row."""
    one = case((2, 3), 6, 40)
    mask = np.array([[1, 0, 1], [0, 1, 0]], np.float32)
    hidden_gradient = one.run(lambda F, *arrays: one.fused(F, *arrays) * F.array(mask))[1]
    np.testing.assert_array_equal(hidden_gradient[mask == 0], 0.0)
    assert (hidden_gradient[mask == 1] != 0).any()


def test_requests():
    check_requests(case((2, 3), 5, 4100))


def test_gradients_add_up():
    check_gradients_add_up(case((2, 3), 5, 4100))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_hybridized(precision):
    check_hybridized(case((2, 3), 5, 4100, precision=precision))


class Hybrid(mx.gluon.HybridBlock):
    """The operator alone."""

    def hybrid_forward(self, F, hidden, weight, labels):
        return F.kogpt2_cross_entropy(hidden, weight, labels, req="write,write,null")


@pytest.mark.parametrize("hybridize", [False, True])
def test_passes_that_overlap(hybridize):
    """The logits are kept for each pass: two forward passes before the first backward pass, and one of them twice."""
    net = Hybrid()
    if hybridize:
        net.hybridize()
    first, second = case(units=13), case(units=14)
    expected = [one.run(one.stock) for one in (first, second)]
    arrays = [[mx.nd.array(values) for values in one.inputs] for one in (first, second)]
    for hidden, weight, _ in arrays:
        hidden.attach_grad()
        weight.attach_grad()
    with mx.autograd.record():
        losses = [net(*each) for each in arrays]
        with mx.autograd.predict_mode():
            net(*arrays[0]).wait_to_read()
    above = mx.nd.array(first.out_gradient((2, 5)))
    for loss, retain in ((losses[0], True), (losses[1], False), (losses[0], False)):
        loss.backward(above, retain_graph=retain)
    for each, (_, hidden_gradient, weight_gradient) in zip(arrays, expected):
        assert_close(each[0].grad.asnumpy(), hidden_gradient)
        assert_close(each[1].grad.asnumpy(), weight_gradient)


# More and fewer rows than units, vocabularies that end at all places of a strip (3,072 columns) and of a part (1,536).
@pytest.mark.parametrize("vocab", [1537, 3072, 4700, 7681, 11000])
@pytest.mark.parametrize("rows", [7, 15, 17, 40])
def test_logits_in_the_memory_of_the_gradient(rows, vocab):
    """They are overwritten by the gradient, and each has been read before."""
    one = case((rows,), 16, vocab)
    hidden, weight, labels = (mx.nd.array(values) for values in one.inputs)
    results = []
    for inside in (False, True):
        for parameter in (hidden, weight):
            parameter.attach_grad()
        with mx.autograd.record():
            if inside:
                arguments = {"has_memory": 1, "req": "write,write,null,null"}
                loss = mx.nd.kogpt2_cross_entropy(hidden, weight, labels, weight.grad, **arguments)
            else:
                loss = mx.nd.kogpt2_cross_entropy(hidden, weight, labels, req="write,write,null")
        loss.backward(mx.nd.array(one.out_gradient((rows,))))
        results.append([each.asnumpy() for each in (loss, hidden.grad, weight.grad)])
    for apart, together in zip(*results):
        assert_close(together, apart, 1e-6)


def test_memory_of_another_size_is_not_used():
    one = case((4,), 8, 100)
    arrays, memory = [mx.nd.array(values) for values in one.inputs], mx.nd.full(1, 7.0)
    loss = mx.nd.kogpt2_cross_entropy(*arrays, memory, has_memory=1)
    assert_close(loss.asnumpy(), one.run_fused()[0], 1e-6)
    assert memory.asscalar() == 7.0


def test_no_gradient_of_the_logits_is_made():
    """MXNet makes one, of zeros, for every output without a gradient: the logits must be no output."""
    loss = mx.sym.kogpt2_cross_entropy(mx.sym.var("hidden"), mx.sym.var("weight"), mx.sym.var("labels"))
    _, shapes, _ = loss.infer_shape(hidden=(1, 64, 8), weight=(5000, 8), labels=(1, 64))
    assert shapes == [(1, 64)]


def test_tied_weight():
    """The embedding's and this operator's gradients of one matrix are added up by MXNet, both with req=write."""
    vocab, units, shape = 30, 8, (2, 6)
    rng = np.random.RandomState(0)
    tokens, labels = (mx.nd.array(rng.randint(0, vocab, shape)) for _ in range(2))
    weight, positions, seed = mx.nd.array(array(rng, vocab, units)), mx.nd.zeros((6, units)), mx.nd.ones(64)

    class Net(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, weight, positions, tokens, labels, seed):
            hidden = F.kogpt2_embedding(tokens, weight, positions, seed, req="null,write,write,null")
            return F.kogpt2_cross_entropy(hidden, weight, labels, req="write,write,null")

    def stock(weight, positions, tokens, labels, _):
        hidden = mx.nd.Embedding(tokens, weight, input_dim=vocab, output_dim=units)
        hidden = mx.nd.broadcast_add(hidden, positions.expand_dims(0))
        logits = mx.nd.FullyConnected(hidden, weight, num_hidden=vocab, no_bias=True, flatten=False)
        return -mx.nd.pick(mx.nd.log_softmax(logits), labels, axis=-1)

    def gradients(net, grad_req):
        for parameter in (weight, positions):
            parameter.attach_grad(grad_req)
        for _ in range(2):
            with mx.autograd.record():
                loss = net(weight, positions, tokens, labels, seed)
            loss.backward()
        return weight.grad.asnumpy()

    hybrid = Net()
    hybrid.hybridize(static_alloc=True, static_shape=True)
    for net in (Net(), hybrid):
        for grad_req in ("write", "add"):
            assert_close(gradients(net, grad_req), gradients(stock, grad_req))


@needs_bfloat16
@pytest.mark.parametrize("sizes", SIZES[2:], ids=str)
def test_bfloat16(sizes):
    """Near float32; and the loss that of rounded factors, whose products are exact and whose sums are float32."""
    check_twin(case(*sizes), BFLOAT16, precision="bfloat16")
    one = case(*sizes)
    rounded = case(*sizes)
    rounded.inputs[:2] = [round_to_bfloat16(values) for values in rounded.inputs[:2]]
    assert_close(one.run_fused(precision="bfloat16")[0], rounded.run_fused()[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads(precision):
    check_threads(case((3, 7), 50, 4200), 1e-6, precision=precision)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (3,)}, r"^hidden has shape \(3\), expected at least 2 axes$"),
        ({"weight": (5, 4)}, r"^weight has shape \(5, 4\), expected \(5, 3\)$"),
        ({"weight": (3,)}, r"^weight has shape \(3\), expected 2 axes$"),
        ({"labels": (2, 5)}, r"^labels has shape \(2, 5\), expected \(2, 4\)$"),
        ({"precision": "float16"}, "^precision='float16': float32 or bfloat16$"),
    ],
    ids=str,
)
def test_refusals(changes, message):
    shapes = {"hidden": (2, 4, 3), "weight": (5, 3), "labels": (2, 4)}
    arrays = [mx.nd.zeros(changes.get(name, shape)) for name, shape in shapes.items()]
    attributes = {name: value for name, value in changes.items() if name not in shapes}
    check_refused("kogpt2_cross_entropy", lambda: mx.nd.kogpt2_cross_entropy(*arrays, **attributes), message)


@pytest.mark.parametrize("ids", [np.float32, np.int32])
@pytest.mark.parametrize("wrong", [-1, 50])
def test_labels_outside_are_refused(wrong, ids):
    one = case(ids=ids)
    one.inputs[2][1, 2] = wrong
    arrays = [mx.nd.array(values, dtype=values.dtype) for values in one.inputs]
    message = rf"^id {wrong} at place 7 is outside of 0 \.\. 49: another tokenizer's?"
    check_refused("kogpt2_cross_entropy", lambda: mx.nd.kogpt2_cross_entropy(*arrays), message)


def test_wrong_types_are_refused():
    hidden, weight, labels = (mx.nd.array(values) for values in case().inputs)
    for wrong, message in (
        ((hidden.astype("float64"), weight, labels), "^hidden has type float64, expected float32$"),
        ((hidden, weight, labels.astype("int64")), "^labels has type int64, expected float32 or int32$"),
    ):
        check_refused("kogpt2_cross_entropy", lambda wrong=wrong: mx.nd.kogpt2_cross_entropy(*wrong), message)
