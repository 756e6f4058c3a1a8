"""The stock operator set: its types in float16, its emulation of float16 on CPU, and the tracing over any set."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model, build_model, structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.ops.parameters import RetracedBlock, value
from kogpt2_gluon.ops.stock import StockOps
from kogpt2_gluon.recipe import find_recipe, load_recipe
from tests.model.model_helpers import (
    SIZES,
    backward,
    gradients_of,
    loss_and_gradients,
    loss_block_of,
    make_net,
    tokens_of,
)

RECIPES = sorted(path.stem for path in find_recipe("demo").parent.glob("*.yaml"))
HALF_MAX, HALF_TINY = 65504.0, 2.0**-24  # the largest and the smallest of float16


# ---- float16's types ------------------------------------------------------------------------------------------------


def test_every_shipped_recipe_is_tried():
    assert len(RECIPES) == 11, RECIPES


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_types_of_the_graph(name, precision):
    """Inferred from the symbols alone: nothing is computed, so that a machine without a GPU can tell."""
    model = load_recipe(name).model
    net = build_model(model, StockOps(precision, model.dropout))
    net.cast(precision)
    loss_block = LanguageModelLoss(net)
    tokens = mx.sym.var("tokens", dtype="int32")
    hidden, states = net.hidden_states(mx.sym, tokens)
    logits, _ = net(tokens)
    outputs = mx.sym.Group([loss_block(tokens), hidden, logits, *states])
    arguments, results, _ = outputs.infer_type(tokens="int32")
    assert [np.dtype(each) for each in results] == [np.float32] + [np.dtype(precision)] * (2 + 2 * model.num_layers)
    types = dict(zip(outputs.list_arguments(), arguments))
    assert types.pop("tokens") == np.int32
    assert set(types) == {parameter.name for parameter in structural_parameters(net).values()}
    assert {np.dtype(each) for each in types.values()} == {np.dtype(precision)}


def test_positions_do_not_go_through_float16():
    """2,049 has no float16: a longer network in float16 would look up and mask wrong positions."""
    net = GPT2Model(**SIZES, ops=StockOps("float16"))
    net.cast("float16")
    states = [mx.sym.var(f"state{i}", dtype="float16") for i in range(2 * SIZES["num_layers"])]
    logits, _ = net(mx.sym.var("tokens", dtype="int32"), states)
    internals = logits.get_internals()
    names = internals.list_outputs()
    _, types, _ = internals.infer_type(tokens="int32")
    positions = [type_ for name, type_ in zip(names, types) if "arange_like" in name]
    assert len(positions) >= 2 + 2 * SIZES["num_layers"]
    assert set(positions) == {np.float32}


# ---- emulation ------------------------------------------------------------------------------------------------------

VALUES = np.array(
    [
        *(0.0, -0.0, 1.0, 1 / 3, 1 + 2.0**-11, 1 + 3 * 2.0**-11, np.nan),
        *(HALF_MAX, 65519.9, 65520, -65520, 1e30, -1e38, np.inf, -np.inf),
        *(HALF_TINY, HALF_TINY / 2, HALF_TINY * 0.51, HALF_TINY * 1.5, 6.1e-5, 3.3e-6, -2.9e-8, 1e-30),
    ],
    dtype=np.float32,
)


def rounded(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("hybridize", [False, True])
def test_rounding_is_numpys_forward_and_backward(hybridize):
    class Rounded(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, data):
            return StockOps("float16_emulated")._rounded(F, data)

    block = Rounded()
    block.hybridize(active=hybridize)
    many = np.random.RandomState(0).randn(20000) * 10.0 ** np.random.RandomState(1).randint(-9, 6, 20000)
    values = np.concatenate([VALUES, many.astype(np.float32)])
    data = mx.nd.array(values)
    data.attach_grad()
    with mx.autograd.record():
        out = block(data)
    out.backward(mx.nd.array(values[::-1]))
    np.testing.assert_array_equal(out.asnumpy(), rounded(values))
    np.testing.assert_array_equal(data.grad.asnumpy(), rounded(values[::-1]))
    assert np.isinf(rounded(values)).sum() >= 6, "some must overflow"
    assert ((rounded(values) == 0) & (values != 0)).sum() >= 3, "some must vanish"


def test_float32_is_left_alone():
    data = mx.nd.array(VALUES)
    assert StockOps("float32")._rounded(mx.nd, data) is data


def test_emulated_numbers_are_float16s():
    """Whatever lies between operators, and every gradient, has a float16 of the same value."""
    net = make_net(StockOps("float16_emulated"))
    hidden, states = net.hidden_states(mx.nd, tokens_of((2, 9)))
    logits, _ = net(tokens_of((2, 9)))
    _, gradients = loss_and_gradients(net, tokens_of((2, 10)), loss_scale=1024.0)
    del gradients["_embed.weight"]  # the sum of two gradients, which are float16s
    for array in [hidden.asnumpy(), logits.asnumpy(), *(s.asnumpy() for s in states), *gradients.values()]:
        np.testing.assert_array_equal(array, rounded(array))
        assert np.abs(array).max() > 0


def test_emulation_is_near_float32_and_not_it():
    tokens = tokens_of((3, 17))
    exact_loss, exact = loss_and_gradients(make_net(), tokens)
    half_loss, half = loss_and_gradients(make_net(StockOps("float16_emulated")), tokens, loss_scale=1024.0)
    assert 0 < np.abs(half_loss - exact_loss).max() < 0.02
    for name, gradient in exact.items():
        error = np.abs(half[name] / 1024.0 - gradient).max() / np.abs(gradient).max()
        assert 0 < error < 0.02, (name, error)


def test_emulated_gradients_overflow_and_vanish():
    """A loss scale is needed: if it is too large gradients are infinite, if it is too small they vanish."""
    net, tokens = make_net(StockOps("float16_emulated")), tokens_of((2, 17))
    losses, fitting = loss_and_gradients(net, tokens, loss_scale=256.0)
    assert all(np.isfinite(gradient).all() for gradient in fitting.values())
    same_losses, too_large = loss_and_gradients(net, tokens, loss_scale=2.0**30)
    assert not any(np.isfinite(gradient).all() for gradient in too_large.values())
    _, too_small = loss_and_gradients(net, tokens, loss_scale=2.0**-30)
    assert not any(gradient.any() for gradient in too_small.values())
    np.testing.assert_array_equal(losses, same_losses)
    assert np.isfinite(losses).all(), "the loss itself is float32 and unscaled"


def test_emulated_activations_overflow():
    net = make_net(StockOps("float16_emulated"))
    weight = structural_parameters(net)["_ffn_layers.0._hidden_map.bias"]
    weight.set_data(mx.nd.full(weight.shape, 7e4))  # 65,504 is the largest
    assert not np.isfinite(net(tokens_of((1, 4)))[0].asnumpy()).all()
    exact = make_net()
    structural_parameters(exact)["_ffn_layers.0._hidden_map.bias"].set_data(mx.nd.full(weight.shape, 7e4))
    assert np.isfinite(exact(tokens_of((1, 4)))[0].asnumpy()).all()


def test_emulation_with_states_and_dropout():
    ops = StockOps("float16_emulated", dropout=0.3)
    net = make_net(ops, dropout=0.3)
    tokens = tokens_of((2, 8))
    whole, _ = net(tokens)
    _, states = net(tokens[:, :5])
    rest, _ = net(tokens[:, 5:], states)
    np.testing.assert_allclose(rest.asnumpy(), whole.asnumpy()[:, 5:], atol=0.02)
    runs = []
    for seed in (1, 1, 2):
        mx.random.seed(seed)
        runs.append(loss_and_gradients(net, tokens)[0])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-3


# ---- the block that is traced again ---------------------------------------------------------------------------------


class RequestOps(StockOps):
    """Notes the `grad_req` of a layer at each tracing, as a fused operator bakes it into the graph."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def layer_norm(self, F, data, layer):
        if F is mx.sym:
            self.seen.append(layer.gamma.grad_req)
        return super().layer_norm(F, data, layer)


@pytest.mark.parametrize("whole", [True, False], ids=["loss", "net"])
def test_a_changed_grad_req_is_traced_anew(whole):
    ops = RequestOps()
    net = make_net(ops)
    block = LanguageModelLoss(net) if whole else net
    block.hybridize()
    per_trace = 2 * SIZES["num_layers"] + 1
    tokens = tokens_of((2, 6))
    block(tokens), block(tokens)
    assert ops.seen == ["write"] * per_trace, "traced once"
    for grad_req in ("add", "null", "write"):
        ops.seen.clear()
        net.collect_params().setattr("grad_req", grad_req)
        block(tokens), block(tokens)
        assert ops.seen == [grad_req] * per_trace
    ops.seen.clear()
    structural_parameters(net)["_final_ln.beta"].grad_req = "null"  # one of them is enough
    block(tokens)
    assert len(ops.seen) == per_trace


def test_a_changed_dtype_is_traced_anew():
    class Converted(RetracedBlock):
        def __init__(self):
            super().__init__()
            self.layer = mx.gluon.nn.Dense(2, in_units=2, use_bias=False)

        def hybrid_forward(self, F, data):
            weight = self.layer.weight
            return F.FullyConnected(F.cast(data, weight.dtype), value(F, weight), num_hidden=2, no_bias=True)

    block = Converted()
    block.initialize()
    block.hybridize()
    data = mx.nd.ones((1, 2))
    assert block(data).dtype == np.float32
    block.layer.cast("float64")  # of the inner block: the outer one gets no notice
    assert block(data).dtype == np.float64


@pytest.mark.parametrize("hybridize", [False, True])
def test_accumulated_gradients_after_a_change(hybridize):
    """Written once, then added to: the sum of both, whichever the graph was traced for first."""
    first, second = tokens_of((2, 9), 1), tokens_of((2, 9), 2)
    net = make_net()
    loss_block = loss_block_of(net, hybridize)
    alone = []
    for tokens in (first, second):
        backward(loss_block, tokens)
        alone.append(gradients_of(net))
    net.collect_params().setattr("grad_req", "add")
    net.collect_params().zero_grad()
    backward(loss_block, first)
    backward(loss_block, second)
    for name, total in gradients_of(net).items():
        np.testing.assert_allclose(total, alone[0][name] + alone[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hybridize", [False, True])
def test_biases_learn_where_weights_are_frozen(hybridize):
    """BitFit does this (Ben Zaken et al., 2022). MXNet's FullyConnected alone leaves these gradients 0 on a CPU."""
    net, tokens = make_net(), tokens_of((2, 9))
    _, expected = loss_and_gradients(net, tokens, hybridize=hybridize)
    loss_block = loss_block_of(net, hybridize)
    backward(loss_block, tokens_of((2, 9), seed=5))  # so that a gradient which is not written shows
    for name, parameter in structural_parameters(net).items():
        parameter.grad_req = "write" if name.endswith(".bias") else "null"
    backward(loss_block, tokens)
    gradients = gradients_of(net)
    assert set(gradients) == {name for name in expected if name.endswith(".bias")}
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-6)
