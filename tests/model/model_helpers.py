"""Small networks with the same weights over any operator set, their losses and their gradients."""

from __future__ import annotations

import json

import numpy as np

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss

TOLERANCE = 1e-5  # of the largest value
SHAPES = [(1, 2), (2, 18), (3, 17), (1, 41), (4, 8)]  # of tokens: one more than the length that is computed
HEADS = {"16 wide": {}, "7 wide": {"units": 21, "num_heads": 3}, "5 wide": {"units": 20, "num_heads": 4}}
SIZES = {"units": 48, "vocab_size": 101, "max_length": 40, "num_layers": 2, "num_heads": 3}


def tokens_of(shape: tuple[int, int], seed: int = 0):
    return mx.nd.array(np.random.RandomState(seed).randint(0, SIZES["vocab_size"], shape), dtype="int32")


def make_net(ops=None, **changes) -> GPT2Model:
    """A network whose random weights are larger than the initial ones, so that every part of it matters."""
    net = GPT2Model(**{**SIZES, **changes}, ops=ops)
    net.initialize()
    random = np.random.RandomState(3)
    for parameter in structural_parameters(net).values():
        offset = parameter.data().asnumpy() if len(parameter.shape) == 1 else 0
        parameter.set_data(mx.nd.array(offset + random.randn(*parameter.shape) * 0.1))
    return net


def loss_block_of(net: GPT2Model, hybridize: bool = True) -> LanguageModelLoss:
    loss_block = LanguageModelLoss(net)
    if hybridize:
        loss_block.hybridize(static_alloc=True, static_shape=True)
    return loss_block


def backward(loss_block: LanguageModelLoss, tokens, loss_scale: float = 1.0) -> np.ndarray:
    """The loss of every token; gradients are those of their scaled mean."""
    with mx.autograd.record():
        losses = loss_block(tokens)
        loss = losses.mean() * loss_scale
    loss.backward()
    return losses.asnumpy()


def gradients_of(net: GPT2Model) -> dict[str, np.ndarray]:
    parameters = structural_parameters(net)
    return {name: p.grad().asnumpy() for name, p in parameters.items() if p.grad_req != "null"}


def loss_and_gradients(net: GPT2Model, tokens, loss_scale: float = 1.0, hybridize: bool = True):
    losses = backward(loss_block_of(net, hybridize), tokens, loss_scale)
    return losses, gradients_of(net)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, as a share of the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def assert_same(ours, theirs, tolerance: float = TOLERANCE) -> None:
    """Losses and gradients, each relative to its own largest value."""
    assert relative(ours[0], theirs[0]) < tolerance
    assert ours[1].keys() == theirs[1].keys()
    errors = {name: relative(gradient, theirs[1][name]) for name, gradient in ours[1].items()}
    assert max(errors.values()) < tolerance, errors


def many_readers(net: GPT2Model) -> dict[str, int]:
    """{operator: fused readers} of the arrays with 8 or more readers among the fused operators of the loss's graph.

    From 8 gradients of one array on MXNet has operators add them up in place, which those of a library do not do.
    """
    nodes = json.loads(loss_block_of(net)(mx.sym.var("tokens", dtype="int32")).tojson())["nodes"]
    readers: dict[tuple, int] = {}
    for node in nodes:
        if node["op"].startswith("kogpt2_"):
            for source in {tuple(entry[:2]) for entry in node["inputs"]}:
                readers[source] = readers.get(source, 0) + 1
    return {nodes[source[0]]["op"]: count for source, count in readers.items() if count >= 8}
