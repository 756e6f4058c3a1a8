"""KoGPT-2 base through conversion: 124,242,432 random parameters, Gluon's logits against transformers'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import build_model, named_parameters
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint, save_checkpoint
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer
from kogpt2_gluon.tokens.tokenizer import Tokenizer


@pytest.mark.slow
def test_logits_of_the_full_network(shards: Path, tmp_path: Path):
    torch = pytest.importorskip("torch", reason="the check of a conversion needs the extra `convert`")
    transformers = pytest.importorskip("transformers", reason="the check of a conversion needs the extra `convert`")
    recipe = load_recipe("kogpt2_base")
    mx.random.seed(1)
    np.random.seed(1)
    net = build_model(recipe.model)
    net.initialize()
    for name, parameter in named_parameters(net).items():
        if parameter.shape == (recipe.model.units,) or name.endswith("bias"):  # else zeros and ones would hide mix-ups
            parameter.set_data(parameter.data() + mx.nd.random.normal(0, 0.05, parameter.shape))
    tokens = np.random.RandomState(0).randint(0, 50000, (2, 48)).astype(np.int32)
    ours = net(mx.nd.array(tokens, dtype="int32"))[0].asnumpy()

    arrays = {name: parameter.data().asnumpy() for name, parameter in named_parameters(net).items()}
    state = {"step": 1, "evaluation": None}
    path = save_checkpoint(
        tmp_path / "checkpoints", state, arrays, {}, recipe, stored_tokenizer(shards / "tokenizer.model")
    )
    convert_checkpoint(open_checkpoint(path), tmp_path / "converted")

    model = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "converted")
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_242_432
    assert model.config.activation_function == "gelu" and model.dtype == torch.float32
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(ours).max()

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "converted")
    text = "오늘은 날씨가 좋아요."
    assert tokenizer.encode(text, add_special_tokens=False) == Tokenizer.load(shards / "tokenizer.model").encode(text)
