"""The logbook: all that a run said but its figures, and what its operators wrote, in order."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.logbook import LONGEST_NOTE, add_note, read_logbook
from kogpt2_gluon.runs.report import render_report
from kogpt2_gluon.training.loop import train
from tests.helpers import kogpt2


@pytest.fixture(scope="module")
def run_dir(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was started twice, with a note in between."""
    from tests.helpers import tiny_settings

    folder = tmp_path_factory.mktemp("noted") / "run"
    options = [*tiny_settings(shards, folder), "tracking.sample_prompts=[가]"]
    train(load_recipe("debug_cpu", [*options, "training.num_steps=3"]))
    said = kogpt2("note", folder, "the", "first <b>half</b>\nis done").stdout
    assert said.startswith(f"written into {folder}/log.txt; ") and said.count("\n") == 1
    train(load_recipe("debug_cpu", [*options, "training.num_steps=5"]))
    return folder


def test_a_run_s_starts_ends_and_notes_are_in_it_and_its_figures_are_not(run_dir: Path) -> None:
    entries = read_logbook(run_dir)
    assert [entry.kind for entry in entries if entry.kind != "event"] == ["start", "end", "note", "start", "end"]
    assert [entry.time for entry in entries] == sorted(entry.time for entry in entries)
    text = "\n".join(entry.text for entry in entries)
    assert "first <b>half</b> is done" in text and "going on from" in text and text.endswith("ended: done")
    assert "tok/s" not in text and "perplexity" not in text and "samples |" not in text
    page = render_report(run_dir)
    assert "<h2>Logbook</h2>" in page and "first &lt;b&gt;half&lt;/b&gt; is done" in page


def _write_notes(folder: Path, name: str) -> None:
    for number in range(50):
        add_note(folder, f"{name} {number}", f"{name}@host")


def test_notes_of_several_people_at_once_stay_whole(tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()
    people = [multiprocessing.Process(target=_write_notes, args=(tmp_path, name)) for name in ("kim", "lee", "han")]
    for one in people:
        one.start()
    for one in people:
        one.join()
    notes = [entry.text for entry in read_logbook(tmp_path)]
    for name in ("kim", "lee", "han"):
        own = [note for note in notes if name in note]
        assert own == [f"note by {name}@host: {name} {number}" for number in range(50)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.text(max_size=200))
def test_any_text_is_one_line_of_the_log(tmp_path: Path, text: str) -> None:
    log = tmp_path / "log.txt"
    log.write_text("2026-11-30 03:18:35 run: 5 parameters; 1 worker(s) on cpu(0)\n", encoding="utf-8")
    try:
        add_note(tmp_path, text, "kim@host")
    except RecipeError:
        assert not text.split()
        return
    raw = log.read_bytes()
    assert raw.count(b"\n") == 2 and b"\x1b" not in raw
    assert [entry.kind for entry in read_logbook(tmp_path)] == ["start", "note"]


def test_notes_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is .* the folder of a run"):
        add_note(tmp_path, "text", "kim@host")
    (tmp_path / "log.txt").touch()
    with pytest.raises(RecipeError, match="empty"):
        add_note(tmp_path, " \n", "kim@host")
    with pytest.raises(RecipeError, match="4,001 characters"):
        add_note(tmp_path, "a" * (LONGEST_NOTE + 1), "kim@host")
    assert read_logbook(tmp_path) == []


def test_a_note_after_half_a_line_of_a_killed_run_is_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("2026-11-30 03:18:35 going on from\n2026-11-30 03:18:36 step 1: gra")
    add_note(tmp_path, "killed by hand", "kim@host")
    assert [entry.text for entry in read_logbook(tmp_path)] == [
        "going on from",
        "step 1: gra",
        "note by kim@host: killed by hand",
    ]
