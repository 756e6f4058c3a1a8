"""Runs in tests of training: beginning, killing and comparing them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import newest_checkpoint, open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.training.loop import train
from tests.helpers import run, tiny_settings

# horovodrun asks whether Horovod has Gloo by importing MXNet and PyTorch in processes of their own, which takes longer
# than most runs here. It is left to tests/launch to ask.
HORUN = (
    sys.executable,
    "-c",
    "import sys; from horovod.runner import launch; launch.gloo_built = lambda **_: 1; launch.run_commandline()",
)
ARRAYS = ("model.params", "optimizer.params")
FILES = (*ARRAYS, "state.json")


# ---- processes ------------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to a process and all that descend from it, at once; waits until none is left."""
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGSTOP)  # so that no parent ends its children politely
    for each in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait(30)
    assert not psutil.wait_procs(everyone, timeout=30)[1]


# ---- what a run has left --------------------------------------------------------------------------------------------


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run_dir) if line["kind"] == "train"]


def losses_by_step(run_dir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(run_dir) if line["kind"] == "train"}


def parameters(run_dir: Path, step: int | None = None) -> bytes:
    """The arrays of network and optimizer in a run's newest checkpoint, or in that of a step."""
    folder = run_dir if step is None else run_dir / "checkpoints" / f"step-{step:08d}"
    checkpoint = open_checkpoint(folder)
    return b"".join((checkpoint.path / name).read_bytes() for name in ARRAYS)


def log_of(run_dir: Path) -> str:
    return (run_dir / "log.txt").read_text(encoding="utf-8")


# ---- whole runs -----------------------------------------------------------------------------------------------------


def pretrain(shards: Path, folder: Path, *more: str) -> Path:
    """Trains a tiny network for 60 steps, so that it has learned something; returns the folder of its run."""
    usual = ["training.num_steps=60", "training.learning_rate=1e-2", "checkpoint.interval=0"]
    train(load_recipe("demo", [*tiny_settings(shards, folder), *usual, *more]))
    return folder


def assert_resumes_exactly(
    options: Sequence[str], again: Path, number: int, recipe: str = "demo", files: Sequence[str] = FILES
) -> list[Path]:
    """Trains straight, and in the folder `again` from the checkpoint of that number on: both end with equal bytes.

    `options` keep a checkpoint of every step. Returns the folders of all checkpoints.
    """
    straight = load_recipe(recipe, options)
    train(straight)
    folders = sorted(straight.ckpt_dir.glob("step-*"))
    assert 0 <= number < len(folders) - 1
    resumed = load_recipe(recipe, [*options, f"tracking.run_dir={again}"])
    shutil.copytree(folders[number], resumed.ckpt_dir / folders[number].name)
    train(resumed)
    for name in files:
        assert (resumed.ckpt_dir / folders[-1].name / name).read_bytes() == (folders[-1] / name).read_bytes(), name
    return folders


def assert_two_workers_agree(settings: Sequence[str], folder: Path) -> list[str]:
    """Trains in folder/one with one worker and in folder/two with two: they end with the same network, nearly.

    Without dropout, since it is drawn for each worker. Returns the command of the two workers, without its run folder.
    """
    alone = [sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "demo", *settings]
    both = [*HORUN, "--gloo", "-np", "2", *alone]
    run(*alone, f"tracking.run_dir={folder / 'one'}")
    run(*both, f"tracking.run_dir={folder / 'two'}")
    one, two = (newest_checkpoint(folder / name / "checkpoints").model_arrays() for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(np.array(one[name]), np.array(two[name]), atol=1e-5)
    return both
