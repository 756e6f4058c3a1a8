"""Fine-tuned networks as sources: whole, without their heads, and as transformers saved them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.convert.heads import Body, WithoutHeads, head_arrays, task_of
from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import HEADS, open_checkpoint
from kogpt2_gluon.runs.saved_task import HEADS as KINDS
from kogpt2_gluon.runs.saved_task import saved_task
from kogpt2_gluon.tasks.encoding import tag_names
from kogpt2_gluon.tasks.fine_tuned import task_of as task_of_checkpoint
from kogpt2_gluon.tasks.prediction import head_sizes
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.initial_weights import find_initial_weights
from tests.convert.head_helpers import TASKS, make_fine_tuned, task_named, task_state


@pytest.mark.parametrize("kind", TASKS)
def test_the_saved_task_says_what_the_task_does(kind, small_tokenizer, tmp_path):
    checkpoint = make_fine_tuned(tmp_path, small_tokenizer, kind)
    saved, task = task_of(checkpoint), task_of_checkpoint(checkpoint)
    sizes = head_sizes(task)
    assert (saved.answers, len(saved.tag_names)) == (sizes.answers, sizes.tags)
    assert saved.tag_names == (tag_names(task) if sizes.tags else ())
    for name in ("name", "head", "labels", "kinds", "is_pair", "value_range"):
        assert getattr(saved, name) == getattr(task, name), name
    assert set(head_arrays(checkpoint, saved)) == set(checkpoint.model_arrays()) & set(HEADS)


@pytest.mark.parametrize(
    "change",
    [
        {"head": "a chart"},
        {"head": ["classification"]},
        {"labels": "ab"},
        {"labels": ["a", 1]},
        {"labels": ["a", "a"]},
        {"is_pair": 1},
        {"name": None},
        {"value_range": [1.0]},
        {"value_range": None},
        {"head": "regression", "value_range": [1.0, 1.0]},
        {"head": "regression", "value_range": [float("nan"), 1.0]},
    ],
)
def test_a_damaged_task_is_one_line(change):
    saved_task({"task": task_state("class")}, Path("here"))
    for state in ({"task": {**task_state("class"), **change}}, {"task": [1]}, {"task": "class"}, {"task": {}}):
        with pytest.raises(DataError, match=r'^here: "task" in its state is not what a run writes there$'):
            saved_task(state, Path("here"))
    assert saved_task({"step": 3}, Path("here")) is None and len(KINDS) == 4


# ---- as a checkpoint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_optimizer", [False, True])
def test_a_checkpoint_keeps_head_and_task(with_optimizer, small_tokenizer, tmp_path):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "both", moments=with_optimizer)
    done = convert_to("checkpoint", checkpoint, tmp_path / "out", with_optimizer=with_optimizer)
    assert f"kogpt2 predict {tmp_path / 'out'} FILE" in done
    copied = open_checkpoint(tmp_path / "out")
    copied.verify()
    before, after = checkpoint.model_arrays(), copied.model_arrays()
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert copied.optimizer_arrays().keys() == checkpoint.optimizer_arrays().keys()
    assert task_of(copied) == task_named("both") and copied.state()["step"] == 40


# ---- the body alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["huggingface", "checkpoint", "original", "onnx", "gguf"])
def test_the_body_goes_everywhere(target, small_tokenizer, tmp_path):
    if target in ("onnx", "gguf"):
        pytest.importorskip(target, reason="makes the file")
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "class")
    done = convert_to(target, checkpoint, tmp_path / "out", part="body")
    assert done.endswith("; the head of its task made-class is left out")
    if target != "checkpoint":
        card = " ".join((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split())
        assert target == "original" or "fine-tuned for `made-class`, without its head" in card
    if target in ("huggingface", "checkpoint"):
        back = open_source(tmp_path / "out")[0].model_arrays()
        body = WithoutHeads(checkpoint.model_arrays())
        assert back.keys() == body.keys() and not set(back) & set(HEADS)
        assert all(back[name].tobytes() == body[name].tobytes() for name in back)
    if target == "checkpoint":
        _, tokenizer, recipe, _ = load_checkpoint(tmp_path / "out", "cpu", ops="stock")
        assert not recipe.task.name and tokenizer.vocab_size == 400
        load_recipe(str(tmp_path / "out" / "recipe.yaml"))


def test_a_body_has_no_optimizer(small_tokenizer, tmp_path):
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, "class", moments=True)
    assert Body(checkpoint, task_named("class")).optimizer_arrays() == {}
    with pytest.raises(RecipeError, match="no state of an optimizer"):
        convert_to("checkpoint", checkpoint, tmp_path / "out", with_optimizer=True, part="body")


# ---- a fine-tuned transformers folder as a source --------------------------------------------------------------------


@pytest.mark.parametrize("saved_again", [False, True])
@pytest.mark.parametrize(("kind", "head"), [("class", "score.weight"), ("tags", "classifier.bias and 1 more")])
def test_a_fine_tuned_folder_gives_its_body(kind, head, saved_again, small_tokenizer, tmp_path, transformers):
    """Converted here, and saved again by transformers: the way that leads back to another fine-tuning."""
    checkpoint = make_fine_tuned(tmp_path / "run", small_tokenizer, kind)
    folder = tmp_path / "theirs"
    convert_to("huggingface", checkpoint, folder)
    if saved_again:
        classes = {
            "class": transformers.AutoModelForSequenceClassification,
            "tags": transformers.AutoModelForTokenClassification,
        }
        classes[kind].from_pretrained(folder).save_pretrained(folder)
    source, notes = open_source(folder)
    assert notes == [f"note: {head} left out: not a parameter of the language model"]
    body = WithoutHeads(checkpoint.model_arrays())
    assert all(np.array_equal(source.model_arrays()[name], body[name]) for name in body)
    recipe = checkpoint.recipe()
    recipe.training.init_from = str(folder)
    found = find_initial_weights(recipe, Tokenizer.load(checkpoint.tokenizer_path))
    assert notes[0] in found.notes and not set(found.arrays()) & set(HEADS)


def test_a_folder_with_a_row_for_padding_is_a_source(tmp_path):
    from tests.tokens.json_helpers import byte_level

    tokenizer = byte_level()
    pieces = tokenizer.get_vocab_size()
    checkpoint = make_fine_tuned(tmp_path / "run", tokenizer.to_str().encode(), "class", "tokenizer.json", pieces)
    convert_to("huggingface", checkpoint, tmp_path / "theirs")
    source, _ = open_source(tmp_path / "theirs")
    assert source.recipe().model.vocab_size == pieces + 1
    convert_to("checkpoint", source, tmp_path / "back")
    copied = Tokenizer.load(open_checkpoint(tmp_path / "back").tokenizer_path)
    ours = Tokenizer.load(checkpoint.tokenizer_path)
    assert copied.encode("이 영화는 정말") == ours.encode("이 영화는 정말")
    assert (copied.bos_id, copied.eos_id, copied.pad_id) == (ours.bos_id, ours.eos_id, pieces)


def test_a_folder_that_lies_about_its_task_is_refused(checkpoint, tmp_path):
    """Its state.json names a task, and its weights have no head."""
    convert_to("huggingface", checkpoint, tmp_path / "out")
    (tmp_path / "out" / "state.json").write_text(json.dumps({"step": 4, "task": task_state("class")}))
    with pytest.raises(DataError, match=r"_head\.weight is in one of its arrays and its task"):
        convert_to("checkpoint", open_source(tmp_path / "out")[0], tmp_path / "again")
