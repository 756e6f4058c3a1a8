"""Training end to end: real shards, real processes, real Horovod workers."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.reading.open_sets import training_mix
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.recipe_sections import OPTIMIZERS
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.storage.params_file import read_params
from tests.helpers import kogpt2, run
from tests.training.run_helpers import HORUN, kill_all, losses, parameters, wait_for


def evaluations(run_dir: Path) -> list[dict]:
    return [line for line in read_metrics(run_dir) if line["kind"] == "evaluation"]


def test_a_run_leaves_its_record(tiny, tmp_path):
    run_dir = tmp_path / "run"
    done = kogpt2("train", "debug_cpu", *tiny, "tracking.sample_prompts=[오늘은]", "tracking.tensorboard=true")
    assert "8/8" in done.stdout and "\x1b" not in done.stdout
    for name in ("recipe.yaml", "env.json", "metrics.jsonl", "log.txt", "report.html", "samples", "tensorboard"):
        assert (run_dir / name).exists(), name
    assert len(losses(run_dir)) == 8
    assert [line["step"] for line in evaluations(run_dir)] == [0, 8]
    state = open_checkpoint(run_dir).state()
    assert state["step"] == 8 and state["reader"]["consumed"] == 64
    assert (run_dir / "checkpoints" / "latest").read_text() == "step-00000008\n"
    again = kogpt2("train", "debug_cpu", *tiny)  # nothing left to do
    assert "going on from" in again.stdout and len(losses(run_dir)) == 8


def test_training_learns(tiny, tmp_path):
    kogpt2(
        "train", "debug_cpu", *tiny, "training.num_steps=60", "training.learning_rate=1e-2", "training.warmup_ratio=0.1"
    )
    before, after = evaluations(tmp_path / "run")[0], evaluations(tmp_path / "run")[-1]
    assert abs(before["loss"] - np.log(1200)) < 0.3  # an untrained network knows nothing
    assert after["loss"] < before["loss"] - 1


@pytest.mark.parametrize(
    ("size", "optimizer"),
    [
        (2, "bertadam"),
        pytest.param(1, "bertadam", marks=pytest.mark.slow),
        *((1, optimizer) for optimizer in OPTIMIZERS if optimizer != "bertadam"),
        *(pytest.param(2, optimizer, marks=pytest.mark.slow) for optimizer in OPTIMIZERS if optimizer != "bertadam"),
    ],
)
def test_kill_and_resume_is_bit_exact(tiny, tmp_path, optimizer, size):
    """Straight, and killed (-9, all at once) after a checkpoint then resumed: equal bits, dropout on."""
    launch = [] if size == 1 else [*HORUN, "--gloo", "-np", size]
    options = [f"training.optimizer={optimizer}", "training.total_batch_size=16", "training.num_steps=12"]
    command = [*launch, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "debug_cpu", *tiny, *options]
    run(*command, f"tracking.run_dir={tmp_path / 'straight'}")

    broken = tmp_path / "broken"
    slow = ["evaluation.interval=1", "evaluation.max_sequences=48"]  # an evaluation a step: time to be killed in
    process = subprocess.Popen(
        [str(part) for part in (*command, *slow, f"tracking.run_dir={broken}")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    latest = broken / "checkpoints" / "latest"
    wait_for(lambda: latest.is_file() and latest.read_text() >= "step-00000003", process)
    kill_all(process)
    reached = open_checkpoint(broken).state()["step"]
    assert 3 <= reached < 12  # else it was too late to be of use
    resumed = run(*command, f"tracking.run_dir={broken}")
    assert f"going on from {broken}/checkpoints/step-{reached:08d}" in resumed.stdout
    assert parameters(broken) == parameters(tmp_path / "straight")
    assert losses(broken) == losses(tmp_path / "straight")


def test_two_workers_equal_one_that_accumulates(tiny, tmp_path):
    common = [
        "debug_cpu",
        *tiny,
        "model.dropout=0",
        "training.num_steps=20",
        "training.clip_norm=0.5",
        "checkpoint.interval=0",
    ]
    kogpt2("train", *common, f"tracking.run_dir={tmp_path / 'one'}")
    run(
        *HORUN,
        "--gloo",
        "-np",
        2,
        sys.executable,
        "-m",
        "kogpt2_gluon.cli.main",
        "train",
        *common,
        f"tracking.run_dir={tmp_path / 'two'}",
    )
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 20
    np.testing.assert_allclose(two, one, rtol=1e-5)
    norms = [[m["grad_norm"] for m in read_metrics(tmp_path / name) if m["kind"] == "train"] for name in ("one", "two")]
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-4)
    assert min(norms[0]) > 0.5  # clipping was at work in every step
    held_out = [evaluations(tmp_path / name) for name in ("one", "two")]
    assert len(held_out[0]) == len(held_out[1]) == 2
    for ours, theirs in zip(*held_out):
        assert abs(ours["loss"] - theirs["loss"]) < 1e-5 * ours["loss"]


def test_sigterm_saves_and_says_75(tiny, tmp_path):
    run_dir = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "kogpt2_gluon.cli.main",
        "train",
        "debug_cpu",
        *tiny,
        "training.num_steps=5000",
        "checkpoint.interval=0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (run_dir / "metrics.jsonl").exists() and len(losses(run_dir)) >= 3, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors.startswith("kogpt2: stopped at step") and errors.count("\n") == 1
    step = open_checkpoint(run_dir).state()["step"]
    assert step >= 3 and len(losses(run_dir)) == step


def test_divergence_says_4_and_keeps_the_last_good_state(tiny, tmp_path):
    kogpt2("train", "debug_cpu", *tiny, "training.optimizer=adam", "training.num_steps=4", "checkpoint.interval=0")
    good = parameters(tmp_path / "run")
    bad = ["training.optimizer=adam", "training.num_steps=8", "training.learning_rate=1e30", "checkpoint.interval=1"]
    done = kogpt2("train", "debug_cpu", *tiny, *bad, "training.clip_norm=0", code=4)
    assert "lower training.learning_rate" in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "run" / "checkpoints" / "step-00000004").is_dir()
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("step-*"):
        assert all(np.isfinite(a).all() for a in read_params(checkpoint / "model.params").values())
    files = [tmp_path / "run" / "checkpoints" / "step-00000004" / name for name in ("model.params", "optimizer.params")]
    assert b"".join(file.read_bytes() for file in files) == good


def test_stop_rule_ends_a_run_that_no_longer_improves(tiny, shards, tmp_path):
    # A learning rate of nothing: no epoch improves, so the second one is the last.
    rule = ["evaluation.stop_improvement=0.01", "training.num_steps=100000", "checkpoint.interval=0"]
    batch = ["training.total_batch_size=256", "training.batch_size=64"]
    done = kogpt2("train", "debug_cpu", *tiny, *rule, *batch, "training.learning_rate=0")
    assert "stop rule met" in done.stdout
    state = open_checkpoint(tmp_path / "run").state()
    recipe = load_recipe("debug_cpu", [*tiny, *batch])
    with ShardSet(shards / "train") as opened:
        per_epoch = training_mix([opened], recipe, 1).sequences_per_epoch
    assert state["step"] == math.ceil(2 * per_epoch / 256)
    again = kogpt2("train", "debug_cpu", *tiny, *rule, *batch, "training.learning_rate=0")
    assert "tok/s" not in again.stdout.split("going on from")[1]  # no step was made
    assert "evaluation.stop_improvement=0 evaluation.patience=0 go on" in again.stdout
    assert open_checkpoint(tmp_path / "run").state() == state
    further = [*rule, f"training.num_steps={state['step'] + 1}", "evaluation.stop_improvement=0"]
    kogpt2("train", "debug_cpu", *tiny, *further, *batch, "training.learning_rate=0")
    assert open_checkpoint(tmp_path / "run").state()["step"] == state["step"] + 1


def test_stop_rule_lets_an_improving_run_go_on(tiny, shards, tmp_path):
    recipe = load_recipe("debug_cpu", tiny)
    with ShardSet(shards / "train") as opened:
        per_epoch = training_mix([opened], recipe, 1).sequences_per_epoch
    steps = math.ceil(2.2 * per_epoch / 256)
    rule = ["evaluation.stop_improvement=0.01", f"training.num_steps={steps}", "training.total_batch_size=256"]
    kogpt2("train", "debug_cpu", *tiny, *rule, "training.batch_size=64", "training.learning_rate=1e-2")
    state = open_checkpoint(tmp_path / "run").state()
    assert state["step"] == steps and not state["stop_rule_met"] and state["epoch_perplexity"] < 600


def test_settings_that_may_change_and_those_that_may_not(tiny, tmp_path):
    kogpt2("train", "debug_cpu", *tiny)
    longer = kogpt2("train", "debug_cpu", *tiny, "training.num_steps=10")
    assert "changed since then: training.num_steps: 8 -> 10" in longer.stdout
    refused = kogpt2("train", "debug_cpu", *tiny, "training.num_steps=12", "training.seed=5", code=2)
    assert "training.seed: 0 -> 5" in refused.stderr
    never = kogpt2("train", "debug_cpu", *tiny, "--resume", "never", code=2)
    assert "already holds step-00000010" in never.stderr


def test_evaluation_does_not_depend_on_the_batch(tiny, shards, tmp_path):
    kogpt2("train", "debug_cpu", *tiny)
    scores = [
        json.loads(kogpt2("evaluate", tmp_path / "run", shards / "test", "--batch-size", size, "--json").stdout)
        for size in (1, 7)
    ]
    assert scores[0]["tokens"] == scores[1]["tokens"]
    assert abs(scores[0]["loss"] - scores[1]["loss"]) < 1e-6
    manifest = json.loads((shards / "test" / "manifest.json").read_text())
    assert scores[0]["tokens"] == manifest["tokens"] - manifest["documents"]
    bits = scores[0]["loss"] / np.log(2) * scores[0]["tokens"] / manifest["text_bytes"]
    assert abs(scores[0]["bits_per_byte"] - bits) < 1e-9
    last = evaluations(tmp_path / "run")[-1]
    assert abs(last["loss"] - scores[0]["loss"]) < 1e-6


def test_the_launcher_runs_the_real_thing(tiny, tmp_path):
    """`python -m launch run --np 2` trains, and brings back a worker's own exit code."""
    command = [sys.executable, "-m", "launch", "run", "debug_cpu", *tiny, "data.test=", "--np", 2]
    run(*command)
    assert open_checkpoint(tmp_path / "run").state()["size"] == 2
    assert len(losses(tmp_path / "run")) == 8
    done = run(*command[:-2], f"data.train={tmp_path}", "--np", 2, code=3)
    assert "no manifest.json there" in done.stdout + done.stderr
