"""The loss of distillation and all its gradients, against transformers' GPT-2 and PyTorch's kl_div and mse_loss."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.convert.names import parameters_of, to_transformers
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.distillation import DistillationLoss, Teacher, Terms, projection
from kogpt2_gluon.model.gpt2 import named_parameters
from kogpt2_gluon.ops.stock import StockOps
from kogpt2_gluon.recipe_sections import ModelRecipe
from tests.model.model_helpers import SIZES, gradients_of, loss_block_of, make_net, tokens_of

WIDE = {**SIZES, "units": 60, "num_layers": 3}
SAME_WIDTH = {**SIZES, "num_layers": 3}
OPERATORS = ["stock", "fused"]
TERMS = [
    Terms(1.0, 0.5),
    Terms(2.5, 0.7),
    Terms(2.0, 1.0, 0.3),  # no cross-entropy
    Terms(3.0, 0.0, 0.5),  # hidden states alone
]


def make_ops(name):
    if name == "stock":
        return StockOps()
    from kogpt2_gluon.ops.build import OperatorsUnavailable, load_cpu_operators
    from kogpt2_gluon.ops.fused_cpu import FusedCpuOps

    try:
        load_cpu_operators()
    except OperatorsUnavailable as error:
        pytest.skip(str(error))
    return FusedCpuOps()


def arrays_of(net):
    return {name: each.data().asnumpy() for name, each in named_parameters(net).items()}


def make_block(ops, terms, sizes=WIDE):
    """A student, its teacher's arrays, and the block of both."""
    net, theirs = make_net(ops), arrays_of(make_net(**sizes))
    teacher = Teacher(ModelRecipe(**sizes, dropout=0.5), theirs, net.ops, mx.cpu(), "the teacher")
    block = DistillationLoss(net, teacher, terms, seed=7)
    block.hybridize(static_alloc=True, static_shape=True)
    return net, theirs, block


def run(block, tokens):
    with mx.autograd.record():
        losses = block(tokens)
        loss = losses.mean()
    loss.backward()
    block.complete_gradients()
    return losses.asnumpy()


def in_torch(arrays, sizes):
    """transformers' GPT-2 with these weights, without dropout."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=sizes["vocab_size"],
        n_positions=sizes["max_length"],
        n_embd=sizes["units"],
        n_layer=sizes["num_layers"],
        n_head=sizes["num_heads"],
        activation_function="gelu",
        attn_implementation="eager",
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    renamed = to_transformers(arrays, ModelRecipe(**sizes), "here")
    state = {name: torch.tensor(np.array(renamed[name])) for name in renamed}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    model.tie_weights()
    return model


def torch_loss(student, teacher, tokens, terms):
    """Cross-entropy and loss of each label, by PyTorch's own functions."""
    import torch
    from torch.nn import functional

    inputs, labels = torch.tensor(tokens[:, :-1]), torch.tensor(tokens[:, 1:])
    with torch.no_grad():
        theirs = teacher(inputs, output_hidden_states=True)
    ours = student(inputs, output_hidden_states=True)
    cross_entropy = functional.cross_entropy(ours.logits.flatten(0, 1), labels.flatten(), reduction="none")
    divergence = functional.kl_div(
        functional.log_softmax(ours.logits / terms.temperature, -1),
        functional.log_softmax(theirs.logits / terms.temperature, -1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    target, hidden = theirs.hidden_states[-1], ours.hidden_states[-1]
    if target.shape[-1] != hidden.shape[-1]:
        target = target @ torch.tensor(projection(hidden.shape[-1], target.shape[-1], 7)).T
    squares = functional.mse_loss(hidden, target, reduction="none").mean(-1)
    cross_entropy = cross_entropy.reshape(labels.shape)
    loss = (1 - terms.weight) * cross_entropy + terms.weight * terms.temperature**2 * divergence
    return cross_entropy, loss + terms.hidden_weight * squares


@pytest.mark.parametrize("terms", TERMS, ids=str)
@pytest.mark.parametrize("sizes", [WIDE, SAME_WIDTH], ids=["wider teacher", "same width"])
@pytest.mark.parametrize("ops", OPERATORS)
def test_losses_and_all_gradients_are_those_of_pytorch(ops, sizes, terms):
    tokens = tokens_of((2, 18))
    net, theirs, block = make_block(make_ops(ops), terms, sizes)
    first = run(block, tokens)
    assert (run(block, tokens) == first).all()  # the second pass is that of a graph with memory of its own
    student, teacher = in_torch(arrays_of(net), SIZES), in_torch(theirs, sizes)
    cross_entropy, loss = torch_loss(student, teacher, tokens.asnumpy().astype(np.int64), terms)
    loss.mean().backward()
    np.testing.assert_allclose(first[0], cross_entropy.detach().numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(first[1], 2 * loss.detach().numpy(), rtol=1e-5, atol=1e-5)
    gradients = gradients_of(net)
    named = dict(student.named_parameters())
    for each in parameters_of(ModelRecipe(**SIZES)):
        expected = named[each.in_transformers].grad.numpy()
        expected = expected.T if each.transposed else expected
        limit = 1e-5 * max(1.0, np.abs(expected).max())
        assert np.abs(gradients[each.name] - expected).max() < limit, each.name


@pytest.mark.parametrize("ops", OPERATORS)
def test_a_pass_that_is_not_recorded_is_the_language_models_and_changes_nothing(ops):
    tokens, others = tokens_of((2, 18)), tokens_of((3, 12), seed=5)
    net, _, block = make_block(make_ops(ops), Terms(2.0, 0.6, 0.2))
    before = run(block, tokens), gradients_of(net)
    expected = loss_block_of(net)(others).asnumpy()
    np.testing.assert_allclose(block(others).asnumpy(), expected, rtol=1e-5)
    assert block(others).shape == (3, 11)
    after = run(block, tokens), gradients_of(net)
    assert (before[0] == after[0]).all()
    assert all((before[1][name] == after[1][name]).all() for name in before[1])


@pytest.mark.parametrize("ops", OPERATORS)
def test_gradients_of_micro_steps_add_up(ops):
    net, _, block = make_block(make_ops(ops), Terms(2.0, 0.6, 0.2))
    tokens = [tokens_of((2, 18)), tokens_of((2, 18), seed=5)]
    apart = []
    for each in tokens:
        run(block, each)
        apart.append(gradients_of(net))
    for parameter in net.collect_params().values():
        parameter.grad_req = "add"
        parameter.zero_grad()
    for each in tokens:
        run(block, each)
    together = gradients_of(net)
    for name, found in together.items():
        np.testing.assert_allclose(found, apart[0][name] + apart[1][name], atol=1e-6, rtol=1e-4)


def test_a_teacher_that_is_the_student_has_no_divergence():
    tokens = tokens_of((2, 18))
    net = make_net()
    teacher = Teacher(ModelRecipe(**SIZES, dropout=0.5), arrays_of(net), net.ops, mx.cpu(), "itself")
    block = DistillationLoss(net, teacher, Terms(2.0, 1.0, 1.0))
    losses = run(block, tokens)
    assert np.abs(losses[1]).max() < 1e-5 < losses[0].min()
    assert max(np.abs(each).max() for each in gradients_of(net).values()) < 1e-5


def test_the_projection_nearly_keeps_squares_and_is_always_the_same():
    matrix = projection(256, 768, seed=3)
    assert (matrix == projection(256, 768, seed=3)).all() and matrix.dtype == np.float32
    vectors = np.random.RandomState(0).randn(50, 768)
    kept = ((vectors @ matrix.T) ** 2).mean(axis=1) / (vectors**2).mean(axis=1)
    assert kept.min() > 0.7 and kept.max() < 1.3
