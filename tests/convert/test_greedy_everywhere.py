"""One network in MXNet, transformers, onnxruntime and CTranslate2: the same greedy tokens after a hundred prompts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.convert.onnx_folder import write_onnx
from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.model.slots import Run, slots_for
from tests.convert import onnx_helpers
from tests.convert.convert_helpers import OWN_SENTENCES, make_checkpoint, varied
from tests.lazy_modules import needed

torch = needed("torch", reason="a peer of the test")
ctranslate2 = needed("ctranslate2", reason="a peer of the test")

PROMPTS, NEW = 100, 16


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_tokenizer) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("run"), small_tokenizer, varied, vocab_size=400).path


@pytest.fixture(scope="module")
def prompts(run) -> list[list[int]]:
    """The first tokens of sentences, as many as a draw says, each with <s> in front."""
    from kogpt2_gluon.tokens.tokenizer import Tokenizer

    tokenizer, draw = Tokenizer.load(open_source(run)[0].tokenizer_path), random.Random(1)
    texts = [tokenizer.encode(draw.choice(OWN_SENTENCES)) for _ in range(PROMPTS)]
    return [[1, *ids[draw.randint(0, 9) :][: draw.randint(1, 20)]] for ids in texts]


@pytest.fixture(scope="module")
def expected(run, prompts) -> list[list[int]]:
    """The tokens of MXNet, by the slots that `kogpt2 generate` takes."""
    net, *_ = load_checkpoint(run, "cpu")
    found = []
    for prompt in prompts:
        slots, tokens, new = slots_for(net, 1, len(prompt) + NEW), prompt, []
        for _ in range(NEW):
            logits = slots.next_logits([Run(0, tokens)])
            tokens = [int(logits[0].argmax())]
            new += tokens
        found.append(new)
    assert len({tuple(each) for each in found}) > PROMPTS // 2  # they say something
    return found


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("there") / "out"
    convert_to("huggingface", open_source(run)[0], out)
    return out


def test_transformers(folder, prompts, expected, transformers):
    net = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    for prompt, new in zip(prompts, expected):
        with torch.no_grad():
            out = net.generate(
                torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, suppress_tokens=None
            )
        assert out[0, len(prompt) :].tolist() == new


def test_onnxruntime(run, prompts, expected, tmp_path):
    write_onnx(open_source(run)[0], tmp_path / "onnx")
    net = onnx_helpers.session(tmp_path / "onnx" / "model.onnx")
    for prompt, new in zip(prompts, expected):
        past, tokens, found = onnx_helpers.empty_past(net, 1), prompt, []
        for made in range(NEW):
            mask = np.ones((1, len(prompt) + made), np.int64)
            logits, past = onnx_helpers.step(net, np.array([tokens], np.int64), mask, past)
            tokens = [int(logits[0, -1].argmax())]
            found += tokens
        assert found == new


def test_ctranslate2(folder, prompts, expected, tmp_path):
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(tmp_path / "ct2"))
    generator = ctranslate2.Generator(str(tmp_path / "ct2"), intra_threads=1)
    pieces = json.loads((tmp_path / "ct2" / "vocabulary.json").read_text(encoding="utf-8"))
    options = {"max_length": NEW, "sampling_topk": 1, "include_prompt_in_result": False, "end_token": []}
    for prompt, new in zip(prompts, expected):  # one by one: of several, longer prompts would end in the result
        result = generator.generate_batch([[pieces[token] for token in prompt]], **options)[0]
        assert result.sequences_ids[0] == new
