"""A run's folder: going back to an earlier step, copies, a second writer, signals, an output that nobody reads."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.lock import RunLock, check_unlocked
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.resume_point import find_resume_point
from tests.helpers import kogpt2
from tests.runs.checkpoint_helpers import flip, save, shorten
from tests.training.run_helpers import losses, wait_for

LONG = ("training.num_steps=5000", "checkpoint.interval=0")


def start(*arguments: object, before: Any = None, **streams: Any) -> subprocess.Popen:
    """Starts a training that would take minutes."""
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "debug_cpu", *map(str, arguments)]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen(command, preexec_fn=before, text=True, **streams)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def trained(tiny: list[str], *options: str) -> Path:
    recipe = load_recipe("debug_cpu", [*tiny, *options])
    train(recipe)
    return recipe.run_dir


def kill_at(run_dir: Path, step: int, process: subprocess.Popen) -> None:
    wait_for(lambda: (run_dir / "metrics.jsonl").is_file() and f'"step": {step},' in _metrics(run_dir), process)
    process.kill()
    process.communicate()


def _metrics(run_dir: Path) -> str:
    return (run_dir / "metrics.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("other", [False, True], ids=["its own checkpoint", "another run's checkpoint"])
def test_a_run_that_went_back_and_was_killed_goes_on_from_there(tiny: list[str], tmp_path: Path, other: bool) -> None:
    """Nothing is deleted, and the steps that it went back from do not come back."""
    run_dir = trained(tiny, "checkpoint.keep=10")
    assert steps(run_dir / "checkpoints") == [0, 3, 6, 8]
    source = run_dir
    if other:
        source = trained(tiny, f"tracking.run_dir={tmp_path / 'other'}", "training.num_steps=3")
    named = source / "checkpoints" / "step-00000003"
    whole = {path.name: path.read_bytes() for path in named.iterdir()}
    kill_at(run_dir, 12, start(*tiny, *LONG, "training.learning_rate=1e-2", "--resume", named))
    (aside,) = (run_dir / "checkpoints").glob("before-step-00000003-*")
    assert steps(aside) == ([0, 3, 6, 8] if other else [6, 8]) and open_checkpoint(aside).state()["step"] == 8
    assert steps(run_dir / "checkpoints") == ([3] if other else [0, 3])
    assert {path.name: path.read_bytes() for path in open_checkpoint(run_dir).path.iterdir()} == whole

    done = kogpt2("train", "debug_cpu", *tiny, "training.num_steps=9", "checkpoint.keep=1")
    assert f"going on from {run_dir}/checkpoints/step-00000003" in done.stdout
    assert steps(run_dir / "checkpoints") == [9] and open_checkpoint(aside).state()["step"] == 8
    log = (run_dir / "log.txt").read_text(encoding="utf-8")
    assert "the run went back to step 3: step-0000000" in log and "nothing was deleted" in log


def test_damage_costs_the_steps_since_the_last_whole_checkpoint(tiny: list[str]) -> None:
    """The damaged ones are named and stay, and the run ends as if nothing had happened."""
    run_dir = trained(tiny, "checkpoint.keep=10")
    ckpt_dir = run_dir / "checkpoints"
    last = {path.name: path.read_bytes() for path in (ckpt_dir / "step-00000008").iterdir()}
    shorten(ckpt_dir / "step-00000006" / "optimizer.params")
    flip(ckpt_dir / "step-00000008" / "model.params")
    done = kogpt2("train", "debug_cpu", *tiny, "checkpoint.keep=10").stdout
    for step, name in ((8, "model"), (6, "optimizer")):
        assert f"WARNING: {ckpt_dir}/step-0000000{step}/{name}.params: missing, truncated or damaged" in done
    assert "WARNING: going on from step-00000003, the newest checkpoint that is whole" in done
    assert "the run went back to step 3: step-00000006, step-00000008 moved to" in done
    (aside,) = ckpt_dir.glob("before-step-00000003-*")
    assert steps(aside) == [6, 8] and steps(ckpt_dir) == [0, 3, 6, 8]
    assert {path.name: path.read_bytes() for path in (ckpt_dir / "step-00000008").iterdir()} == last


def test_an_older_checkpoint_is_not_taken_in_silence(tmp_path: Path) -> None:
    """A bit of the file `latest` has changed, or a run was killed between a checkpoint and that file."""
    for step in (2, 3):
        save(tmp_path, step)
    assert find_resume_point("auto", tmp_path, Worker())[1] == []
    (tmp_path / "latest").write_text("step-00000002\n")
    found, (warning,) = find_resume_point("auto", tmp_path, Worker())
    assert found and found.path.name == "step-00000002"
    assert warning.startswith("WARNING: going on from step-00000002,") and "though there is step-00000003:" in warning


def test_a_copy_of_a_run_never_writes_into_the_original(tiny: list[str], tmp_path: Path) -> None:
    run_dir = trained(tiny)
    copy = Path(shutil.copytree(run_dir, tmp_path / "copy"))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(run_dir.rglob("*"))}
    recipe = load_recipe(str(copy / "recipe.yaml"), ["training.num_steps=10"])
    assert recipe.run_dir == copy
    train(recipe)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(run_dir.rglob("*"))} == before
    assert steps(copy / "checkpoints")[-1] == 10 and len(losses(copy)) == 10
    assert load_recipe(str(copy / "recipe.yaml")).run_dir == copy
    elsewhere = load_recipe(str(copy / "recipe.yaml"), [f"tracking.run_dir={tmp_path / 'new'}"])
    assert elsewhere.run_dir == tmp_path / "new"
    assert load_recipe(str(run_dir / "recipe.yaml")).run_dir == run_dir


def test_a_second_writer_is_refused_and_a_dead_one_is_not_in_the_way(tiny: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = start(*tiny, *LONG)
    wait_for(lambda: (run_dir / "metrics.jsonl").is_file() and len(losses(run_dir)) > 2, first)
    second = kogpt2("train", "debug_cpu", *tiny, "training.seed=1", code=2)
    holder = f"{run_dir}: process {first.pid} on {socket.gethostname()}, since 20"
    assert second.stderr.startswith(f"kogpt2: {holder}") and second.stderr.count("\n") == 1
    assert "trains in it; stop that one, or set another tracking.run_dir" in second.stderr
    with pytest.raises(RecipeError, match="trains in it"):
        check_unlocked(run_dir)
    assert first.poll() is None
    assert load_recipe(str(run_dir / "recipe.yaml")).training.seed == 0  # untouched by the second
    first.kill()
    first.communicate()
    check_unlocked(run_dir)
    lock = RunLock(run_dir)
    lock.close()
    lock.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_hang_up_saves_and_ends_and_a_warning_saves_and_goes_on(
    tiny: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    run_dir = tmp_path / "run"
    process = start(*tiny, *LONG)
    wait_for(lambda: (run_dir / "metrics.jsonl").is_file() and len(losses(run_dir)) >= 3, process)
    process.send_signal(number)
    if number == signal.SIGUSR1:
        latest = run_dir / "checkpoints" / "latest"
        wait_for(latest.is_file, process)
        saved = open_checkpoint(run_dir).state()["step"]
        wait_for(lambda: len(losses(run_dir)) > saved + 3, process)
        assert steps(run_dir / "checkpoints") == [saved]
        process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and errors.startswith("kogpt2: stopped at step")
    step = open_checkpoint(run_dir).state()["step"]
    assert step >= 3 and len(losses(run_dir)) == step


def test_a_hang_up_that_is_ignored_stays_ignored(tiny: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start(*tiny, *LONG, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
    wait_for(lambda: (run_dir / "metrics.jsonl").is_file() and len(losses(run_dir)) >= 3, process)
    process.send_signal(signal.SIGHUP)
    seen = len(losses(run_dir))
    wait_for(lambda: len(losses(run_dir)) > seen + 5, process)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("closed", ["stdout", "both"])
def test_an_output_that_nobody_reads_does_not_end_a_run(tiny: list[str], tmp_path: Path, closed: str) -> None:
    """A reader such as `head -n 3` ends first, or the terminal has gone."""
    run_dir = tmp_path / "run"
    read, write = os.pipe()
    errors = subprocess.STDOUT if closed == "both" else subprocess.PIPE
    process = start(*tiny, "training.num_steps=60", stdout=write, stderr=errors)
    os.close(write)
    with os.fdopen(read) as output:
        assert output.readline()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and not said
    assert len(losses(run_dir)) == 60 and steps(run_dir / "checkpoints")[-1] == 60
    log = (run_dir / "log.txt").read_text(encoding="utf-8")
    assert "step 60/60 | 100.00%" in log


def test_the_exit_code_arrives_where_nobody_reads_why(tiny: list[str], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(*tiny, "data.train=/nowhere", stdout=write, stderr=write)
    os.close(write)
    assert process.wait(60) == 3


def test_a_run_that_is_refused_leaves_no_folder(tiny: list[str], tmp_path: Path) -> None:
    kogpt2("train", "debug_cpu", *tiny, "data.train=/nowhere", code=3)
    assert not (tmp_path / "run").exists()
    RunLock(tmp_path / "new" / "run").close()
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "run").mkdir()
    with RunLock(tmp_path / "run"), pytest.raises(RecipeError, match=r"process \d+ on .* trains in it"):
        check_unlocked(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
