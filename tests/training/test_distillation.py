"""Runs with a teacher: they resume exactly, with one worker and two; evaluation; what is refused; the first layers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.recipe import load_recipe, parse_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.training.dry_run import check
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.teacher_layers import spread
from tests.helpers import CHUNK_BYTES, kogpt2, run
from tests.training.run_helpers import (
    ARRAYS,
    HORUN,
    assert_resumes_exactly,
    assert_two_workers_agree,
    kill_all,
    parameters,
    pretrain,
    wait_for,
)

LARGER = ["model.units=48", "model.num_layers=3", "model.max_length=40"]


@pytest.fixture(scope="module")
def teacher(shards, tmp_path_factory) -> Path:
    """The folder of a run of a larger network than the student."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    return pretrain(shards, folder, "training.num_steps=40", "model.dropout=0", *LARGER)


def taught(tiny, teacher, *more):
    rules = ["distillation.weight=0.7", "distillation.hidden_weight=0.2"]
    return [*tiny, f"distillation.teacher={teacher}", *rules, *more]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_is_exact(tiny, teacher, tmp_path, accumulate):
    """With dropout, at a step before which the held-out text was scored."""
    batch = [f"training.batch_size={8 // accumulate}", "evaluation.interval=2"]
    options = taught(tiny, teacher, *batch, "checkpoint.interval=1", "checkpoint.keep=0", "checkpoint.keep_best=false")
    assert_resumes_exactly(options, tmp_path / "again", 3, files=ARRAYS)


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_kill_and_resume_is_bit_exact(tiny, teacher, tmp_path, size):
    launch = [] if size == 1 else [*HORUN, "--gloo", "-np", size]
    options = taught(tiny, teacher, "training.num_steps=30", "checkpoint.interval=3", "data.test=")
    command = [*launch, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "demo", *options]
    run(*command, f"tracking.run_dir={tmp_path / 'straight'}")
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        [str(part) for part in (*command, f"tracking.run_dir={broken}")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    latest = broken / "checkpoints" / "latest"
    wait_for(lambda: latest.is_file() and latest.read_text() >= "step-00000003", process)
    kill_all(process)
    assert 3 <= open_checkpoint(broken).state()["step"] < 30
    assert "going on from" in run(*command, f"tracking.run_dir={broken}").stdout
    assert parameters(broken) == parameters(tmp_path / "straight")


def test_two_workers_equal_one_that_accumulates(tiny, teacher, tmp_path):
    assert_two_workers_agree(taught(tiny, teacher, "model.dropout=0", "data.test="), tmp_path)


def test_a_run_learns_and_its_figures_are_those_of_the_text_alone(tiny, teacher, shards, tmp_path):
    options = ["training.num_steps=60", "training.learning_rate=1e-2", "evaluation.max_sequences=0", "model.dropout=0"]
    kogpt2("train", "demo", *taught(tiny, teacher, *options))
    lines = read_metrics(tmp_path / "run")
    first, *_, last = [line for line in lines if line["kind"] == "evaluation"]
    assert last["loss"] < 0.9 * first["loss"]
    trained = [line["loss"] for line in lines if line["kind"] == "train"]
    assert abs(trained[0] - first["loss"]) < 0.2  # before the first update both are of the same network
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"teacher            {teacher}" in log and "more operations a step" in log
    scored = json.loads(kogpt2("evaluate", tmp_path / "run", shards / "test", "--json").stdout)
    assert abs(scored["loss"] - last["loss"]) < 1e-4


def test_a_student_learns_from_the_teacher_alone(tiny, teacher, tmp_path):
    """With all of the weight on the divergence the text has no part in the gradient, and the student learns."""
    options = taught(tiny, teacher, "training.num_steps=60", "training.learning_rate=1e-2", "distillation.weight=1.0")
    train(load_recipe("demo", options))
    lines = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "evaluation"]
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]


def test_layers_of_the_teacher_are_the_first_weights(tiny, teacher, tmp_path):
    sizes = ["model.units=48", "model.num_layers=2", "model.max_length=32"]
    options = taught(
        tiny,
        teacher,
        *sizes,
        "distillation.init_layers=true",
        "training.learning_rate=0",
        "training.final_learning_rate=0",
    )
    train(load_recipe("demo", [*options, "training.num_steps=1"]))
    theirs, ours = (open_checkpoint(path).model_arrays() for path in (teacher, tmp_path / "run"))
    assert "layers 0, 2 of the teacher's 3" in (tmp_path / "run" / "log.txt").read_text()
    for name in ours:
        there = name.replace("layers.1.", "layers.2.").replace("_ln.1.", "_ln.2.")
        expected = np.array(theirs[there])
        expected = expected[:32] if name == "_pos_embed.weight" else expected
        assert (np.array(ours[name]) == expected).all(), name


def test_layers_are_evenly_spread():
    assert spread(6, 12) == (0, 2, 4, 7, 9, 11)  # DistilBERT's and DistilGPT2's
    assert spread(1, 12) == (0,) and spread(12, 12) == tuple(range(12))
    for of in range(2, 30):
        for count in range(2, of + 1):
            chosen = spread(count, of)
            assert (chosen[0], chosen[-1]) == (0, of - 1) and len(set(chosen)) == count


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["model.vocab_size=1300"], "has 1200 rows of pieces and model.vocab_size is 1300"),
        (["model.max_length=64", "data.seq_length=64"], "take data.seq_length=40 or less"),
        (["distillation.init_layers=true"], "do not fit (model.units: 48 -> 32)"),
        (["distillation.init_layers=true", "model.units=48", "model.num_layers=4"], "num_layers: 3 -> 4"),
        (["distillation.teacher=/nowhere"], "distillation.teacher=/nowhere: /nowhere: no checkpoint there"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_computed(tiny, teacher, more, words):
    with pytest.raises(KoGPT2Error) as caught:
        check(load_recipe("demo", taught(tiny, teacher, *more)))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_teacher_of_another_tokenizer_is_refused(tiny, teacher, shards, tmp_path):
    from kogpt2_gluon.shards.sharding import shard_corpus
    from kogpt2_gluon.tokens.training import train_tokenizer

    train_tokenizer(shards / "corpus", tmp_path / "other.model", 1200, unused=5)
    shard_corpus(shards / "corpus", tmp_path / "other.model", tmp_path / "other", "train", chunk_bytes=CHUNK_BYTES)
    options = taught(tiny, teacher, f"data.train={tmp_path / 'other'}", "data.test=")
    with pytest.raises(RecipeError, match="the tokenizer of the data, is not the teacher's; shard the text with"):
        check(load_recipe("demo", options))


def test_a_fine_tuned_teacher_is_refused(tiny, shards, tmp_path):
    from tests.training.task_helpers import settings, write_task

    task = write_task(tmp_path / "task")
    kogpt2("train", "finetune", *settings(shards, task, tmp_path / "tuned"), "task.epochs=0", "training.num_steps=1")
    with pytest.raises(RecipeError, match="is fine-tuned for a task"):
        check(load_recipe("demo", taught(tiny, tmp_path / "tuned")))


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"distillation": {"weight": 0.3}}, "distillation.weight is set, and there is no teacher"),
        ({"distillation": {"init_layers": True}}, "distillation.init_layers is set, and there is no teacher"),
        ({"distillation": {"teacher": "x", "weight": 0}}, "are both 0, so the teacher would have no effect"),
        ({"distillation": {"teacher": "x"}, "task": {"name": "nsmc", "data": "d"}}, "then fine-tune the student"),
        (
            {"distillation": {"teacher": "x"}, "training": {"init_from": "y"}, "adaptation": {"method": "lora"}},
            "adaptation.method=lora and distillation.teacher are both set",
        ),
        ({"distillation": {"teacher": "x"}, "training": {"recompute": "layer"}}, "training.recompute=layer and"),
        (
            {"distillation": {"teacher": "x", "init_layers": True}, "training": {"init_from": "y"}},
            "begins with weights of one network",
        ),
        ({"distillation": {"teacher": "x", "temperature": 0}}, "distillation.temperature"),
        ({"distillation": {"teacher": "x", "alpha": 0.5}}, "unknown key distillation.alpha"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(plain, words):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(plain)
    assert words in str(caught.value)


def test_a_resume_needs_the_same_teacher_wherever_it_is(tiny, teacher, tmp_path):
    options = taught(tiny, teacher, "data.test=")
    train(load_recipe("demo", [*options, "training.num_steps=2"]))
    moved = shutil.copytree(teacher, tmp_path / "moved")
    assert any("resumes from step 2" in line for line in check(load_recipe("demo", taught(tiny, moved, "data.test="))))
    train(load_recipe("demo", [*tiny, *LARGER, "training.num_steps=1", f"tracking.run_dir={tmp_path / 'other'}"]))
    with pytest.raises(DataError, match="has other weights than the teacher of"):
        check(load_recipe("demo", taught(tiny, tmp_path / "other", "data.test=")))
    with pytest.raises(RecipeError, match=r"distillation\.temperature: 2\.0 -> 3\.0"):
        check(load_recipe("demo", [*options, "distillation.temperature=3"]))
    plain = [*tiny, "data.test=", "training.num_steps=2"]
    train(load_recipe("demo", [*plain, f"tracking.run_dir={tmp_path / 'plain'}"]))
    usual = [*plain, f"distillation.teacher={teacher}", f"tracking.run_dir={tmp_path / 'usual'}"]
    train(load_recipe("demo", usual))
    with pytest.raises(RecipeError, match=rf"distillation\.teacher: {teacher} -> none"):
        check(load_recipe("demo", [*plain, f"tracking.run_dir={tmp_path / 'usual'}"]))
    with pytest.raises(RecipeError, match=rf"distillation\.teacher: none -> {teacher}"):
        check(load_recipe("demo", [*usual, f"tracking.run_dir={tmp_path / 'plain'}"]))
