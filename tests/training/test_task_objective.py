"""Fine-tuning runs: they learn, resume exactly, and are the same for any number of workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import HEADS, open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.storage.params_file import read_params
from kogpt2_gluon.training.dry_run import check
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.saved_records import check_records
from kogpt2_gluon.training.steps_of_task import with_steps
from tests.helpers import kogpt2, run
from tests.training.run_helpers import HORUN, kill_all, losses, parameters, wait_for
from tests.training.task_helpers import TASKS, settings, write_task


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path / "task")


def recipe_of(options: list[str], *more: str):
    return with_steps(load_recipe("finetune", [*options, *more]))


def scores(run_dir: Path) -> list[dict]:
    return [line for line in read_metrics(run_dir) if line["kind"] == "evaluation"]


@pytest.mark.parametrize("kind", TASKS)
def test_every_head_learns(kind, shards, tmp_path):
    task = write_task(tmp_path / "task", kind, rows=200)
    options = [*settings(shards, task, tmp_path / "run"), "training.learning_rate=1e-2", "model.dropout=0"]
    state = train(recipe_of(options, "task.epochs=6", "evaluation.patience=0"))
    found = scores(tmp_path / "run")
    metric = next(name for name in found[0] if name not in ("kind", "step", "time", "seconds", "loss"))
    assert state.best["metric"] == metric
    assert found[-1]["loss"] < 0.6 * found[0]["loss"]
    assert state.best["score"] > 0.9


def test_the_record_of_a_run(shards, task, tmp_path):
    kogpt2("train", "finetune", *settings(shards, task, tmp_path / "run"), "task.epochs=2")
    run_dir = tmp_path / "run"
    assert [line["step"] for line in scores(run_dir)] == [0, 12, 23]  # 90 rows by 8: an epoch is 11.25 steps
    best = open_checkpoint(run_dir / "best")
    state = best.state()
    assert state["task"]["labels"] == ["home", "away"] and state["task"]["head"] == "classification"
    assert state["best"]["score"] == max(line["accuracy"] for line in scores(run_dir)[1:])
    names = set(read_params(best.model_path))
    assert names & set(HEADS) == {"_head.weight"}
    text = (run_dir / "log.txt").read_text(encoding="utf-8")
    assert "train: 90 rows of train.tsv" in text and "dev: 24 rows of dev.tsv" in text
    assert "accuracy" in (run_dir / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_kill_and_resume_is_bit_exact(shards, task, tmp_path, size):
    launch = [] if size == 1 else [*HORUN, "--gloo", "-np", size]
    options = [*settings(shards, task, tmp_path / "straight"), "task.epochs=2", "checkpoint.interval=3"]
    options.append("evaluation.patience=0")  # the interrupted run evaluates more often
    command = [*launch, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "finetune", *options]
    run(*command)
    broken = tmp_path / "broken"
    slow = f"evaluation.interval={1}"
    process = subprocess.Popen(
        [str(part) for part in (*command, slow, f"tracking.run_dir={broken}")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    latest = broken / "checkpoints" / "latest"
    wait_for(lambda: latest.is_file() and latest.read_text() >= "step-00000003", process)
    kill_all(process)
    reached = open_checkpoint(broken).state()["step"]
    assert 3 <= reached < 23
    resumed = run(*command, f"tracking.run_dir={broken}")
    assert "going on from" in resumed.stdout
    assert parameters(broken) == parameters(tmp_path / "straight")
    assert losses(broken) == losses(tmp_path / "straight")


def test_two_workers_equal_one_that_accumulates(shards, task, tmp_path):
    options = [*settings(shards, task, tmp_path / "one"), "task.epochs=1", "model.dropout=0"]
    kogpt2("train", "finetune", *options)
    run(
        *HORUN,
        "--gloo",
        "-np",
        2,
        sys.executable,
        "-m",
        "kogpt2_gluon.cli.main",
        "train",
        "finetune",
        *options,
        f"tracking.run_dir={tmp_path / 'two'}",
    )
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 12
    np.testing.assert_allclose(two, one, rtol=1e-5)
    ours, theirs = (scores(tmp_path / name)[-1] for name in ("one", "two"))
    assert ours["accuracy"] == theirs["accuracy"] and abs(ours["loss"] - theirs["loss"]) < 1e-5


def test_it_stops_early(shards, task, tmp_path):
    options = [*settings(shards, task, tmp_path / "run"), "task.epochs=30", "training.learning_rate=0"]
    state = train(recipe_of(options, "evaluation.patience=2"))
    assert state.step == 36  # the first evaluation of a network from random weights cannot be the best
    assert "stops early: 2 evaluations in a row" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    again = train(recipe_of(options, "evaluation.patience=2"))
    assert again.step == 36


def test_early_stopping_counts_across_a_resume(shards, task, tmp_path):
    options = [*settings(shards, task, tmp_path / "run"), "task.epochs=30", "training.learning_rate=0"]
    options.append("checkpoint.interval=12")
    train(recipe_of(options, "evaluation.patience=2"))
    state = open_checkpoint(tmp_path / "run").state()
    assert state["not_best_in_a_row"] == 2 and state["best"]["step"] == 12
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "run" / "checkpoints" / "step-00000012", again / "checkpoints" / "step-00000012")
    assert train(recipe_of(options, "evaluation.patience=2", f"tracking.run_dir={again}")).step == 36
    assert open_checkpoint(again).state()["best"] == state["best"]


def test_a_score_that_does_not_exist_is_never_the_best(shards, tmp_path):
    """Equal predictions have no correlation; a run that had no score yet goes on."""
    task = write_task(tmp_path / "task", "regression")
    options = [*settings(shards, task, tmp_path / "run"), "task.epochs=0", "training.learning_rate=0"]
    for split in ("train", "dev"):  # one text, so one prediction
        lines = (task.parent / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        same = [lines[0], *(f"나는\t{line.split(chr(9))[1]}" for line in lines[1:])]
        (task.parent / f"{split}.tsv").write_text("\n".join(same) + "\n", encoding="utf-8")
    short = [*options, "evaluation.interval=1"]
    assert train(recipe_of(short, "training.num_steps=2", "evaluation.patience=0")).best is None
    assert train(recipe_of(short, "training.num_steps=3", "evaluation.patience=0")).best is None
    assert "spearman does not exist" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("not_best_in_a_row", "x"),
        ("not_best_in_a_row", -1),
        (
            "best",
            {"step": 1, "loss": 0.5, "held_out": "", "seq_length": 32, "sequences": 4, "metric": [1], "score": 0.5},
        ),
        (
            "best",
            {"step": 1, "loss": 0.5, "held_out": "", "seq_length": 32, "sequences": 4, "metric": "a", "score": None},
        ),
        ("best", {"step": 1, "loss": 0.5, "held_out": "", "seq_length": 32, "sequences": 4, "metric": "a"}),
    ],
)
def test_records_of_a_task_that_no_run_wrote(name, value):
    with pytest.raises(DataError, match="in its state is not"):
        check_records({name: value}, "a checkpoint")


def test_a_dry_run_makes_the_checks(shards, task, tmp_path):
    recipe = recipe_of(settings(shards, task, tmp_path / "run"))
    assert recipe.training.num_steps == 34 and recipe.evaluation.interval == 12
    assert any("90 rows of train.tsv" in line for line in check(recipe))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["task.name=nsnc"], "nsmc"),
        (["data.tokenizer="], "a task needs a tokenizer"),
        (["training.total_batch_size=96", "training.batch_size=96"], "more than the 90 rows"),
        (["training.recompute=layer"], "for language models"),
        (["tracking.sample_prompts=[a]"], "writes no text"),
        (["data.test=x"], "dev set of its own"),
        (["evaluation.stop_improvement=0.1"], "perplexity"),
        (["checkpoint.keep_best=false"], "judged by its best checkpoint"),
        (["data.seq_length=1"], "take 2 tokens of a row"),
        (["model.vocab_size=900"], "more than model.vocab_size=900"),
    ],
)
def test_settings_that_do_not_fit(shards, task, tmp_path, change, message):
    with pytest.raises(RecipeError, match=message):
        check(recipe_of([*settings(shards, task, tmp_path / "run"), "task.epochs=0"], *change))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train.tsv", "\thome\n", "\thouse\n", "train.tsv, line .*house"),
        ("train.tsv", "text\tlabel\n", "sentence\tlabel\n", "text"),
        ("dev.tsv", None, "text\tlabel\n", "dev.tsv.*no rows"),
        ("train.tsv", "나는", "나는" * 40, "train.tsv, line 2: .* tokens, more than data.seq_length=32"),
    ],
)
def test_data_that_does_not_fit(shards, task, tmp_path, file, old, new, message):
    path = task.parent / file
    text = path.read_text(encoding="utf-8")
    path.write_text(new if old is None else text.replace(old, new, 1), encoding="utf-8")
    recipe = recipe_of([*settings(shards, task, tmp_path / "run"), "task.epochs=0", "task.too_long=stop"])
    with pytest.raises(DataError, match=message):
        train(recipe)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_does_not_go_on_with_other_rows(shards, task, tmp_path):
    options = [*settings(shards, task, tmp_path / "run"), "task.epochs=0", "training.num_steps=4"]
    train(recipe_of(options))
    longer = [*options, "training.num_steps=6"]
    with pytest.raises(RecipeError, match=r"training\.total_batch_size"):
        train(recipe_of(longer, "training.total_batch_size=16"))
    write_task(task.parent, rows=91)
    with pytest.raises(DataError, match="trained on other rows"):
        train(recipe_of(longer))


DIFFERENT = """
import os, sys
from kogpt2_gluon.cli.main import main
rank = os.environ["HOROVOD_RANK"]
sys.argv = ["kogpt2", *sys.argv[1:], "task.data=" + sys.argv[-1].partition("=")[2] + rank]
main()
"""


def test_workers_with_different_rows_are_told(shards, task, tmp_path):
    for rank in range(2):
        write_task(tmp_path / f"task{rank}", rows=90 + rank)
    options = [*settings(shards, task, tmp_path / "run"), "task.epochs=0", "training.num_steps=4"]
    launch = [*HORUN, "--gloo", "-np", 2, sys.executable, "-c", DIFFERENT, "train", "finetune"]
    done = run(*launch, *options, f"task.data={task.parent}", code=1)
    assert "the workers see different rows there" in done.stdout + done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_a_resume_may_change(shards, task, tmp_path):
    options = [
        *settings(shards, task, tmp_path / "run"),
        "task.epochs=0",
        "training.num_steps=2",
        "evaluation.patience=0",
    ]
    train(recipe_of(options))
    moved = Path(shutil.copytree(task.parent, tmp_path / "moved"))
    at_another_place = [f"task.data={moved}", f"task.name={moved / 'task.yaml'}", "training.num_steps=3"]
    assert train(recipe_of(options, *at_another_place)).step == 3
    assert train(recipe_of(options, "task.epochs=1")).step == 12
    other = shutil.copy(task, task.with_name("other.yaml"))
    for change in (f"task.name={other}", "task.dev_share=0.2", "task.too_long=stop"):
        with pytest.raises(RecipeError, match=re.escape(change.partition("=")[0])):
            check(recipe_of(options, "task.epochs=1", change))


def test_a_head_is_new_whatever_the_weights_come_from(shards, task, tmp_path):
    first = [*settings(shards, task, tmp_path / "first"), "task.epochs=0", "training.num_steps=2"]
    train(recipe_of(first))
    second = [*first, f"training.init_from={tmp_path / 'first'}", f"tracking.run_dir={tmp_path / 'second'}"]
    train(recipe_of(second, "training.num_steps=1", "training.learning_rate=0", "training.seed=5"))
    assert "the head of its task is left out" in (tmp_path / "second" / "log.txt").read_text(encoding="utf-8")
    before, after = (read_params(open_checkpoint(tmp_path / name).model_path) for name in ("first", "second"))
    assert (before["_embed.weight"] == after["_embed.weight"]).all()
    assert (before["_head.weight"] != after["_head.weight"]).any() and after["_head.weight"].any()
