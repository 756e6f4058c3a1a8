"""LoRA's matrix and its gradients against NumPy, and training against peft."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model.gpt2 import build_model, load_arrays
from kogpt2_gluon.model.lora import LowRankMatrix
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.training.adapted_update import AdaptedUpdate
from tests.convert.convert_helpers import make_checkpoint, varied

STEPS, RATE = 5, 0.02


def test_value_and_gradients():
    draw = np.random.RandomState(0)
    frozen, gradient = draw.randn(6, 4).astype(np.float32), draw.randn(6, 4).astype(np.float32)
    matrix = LowRankMatrix("m", mx.nd.array(frozen), rank=2, alpha=3.0, seed=1)
    assert (matrix.value().asnumpy() == frozen).all()  # B is zero
    a, b = matrix.trained["m.lora_A"], matrix.trained["m.lora_B"]
    assert np.abs(a.data().asnumpy()).max() <= 0.5 and np.abs(a.data().asnumpy()).min() > 0
    b.set_data(mx.nd.array(draw.randn(6, 2)))
    A, B = a.data().asnumpy(), b.data().asnumpy()
    np.testing.assert_allclose(matrix.value().asnumpy(), frozen + 1.5 * B @ A, rtol=1e-5)
    matrix.backward(mx.nd.array(gradient))
    np.testing.assert_allclose(a.grad().asnumpy(), 1.5 * B.T @ gradient, rtol=1e-5)
    np.testing.assert_allclose(b.grad().asnumpy(), 1.5 * gradient @ A.T, rtol=1e-5)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_training_equals_peft(tmp_path, small_tokenizer, targets):
    """Five updates over the same tokens from the same A: A, B and the losses to 1e-4.

    With a usual epsilon Adam makes whole steps of gradients that are nothing but rounding.
    """
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from transformers import GPT2LMHeadModel

    from tests.helpers import kogpt2

    checkpoint = make_checkpoint(tmp_path / "ours", small_tokenizer, varied, vocab_size=400)
    kogpt2("convert", checkpoint.path, tmp_path / "theirs", "--to", "huggingface")
    tokens = np.random.RandomState(2).randint(3, 400, (4, 17))

    training = {"learning_rate": RATE, "weight_decay": 0.1, "clip_norm": 0.0, "init_from": "x", "epsilon": 1e-3}
    recipe = parse_recipe(
        {
            "model": {**checkpoint.recipe().to_dict()["model"], "dropout": 0.0},
            "data": {"seq_length": 16},
            "training": {**training, "optimizer": "adamw", "ops": "stock"},
            "adaptation": {"method": "lora", "rank": 3, "alpha": 6.0, "targets": targets},
        }
    )
    net = build_model(recipe.model)
    net.initialize()
    load_arrays(net, checkpoint.model_arrays(), "x")
    loss_block = LanguageModelLoss(net)
    update = AdaptedUpdate(net, recipe, Worker(), 1)
    first = {name: parameter.data().asnumpy() for name, parameter in update.parameters.items()}
    losses = []
    for _ in range(STEPS):
        with mx.autograd.record():
            loss = loss_block(mx.nd.array(tokens)).mean()
        loss.backward()
        losses.append(loss.asscalar())
        update.reduce()
        update.apply(RATE, 1.0)

    modules = ["c_attn", "attn.c_proj"] + (["c_fc", "mlp.c_proj"] if targets == "all" else [])
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=modules, fan_in_fan_out=True, lora_dropout=0.0)
    model = peft.get_peft_model(GPT2LMHeadModel.from_pretrained(tmp_path / "theirs"), config)
    model.eval()  # no dropout
    ours = {
        "attn.c_attn": "_self_attention_layers.{}._multi_head_qkv_proj.weight",
        "attn.c_proj": "_self_attention_layers.{}._out_proj.weight",
        "mlp.c_fc": "_ffn_layers.{}._hidden_map.weight",
        "mlp.c_proj": "_ffn_layers.{}._out_map.weight",
    }
    theirs = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer, rest = name.split(".h.")[1].split(".", 1)
            module, kind = rest.split(".lora_")
            theirs[f"{ours[module].format(layer)}.lora_{kind[0]}"] = parameter
    assert theirs.keys() == first.keys()
    for name, parameter in theirs.items():
        parameter.data = torch.tensor(first[name])
    adam = torch.optim.AdamW(theirs.values(), lr=RATE, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.1)
    for step in range(STEPS):
        logits = model(input_ids=torch.tensor(tokens[:, :-1])).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(tokens[:, 1:]).flatten())
        assert abs(loss.item() - losses[step]) < 1e-4
        adam.zero_grad()
        loss.backward()
        adam.step()
    for name, parameter in update.parameters.items():
        np.testing.assert_allclose(parameter.data().asnumpy(), theirs[name].detach().numpy(), atol=1e-4)
    merged = model.merge_and_unload().state_dict()["transformer.h.0.attn.c_attn.weight"].numpy().T
    own = update.masters["_self_attention_layers.0._multi_head_qkv_proj.weight"].asnumpy()
    np.testing.assert_allclose(own, merged, atol=1e-4)
    assert losses[-1] < losses[0]
