"""Weights & Biases gets each figure, a dead server holds nothing up, and nobody is asked for a key. The client is real.

Each run is in a process of its own, since the client stays in the one that has used it.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.wandb_server import FakeWandB, fake_wandb

# A start for each argument after the mode and the seconds that its end waits: "0:5,10" is a new run that logs the steps
# 5 and 10, "5:10" goes on from 5. Before each start ends it writes a line, and waits for one.
CODE = """
import sys, time
from pathlib import Path
from kogpt2_gluon.runs.followers import background
background.CLOSE_SECONDS = float(sys.argv[3])
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.followers.chosen import followers_of
from kogpt2_gluon.runs.metrics import Tracker
from tests.runs.tracking_helpers import log

run_dir, mode = sys.argv[1:3]
recipe = load_recipe("demo", [f"tracking.run_dir={run_dir}", f"tracking.wandb={mode}"])
for start in sys.argv[4:]:
    if "=" in start:
        continue
    begun, steps = start.split(":")
    begun, steps = int(begun), [int(step) for step in steps.split(",")]
    followers = lambda: followers_of(recipe, not begun)
    with Tracker(recipe.run_dir, 20, begun or None, tensorboard=False, followers=followers) as tracker:
        if begun:
            tracker.log_evaluation(begun, {"loss": 0.5})
        for step in steps:
            log(tracker, step, loss=float(step))
        tracker.log_evaluation(steps[-1], {"loss": 0.5})
        print("logged", flush=True)
        sys.stdin.readline()
        log(tracker, steps[-1] + 1, loss=0.25)
"""


WITHOUT_KEY = """
import sys, time
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.followers.chosen import followers_of
from kogpt2_gluon.runs.metrics import Tracker
from tests.runs.tracking_helpers import log

recipe = load_recipe("demo", [f"tracking.run_dir={sys.argv[1]}", "tracking.wandb=online"])
with Tracker(recipe.run_dir, 20, tensorboard=False, followers=lambda: followers_of(recipe, True)) as tracker:
    log(tracker, 1)
    while tracker._followers[0]._notes.empty():
        time.sleep(0.05)
    log(tracker, 2)
"""
SECRET = "tracking.mlflow=http://kim:geheim@127.0.0.1:1"


def start_runs(run_dir: Path, mode: str, *starts: str, seconds: float = 200, **options) -> subprocess.Popen:
    argv = [sys.executable, "-c", CODE, str(run_dir), mode, str(seconds), *starts]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def log_of(run_dir: Path) -> str:
    return (run_dir / "log.txt").read_text()


def rows(fake: FakeWandB, name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in fake.history if name in row]


def test_figures_after_a_roll_back_arrive_too(tmp_path):
    """So does an evaluation at the step that the run goes on from. W&B drops what is logged under an earlier step."""
    with fake_wandb() as fake:
        process = start_runs(tmp_path / "run", "online", "0:5,10", "5:10,15", env=fake.variables(tmp_path))
        out, _ = process.communicate("\n\n", timeout=240)
    assert process.returncode == 0 and "WARNING" not in log_of(tmp_path / "run"), log_of(tmp_path / "run")
    assert rows(fake, "train/loss") == [(5, 5.0), (10, 10.0), (11, 0.25), (10, 10.0), (15, 15.0), (16, 0.25)]
    assert rows(fake, "evaluation/loss") == [(10, 0.5), (5, 0.5), (15, 0.5)]
    assert len({run["name"] for run in fake.runs if run.get("name")}) == 1
    assert out.count("logged\n") == 2 and "wandb" not in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["was never there", "falls silent"])
def test_a_server_that_does_not_answer_does_not_keep_the_process(tmp_path, kind):
    with fake_wandb() as fake:
        seconds = 15  # of which W&B takes 12
        if kind == "was never there":
            fake.silent.set()
            seconds = 2
        process = start_runs(tmp_path / "run", "online", "0:5,10", seconds=seconds, env=fake.variables(tmp_path))
        try:
            assert "logged\n" in iter(process.stdout.readline, "")
            assert fake.asked.wait(120)
            if kind == "falls silent":
                while not fake.history:
                    assert process.poll() is None
                fake.silent.set()
            process.communicate("\n", timeout=80)  # W&B's own patience is longer
        finally:
            process.kill()
    assert process.returncode == 0
    if kind == "was never there":
        assert "records did not arrive" in log_of(tmp_path / "run")


def test_each_start_offline_has_an_id_of_its_own_in_one_group(tmp_path):
    run_dir = tmp_path / "run"
    process = start_runs(run_dir, "offline", "0:5,10", "5:10", SECRET)
    process.communicate("\n\n", timeout=240)
    assert process.returncode == 0 and "WARNING" not in log_of(run_dir)
    folders = sorted((run_dir / "wandb").glob("offline-run-*"))
    ids = {folder.name.rpartition("-")[2] for folder in folders}
    group = (run_dir / "wandb_group").read_text()
    assert len(ids) == 2 and group in ids
    for folder in folders:
        (path,) = folder.glob("*.wandb")
        assert group.encode() in path.read_bytes() and b"train/loss" in path.read_bytes()
    assert not (run_dir / "wandb_id").exists(), "an online run must not take the id of an offline one"
    kept = [path for path in (run_dir / "wandb").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"geheim" in path.read_bytes()], "the command line is in the record"


ASKED = b"Enter your choice"  # by W&B


def test_without_a_key_nobody_is_asked_on_a_terminal(tmp_path):
    run_dir = tmp_path / "run"
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    variables |= {"HOME": str(tmp_path), "TERM": "xterm"}
    owner, terminal = pty.openpty()
    argv = [sys.executable, "-c", WITHOUT_KEY, str(run_dir)]
    process = subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, env=variables)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the process has ended
        while ASKED not in shown:
            shown += os.read(owner, 4096)
    if ASKED in shown:
        process.kill()
    os.close(owner)
    assert process.wait(timeout=60) == 0, shown
    warnings = [line for line in log_of(run_dir).splitlines() if "No API key configured" in line]
    assert len(warnings) == 1 and "WARNING tracking.wandb: UsageError" in warnings[0]
