"""Runs are found wherever they are linked, and a damaged record is said, not shown as none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs.remote import opened, runs_below
from kogpt2_gluon.runs.run_folder import find_runs, open_run
from kogpt2_gluon.training.fork import fork
from tests.helpers import kogpt2
from tests.runs.report_helpers import make_run


def test_linked_runs_are_found_once(tmp_path: Path) -> None:
    far, here = tmp_path / "far", tmp_path / "here"
    make_run(far / "one")
    make_run(far / "more" / "two")
    make_run(here / "own")
    (here / "linked").symlink_to(far / "one")
    (here / "many").symlink_to(far / "more")
    (here / "again").symlink_to(here / "own")
    (here / "circle").symlink_to(here)
    (here / "nowhere").symlink_to(tmp_path / "gone")
    found = [run.path for run in find_runs(here)]
    assert found == [here / "own", here / "linked", here / "many" / "two"]
    assert [run.path for run in find_runs(here / "linked")] == [here / "linked"]


def test_a_damaged_record_is_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name)
    (tmp_path / "new").mkdir()  # it has no record yet
    (tmp_path / "new" / "recipe.yaml").write_text((tmp_path / "a" / "recipe.yaml").read_text())
    (tmp_path / "new" / "log.txt").touch()
    damaged = tmp_path / "b" / "metrics.jsonl"
    damaged.write_text("damage\n" + damaged.read_text())
    with runs_below(tmp_path) as (found, faults):
        assert [run.path.name for run in found] == ["a", "b", "new"]
        assert [str(damaged) in str(fault) for fault in faults] == [True]
    with pytest.raises(DataError, match="line 1"), opened([tmp_path / "a", tmp_path / "b"]):
        pass
    with pytest.raises(DataError, match="line 1"):
        fork(tmp_path / "b", tmp_path / "fork", None)
    assert not (tmp_path / "fork").exists() and open_run(tmp_path / "new").fault is None
    for verb in ("list", "leaderboard"):
        said = kogpt2("runs", verb, tmp_path, "--json", code=3)
        assert "metrics.jsonl: line 1" in said.stderr and "1 run cannot be read" in said.stderr
        assert str(tmp_path / "a") in json.dumps(json.loads(said.stdout))
