"""A new run that begins with the weights of another one: nothing else is taken, and what does not fit is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.tokens.renaming import rename_tokens
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.initial_weights import find_initial_weights
from tests.helpers import kogpt2


def evaluations(run_dir: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(run_dir) if line["kind"] == "evaluation"]


def test_a_run_begins_with_the_weights_of_another(tiny, tmp_path):
    first, second = tmp_path / "run", tmp_path / "second"
    tiny = [*tiny, "evaluation.max_sequences=0"]  # the first evaluation is over the whole set too, as the last is
    kogpt2("train", "debug_cpu", *tiny, "training.num_steps=3")
    there = [*tiny, f"tracking.run_dir={second}", "model.dropout=0", "training.optimizer=adamw", "training.num_steps=3"]
    planned = kogpt2("train", "debug_cpu", *there, "--init-from", first, "--dry-run").stdout
    weights = f"begins with the weights of {first}/checkpoints/step-00000003, as a new run"
    assert weights in planned and "start              at step 0" in planned
    done = kogpt2("train", "debug_cpu", *there, "--init-from", first)
    assert weights in done.stdout
    (_, before), (step, after) = evaluations(first)[-1], evaluations(second)[0]
    assert step == 0 and after == pytest.approx(before, rel=1e-6)
    shutil.rmtree(first)  # from here on the run has its own checkpoints
    again = kogpt2("train", "debug_cpu", *there, "training.num_steps=4", "--init-from", first)
    assert "going on from" in again.stdout and "begins with" not in again.stdout
    assert evaluations(second)[-1][0] == 4


def test_resuming_with_other_data_names_the_way_out(tiny, tmp_path):
    kogpt2("train", "debug_cpu", *tiny, "training.num_steps=1")
    told = kogpt2("train", "debug_cpu", *tiny, "training.optimizer=lamb", code=2).stderr
    assert "training.optimizer: " in told and " -> lamb" in told
    assert f"--init-from {tmp_path}/run/checkpoints/step-00000001 and another run_dir" in told


def recipe_for(checkpoint, *overrides: str):
    sizes = [f"model.{key}={value}" for key, value in checkpoint.recipe().to_dict()["model"].items()]
    return load_recipe("debug_cpu", [*sizes, f"training.init_from={checkpoint.path}", *overrides])


def test_other_sizes_are_named(checkpoint):
    with pytest.raises(RecipeError, match=r"\(model\.units: 96 -> 48, model\.num_layers: 3 -> 2\); take its sizes"):
        find_initial_weights(recipe_for(checkpoint, "model.units=48", "model.num_layers=2"), None)
    found = find_initial_weights(recipe_for(checkpoint, "model.dropout=0.5"), None)
    assert found.path == open_checkpoint(checkpoint.path).path


def test_a_renamed_unused_token_changes_no_id(checkpoint, tmp_path):
    recipe, source = recipe_for(checkpoint), Tokenizer.load(checkpoint.tokenizer_path)
    find_initial_weights(recipe, source)
    renamed = rename_tokens(checkpoint.tokenizer_path, [("<unused7>", "리뷰어")], tmp_path / "renamed.model")
    find_initial_weights(recipe, renamed)  # the id had no meaning before


def test_another_tokenizer_is_refused_by_its_first_difference(checkpoint, tmp_path):
    from tests.convert.convert_helpers import OWN_SENTENCES, train

    for size, message in ((300, "id [0-9]+ is '.*' there and '.*' here"), (380, "has another tokenizer than")):
        path = tmp_path / f"{size}.model"
        path.write_bytes(train([line[::-1] for line in OWN_SENTENCES] * 20, size))
        with pytest.raises(RecipeError, match=message) as caught:
            find_initial_weights(recipe_for(checkpoint), Tokenizer.load(path))
        assert str(checkpoint.path) in str(caught.value) and "shard the text with" in str(caught.value)
