"""The whole network over the fused CPU operators against the same over MXNet's own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import structural_parameters
from kogpt2_gluon.ops.build import OperatorsUnavailable, load_cpu_operators
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from kogpt2_gluon.ops.stock import StockOps
from tests.model.model_helpers import (
    HEADS,
    SHAPES,
    SIZES,
    TOLERANCE,
    assert_same,
    backward,
    gradients_of,
    loss_and_gradients,
    loss_block_of,
    make_net,
    many_readers,
    relative,
    tokens_of,
)


@pytest.fixture(scope="module", autouse=True)
def fused_operators():
    try:
        load_cpu_operators()
    except OperatorsUnavailable as error:
        pytest.skip(str(error))


def fused_net(precision: str = "float32", dropout: float = 0.0, **changes):
    return make_net(FusedCpuOps(precision, dropout), dropout=dropout, **changes)


# ---- the same numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sizes", HEADS.values(), ids=HEADS)
def test_loss_and_all_gradients(sizes, shape):
    tokens = tokens_of(shape)
    theirs = loss_and_gradients(make_net(**sizes), tokens)
    for hybridize in (False, True):
        assert_same(loss_and_gradients(fused_net(**sizes), tokens, hybridize=hybridize), theirs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_tanh_form_of_gelu(precision):
    tokens = tokens_of((2, 18))
    erf, tanh = (
        loss_and_gradients(make_net(FusedCpuOps(precision, activation=form)), tokens) for form in ("gelu", "gelu_tanh")
    )
    stock = loss_and_gradients(make_net(StockOps(activation="gelu_tanh")), tokens)
    if precision == "float32":
        assert_same(tanh, stock)
    else:
        assert abs(float(tanh[0].mean()) / float(stock[0].mean()) - 1) < 1e-3
    assert np.abs(tanh[0] - erf[0]).max() > 0  # the forms differ, if only a little


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_that_were_not_wanted_for_a_while_are_written_again(fused):
    """They have new arrays then, although no pass was made meanwhile: a graph that kept the old ones left zeros."""
    net, tokens = make_net(FusedCpuOps() if fused else StockOps()), tokens_of((2, 18))
    loss_block = loss_block_of(net)
    before = backward(loss_block, tokens), gradients_of(net)
    for request in ("null", "write"):
        net.collect_params().setattr("grad_req", request)
    after = backward(loss_block, tokens), gradients_of(net)
    assert_same(after, before, 1e-12)


def test_one_network_takes_shapes_in_turn():
    net = fused_net()
    loss_block = loss_block_of(net)
    for shape in [(2, 18), (1, 2), (2, 18)]:
        ours = backward(loss_block, tokens_of(shape)), gradients_of(net)
        assert_same(ours, loss_and_gradients(make_net(), tokens_of(shape)))


def test_float_ids_are_ids():
    tokens = tokens_of((2, 18))
    assert_same(
        loss_and_gradients(fused_net(), tokens.astype("float32")), loss_and_gradients(fused_net(), tokens), 1e-12
    )


@pytest.mark.parametrize("sizes", HEADS.values(), ids=HEADS)
def test_logits_and_states(sizes):
    """A prompt, then parts of any length with the states of what came before."""
    tokens = tokens_of((2, 30))
    stock, fused = make_net(**sizes), fused_net(**sizes)
    states = their_states = None
    for start, stop in ((0, 7), (7, 8), (8, 25), (25, 26), (26, 30)):
        logits, states = fused(tokens[:, start:stop], states)
        their_logits, their_states = stock(tokens[:, start:stop], their_states)
        assert relative(logits.asnumpy(), their_logits.asnumpy()) < TOLERANCE
        assert len(states) == len(their_states) == 2 * SIZES["num_layers"]
        for ours, theirs in zip(states, their_states):
            assert relative(ours.asnumpy(), theirs.asnumpy()) < TOLERANCE


@pytest.mark.parametrize("with_states", [False, True])
def test_hybridized_network_without_a_loss(with_states):
    tokens = tokens_of((2, 12))
    stock, fused = make_net(), fused_net()
    states = stock(tokens[:, :5])[1] if with_states else None
    fused.hybridize(static_alloc=True, static_shape=True)
    for _ in range(2):
        logits, _ = fused(tokens[:, 5:], states)
        assert relative(logits.asnumpy(), stock(tokens[:, 5:], states)[0].asnumpy()) < TOLERANCE


def test_decoding_shares_parameters_and_operators():
    net = fused_net()
    decoder = net.for_decoding()
    assert decoder.ops is net.ops
    structural_parameters(net)["_final_ln.beta"].set_data(mx.nd.ones(SIZES["units"]))
    np.testing.assert_array_equal(decoder(tokens_of((1, 5)))[0].asnumpy(), net(tokens_of((1, 5)))[0].asnumpy())


# ---- what is wanted of the gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
@pytest.mark.parametrize("written_first", [False, True])
def test_gradients_add_up_over_micro_steps(hybridize, written_first):
    """Also when the graph was first traced for writing them."""
    results = []
    for net in (fused_net(), make_net()):
        loss_block = loss_block_of(net, hybridize)
        if written_first:
            backward(loss_block, tokens_of((2, 12), seed=8))
        net.collect_params().setattr("grad_req", "add")
        net.collect_params().zero_grad()
        backward(loss_block, tokens_of((2, 12), seed=1))
        losses = backward(loss_block, tokens_of((2, 12), seed=2))
        results.append((losses, gradients_of(net)))
    assert_same(*results)
    net = make_net()
    alone = [loss_and_gradients(net, tokens_of((2, 12), seed=seed))[1] for seed in (1, 2)]
    sums = {name: alone[0][name] + alone[1][name] for name in alone[0]}
    assert_same(results[0], (results[1][0], sums))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after tracing"])
@pytest.mark.parametrize(
    "frozen",
    [
        ["_embed.weight"],
        ["_pos_embed.weight", "_final_ln.gamma"],
        ["_self_attention_layers.0._multi_head_qkv_proj.weight", "_self_attention_layers.1._out_proj.bias"],
        ["_ffn_layers.0._hidden_map.weight", "_ffn_layers.0._hidden_map.bias", "_ffn_layers.1._out_map.weight"],
        ["_attn_ln.0.gamma", "_ffn_ln.1.beta"],
    ],
    ids=lambda names: names[0],
)
def test_frozen_parameters(frozen, after):
    results = []
    for net in (fused_net(), make_net()):
        loss_block = loss_block_of(net)
        parameters = structural_parameters(net)
        if after:
            backward(loss_block, tokens_of((2, 12), seed=8))
        for name in frozen:
            parameters[name].grad_req = "null"
        results.append((backward(loss_block, tokens_of((2, 12))), gradients_of(net)))
    assert set(frozen).isdisjoint(results[0][1])
    assert_same(*results)


def test_no_array_has_eight_readers():
    """But the seed, which takes no gradient."""
    assert many_readers(fused_net(dropout=0.1, num_layers=12)) == {"BlockGrad": 1 + 3 * 12}


# ---- bfloat16 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_bfloat16_is_near_float32(hybridize):
    """bfloat16 has 8 bits: a factor is off by up to 2**-9, 0.002 of it."""
    tokens = tokens_of((3, 34))
    losses, gradients = loss_and_gradients(fused_net("bfloat16"), tokens, hybridize=hybridize)
    their_losses, their_gradients = loss_and_gradients(make_net(), tokens, hybridize=hybridize)
    assert 1e-5 < relative(losses, their_losses) < 0.01
    assert abs(losses.mean() / their_losses.mean() - 1) < 0.002
    for name, gradient in gradients.items():
        assert 1e-5 < relative(gradient, their_gradients[name]) < 0.05, name


def test_bfloat16_with_states():
    tokens = tokens_of((2, 20))
    fused = fused_net("bfloat16")
    whole, _ = make_net()(tokens)
    _, states = fused(tokens[:, :9])
    rest, _ = fused(tokens[:, 9:], states)
    assert 1e-5 < relative(rest.asnumpy(), whole.asnumpy()[:, 9:]) < 0.03


# ---- dropout --------------------------------------------------------------------------------------------------------

DROPOUT = 0.3


def losses_with_dropout(net, copies: int, seed: int) -> np.ndarray:
    """Token losses (copies, length) of one sequence: every copy has masks of its own."""
    tokens = mx.nd.tile(tokens_of((1, 12)), (copies, 1))
    mx.random.seed(seed)
    with mx.autograd.train_mode():
        return loss_block_of(net)(tokens).asnumpy()


def test_dropout_has_the_statistics_of_mxnets():
    """Mean and spread of each token's loss over 2,000 masks."""
    copies = 1000
    ours, theirs = (
        np.concatenate([losses_with_dropout(net, copies, seed) for seed in (1, 2)]).astype(np.float64)
        for net in (fused_net(dropout=DROPOUT), make_net(dropout=DROPOUT))
    )
    standard_error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / (2 * copies))
    assert np.abs((ours.mean(axis=0) - theirs.mean(axis=0)) / standard_error).max() < 4
    assert np.abs(ours.std(axis=0) / theirs.std(axis=0) - 1).max() < 0.15
    assert (ours.std(axis=0) > 0.1).all()


def test_every_dropout_has_masks_of_its_own():
    loss = loss_block_of(fused_net(dropout=DROPOUT))(mx.sym.var("tokens", dtype="int32"))
    sites = [node["attrs"]["site"] for node in json.loads(loss.tojson())["nodes"] if "site" in node.get("attrs", {})]
    assert len(sites) == len(set(sites)) == 1 + 3 * SIZES["num_layers"]


def test_little_dropout_is_on_average_none():
    """The mean over masks is the output without dropout, but for what the network's curvature adds, which is small."""
    plain = losses_with_dropout(fused_net(), 1, 0)
    mean = losses_with_dropout(fused_net(dropout=0.01), 4000, 5).mean(axis=0)
    assert np.abs(mean - plain).max() < 0.05


def test_dropout_repeats_from_the_seed():
    net = fused_net(dropout=DROPOUT)
    first, again, other = (losses_with_dropout(net, 8, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2
    assert len(np.unique(first[:, 0])) == 8, "every row has masks of its own"
    mx.random.seed(1)
    tokens = tokens_of((1, 12))
    loss_block = loss_block_of(net)
    calls = [backward(loss_block, tokens) for _ in range(2)]
    assert np.abs(calls[0] - calls[1]).max() > 1e-2, "a second call draws new masks"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_no_dropout_in_prediction_mode(precision, hybridize):
    tokens = tokens_of((2, 12))
    without = loss_block_of(fused_net(precision), hybridize)(tokens).asnumpy()
    loss_block = loss_block_of(fused_net(precision, dropout=DROPOUT), hybridize)
    np.testing.assert_array_equal(loss_block(tokens).asnumpy(), without)
    with mx.autograd.record():
        assert np.abs(loss_block(tokens).asnumpy() - without).max() > 1e-2
    np.testing.assert_array_equal(loss_block(tokens).asnumpy(), without)


@pytest.mark.parametrize("hybridize", [False, True], ids=["imperative", "hybridized"])
def test_gradients_are_those_of_the_masks_drawn_forward(hybridize):
    """The change of the loss along the gradient, by differences in float32, with the same masks."""
    net = fused_net(dropout=DROPOUT, num_layers=4)
    loss_block = loss_block_of(net, hybridize)
    tokens = tokens_of((4, 18))

    def mean_loss() -> float:
        mx.random.seed(7)
        return float(backward(loss_block, tokens).astype(np.float64).mean())

    mean_loss()
    gradients = gradients_of(net)
    parameters = structural_parameters(net)
    for group in ("_embed", "_pos_embed", "_self_attention", "_ffn_layers", "_attn_ln", "_final_ln"):
        names = [name for name in parameters if name.startswith(group)]
        squared = sum(float((gradients[name].astype(np.float64) ** 2).sum()) for name in names)
        before = {name: parameters[name].data().copy() for name in names}
        losses = []
        for sign in (1, -1):
            step = sign * 2e-3 / np.sqrt(squared)
            for name in names:
                parameters[name].set_data(before[name] + step * mx.nd.array(gradients[name]))
            losses.append(mean_loss())
        for name in names:
            parameters[name].set_data(before[name])
        slope = (losses[0] - losses[1]) / (2 * 2e-3) / np.sqrt(squared)
        assert abs(slope - 1) < 0.02, (group, slope)


def test_stock_and_fused_sets_have_the_same_methods():
    public = {name for name in dir(StockOps) if not name.startswith("_")}
    assert public == {name for name in dir(FusedCpuOps) if not name.startswith("_")}
