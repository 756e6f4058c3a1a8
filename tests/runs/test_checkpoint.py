"""Checkpoints: exactly what was saved comes back, and a crash or damage never costs more than one of them."""

from __future__ import annotations

import contextlib
import json
import pickletools
import shutil
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError, KoGPT2Error
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.runs import checkpoint as module
from kogpt2_gluon.runs.checkpoint import Checkpoint, newest_checkpoint, open_checkpoint, save_checkpoint
from kogpt2_gluon.storage.params_file import read_params
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer
from tests.runs.checkpoint_helpers import FILES, OPERATIONS, RECIPE, arrays, check_whole, moments, same, save, steps
from tests.storage.crash_helpers import FILE_OPERATIONS, Crash, PowerCut, count_operations, without_clean_up

# --- what is saved


def test_everything_comes_back(ckpt_dir: Path) -> None:
    path = save(ckpt_dir, 120)
    assert path == ckpt_dir / "step-00000120"
    assert sorted(file.name for file in path.iterdir()) == sorted([*FILES, "manifest.json"])
    found = open_checkpoint(path)
    check_whole(found, 120)
    assert found.state() == {
        "step": 120,
        "loss_scale": 0.1 + 0.2,
        "reader": {"consumed": 960},
        "evaluation": None,
    }
    assert same(found.optimizer_arrays(), moments(120))
    assert found.recipe() == RECIPE
    assert found.tokenizer_path.read_bytes() == b"not a real tokenizer, but its bytes"
    assert (ckpt_dir / "latest").read_bytes() == b"step-00000120\n"
    assert sorted(entry.name for entry in ckpt_dir.iterdir()) == ["latest", "step-00000120"]


def test_an_optimizer_without_arrays(ckpt_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"t")
    path = save_checkpoint(ckpt_dir, {"step": 1}, arrays(1), {}, RECIPE, stored_tokenizer(tmp_path / "t"))
    open_checkpoint(path).verify()
    assert open_checkpoint(path).optimizer_arrays() == {}


def test_nothing_is_a_pickle(ckpt_dir: Path) -> None:
    """Every file is text, JSON or arrays that NumPy alone reads; as pickles they are nonsense."""
    path = save(ckpt_dir, 3)
    for file in [*path.iterdir(), ckpt_dir / "latest"]:
        with pytest.raises(ValueError), file.open("rb") as stream:
            for _ in pickletools.genops(stream):
                pass
    for name in ("state.json", "manifest.json"):
        json.loads((path / name).read_text(encoding="utf-8"))
    for name in ("model.params", "optimizer.params"):
        assert all(array.dtype == np.float32 for array in read_params(path / name).values())


def test_large_steps_keep_their_order(ckpt_dir: Path) -> None:
    for step in (99_999_999, 100_000_000):
        save(ckpt_dir, step)
    (ckpt_dir / "latest").unlink()
    assert open_checkpoint(ckpt_dir).state()["step"] == 100_000_000


# --- which are kept


def test_keep_prunes_the_oldest(ckpt_dir: Path) -> None:
    for step in (10, 20, 30, 40):
        save(ckpt_dir, step, keep=2)
    assert steps(ckpt_dir) == [30, 40]
    save(ckpt_dir, 50, keep=0)
    assert steps(ckpt_dir) == [30, 40, 50]
    save(ckpt_dir, 60, keep=1)
    assert steps(ckpt_dir) == [60]
    assert sorted(entry.name for entry in ckpt_dir.iterdir()) == ["latest", "step-00000060"]


def test_later_steps_of_an_earlier_course_move_aside(ckpt_dir: Path) -> None:
    for step in (10, 20, 30):
        save(ckpt_dir, step)
    save(ckpt_dir, 15, keep=3)
    assert steps(ckpt_dir) == [10, 15]
    check_whole(newest_checkpoint(ckpt_dir), 15)
    (aside,) = ckpt_dir.glob("before-step-00000015-*")
    assert steps(aside) == [20, 30]
    check_whole(newest_checkpoint(aside), 30)


def test_the_same_step_again_takes_the_place_of_the_first(ckpt_dir: Path) -> None:
    save(ckpt_dir, 10)
    changed = parse_recipe({**RECIPE.to_dict(), "name": "another"})
    save(ckpt_dir, 10, recipe=changed)
    assert newest_checkpoint(ckpt_dir).recipe().name == "another"
    assert sorted(entry.name for entry in ckpt_dir.iterdir()) == ["latest", "step-00000010"]


def test_other_files_are_left_alone(ckpt_dir: Path) -> None:
    ckpt_dir.mkdir(parents=True)
    for name in ("step-best", "step-1", "notes.txt", ".hidden"):
        (ckpt_dir / name).write_text("mine", encoding="utf-8")
    for step in (1, 2):
        save(ckpt_dir, step, keep=1)
    assert {entry.name for entry in ckpt_dir.iterdir()} == {
        *("step-best", "step-1", "notes.txt", ".hidden"),
        *("latest", "step-00000002"),
    }


def test_a_folder_that_vanishes_under_a_save_is_an_error(ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk is taken away, and an empty folder of another disk is in its place."""
    save(ckpt_dir, 10)
    monkeypatch.setattr(module, "name_best", lambda *_: shutil.rmtree(ckpt_dir / "step-00000020"))
    with pytest.raises(KoGPT2Error, match=r"step-00000020: was saved just now and is gone; is the disk of .* still"):
        save(ckpt_dir, 20)


# --- finding one


@pytest.mark.parametrize("where", ["", "checkpoints", "checkpoints/step-00000020", "checkpoints/step-00000010"])
def test_open_by_run_folder_ckpt_dir_or_step(ckpt_dir: Path, where: str) -> None:
    for step in (10, 20):
        save(ckpt_dir, step)
    check_whole(open_checkpoint(ckpt_dir.parent / where), 10 if where.endswith("10") else 20)


def test_open_a_copy_under_another_name(ckpt_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(save(ckpt_dir, 10), tmp_path / "released")
    assert open_checkpoint(tmp_path / "released").state()["step"] == 10


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for name in ("empty", "file", "missing", "step-00000001"):
        with pytest.raises(DataError, match="no checkpoint there") as caught:
            open_checkpoint(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert newest_checkpoint(tmp_path / name) is None


@pytest.mark.parametrize("text", ["", "step-00000099\n", "../other\n", ".", "\ufffd", "notes.txt"])
def test_latest_that_names_no_checkpoint_is_passed_over(ckpt_dir: Path, text: str) -> None:
    for step in (10, 20):
        save(ckpt_dir, step)
    (ckpt_dir / "latest").write_text(text, encoding="utf-8")
    check_whole(newest_checkpoint(ckpt_dir), 20)
    (ckpt_dir / "latest").write_bytes(b"\xff\xfe")
    check_whole(newest_checkpoint(ckpt_dir), 20)


# --- damage


def test_damage_after_it_was_opened(ckpt_dir: Path) -> None:
    found = open_checkpoint(save(ckpt_dir, 10))
    (found.path / "state.json").write_text("{", encoding="utf-8")
    for attempt in (found.state, found.verify):
        with pytest.raises(DataError, match="state"):
            attempt()
    for file in found.path.iterdir():
        file.unlink()
    for attempt in (found.state, found.verify, found.model_arrays, found.optimizer_arrays):
        with pytest.raises(DataError, match="step-00000010"):
            attempt()


@pytest.mark.parametrize("text", ["[]", "3", '{"steps": 3}', '{"step": "3"}'])
def test_a_state_without_a_step(ckpt_dir: Path, text: str) -> None:
    found = open_checkpoint(save(ckpt_dir, 10))
    (found.path / "state.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r'state\.json: it has no "step"'):
        found.state()


# --- crashes


def count_calls(tmp_path: Path) -> int:
    for step in (10, 20):
        save(tmp_path / "count", step)
    return count_operations(lambda: save(tmp_path / "count", 15, keep=1), OPERATIONS)  # later and older ones go


@pytest.mark.parametrize(("error", "clean_up"), [(OSError, True), (PowerCut, False)])
@pytest.mark.parametrize("after", [False, True])
def test_a_save_that_fails_anywhere_leaves_one_to_go_on_from(
    tmp_path: Path, error: type[BaseException], after: bool, clean_up: bool
) -> None:
    """A run that went back to step 10 saves step 15 and fails, at every call that touches the disk in turn.

    Without `clean_up` nothing is put right on the way out either, as when the machine dies.
    """
    calls = count_calls(tmp_path)
    assert calls >= 20
    outcomes = set()
    for at in range(1, calls + 1):
        ckpt_dir = tmp_path / f"at{at}" / "checkpoints"
        for step in (10, 20):
            save(ckpt_dir, step)
        (ckpt_dir / "latest").write_text("step-00000010\n", encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
            if not clean_up:
                without_clean_up(patch)
            Crash(patch, at, after, error, OPERATIONS)
            save(ckpt_dir, 15, keep=1)
        found = newest_checkpoint(ckpt_dir)
        assert found.state()["step"] in (10, 15)  # never 20, which the run has left behind
        check_whole(found, found.state()["step"])
        outcomes.add(found.state()["step"])
        for folder in ckpt_dir.glob("step-*"):  # every folder with the name of a checkpoint is one
            open_checkpoint(folder).verify()
        save(ckpt_dir, 15, keep=1)
        check_whole(newest_checkpoint(ckpt_dir), 15)
        assert not list(ckpt_dir.glob(".step-*")) and steps(ckpt_dir) == [15]
    assert outcomes == {10, 15}


def test_a_failed_save_frees_its_space(ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(ckpt_dir, 10)
    Crash(
        monkeypatch, 2, after=True, error=OSError, operations=OPERATIONS
    )  # the disk is full after both files of arrays
    with pytest.raises(OSError):
        save(ckpt_dir, 20)
    assert sorted(entry.name for entry in ckpt_dir.iterdir()) == ["latest", "step-00000010"]


def test_an_array_that_cannot_be_stored_harms_nothing(ckpt_dir: Path, tmp_path: Path) -> None:
    save(ckpt_dir, 10)
    (tmp_path / "t").write_bytes(b"t")
    with pytest.raises(DataError, match="complex"):
        save_checkpoint(
            ckpt_dir, {"step": 20}, {"a": np.ones(2, "complex64")}, {}, RECIPE, stored_tokenizer(tmp_path / "t")
        )
    check_whole(newest_checkpoint(ckpt_dir), 10)


@pytest.mark.parametrize("case", ["its own", "another run's", "another run's, of a step that it has", "its only step"])
@pytest.mark.parametrize("after", [False, True])
def test_going_back_that_fails_anywhere_leaves_the_old_newest_or_the_chosen_one(
    tmp_path: Path, case: str, after: bool
) -> None:
    """Never nothing, from which a run would start at step 0 without a word; and nothing is lost."""
    own = {"its own": (10, 20, 30), "another run's": (20, 30), "its only step": (10,)}.get(case, (10, 30))
    theirs = parse_recipe({"name": "other", "model": {"units": 16, "num_heads": 2, "num_layers": 1}})

    made = tmp_path / "made"
    for step in own:
        save(made / "checkpoints", step)
    if case != "its own":
        save(made / "other", 10, recipe=theirs)

    def prepare(folder: Path) -> tuple[Checkpoint, Path]:
        shutil.copytree(made, folder)
        chosen = folder / ("checkpoints" if case == "its own" else "other")
        return open_checkpoint(chosen / "step-00000010"), folder / "checkpoints"

    counted = prepare(tmp_path / "count")
    calls = count_operations(lambda: module.go_back_to(*counted), FILE_OPERATIONS)
    assert calls > 4
    for at in range(1, calls + 1):
        chosen, ckpt_dir = prepare(tmp_path / f"at{at}")
        name = chosen.recipe().name
        with pytest.MonkeyPatch.context() as patch:
            without_clean_up(patch)
            Crash(patch, at, after, PowerCut, FILE_OPERATIONS)
            with contextlib.suppress(PowerCut):
                module.go_back_to(chosen, ckpt_dir)
        found = newest_checkpoint(ckpt_dir)
        assert (found.state()["step"], found.recipe().name) in ((10, name), (own[-1], RECIPE.name))
        found.verify()
        kept, _ = module.go_back_to(chosen, ckpt_dir)
        assert (newest_checkpoint(ckpt_dir).path, kept.recipe().name) == (kept.path, name)
        everything = [open_checkpoint(folder) for folder in ckpt_dir.rglob("step-*") if folder.is_dir()]
        assert {step for step in own if step > 10} <= {each.state()["step"] for each in everything}
        for each in everything:
            each.verify()
        if case == "its only step":
            assert RECIPE.name in {each.recipe().name for each in everything}
