"""The network over the fused CUDA operators, with no GPU: its graph, and its numbers by kernels that run on the host.

g++ compiles the operators with cuda_on_host/ in place of CUDA, registered for the CPU. So the sources are those of a
GPU, and what is not tested is the GPU: speed, and float16 products, which MXNet has on GPUs only.
"""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import build_model, structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.model.recompute import RecomputedLoss
from kogpt2_gluon.ops.fused_cuda import FusedCudaOps
from kogpt2_gluon.recipe import find_recipe, load_recipe
from tests.model.model_helpers import (
    HEADS,
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

RECIPES = sorted(path.stem for path in find_recipe("demo").parent.glob("*.yaml"))


pytest_plugins = ["tests.ops.cuda_kernel_fixtures"]


@pytest.fixture(scope="module", autouse=True)
def operators_on_the_host(host_library):
    mx.library.load(str(host_library), verbose=False)


def fused_net(dropout: float = 0.0, **changes):
    return make_net(FusedCudaOps("float32", dropout), dropout=dropout, **changes)


# ---- the graph ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_types_and_shapes_of_the_graph(name, precision):
    model = load_recipe(name).model
    net = build_model(model, FusedCudaOps(precision, model.dropout))
    net.cast(precision)
    tokens = mx.sym.var("tokens", dtype="int32")
    hidden, states = net.hidden_states(mx.sym, tokens)
    outputs = mx.sym.Group([LanguageModelLoss(net)(tokens), hidden, net(tokens)[0], *states])
    arguments, types, _ = outputs.infer_type(tokens="int32")
    assert [np.dtype(each) for each in types] == [np.float32] + [np.dtype(precision)] * (2 + 2 * model.num_layers)
    assert {np.dtype(each) for each in arguments} == {np.dtype("int32"), np.dtype(precision)}
    _, shapes, _ = outputs.infer_shape(tokens=(2, 9))
    head_size = model.units // model.num_heads
    assert shapes[:3] == [(2, 8), (2, 9, model.units), (2, 9, model.vocab_size)]
    assert set(shapes[3:]) == {(2, model.num_heads, 9, head_size)}


def test_no_array_has_eight_readers():
    """But the seed, which takes no gradient."""
    assert many_readers(fused_net(dropout=0.1, num_layers=12)) == {"BlockGrad": 4 * 12}


# ---- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2), (2, 18), (1, 41)], ids=str)
@pytest.mark.parametrize("sizes", HEADS.values(), ids=HEADS)
def test_loss_and_all_gradients(sizes, shape):
    tokens = tokens_of(shape)
    theirs = loss_and_gradients(make_net(**sizes), tokens)
    for hybridize in (False, True):
        assert_same(loss_and_gradients(fused_net(**sizes), tokens, hybridize=hybridize), theirs)


def test_logits_and_states():
    tokens = tokens_of((2, 20))
    stock, fused = make_net(), fused_net()
    states = their_states = None
    for start, stop in ((0, 7), (7, 8), (8, 20)):
        logits, states = fused(tokens[:, start:stop], states)
        their_logits, their_states = stock(tokens[:, start:stop], their_states)
        for ours, theirs in zip([logits, *states], [their_logits, *their_states]):
            assert relative(ours.asnumpy(), theirs.asnumpy()) < TOLERANCE


def test_gradients_add_up_and_frozen_parameters_have_none():
    frozen = ["_embed.weight", "_ffn_layers.0._out_map.bias", "_final_ln.gamma"]
    results = []
    for net in (fused_net(), make_net()):
        loss_block = loss_block_of(net)
        backward(loss_block, tokens_of((2, 12), seed=8))
        net.collect_params().setattr("grad_req", "add")
        net.collect_params().zero_grad()
        for name in frozen:
            structural_parameters(net)[name].grad_req = "null"
        backward(loss_block, tokens_of((2, 12), seed=1))
        results.append((backward(loss_block, tokens_of((2, 12), seed=2)), gradients_of(net)))
    assert set(frozen).isdisjoint(results[0][1])
    assert_same(*results)


def test_dropout():
    """In training only, from the seed; gradients are those of the masks drawn forward, as differences show."""
    net, tokens = fused_net(dropout=0.3), tokens_of((2, 12))
    loss_block = loss_block_of(net)
    plain = loss_block_of(fused_net())(tokens).asnumpy()
    np.testing.assert_array_equal(loss_block(tokens).asnumpy(), plain)

    def losses(seed: int = 7) -> np.ndarray:
        mx.random.seed(seed)
        return backward(loss_block, tokens).astype(np.float64)

    np.testing.assert_array_equal(losses(), losses())
    assert np.abs(losses() - losses(8)).max() > 1e-2
    assert np.abs(losses() - plain).max() > 1e-2
    losses()
    gradients = gradients_of(net)
    length = np.sqrt(sum(float((gradient.astype(np.float64) ** 2).sum()) for gradient in gradients.values()))
    before = {name: parameter.data().copy() for name, parameter in structural_parameters(net).items()}
    means = []
    for step in (1e-3, -1e-3):
        for name, parameter in structural_parameters(net).items():
            parameter.set_data(before[name] + step / length * mx.nd.array(gradients[name]))
        means.append(losses().mean())
    assert abs((means[0] - means[1]) / 2e-3 / length - 1) < 0.02


def test_recomputed_layers_have_the_same_bits():
    """The seed is kept, and so the masks are the same. MXNet's own dropout, on the embedding, is not computed again."""
    results = []
    for kind in (LanguageModelLoss, RecomputedLoss):
        net = fused_net(dropout=0.3)
        loss_block = kind(net)
        loss_block.hybridize(static_alloc=True, static_shape=True)
        mx.random.seed(3)
        with mx.autograd.record():
            losses = loss_block(tokens_of((2, 18)))
        losses.backward()
        loss_block.complete_gradients()
        results.append([losses.asnumpy(), *gradients_of(net).values()])
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)
