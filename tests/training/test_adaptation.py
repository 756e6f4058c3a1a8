"""Adapted runs as runs: what is trained, exact resume with one worker and two, checkpoints that every tool takes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe, parse_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.training.loop import train
from tests.helpers import kogpt2
from tests.training.run_helpers import assert_resumes_exactly, assert_two_workers_agree, pretrain

METHODS = {
    "lora": ["adaptation.method=lora", "adaptation.rank=2", "adaptation.targets=all"],
    "scales": ["adaptation.method=scales", "adaptation.bits=2", "adaptation.group_size=16"],
}


@pytest.fixture(scope="module")
def pretrained(shards, tmp_path_factory):
    """The folder of a run of 60 steps."""
    return pretrain(shards, tmp_path_factory.mktemp("pretrained") / "run")


def adapted(tiny, pretrained, method, *more):
    return [*tiny, f"training.init_from={pretrained}", "training.learning_rate=1e-2", *METHODS[method], *more]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_is_exact_and_only_what_is_adapted_changes(tiny, pretrained, tmp_path, method, accumulate):
    batch = f"training.batch_size={8 // accumulate}"
    options = adapted(tiny, pretrained, method, batch, "data.test=", "checkpoint.interval=1", "checkpoint.keep=0")
    folders = assert_resumes_exactly(options, tmp_path / "again", 2)
    old, new = (open_checkpoint(path).model_arrays() for path in (pretrained, folders[-1]))
    for name in old:
        is_target = name.endswith(("qkv_proj.weight", "_out_proj.weight", "_map.weight"))
        is_target &= method == "lora" or "_map" not in name
        assert (np.array(old[name]) != np.array(new[name])).any() == is_target, name


@pytest.mark.parametrize("method", METHODS)
def test_it_learns(tiny, pretrained, tmp_path, method):
    more = ["training.num_steps=60", "adaptation.targets=all", "evaluation.interval=0", "evaluation.max_sequences=0"]
    train(load_recipe("demo", adapted(tiny, pretrained, method, *more)))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = [line["loss"] for line in lines if line["kind"] == "evaluation"]
    assert last < first


@pytest.mark.parametrize("method", METHODS)
def test_two_workers_equal_two_micro_steps(tiny, pretrained, tmp_path, method):
    assert_two_workers_agree(adapted(tiny, pretrained, method, "model.dropout=0"), tmp_path)


def test_every_tool_takes_the_checkpoint(tiny, pretrained, shards, tmp_path):
    kogpt2("train", "demo", *adapted(tiny, pretrained, "lora"))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "numbers are trained" in log
    assert "perplexity" in kogpt2("evaluate", tmp_path / "run", shards / "test").stdout
    kogpt2("convert", tmp_path / "run", tmp_path / "hf", "--to", "huggingface")
    assert (tmp_path / "hf" / "model.safetensors").is_file()
    refused = kogpt2("train", "demo", *adapted(tiny, pretrained, "lora", "adaptation.rank=3"), code=2)
    assert "adaptation.rank" in refused.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "lora"}, "needs a network to adapt"),
        ({"rank": 3}, "does not use it"),
        ({"method": "lora", "bits": 2}, "adaptation.method=lora does not use it"),
        ({"method": "prefix"}, "adaptation.method"),
    ],
)
def test_settings_without_effect_are_refused(settings, words):
    training = {"init_from": "x"} if "bits" in settings else {}
    with pytest.raises(RecipeError, match=words):
        parse_recipe({"adaptation": settings, "training": training})


def test_groups_that_do_not_divide_the_columns(tiny, pretrained):
    settings = adapted(tiny, pretrained, "scales", "adaptation.group_size=5")
    refused = kogpt2("train", "demo", *settings, "--dry-run", code=2).stderr
    assert "adaptation.group_size=5 does not divide model.units=32" in refused
    adaptation = {"method": "scales", "group_size": 1536}
    for targets in ("attention", "feed_forward", "all"):  # a row of the last matrix has 3,072 columns
        with pytest.raises(RecipeError, match=r"group_size=1536 does not divide model\.units=768"):
            parse_recipe({"adaptation": {**adaptation, "targets": targets}, "training": {"init_from": "x"}})
    for fits in (0, 1, 384, 768):
        parse_recipe({"adaptation": {**adaptation, "group_size": fits}, "training": {"init_from": "x"}})


@pytest.mark.parametrize("method", ["lora", "scales", "prompt"])
def test_new_pieces_need_a_training_of_their_rows(method):
    training = {"init_from": "x", "init_vocabulary": "mean"}
    with pytest.raises(RecipeError, match=f"all new pieces one row, and adaptation.method={method} would not train it"):
        parse_recipe({"adaptation": {"method": method}, "training": training, "data": {"seq_length": 512}})
    parse_recipe({"training": training})


def test_a_quantised_network_is_not_quantised_again(tiny, pretrained, tmp_path):
    train(load_recipe("demo", adapted(tiny, pretrained, "scales")))
    settings = adapted(tiny, tmp_path / "run", "scales", f"tracking.run_dir={tmp_path / 'again'}")
    refused = kogpt2("train", "demo", *settings, code=2)
    assert "is quantised already" in refused.stderr
