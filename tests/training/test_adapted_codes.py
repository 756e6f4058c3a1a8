"""A run that trains scales: its codes are its matrices to the last bit, also stored, and texts are written by them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.generation import Generator
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.saved_codes import codes_of
from kogpt2_gluon.storage.params_file import read_params, write_params
from kogpt2_gluon.training.loop import train
from tests.helpers import kogpt2, tiny_settings

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
SCALES = ["adaptation.method=scales", "adaptation.bits=2", "adaptation.group_size=16", "training.learning_rate=1e-2"]


@pytest.fixture(scope="module", params=["first", "all"])
def run(request, shards, tmp_path_factory) -> Path:
    """A network is trained for 20 steps, then two of each matrix's scales in groups of 16, or one of them."""
    folder = tmp_path_factory.mktemp("scales")
    more = ["training.num_steps=20", "checkpoint.interval=0"]
    train(load_recipe("demo", [*tiny_settings(shards, folder / "before"), *more, "training.learning_rate=1e-2"]))
    begin = [f"training.init_from={folder / 'before'}", f"adaptation.scales={request.param}", "adaptation.targets=all"]
    train(load_recipe("demo", [*tiny_settings(shards, folder / "run"), *more, *begin, *SCALES]))
    return folder / "run"


def greedy(path: Path, weights: str) -> list:
    net, tokenizer, _, ctx = load_checkpoint(path, "cpu", ops="fused", weights=weights)
    generator = Generator(net, ctx, weights)
    prompts = [[tokenizer.bos_id, 5 + number, 9] for number in range(4)]
    return [generator.ids(prompt, tokenizer.eos_id, Sampling(20, temperature=0))[0] for prompt in prompts]


def test_codes_are_the_merged_matrices_and_are_stored(run, shards, tmp_path):
    checkpoint = open_checkpoint(run)
    codes, merged = codes_of(checkpoint), checkpoint.model_arrays()
    matrices = [name for name in merged if name.endswith(("qkv_proj.weight", "_out_proj.weight", "_map.weight"))]
    assert sorted(codes) == sorted(matrices)
    for name, each in codes.items():
        assert (each.bits, each.group_size) == (2, 16)
        assert np.array_equal(each.matrix(), merged[name]), name
    source, _ = open_source(run)
    done = convert_to("codes", source, tmp_path / "codes")
    assert "in 2 bits" in done
    stored = open_checkpoint(tmp_path / "codes")
    assert all(np.array_equal(stored.model_arrays()[name], merged[name]) for name in merged)
    assert stored.model_path.stat().st_size < checkpoint.model_path.stat().st_size
    scores = [kogpt2("evaluate", path, shards / "test").stdout for path in (run, tmp_path / "codes")]
    assert scores[0].replace(str(run), "") == scores[1].replace(str(tmp_path / "codes"), "")


@needs_compiler
def test_greedy_texts_are_those_of_the_merged_network(run, tmp_path):
    source, _ = open_source(run)
    convert_to("codes", source, tmp_path / "codes")
    expected = greedy(run, "float32")
    assert any(len(text) > 3 for text in expected)
    assert greedy(run, "codes") == expected
    assert greedy(tmp_path / "codes", "codes") == expected
    assert greedy(tmp_path / "codes", "float32") == expected
    with pytest.raises(RecipeError, match="weights=3bit: the checkpoint is quantised already, in 2 bits"):
        greedy(run, "3bit")


def test_the_merged_network_converts_exactly(run, tmp_path):
    merged = open_checkpoint(run).model_arrays()
    source, _ = open_source(run)
    convert_to("huggingface", source, tmp_path / "hf")
    back = open_source(tmp_path / "hf")[0].model_arrays()
    assert all(np.array_equal(back[name], merged[name]) for name in merged)


def test_what_is_refused(run, shards, tmp_path):
    source, _ = open_source(run)
    with pytest.raises(RecipeError, match=r"is quantised already, .* in 2 bits with groups of 16 columns"):
        convert_to("codes", source, tmp_path / "codes", bits=3)
    convert_to("codes", source, tmp_path / "codes")
    settings = [*tiny_settings(shards, tmp_path / "again"), f"training.init_from={tmp_path / 'codes'}", *SCALES]
    assert "is quantised already" in kogpt2("train", "demo", *settings, code=2).stderr
    convert_to("checkpoint", source, tmp_path / "merged")
    for use in (
        lambda: convert_to("codes", open_source(tmp_path / "merged")[0], tmp_path / "codes2"),
        lambda: load_checkpoint(tmp_path / "merged", "cpu", ops="stock", weights="3bit"),
    ):
        with pytest.raises(RecipeError, match="its codes are not there"):
            use()


def test_codes_of_another_network_are_refused(run, tmp_path, monkeypatch):
    checkpoint = open_checkpoint(run)
    folder = tmp_path / checkpoint.path.name
    shutil.copytree(checkpoint.path, folder)
    copied = open_checkpoint(folder)
    monkeypatch.setattr(type(copied), "verify", lambda *_, **__: None)  # as if the manifest were of these files
    arrays = read_params(folder / "optimizer.params")
    name = "_ffn_layers.0._hidden_map.weight"
    for change, words in [
        ({f"{name}.bits": arrays[f"{name}.bits"][:-1]}, "the codes of _ffn_layers.0._hidden_map.weight are not those"),
        ({f"{name}.alpha_1": None, f"{name}.alpha_1:value": None}, "has no _ffn_layers.0._hidden_map.weight.alpha_1"),
        ({"other.bits": arrays[f"{name}.bits"]}, "has codes of other, and the network has no such matrix"),
    ]:
        changed = {key: value for key, value in {**arrays, **change}.items() if value is not None}
        write_params(folder / "optimizer.params", changed)
        with pytest.raises(DataError, match=words):
            codes_of(copied)
