"""Heads of tasks: gradients, padding, and the same numbers as transformers' classes."""

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import structural_parameters
from kogpt2_gluon.model.heads import HeadSizes, MicroBatch, TaskLoss, build_task_model
from kogpt2_gluon.ops.choose import choose_ops
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import HEADS
from tests.ops.ops_helpers import PRECISIONS

MODEL = ModelRecipe(units=32, num_layers=2, num_heads=4, max_length=24, vocab_size=50, dropout=0.0)
KINDS = {
    "class": HeadSizes(3, 0),
    "number": HeadSizes(1, 0, is_number=True),
    "tags": HeadSizes(0, 5),
    "both": HeadSizes(3, 5),
}


def make_block(heads, ops="stock", precision="float32", seed=0):
    mx.random.seed(seed)
    np.random.seed(seed)
    net = build_task_model(MODEL, heads, choose_ops(ops, precision, mx.cpu(), 0.0, "gelu"))
    net.initialize(mx.init.Normal(0.1))
    block = TaskLoss(net)
    block.hybridize(static_alloc=True)
    return block


def make_batch(lengths, length, seed=3, shift=0):
    draw = np.random.RandomState(seed)
    rows = len(lengths)
    tokens = draw.randint(1, 50, (rows, length)).astype(np.int32)
    tags = draw.randint(0, 5, (rows, length)).astype(np.float32)
    for row, end in enumerate(lengths):
        tags[row, end:] = -1
        tokens[row, end:] = shift  # what fills up
    answers = draw.randint(0, 3, rows).astype(np.float32)
    arrays = tokens, np.array(lengths, np.float32) - 1, answers, tags
    return MicroBatch(*(mx.nd.array(array, dtype=array.dtype) for array in arrays))


def gradients(block, batch, passes=1):
    parameters = structural_parameters(block.net)
    for parameter in parameters.values():
        parameter.grad_req = "add" if passes > 1 else "write"
        parameter.zero_grad()
    for _ in range(passes):
        with mx.autograd.record():
            loss = block(batch).mean()
        loss.backward()
        block.complete_gradients()
    return loss.asscalar(), {name: parameter.grad().asnumpy() for name, parameter in parameters.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_fused_operators_give_the_gradients_of_mxnets_own(kind, precision):
    batch = make_batch([9, 4, 12], 12)
    tolerance = 2e-5 if precision == "float32" else 3e-2
    stock, fused = make_block(KINDS[kind]), make_block(KINDS[kind], "fused", precision)
    for passes in (1, 2, 1):  # the network is traced again for gradients that add up, and back
        (loss, wanted), (found_loss, found) = (gradients(block, batch, passes) for block in (stock, fused))
        assert abs(loss - found_loss) < tolerance
        for name, gradient in wanted.items():
            assert np.abs(gradient - found[name]).max() <= tolerance * max(1e-3, np.abs(gradient).max()), (name, passes)
    assert np.abs(wanted["_embed.weight"]).max() > 0


@pytest.mark.parametrize("ops", ["stock", "fused"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, ops):
    block = make_block(KINDS[kind], ops)
    short, long = make_batch([5, 3], 5), make_batch([5, 3], 16, shift=7)
    for place in ("tokens", "tags"):
        padded = getattr(long, place).asnumpy()
        padded[:, :5] = getattr(short, place).asnumpy()
        padded[1, 3:] = 7 if place == "tokens" else -1
        getattr(long, place)[:] = padded
    long = long._replace(answers=short.answers)
    (loss, wanted), (found_loss, found) = gradients(block, short), gradients(block, long)
    assert found_loss == pytest.approx(loss, abs=1e-6)
    for name, gradient in wanted.items():
        assert np.allclose(gradient, found[name], atol=1e-6), name


def test_only_the_head_is_new():
    block = make_block(KINDS["both"])
    names = set(structural_parameters(block.net))
    assert names >= set(HEADS)
    from kogpt2_gluon.model.gpt2 import build_model

    assert names - set(HEADS) == set(structural_parameters(build_model(MODEL)))


@pytest.mark.parametrize("kind", ["class", "number", "tags"])
def test_the_same_as_in_transformers(kind, transformers):
    """Losses and answers of the class for the same head, with the same weights."""
    import torch

    from kogpt2_gluon.convert.names import to_transformers

    heads = KINDS[kind]
    block, batch = make_block(heads), make_batch([9, 4, 12], 12)
    arrays = {name: parameter.data().asnumpy() for name, parameter in structural_parameters(block.net).items()}
    config = transformers.GPT2Config(
        vocab_size=50,
        n_positions=24,
        n_embd=32,
        n_layer=2,
        n_head=4,
        activation_function="gelu",
        pad_token_id=0,
        num_labels=heads.answers or heads.tags,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        hidden_dropout=0,
    )
    theirs = transformers.GPT2ForTokenClassification if kind == "tags" else transformers.GPT2ForSequenceClassification
    peer = theirs(config).eval()
    body = {name: array for name, array in arrays.items() if name not in HEADS}
    body["_logits_proj.weight"] = body["_embed.weight"]
    state = {name: torch.from_numpy(np.array(array)) for name, array in to_transformers(body, MODEL, "here").items()}
    state.pop("lm_head.weight", None)
    if kind == "tags":
        state["classifier.weight"], state["classifier.bias"] = (torch.from_numpy(arrays[name]) for name in HEADS[1:])
    else:
        state["score.weight"] = torch.from_numpy(arrays[HEADS[0]])
    missing, unexpected = peer.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith((".attn.bias", ".attn.masked_bias")) for name in missing)
    tokens, tags = torch.from_numpy(batch.tokens.asnumpy()).long(), torch.from_numpy(batch.tags.asnumpy()).long()
    mask = torch.from_numpy((np.arange(12) <= batch.last.asnumpy()[:, None]).astype(np.int64))
    with torch.no_grad():
        logits = peer(input_ids=tokens, attention_mask=mask).logits.numpy()
    losses, outputs = (each.asnumpy() for each in block.with_answers(batch))
    if kind == "tags":
        there = mask.numpy().astype(bool)
        assert np.allclose(outputs[there], logits[there], atol=1e-5)
        per_token = torch.nn.functional.cross_entropy(
            torch.from_numpy(logits).transpose(1, 2), tags.masked_fill(tags < 0, -100), reduction="none"
        ).numpy()
        assert np.allclose(losses, per_token.sum(1) / there.sum(1), atol=1e-5)
    else:
        assert np.allclose(outputs, logits, atol=1e-5)
