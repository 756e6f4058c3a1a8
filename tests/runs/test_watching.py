"""kogpt2 watch: every line once and in order, while the run writes them, until it has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.cli.watch import _show
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs import display, watching
from kogpt2_gluon.runs.logbook import add_note
from kogpt2_gluon.runs.watching import GrowingFile, follow, how_it_ended
from tests.helpers import kogpt2
from tests.training.run_helpers import kill_all, wait_for

NOW = "2026-11-30 03:18:35"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b" ")), max_size=12), st.data())
def test_pieces_of_any_size_are_whole_lines_again(tmp_path: Path, lines: list[bytes], data: st.DataObject) -> None:
    path, raw = tmp_path / "grows", b"".join(line + b"\n" for line in lines)
    path.write_bytes(b"")
    file, found, place = GrowingFile(path, 0), [], 0
    while place < len(raw):
        count = data.draw(st.integers(1, 20))
        with path.open("ab") as out:
            out.write(raw[place : place + count])
        place += count
        found += file.new_lines()
    assert found == [line.decode("utf-8", "replace") for line in lines]
    assert file.new_lines() == []
    for last in (0, 1, 3):
        assert GrowingFile(path, last).first == found[len(found) - last if last < len(found) else 0 :][: last or 0]


def test_a_file_that_begins_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert (file := GrowingFile(path, 5)).first == []
    path.write_text("1\n2\n3\n")
    assert file.new_lines() == ["1", "2", "3"]
    path.write_text("1\n")
    assert file.new_lines() == ["1"]


def test_a_file_that_was_replaced_by_a_longer_one_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("1\n2\n")
    file = GrowingFile(path, 0)
    (tmp_path / "new").write_text("a first line\nand a second\n")
    (tmp_path / "new").replace(path)
    assert file.new_lines() == ["a first line", "and a second"]


def test_the_time_left_is_without_the_time_between_two_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps a second, and a night between the steps 2 and 3."""
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    estimates: list[float] = []

    class Shown(display.Display):
        def update(self, step: int, loss: float, figures: str, eta: float) -> None:
            estimates.append(eta)
            if step == 4:
                with (tmp_path / "log.txt").open("a") as file:
                    file.write(f"{NOW} ended: done\n")

    monkeypatch.setattr(display, "Display", Shown)
    records = [
        {"kind": "train", "step": step, "time": 1.7e9 + step + 40_000 * (step > 2), "seconds": step / 2}
        for step in (1, 2, 3, 4)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "recipe.yaml").write_text("name: x\ntraining: {num_steps: 10}\n")
    (tmp_path / "log.txt").write_text(f"{NOW} first\n")
    _show(tmp_path, 0)
    assert estimates[-1] == 3.0


def test_a_run_is_followed_to_its_end(tiny: list[str], tmp_path: Path) -> None:
    """It goes on by itself after a change of settings, and that is not its end."""
    run_dir = tmp_path / "run"
    options = [*tiny, f"tracking.run_dir={run_dir}", "training.num_steps=100000", "checkpoint.interval=0"]
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main"]
    process = subprocess.Popen(
        [*command, "train", "debug_cpu", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(
            lambda: (run_dir / "metrics.jsonl").is_file() and (run_dir / "metrics.jsonl").stat().st_size > 0, process
        )
        watcher = subprocess.Popen(
            [*command, "watch", str(run_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        kogpt2("set", run_dir, "training.learning_rate=2e-3", "--wait", 60)
        wait_for(lambda: "going on from" in (run_dir / "log.txt").read_text(), process)
        kogpt2("set", run_dir, "stop")
        out, err = watcher.communicate(timeout=120)
    finally:
        kill_all(process)
    assert watcher.returncode == 1 and "ended: stopped at step" in err.splitlines()[-1]
    log = (run_dir / "log.txt").read_text(encoding="utf-8").splitlines()
    shown = out.splitlines()
    assert shown == log[log.index(shown[0]) :] and len(shown) > 10


def test_metrics_of_a_run_that_is_done(tmp_path: Path) -> None:
    records = [{"kind": "train", "step": step} for step in range(5)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "log.txt").write_text(f"{NOW} ended: done\n")
    add_note(tmp_path, "all well", "kim@host")
    shown = kogpt2("watch", tmp_path, "--metrics", "--last", 3).stdout.splitlines()
    assert [json.loads(line) for line in shown] == records[2:]
    assert kogpt2("watch", tmp_path, "--last", 1).stdout.endswith("note by kim@host: all well\n")
    (tmp_path / "log.txt").write_text(f"{NOW} ended: training.seed=-1\n")
    assert "ended: training.seed=-1" in kogpt2("watch", tmp_path, "--metrics", code=1).stderr
    assert kogpt2("watch", tmp_path, code=1).stderr == f"kogpt2: {tmp_path}: ended: training.seed=-1\n"


def test_how_a_run_ended(tmp_path: Path) -> None:
    for line, how in (
        ("ended: done", "done"),
        ("ended: goes on from here with training.x 1 -> 2", ""),
        ("ended: rolled back from update 7: loss", ""),
        ("step 7: loss", ""),
    ):
        (tmp_path / "log.txt").write_text(f"{NOW} {line}\n{NOW} note by kim@host: ended: not\n")
        assert how_it_ended(tmp_path) == how
    assert how_it_ended(tmp_path / "none") == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.text(max_size=30))
@example("Kim Min Su@host")
@example("kim: ended@host")
def test_a_note_of_anybody_is_not_the_end(tmp_path: Path, by: str) -> None:
    (tmp_path / "log.txt").write_text(f"{NOW} ended: done\n")
    add_note(tmp_path, "all well", by)
    assert how_it_ended(tmp_path) == "done"


def test_a_folder_that_is_no_run_s(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is this the folder of a run"):
        next(follow(tmp_path))


def test_lines_that_are_written_meanwhile_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    log = tmp_path / "log.txt"
    log.write_text(f"{NOW} first\n")

    def write() -> None:
        for number in range(20):
            with log.open("a") as file:
                file.write(f"{NOW} line {number}\n")
                file.flush()
                os.fsync(file.fileno())
            time.sleep(0.005)
        with log.open("a") as file:
            file.write(f"{NOW} ended: done\n")

    writer, lines = threading.Thread(target=write), follow(tmp_path, last=1)
    assert next(lines) == f"{NOW} first"
    writer.start()
    shown = [line[20:] for line in lines if line]
    writer.join()
    assert shown == [*(f"line {number}" for number in range(20)), "ended: done"]
