"""The folder of a search: its name, its files after a kill or a full disk, and how often a run is read."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.search import study as study_module
from kogpt2_gluon.search import study_file
from kogpt2_gluon.search.searching import search
from kogpt2_gluon.search.study import Study
from kogpt2_gluon.search.study_file import cut_half_line
from tests.helpers import small_disk
from tests.search.conftest import GRID, PLANTED
from tests.search.planted import Here

HALF = b'{"op_code":4,"worker_id":"'


@pytest.mark.parametrize("journal", [False, True])
def test_the_folder_may_have_any_name(study_of, journal):
    name = "탐색 a?b=1 50%41 {x} #2 & 'c'"
    trials = search(study_of(folder=name, journal=journal, trials=2), 1, [], lambda line: None, Here)
    folder = study_of(folder=name, journal=journal, trials=2).folder
    assert (folder / ("study.log" if journal else "study.db")).stat().st_size
    assert sorted(each.name for each in folder.parent.iterdir()) == ["space.yaml", name]
    assert [trial.settings for trial in study_of(folder=name, journal=journal, trials=2).trials()] == [
        trial.settings for trial in trials
    ]


def test_a_lock_that_a_kill_left_does_not_hold_up_a_journal(tmp_path, monkeypatch, plan_of):
    """Optuna's lock points to the journal, and to nothing if that is named by a relative path."""
    monkeypatch.chdir(tmp_path)
    plan = plan_of(journal=True)
    Study(Path("study"), plan).begin()
    Path("study/study.log.lock").symlink_to("study/study.log")
    again = Study(Path("study"), plan)
    again.begin()
    assert [trial.number for trial in again.trials()] == [0, 1]


def test_half_a_line_of_a_journal_is_removed_before_the_next_one(tmp_path, plan_of):
    plan, said = plan_of(journal=True), []
    first = Study(tmp_path / "study", plan, said.append)
    first.begin()
    journal = tmp_path / "study" / "study.log"

    def cut_power():
        with journal.open("ab") as file:
            file.write(HALF)

    cut_power()
    second = Study(tmp_path / "study", plan, said.append)
    assert len(said) == 1 and f"{len(HALF)} bytes" in said[0] and "half a line" in said[0]
    cut_power()  # of another host, while these two have it open
    first.begin()
    assert len(said) == 2
    assert (
        len(first.trials()) == len(second.trials()) == len(Study(tmp_path / "study", plan, said.append).trials()) == 2
    )
    assert all(json.loads(line) for line in journal.read_text().splitlines()) and len(said) == 2


@settings(deadline=None)
@given(data=st.lists(st.sampled_from([b"", b"a", b"\n", b"b" * 65536, b"c" * 65535]), max_size=8).map(b"".join))
def test_a_file_is_cut_to_its_last_line_end(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "file"
    path.write_bytes(data)
    kept = data[: data.rfind(b"\n") + 1]
    assert cut_half_line(path) == len(data) - len(kept)
    assert path.read_bytes() == kept


def test_hosts_may_begin_a_search_at_the_same_moment(tmp_path, plan_of):
    plan, found = plan_of(journal=True), []
    threads = [threading.Thread(target=lambda: found.append(Study(tmp_path / "study", plan))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    found[0].begin()
    assert [len(study.trials()) for study in found] == [1] * 4


def test_a_search_that_was_killed_before_its_plan_was_written_begins(tmp_path, plan_of):
    (tmp_path / "study").mkdir()
    for name in ("base.yaml", ".search.yaml.0123456789ab.partial"):
        (tmp_path / "study" / name).write_text("half")
    study = Study(tmp_path / "study", plan_of())
    assert study.begin() == 0 and (tmp_path / "study" / "base.yaml").read_text() == study.plan.recipe.to_yaml()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, plan_of):
    """By the lock of the decisions, which would be waited for if another process had it."""
    study = Study(tmp_path / "study", plan_of())
    (tmp_path / "study" / "deciding").write_text("a file, where a folder should be")
    with pytest.raises(RecipeError, match="cannot be written"), study.deciding():
        pass


def test_a_run_is_read_again_only_once_it_has_written(study_of, monkeypatch):
    study = study_of(trials=3)
    search(study, 1, [], lambda line: None, Here)
    reads = []
    real = study_module.read_metrics
    monkeypatch.setattr(study_module, "read_metrics", lambda path: reads.append(path.name) or real(path))
    before = study.trials()
    assert reads == []
    record = before[1].path / "metrics.jsonl"
    line = {"kind": "evaluation", "step": 90, "time": 0.0, "seconds": 9.0, "loss": 1.0, "bits_per_byte": 1.5}
    with record.open("a") as file:
        file.write(json.dumps(line) + "\n")
    after = study.trials()
    assert reads == ["0001"] and after[1].values[90] == 1.5 and after[0] == before[0] and after[2] == before[2]


def test_two_commands_work_on_one_search(tmp_path):
    """Each slice is begun once, by one of them, and both end with the same best trial."""
    (tmp_path / "space.yaml").write_text(GRID)
    starts = tmp_path / "starts"
    argv = [sys.executable, "-m", "kogpt2_gluon.cli.main", "search", "demo", str(tmp_path / "space.yaml")]
    argv += ["data.test=shards/test", "training.num_steps=90", "training.final_learning_rate=0", "--first=10"]
    argv += ["--trials=9", "--journal", "--json", f"--run-with={' '.join(PLANTED)}", f"--out={tmp_path / 'study'}"]
    environment = {**os.environ, "PLANTED_STARTS": str(starts), "PLANTED_TOGETHER": "2"}
    hosts = [
        subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        outputs = [host.communicate(timeout=300) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], outputs
    found = [json.loads(output) for output, _ in outputs]
    assert found[0]["best"] == found[1]["best"] and found[0]["trials"] == found[1]["trials"]
    assert len(found[0]["trials"]) == 9
    lines = starts.read_text().splitlines()
    assert len(set(lines)) == len(lines) == sum(len(trial["values"]) for trial in found[0]["trials"])
    assert all("trial " in errors for _, errors in outputs)  # both have trained something
    for trial in found[0]["trials"]:
        record = (tmp_path / "study" / "trials" / f"{trial['trial']:04}" / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in record]
        assert steps == sorted(set(steps)) and steps[-1] == trial["steps"]


# ---- a study that is removed or full while it is in use --------------------------------------------------------------


@pytest.mark.parametrize("journal", [False, True])
def test_a_study_that_is_removed_is_named_and_nothing_begins_in_its_place(study_of, journal):
    study = study_of(journal=journal, trials=3)
    search(study, 1, [], lambda line: None, Here)
    file = study.folder / ("study.log" if journal else "study.db")
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(DataError, match="study: its study can no longer be used"):
        study.fail(0, "lost")
        study.begin()
    assert not file.exists()
    with pytest.raises(DataError, match=r"trials/0000: is a run, and the study in .* knows 0 trials"):
        study_of(journal=journal, trials=4).begin()
    file.write_bytes(kept)
    assert study_of(journal=journal, trials=4).begin() == 3


def test_a_journal_that_is_replaced_gets_no_line_of_another(study_of):
    study = study_of(journal=True)
    study.begin()
    file = study.folder / "study.log"
    other = file.rename(file.with_name("other.log"))
    file.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match=r"study\.log: was removed or replaced"):
        study.begin()
    assert file.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("journal", [False, True])
def test_a_full_disk_is_one_line_and_with_room_the_search_goes_on(tmp_path, plan_of, journal):
    with small_disk(tmp_path / "disk", 400_000) as disk:
        plan = plan_of(journal=journal)
        study = Study(disk / "study", plan)
        study.begin()
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(512))
        with pytest.raises(DataError, match=r"can no longer be used .*(disk is full|No space left)"):
            for _ in range(24):
                study.begin()
        (disk / "filler").unlink()
        again = Study(disk / "study", plan, lambda line: None)
        known = len(again.trials())
        assert known and again.begin() == known == len(again.trials()) - 1


def test_a_study_that_another_tool_keeps_locked_is_one_line(study_of, monkeypatch):
    monkeypatch.setattr(study_file, "BUSY_SECONDS", 0.2)
    study = study_of()
    study.begin()
    with contextlib.closing(sqlite3.connect(study.folder / "study.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match=r"can no longer be used \(database is locked\)"):
            study.begin()
    assert study.begin() == 1
