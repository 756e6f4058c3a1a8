"""The lock of a run folder, while others look at it and while its holder takes the folder away."""

from __future__ import annotations

import fcntl
import time

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.runs.lock import HeldError, RunLock, check_unlocked


def test_who_only_looks_at_a_lock_does_not_refuse_a_start(tmp_path, monkeypatch):
    """A look takes the shared lock for a moment, which excludes the writer's."""
    (tmp_path / "lock").touch()
    looker = (tmp_path / "lock").open("rb")
    fcntl.flock(looker, fcntl.LOCK_SH | fcntl.LOCK_NB)
    monkeypatch.setattr(time, "sleep", lambda _: looker.close())
    with RunLock(tmp_path), pytest.raises(HeldError, match="trains in it"):
        check_unlocked(tmp_path)
    check_unlocked(tmp_path)


def test_a_second_writer_is_refused_after_a_while(tmp_path):
    with RunLock(tmp_path), pytest.raises(HeldError, match="trains in it"):
        RunLock(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_its_holder_takes_away_is_made_again(tmp_path, monkeypatch):
    first = RunLock(tmp_path / "claim")
    monkeypatch.setattr(time, "sleep", lambda _: first.close())
    second = RunLock(tmp_path / "claim")
    assert (tmp_path / "claim" / "lock").is_file()
    second.close()
    assert not (tmp_path / "claim").exists()


def test_a_folder_that_cannot_be_made_is_no_lock_that_somebody_holds(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="cannot be written") as caught:
        RunLock(tmp_path / "file" / "run")
    assert not isinstance(caught.value, HeldError)


def test_folders_that_were_made_for_the_lock_go_with_it_as_far_as_they_are_empty(tmp_path):
    run_dir = tmp_path / "runs" / "new" / "run"
    RunLock(run_dir).close()
    assert not list(tmp_path.iterdir())
    with RunLock(run_dir):
        (tmp_path / "runs" / "note").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "note"]
    (tmp_path / "runs" / "old").mkdir()
    RunLock(tmp_path / "runs" / "old").close()
    assert (tmp_path / "runs" / "old").is_dir(), "it was there before"
