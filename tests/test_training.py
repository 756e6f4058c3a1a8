"""Training end to end: real shards, real processes, real Horovod workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import kogpt2, run
from kogpt2_gluon.checkpoint import open_checkpoint
from kogpt2_gluon.model.params_file import read_params
from kogpt2_gluon.tracking import read_metrics

HORUN = str(Path(sys.executable).with_name("horovodrun"))


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run_dir) if line["kind"] == "train"]


def evaluations(run_dir: Path) -> list[dict]:
    return [line for line in read_metrics(run_dir) if line["kind"] == "evaluation"]


def parameters(run_dir: Path) -> bytes:
    checkpoint = open_checkpoint(run_dir)
    return b"".join((checkpoint.path / name).read_bytes() for name in ("model.params", "optimizer.params"))


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


@pytest.mark.parametrize("optimizer", ["bertadam", "adamw", "adam", "lamb"])
@pytest.mark.parametrize("size", [1, 2])
def test_kill_and_resume_is_bit_exact(tiny, tmp_path, optimizer, size):
    """8 steps straight, and 4 or more, kill -9, and the rest: the same parameters and optimizer state, dropout on."""
    launch = [] if size == 1 else [HORUN, "--gloo", "-np", size]
    common = ["debug_cpu", *tiny, f"training.optimizer={optimizer}", "training.total_batch_size=16"]
    command = [*launch, sys.executable, "-m", "kogpt2_gluon.cli", "train", *common]
    run(*command, f"tracking.run_dir={tmp_path / 'straight'}")

    # The second run is told to stop for good after step 4, then goes on under the first one's recipe.
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        [str(part) for part in (*command, f"tracking.run_dir={broken}", "evaluation.interval=1")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (broken / "checkpoints" / "step-00000003").is_dir():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    import os

    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert open_checkpoint(broken).state()["step"] in (3, 6)  # else it was too late to be of use
    run(*command, f"tracking.run_dir={broken}")
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
        HORUN,
        "--gloo",
        "-np",
        2,
        sys.executable,
        "-m",
        "kogpt2_gluon.cli",
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
    for ours, theirs in zip(evaluations(tmp_path / "one"), evaluations(tmp_path / "two")):
        assert abs(ours["loss"] - theirs["loss"]) < 1e-5 * ours["loss"]


def test_sigterm_saves_and_says_75(tiny, tmp_path):
    run_dir = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "kogpt2_gluon.cli",
        "train",
        "debug_cpu",
        *tiny,
        "training.num_steps=5000",
        "checkpoint.interval=0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run_dir / "metrics.jsonl").exists() or len(losses(run_dir)) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors.startswith("kogpt2: stopped at step") and errors.count("\n") == 1
    step = open_checkpoint(run_dir).state()["step"]
    assert step >= 3 and len(losses(run_dir)) == step


def test_divergence_says_4_and_keeps_the_last_good_state(tiny, tmp_path):
    done = kogpt2(
        "train",
        "debug_cpu",
        *tiny,
        "training.learning_rate=1e30",
        "training.optimizer=adam",
        "checkpoint.interval=1",
        code=4,
    )
    assert "learning_rate" in done.stderr and done.stderr.count("\n") == 1
    folder = tmp_path / "run" / "checkpoints"
    for checkpoint in folder.glob("step-*") if folder.exists() else []:
        assert all(np.isfinite(a).all() for a in read_params(checkpoint / "model.params").values())


def test_stop_rule_ends_a_run_that_no_longer_improves(tiny, tmp_path):
    # A learning rate of nothing: no epoch improves, so the second epoch is the last one.
    rule = [
        "evaluation.stop_improvement=0.01",
        "training.learning_rate=0",
        "training.num_steps=100000",
        "checkpoint.interval=0",
    ]
    done = kogpt2("train", "debug_cpu", *tiny, *rule, "training.total_batch_size=256", "training.batch_size=64")
    assert "stop rule met" in done.stdout
    state = open_checkpoint(tmp_path / "run").state()
    per_epoch = state["step"] * 256 / 2
    assert state["epoch_perplexity"] > 500 and per_epoch > 1000


def test_settings_that_may_change_and_those_that_may_not(tiny, tmp_path):
    kogpt2("train", "debug_cpu", *tiny)
    longer = kogpt2("train", "debug_cpu", *tiny, "training.num_steps=10")
    assert "changed since then: training.num_steps: 8 -> 10" in longer.stdout
    refused = kogpt2("train", "debug_cpu", *tiny, "training.num_steps=12", "training.seed=5", code=2)
    assert "training.seed: 0 -> 5" in refused.stderr
    never = kogpt2("train", "debug_cpu", *tiny, "--resume", "never", code=2)
    assert "holds step-00000010 already" in never.stderr


def test_evaluation_does_not_depend_on_workers_or_batch(tiny, shards, tmp_path):
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
