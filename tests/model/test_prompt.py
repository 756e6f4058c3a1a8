"""Prompts: the encoders against torch, the network against the plain one over vectors, and training against peft."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model.gpt2 import load_arrays
from kogpt2_gluon.model.heads import HeadSizes, MicroBatch, TaskLoss
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.model.prompt import build_network
from kogpt2_gluon.model.prompt_encoder import make_prompt
from kogpt2_gluon.model.recompute import RecomputedLoss
from kogpt2_gluon.ops.choose import choose_ops
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.training.adapted_update import AdaptedUpdate
from tests.convert.convert_helpers import make_checkpoint, varied

# At a higher rate five steps make 1e-4 of rounding, with two threads if not with one.
STEPS, RATE, LENGTH, PROMPT = 5, 0.003, 5, "_prompt.weight"
SIZES = {"units": 24, "vocab_size": 90, "max_length": 32, "num_layers": 2, "num_heads": 3, "dropout": 0.0}


def recipe_for(model: dict = SIZES, seq_length: int = 16, **adaptation):
    training = {"learning_rate": RATE, "weight_decay": 0.1, "clip_norm": 0.0, "init_from": "x", "epsilon": 1e-3}
    return parse_recipe(
        {
            "model": model,
            "data": {"seq_length": seq_length},
            "training": {**training, "optimizer": "adamw", "ops": "stock"},
            "adaptation": {"method": "prompt", "prompt_length": LENGTH, **adaptation},
        }
    )


# ---- encoders --------------------------------------------------------------------------------------------------------


def peft_encoder(encoder: str, units: int, size: int):
    """peft's own encoder, and where our numbers belong in it."""
    peft = pytest.importorskip("peft")
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        token_dim=units,
        num_transformer_submodules=1,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=size,
    )
    places = {"embedding": "embedding.weight"}
    for number in range(3 if encoder == "mlp" else 2):
        for kind in ("weight", "bias"):
            places[f"linear{number}.{kind}"] = f"mlp_head.{2 * number}.{kind}"
    if encoder == "lstm":
        for layer in range(2):
            for direction, end in (("forward", ""), ("backward", "_reverse")):
                for source, theirs in (("input", "ih"), ("hidden", "hh")):
                    for kind in ("weight", "bias"):
                        name = f"lstm_head.{kind}_{theirs}_l{layer}{end}"
                        places[f"lstm{layer}.{direction}.{source}.{kind}"] = name
    from peft.tuners.p_tuning.model import PromptEncoder

    return PromptEncoder(config), places


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
@pytest.mark.parametrize("size", [0, 7])
def test_an_encoder_and_its_gradients_are_those_of_peft(encoder, size):
    torch = pytest.importorskip("torch")
    units = 12
    prompt = make_prompt("p", mx.nd.zeros((LENGTH, units)), encoder, size, seed=3)
    theirs, places = peft_encoder(encoder, units, size or units)
    parameters = dict(theirs.named_parameters())
    assert {f"p.{part}" for part in places} == prompt.trained.keys() and set(places.values()) == parameters.keys()
    for part, name in places.items():
        assert parameters[name].shape == prompt.trained[f"p.{part}"].shape
        parameters[name].data = torch.tensor(prompt.trained[f"p.{part}"].data().asnumpy())
    out = theirs(torch.arange(LENGTH)[None])[0]
    np.testing.assert_allclose(prompt.value().asnumpy(), out.detach().numpy(), atol=1e-6)
    gradient = np.random.RandomState(1).randn(LENGTH, units).astype(np.float32)
    out.backward(torch.tensor(gradient))
    prompt.backward(mx.nd.array(gradient))
    for part, name in places.items():
        own = prompt.trained[f"p.{part}"].grad().asnumpy()
        assert np.abs(own).max() > 0
        np.testing.assert_allclose(own, parameters[name].grad.numpy(), atol=1e-5, err_msg=part)


@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_the_first_values_of_an_encoder_are_spread_as_those_of_peft(encoder):
    pytest.importorskip("torch").manual_seed(0)
    theirs, places = peft_encoder(encoder, 480, 640)  # fewer than some hundred numbers are spread by chance
    parameters = dict(theirs.named_parameters())
    prompt = make_prompt("p", mx.nd.zeros((LENGTH, 480)), encoder, 640, seed=0)
    for part, name in places.items():
        own, other = prompt.trained[f"p.{part}"].data().asnumpy(), parameters[name].detach().numpy()
        assert own.std() == pytest.approx(other.std(), rel=0.25), part
        if part != "embedding":  # which is normal, all others are uniform
            assert np.abs(own).max() == pytest.approx(np.abs(other).max(), rel=0.1), part


# ---- the network -----------------------------------------------------------------------------------------------------


def networks(ops: str, heads: HeadSizes | None = None):
    """A network with a prompt, and the same one without; both have the numbers of one seed."""
    recipe = recipe_for()
    made = choose_ops(ops, "float32", mx.cpu(), 0.0)
    prompted = build_network(recipe, made, heads)
    prompted.initialize()
    draw = np.random.RandomState(0)
    for parameter in prompted.collect_params().values():
        parameter.set_data(mx.nd.array(draw.randn(*parameter.shape) * 0.2))
    recipe.adaptation.method = "none"
    plain = build_network(recipe, made, heads)
    plain.initialize()
    for (_, own), (_, other) in zip(
        sorted((name, each) for name, each in prompted._collect_params_with_prefix().items() if name != PROMPT),
        sorted(plain._collect_params_with_prefix().items()),
    ):
        other.set_data(own.data())
    return prompted, plain


def with_the_prompt_as_tokens(plain, prompted):
    """Puts the prompt's vectors in the place of the last rows of an embedding; returns their ids."""
    first = SIZES["vocab_size"] - LENGTH
    for net in (plain, prompted):
        rows = net._embed.weight.data().asnumpy()
        rows[first:] = prompted._prompt.weight.data().asnumpy()
        net._embed.weight.set_data(mx.nd.array(rows))
    return list(range(first, SIZES["vocab_size"]))


@pytest.mark.parametrize("ops", ["stock", "fused"])
def test_a_prompt_is_what_tokens_of_its_vectors_would_be(ops):
    """Logits of one pass and after a past, and losses, are those of a plain network that reads such tokens."""
    prompted, plain = networks(ops)
    prompt = with_the_prompt_as_tokens(plain, prompted)
    assert prompted.max_length == SIZES["max_length"] - LENGTH
    tokens = np.random.RandomState(1).randint(0, 80, (3, 9))
    whole = np.concatenate([np.tile(prompt, (3, 1)), tokens], axis=1)
    expected = plain(mx.nd.array(whole, dtype="int32"))[0].asnumpy()[:, LENGTH:]
    logits, states = prompted(mx.nd.array(tokens[:, :6], dtype="int32"))
    np.testing.assert_allclose(logits.asnumpy(), expected[:, :6], atol=1e-5)
    assert states[0].shape[2] == LENGTH + 6
    logits, _ = prompted.for_decoding()(mx.nd.array(tokens[:, 6:], dtype="int32"), states)
    np.testing.assert_allclose(logits.asnumpy(), expected[:, 6:], atol=1e-5)
    losses = LanguageModelLoss(prompted)(mx.nd.array(tokens, dtype="int32")).asnumpy()
    log_softmax = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
    own = -np.take_along_axis(log_softmax[:, :-1], tokens[:, 1:, None], axis=2)[..., 0]
    np.testing.assert_allclose(losses, own, atol=1e-5)


@pytest.mark.parametrize("ops", ["stock", "fused"])
def test_the_heads_of_a_task_read_the_text_behind_the_prompt(ops):
    """Texts of several lengths, padded; and the gradients of prompt and head are those of the plain network's rows."""
    heads = HeadSizes(3, 2)
    prompted, plain = networks(ops, heads)
    prompt = with_the_prompt_as_tokens(plain, prompted)
    draw = np.random.RandomState(1)
    tokens, last = draw.randint(0, 80, (3, 7)), np.array([6, 2, 4])
    whole = np.concatenate([np.tile(prompt, (3, 1)), tokens], axis=1)
    tags = np.where(np.arange(7) <= last[:, None], draw.randint(0, 2, (3, 7)), -1)
    wide = np.concatenate([np.full((3, LENGTH), -1), tags], axis=1)
    found = {}
    for net, rows, at, labels in ((prompted, tokens, last, tags), (plain, whole, last + LENGTH, wide)):
        block = TaskLoss(net)
        for name, parameter in net._collect_params_with_prefix().items():
            is_trained = name in (PROMPT, "_head.weight", "_tag_head.weight", "_tag_head.bias")
            parameter.grad_req = "write" if is_trained or net is plain else "null"
        block.hybridize(static_alloc=True)
        batch = MicroBatch(
            mx.nd.array(rows, dtype="int32"), mx.nd.array(at), mx.nd.array([0, 2, 1]), mx.nd.array(labels)
        )
        with mx.autograd.record():
            losses = block(batch)
        losses.backward()
        block.complete_gradients()
        found[net] = losses.asnumpy()
    np.testing.assert_allclose(found[prompted], found[plain], atol=1e-5)
    rows = plain._embed.weight.grad().asnumpy()[prompt]
    np.testing.assert_allclose(prompted._prompt.weight.grad().asnumpy(), rows, atol=1e-5)
    np.testing.assert_allclose(prompted._head.weight.grad().asnumpy(), plain._head.weight.grad().asnumpy(), atol=1e-5)


@pytest.mark.parametrize("ops", ["stock", "fused"])
def test_a_recomputed_pass_gives_the_prompt_the_same_gradient(ops):
    tokens = mx.nd.array(np.random.RandomState(1).randint(0, 80, (2, 9)), dtype="int32")
    found = []
    for kind in (LanguageModelLoss, RecomputedLoss):
        net, _ = networks(ops)
        block = kind(net, rows_apart=True)
        for name, parameter in net._collect_params_with_prefix().items():
            parameter.grad_req = "write" if name == PROMPT else "null"
        block.hybridize(static_alloc=True, static_shape=True)
        with mx.autograd.record():
            losses = block(tokens)
        losses.backward()
        block.complete_gradients()
        found.append((losses.asnumpy(), net._prompt.weight.grad().asnumpy()))
    for own, other in zip(*found):
        assert np.abs(own).max() > 0
        np.testing.assert_array_equal(own, other)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["none", "mlp", "lstm"])
def test_training_equals_peft(tmp_path, small_tokenizer, encoder):
    """Five updates over the same tokens from the same numbers: all that is trained, and the losses, to 1e-4.

    With a usual epsilon Adam makes whole steps of gradients that are nothing but rounding.
    """
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from transformers import GPT2LMHeadModel

    from kogpt2_gluon.convert.huggingface import convert_checkpoint

    checkpoint = make_checkpoint(tmp_path / "ours", small_tokenizer, varied, vocab_size=400)
    convert_checkpoint(checkpoint, tmp_path / "theirs")
    tokens = np.random.RandomState(2).randint(3, 400, (4, 17))

    recipe = recipe_for({**checkpoint.recipe().to_dict()["model"], "dropout": 0.0}, encoder=encoder)
    net = build_network(recipe)
    net.initialize()
    arrays = dict(checkpoint.model_arrays())
    load_arrays(net, {**arrays, PROMPT: arrays["_embed.weight"][7 : 7 + LENGTH]}, "x")
    loss_block = LanguageModelLoss(net)
    update = AdaptedUpdate(net, recipe, Worker(), 1)
    untrained = {name for name, each in net._collect_params_with_prefix().items() if each.grad_req == "null"}
    assert untrained == set(arrays)  # no gradient of the network's own parameters
    first = {name.partition(PROMPT)[2][1:]: each.data().asnumpy() for name, each in update.parameters.items()}
    losses = []
    for _ in range(STEPS):
        with mx.autograd.record():
            loss = loss_block(mx.nd.array(tokens)).mean()
        loss.backward()
        losses.append(loss.asscalar())
        update.reduce()
        update.apply(RATE, 1.0)

    base = GPT2LMHeadModel.from_pretrained(tmp_path / "theirs")
    if encoder == "none":
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
        places = {"vectors": "embedding.weight"}
    else:
        config = peft.PromptEncoderConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=LENGTH,
            encoder_reparameterization_type=encoder.upper(),
            encoder_hidden_size=96,
        )
        places = peft_encoder(encoder, 96, 96)[1]
    model = peft.get_peft_model(base, config)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    theirs = {part: trained[f"prompt_encoder.default.{name}"] for part, name in places.items()}
    assert theirs.keys() == first.keys() and len(theirs) == len(trained)
    for part, parameter in theirs.items():
        parameter.data = torch.tensor(first[part])
    model.base_model.eval()  # no dropout
    groups = [
        {"params": [each for each in theirs.values() if each.ndim > 1], "weight_decay": 0.1},
        {"params": [each for each in theirs.values() if each.ndim == 1], "weight_decay": 0.0},
    ]
    found = []
    adam = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-3)
    for _ in range(STEPS):
        logits = model(input_ids=torch.tensor(tokens[:, :-1])).logits[:, LENGTH:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(tokens[:, 1:]).flatten())
        found.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    np.testing.assert_allclose(losses, found, rtol=0, atol=1e-4)
    assert losses[-1] < losses[0]
    for part, parameter in theirs.items():
        own = update.parameters[f"{PROMPT}.{part}"].data().asnumpy()
        assert np.abs(own - first[part]).max() > 1e-3
        np.testing.assert_allclose(own, parameter.detach().numpy(), atol=1e-4, err_msg=part)
    prompt = model.get_prompt(batch_size=1)[0].detach().numpy()
    np.testing.assert_allclose(update.masters[PROMPT].asnumpy(), prompt, atol=1e-4)
