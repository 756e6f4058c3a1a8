"""`kogpt2 finetune` from a pretrained checkpoint to its table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training.loop import train
from tests.helpers import kogpt2, run, tiny_settings
from tests.training.run_helpers import HORUN
from tests.training.task_helpers import INTENTS, settings, write_locale, write_task


@pytest.fixture(scope="module")
def pretrained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("pretrained") / "run"
    train(load_recipe("debug_cpu", [*tiny_settings(shards, run_dir), "data.test=", "training.num_steps=2"]))
    return run_dir


def small(shards: Path, task: Path, run_dir: Path) -> list[str]:
    """Settings without sizes and tokenizer, which are the checkpoint's."""
    given = settings(shards, task, run_dir)
    return [each for each in given if not each.startswith(("model.", "data.tokenizer", "task."))]


def test_from_checkpoint_to_table(shards, pretrained, tmp_path):
    task = write_task(tmp_path / "task", rows=100)
    rows = (tmp_path / "task" / "test.tsv").read_text(encoding="utf-8").splitlines()
    with (tmp_path / "task" / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("\n".join(rows[1:4]) + "\n")  # three test rows leak
    options = [*small(shards, task, tmp_path / "runs"), "task.epochs=2", "task.dev_share=0.2"]
    command = [
        "finetune",
        pretrained,
        "--task",
        task,
        "--data",
        task.parent,
        "--seeds",
        2,
        "--untrained",
        "--pretraining",
        shards / "train",
        *options,
    ]
    done = kogpt2(*command)
    for name in ("seed-0", "seed-1", "untrained-seed-0", "untrained-seed-1"):
        assert json.loads((tmp_path / "runs" / name / "scores.json").read_text())["split"] == "test"
    table = json.loads((tmp_path / "runs" / "scores.json").read_text(encoding="utf-8"))["scores"]
    systems = {(each["system"], each["split"]) for each in table}
    ours = ("fine-tuned", "the same network, not pretrained", "majority", "character n-grams")
    assert {(system, "test") for system in ours} <= systems
    assert {(system, "test, not in train") for system in ours} <= systems
    tuned = next(each for each in table if each["system"] == "fine-tuned" and each["split"] == "test")
    assert tuned["rows"] == 30 and tuned["seeds"] == 2 and 0 <= tuned["mean"] <= 1
    assert tuned["spread"] is not None and "are in train, sign by sign" in done.stdout
    assert "| system | split |" in (tmp_path / "runs" / "scores.md").read_text(encoding="utf-8")
    last = [(tmp_path / "runs" / f"seed-{seed}" / "metrics.jsonl").read_bytes() for seed in (0, 1)]
    again = kogpt2(*command)  # nothing is trained again
    assert again.stdout.count("already at its last step") == 4
    assert [(tmp_path / "runs" / f"seed-{seed}" / "metrics.jsonl").read_bytes() for seed in (0, 1)] == last
    assert done.stdout.splitlines()[-3:] == again.stdout.splitlines()[-3:]
    assert not (tmp_path / "runs" / "scores-1.json").exists() and ": before: " not in again.stdout
    assert "note: task.dev_share=0.2 has no effect: the dev rows of the data choose" in done.stdout
    before = (tmp_path / "runs" / "scores.json").read_bytes()
    fewer = kogpt2("finetune", pretrained, "--task", task, "--data", task.parent, *options, "--no-baselines")
    assert "scores.json: the table from before has 2 seeds of fine-tuned, " in fewer.stdout
    assert (tmp_path / "runs" / "scores-1.json").read_bytes() == before
    table = json.loads((tmp_path / "runs" / "scores.json").read_text(encoding="utf-8"))["scores"]
    assert {each["system"] for each in table} == {"fine-tuned"} and {each["seeds"] for each in table} == {1}


def test_intents_and_slots_from_checkpoint_to_answers(shards, pretrained, tmp_path):
    data = write_task(tmp_path / "task", "joint", rows=100).parent
    options = [*small(shards, data, tmp_path / "runs"), "task.epochs=6", "training.learning_rate=1e-2"]
    done = kogpt2("finetune", pretrained, "--task", "massive", "--data", data, *options)
    assert "train: 100 rows of ko-KR.jsonl (published: 11,514)" in done.stdout
    assert "test: with faultless labels of tokens exact_match would be 1.0000" in done.stdout
    table = json.loads((tmp_path / "runs" / "scores.json").read_text(encoding="utf-8"))["scores"]
    found = {(each["system"], each["metric"]): each["mean"] for each in table if each["split"] == "test"}
    for metric in ("exact_match", "intent_accuracy", "slot_f1"):
        assert found["fine-tuned", metric] > 0.9 and ("majority", metric) in found
    texts = tmp_path / "texts.txt"
    texts.write_text("나는 학교에 없다\n나는 오늘 공원에 간다\n", encoding="utf-8")
    lines = kogpt2("predict", tmp_path / "runs" / "seed-0" / "best", texts, "--json").stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [each["label"] for each in answers] == [INTENTS[1], INTENTS[0]]
    assert [[span["text"] for span in each["spans"]] for each in answers] == [["학교"], ["공원"]]


def test_languages_that_are_trained_and_one_that_is_left_out(shards, pretrained, tmp_path):
    """The left-out file is emptied of all but test rows of a single intent: training on it would show."""
    data = write_task(tmp_path / "task", "joint", rows=60).parent
    write_locale(data, "en-US", rows=40)
    left_out = write_locale(data, "ja-JP", rows=40)
    options = [*small(shards, data, tmp_path / "runs"), "task.epochs=6", "training.learning_rate=1e-2"]
    command = ["finetune", pretrained, "--task", "massive", "--data", data, "--no-baselines", *options]
    command += ["task.locales=[ko-KR, en-US]", "task.zero_shot=[ja-JP]"]
    done = kogpt2(*command)
    assert "train: 60 rows of ko-KR.jsonl" in done.stdout and "train: 40 rows of en-US.jsonl" in done.stdout
    assert "train: 40 rows of ja-JP.jsonl" not in done.stdout and "test: 30 rows of ja-JP.jsonl" in done.stdout
    table = json.loads((tmp_path / "runs" / "scores.json").read_text(encoding="utf-8"))["scores"]
    found = {(each["split"], each["metric"]): each for each in table}
    splits = ("test, ko-KR", "test, en-US", "test, ja-JP, zero-shot")
    own = json.loads((tmp_path / "runs" / "seed-0" / "scores.json").read_text(encoding="utf-8"))["by_locale"]
    for metric in ("exact_match", "intent_accuracy", "slot_f1"):
        assert [found[split, metric]["rows"] for split in ("test", *splits)] == [90, 30, 30, 30]
        assert [own[split][metric] for split in splits] == [found[split, metric]["mean"] for split in splits]
        assert all(split in done.stdout for split in splits)
    accuracy = [found[split, "intent_accuracy"]["mean"] for split in ("test", *splits)]
    assert accuracy[0] == pytest.approx(sum(accuracy[1:]) / 3) and accuracy[1] > 0.9
    refused = kogpt2(*command[:-2], "task.locales=[ko-KR]", code=2).stderr
    assert "holds a run of other settings" in refused and "task.locales: ['ko-KR', 'en-US'] -> ['ko-KR']" in refused
    lines = left_out.read_text(encoding="utf-8").splitlines(keepends=True)
    left_out.write_text("".join(line for line in lines if '"partition": "test"' not in line), encoding="utf-8")
    for change, words in (
        ("task.zero_shot=[ja-JP]", "ja-JP.jsonl: no rows for test"),
        ("task.zero_shot=[ja-JA]", "massive has no 'ja-JA'; it has en-US, ja-JP, ko-KR"),
        ("task.zero_shot=[fr-FR]", "has no file of the locale fr-FR"),
    ):
        refused = kogpt2(*command, change, f"tracking.run_dir={tmp_path / 'other'}", code=3).stderr
        assert words in refused and refused.count("\n") == 1


def test_the_best_checkpoint_is_judged_not_the_newest(shards, pretrained, tmp_path):
    task = write_task(tmp_path / "task", rows=100)
    options = [*small(shards, task, tmp_path / "runs"), "task.epochs=9", "training.learning_rate=0"]
    command = ["finetune", pretrained, "--task", task, "--data", task.parent, "--no-baselines", *options]
    kogpt2(*command, "evaluation.patience=2")
    ckpt_dir = tmp_path / "runs" / "seed-0" / "checkpoints"
    assert (ckpt_dir / "best").read_text() == "step-00000013\n"  # the second and the third epoch were no better
    assert (ckpt_dir / "latest").read_text() == "step-00000039\n"
    assert json.loads((tmp_path / "runs" / "seed-0" / "scores.json").read_text())["step"] == 13


def test_another_setting_does_not_take_over_a_score(shards, pretrained, tmp_path):
    task = write_task(tmp_path / "task", rows=100)
    options = [*small(shards, task, tmp_path / "runs"), "task.epochs=1"]
    command = ["finetune", pretrained, "--task", task, "--data", task.parent, "--no-baselines", *options]
    kogpt2(*command)
    refused = kogpt2(*command, "training.learning_rate=1e-4", code=2)
    assert "seed-0: holds a run of other settings (training.learning_rate: 0.003 -> 0.0001)" in refused.stderr
    refused = kogpt2(*command, "training.precision=bfloat16", "model.dropout=0.2", code=2)
    assert "training.precision: float32 -> bfloat16, model.dropout: 0.1 -> 0.2" in refused.stderr
    kogpt2(*command, "training.batch_size=2")


@pytest.mark.slow
def test_a_stop_at_the_end_of_a_seed_is_obeyed(shards, pretrained, tmp_path):
    """SIGTERM while the last evaluation of the first seed is made."""
    task = write_task(tmp_path / "task", rows=100)
    options = [*small(shards, task, tmp_path / "runs"), "task.epochs=1", "--no-baselines", "--seeds", "2"]
    program = """
import os, signal, sys
from kogpt2_gluon.training import evaluation
from kogpt2_gluon.cli.main import main
def at_the_end(recipe, run, *more, before=evaluation.run_evaluation):
    if run.state.step >= recipe.training.num_steps and run.worker.rank == run.worker.size - 1:
        os.kill(os.getpid(), signal.SIGTERM)
    before(recipe, run, *more)
evaluation.run_evaluation = at_the_end
main()
"""
    launch = [*HORUN, "--gloo", "-np", 2, sys.executable, "-c", program]
    command = ["finetune", pretrained, "--task", task, "--data", task.parent, *options]
    run(*launch, *command, "training.batch_size=4", code=1)  # horovodrun's own
    assert (tmp_path / "runs" / "seed-0" / "scores.json").is_file()
    assert not (tmp_path / "runs" / "seed-1").exists()
    done = run(sys.executable, "-c", program, *command, code=75)  # the second seed meets it again
    assert "the same command goes on after the last run that was scored" in done.stderr
    kogpt2(*command)
    assert (tmp_path / "runs" / "scores.md").is_file()


def test_runs_share_no_folder_of_checkpoints(shards, pretrained, tmp_path):
    task = write_task(tmp_path / "task", rows=100)
    options = [*small(shards, task, tmp_path / "runs"), "task.epochs=1", f"checkpoint.ckpt_dir={tmp_path / 'kept'}"]
    options.append(f"checkpoint.mirrors=[{tmp_path / 'mirror'}]")
    kogpt2("finetune", pretrained, "--task", task, "--data", task.parent, "--no-baselines", "--untrained", *options)
    for folder in ("kept", "mirror"):
        assert {each.name for each in (tmp_path / folder).iterdir()} == {"seed-0", "untrained-seed-0"}


def test_without_test_rows_dev_judges_and_does_not_choose(shards, pretrained, tmp_path):
    task = write_task(tmp_path / "task", rows=100)
    task.write_text(task.read_text(encoding="utf-8").replace(", test: test.tsv", ""), encoding="utf-8")
    options = [*small(shards, task, tmp_path / "runs"), "task.epochs=1"]
    command = ["finetune", pretrained, "--task", task, "--data", task.parent, "--no-baselines", *options]
    done = kogpt2(*command)
    assert "rows of train choose the best checkpoint (task.dev_share=0.1)" in done.stdout
    score = json.loads((tmp_path / "runs" / "seed-0" / "scores.json").read_text())
    assert score["split"] == "dev" and score["rows"] == 24
    (task.parent / "dev.tsv").unlink()
    refused = kogpt2(*command, code=3).stderr  # the description still names it
    assert (
        refused.count("\n") == 1 and "has no dev.tsv for dev of made (it has task.yaml, test.tsv, train.tsv)" in refused
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--task", "nsnc"], 2, "nsmc"),
        (["--task", "TASK", "training.batch_size=3"], 2, "not divisible"),
        (["--task", "TASK", "data.seq_length=99"], 2, "data.seq_length=99 is above model.max_length=32"),
        (["--task", "TASK", "training.num_steps=9"], 2, "training.num_steps follows from task.epochs=3"),
        (["--task", "TASK", "training.init_from=/nosuch"], 2, "training.init_from is CHECKPOINT here"),
        (["--task", "TASK", "task.name=nsmc"], 2, "task.name is --task here; leave it out"),
        (["--task", "TASK", "task.data=elsewhere"], 2, "task.data is --data here; leave it out"),
        (["--task", "nsmc"], 3, "ratings_train.txt"),
        (["--task", "TASK", "--recipe", "no_such"], 2, "no such file"),
        (["--task", "TASK", "--pretraining", "/nosuch"], 3, "/nosuch: no such folder; name one with the shards"),
    ],
)
def test_what_does_not_fit_is_one_line(shards, pretrained, tmp_path, arguments, code, message):
    task = write_task(tmp_path / "task")
    words = [str(task) if word == "TASK" else word for word in arguments]
    done = kogpt2(
        "finetune", pretrained, "--data", task.parent, *words, f"tracking.run_dir={tmp_path / 'runs'}", code=code
    )
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
