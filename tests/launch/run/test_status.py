"""The status, the log and the stop of a single worker, which has no supervisor."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from kogpt2_gluon.machine import job
from kogpt2_gluon.recipe import load_recipe
from kogpt2_launch.cli.main import main


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    recipe = load_recipe("debug_cpu", [f"tracking.run_dir={folder}", "training.num_steps=30"])
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def record(run_dir, step):
    line = {"kind": "train", "step": step, "time": time.time() - 12}
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.mark.parametrize(
    ("steps", "log", "shown"),
    [
        ([], None, ["before its first record", "log   none"]),
        ([10, 20], "2026-11-28 20:00:00 step 20/30 | 안녕\n", ["step 20 of 30 in its record, 1", "step 20/30 | 안녕"]),
        ([21], "a\n2026-11-28 20:00:01 ended: stopped at step 21, saved in x\n", ["step 21 of 30", "ended: stopped"]),
    ],
)
def test_status_is_what_the_run_folder_says(run_dir, steps, log, shown):
    for step in steps:
        record(run_dir, step)
    if log:
        (run_dir / "log.txt").write_text(log, encoding="utf-8")
    result = invoke("status", run_dir)
    assert result.exit_code == 0 and result.output.startswith("a single worker, which has no supervisor: ")
    assert all(each in result.output for each in shown) and "newest checkpoint  none" in result.output
    found = json.loads(invoke("status", run_dir, "--json").output)
    assert found["state"] == "alone" and found["step"] == (steps[-1] if steps else None) and found["num_steps"] == 30


def test_the_advice_of_stop_works(run_dir):
    result = invoke("stop", run_dir)
    assert result.exit_code == 0 and f"kogpt2-launch status {run_dir} shows when it has ended" in result.output
    assert job.stop_file(run_dir).exists()
    assert (
        "asked to stop: once its state is saved, the last line of its log says so" in invoke("status", run_dir).output
    )


@pytest.mark.parametrize("how", ["done", "stopped at step 3, saved in x", "step 4: loss nan"])
def test_a_run_that_has_ended_is_not_stopped(run_dir, how):
    (run_dir / "log.txt").write_text(f"2026-11-28 20:00:01 ended: {how}\n")
    result = invoke("stop", run_dir)
    assert result.exit_code == 3 and "the run has ended; there is nothing to stop" in result.stderr
    assert not job.stop_file(run_dir).exists()


def test_logs_of_a_single_worker_are_in_its_folder(run_dir):
    result = invoke("logs", run_dir)
    assert result.exit_code == 3 and f"see {run_dir}/log.txt" in result.stderr


def test_damaged_files_are_no_tracebacks(run_dir):
    (run_dir / "recipe.yaml").write_text("[")
    (run_dir / "metrics.jsonl").write_bytes(b"\xff\n{}\n")
    (run_dir / "log.txt").write_bytes(b"\xff\xfe")
    assert invoke("status", run_dir).exit_code == 0


RANK = {"rank": 0, "host": "h1", "step": 5, "process": "running", "silent": 0.1, "still": 0.2, "code": None}
STATUS = {"state": "running", "text": "", "launcher": {"host": "h0", "pid": 7}, "updated": 1.7e9, "attempt": 1}
STATUS.update(recipe=["tiny"], num_steps=9, ranks=[RANK])


def write_status(folder, status):
    (folder / "launch").mkdir(exist_ok=True)
    (folder / "launch" / "status.json").write_text(json.dumps(status), encoding="utf-8")


def test_a_status_as_a_launcher_writes_it_is_shown(run_dir):
    write_status(run_dir, STATUS)
    shown = invoke("status", run_dir).output
    assert "attempt 1: running, but the launcher is silent" in shown and "step 5 of 9" in shown
    write_status(run_dir, {**STATUS, "ranks": [{**RANK, "silent": None, "still": None}]})
    assert "not started yet" in invoke("status", run_dir).output


@pytest.mark.parametrize(
    "name", [*sorted(STATUS.keys() - {"recipe"}), *(f"ranks.{name}" for name in RANK), "launcher.pid"]
)
@pytest.mark.parametrize("change", ["goes", "a list", "nested"])
def test_a_status_that_is_none_is_one_line(run_dir, name, change):
    status = json.loads(json.dumps(STATUS))
    outer, _, key = name.rpartition(".")
    place = {"": status, "ranks": status["ranks"][0], "launcher": status["launcher"]}[outer]
    if change == "goes":
        del place[key]
    else:
        place[key] = [{}] if change == "a list" else {"a": {}}
    write_status(run_dir, status)
    result = invoke("status", run_dir)
    assert result.exit_code == 3 and len(result.stderr.splitlines()) == 1 and "status.json" in result.stderr


def test_a_status_cannot_say_that_there_is_no_launcher(run_dir):
    write_status(run_dir, {**STATUS, "state": "alone"})
    assert invoke("status", run_dir).exit_code == 3
    (run_dir / "launch" / "status.json").write_text("[" * 100_000, encoding="utf-8")
    assert invoke("status", run_dir).exit_code == 3
