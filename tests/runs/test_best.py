"""The best checkpoint on disk: it is named, it is not pruned, and a crash anywhere leaves both true."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs import checkpoint as module
from kogpt2_gluon.runs.checkpoint import newest_checkpoint, open_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import best_step, name_best
from tests.runs.checkpoint_helpers import OPERATIONS, save_best, steps
from tests.storage.crash_helpers import FILE_OPERATIONS, Crash, PowerCut, count_operations, without_clean_up


def best_of(path: Path) -> int:
    checkpoint = open_checkpoint(path)
    checkpoint.verify()
    return int(checkpoint.state()["step"])


def test_the_best_is_named_and_never_pruned(ckpt_dir: Path) -> None:
    save_best(ckpt_dir, 10, best=10)
    for step in (20, 30, 40, 50):
        save_best(ckpt_dir, step, best=10)
    assert steps(ckpt_dir) == [10, 40, 50] and (ckpt_dir / "best").read_bytes() == b"step-00000010\n"
    for path in (ckpt_dir / "best", ckpt_dir.parent / "best"):
        assert best_of(path) == 10
    assert best_of(ckpt_dir.parent) == best_of(ckpt_dir) == best_of(ckpt_dir / "latest") == 50
    save_best(ckpt_dir, 60, best=60)
    assert steps(ckpt_dir) == [50, 60] and best_of(ckpt_dir / "best") == 60
    save_best(ckpt_dir, 70, best=60, keep=1)
    assert steps(ckpt_dir) == [60, 70]
    save_best(ckpt_dir, 80, best=60, keep=0)
    assert steps(ckpt_dir) == [60, 70, 80]


def test_saves_for_the_best_alone_take_no_place_of_the_others(ckpt_dir: Path) -> None:
    """The evaluations of a young run improve every time; the regular checkpoints stay what they would be."""
    save_best(ckpt_dir, 10, best=None)
    save_best(ckpt_dir, 20, best=None)
    for step in (22, 24, 26):
        save_best(ckpt_dir, step, best=step, only=True)
        assert steps(ckpt_dir) == [10, 20, step] and best_of(ckpt_dir / "best") == step
    save_best(ckpt_dir, 30, best=26)
    assert steps(ckpt_dir) == [20, 26, 30]
    save_best(ckpt_dir, 40, best=40)  # a regular one that is the best
    assert steps(ckpt_dir) == [30, 40]
    save_best(ckpt_dir, 42, best=42, only=True, keep=0)  # 0 keeps all
    save_best(ckpt_dir, 44, best=44, only=True, keep=0)
    assert steps(ckpt_dir) == [30, 40, 42, 44]


def test_a_run_that_keeps_no_best_one_any_more(ckpt_dir: Path) -> None:
    save_best(ckpt_dir, 10, best=10)
    save_best(ckpt_dir, 20, best=10)
    save_best(ckpt_dir, 30, best=None)
    assert steps(ckpt_dir) == [20, 30] and not (ckpt_dir / "best").exists()
    with pytest.raises(DataError, match=r"best: names no checkpoint .*checkpoint\.keep_best=true and held-out data"):
        open_checkpoint(ckpt_dir.parent / "best")


@pytest.mark.parametrize("text", ["", "step-00000099\n", "../other\n", ".", "notes.txt", "step-00000010/../x"])
def test_a_file_that_names_no_checkpoint_is_an_error(ckpt_dir: Path, text: str) -> None:
    save_best(ckpt_dir, 10, best=None)
    for content in (text.encode(), b"\xff\xfe"):
        (ckpt_dir / "best").write_bytes(content)
        assert best_step(ckpt_dir) is None
        with pytest.raises(DataError, match="best: names no checkpoint") as caught:
            open_checkpoint(ckpt_dir / "best")
        assert "\n" not in str(caught.value)


def test_a_folder_of_that_name_is_a_folder(ckpt_dir: Path) -> None:
    made = save_best(ckpt_dir, 10, best=None)
    shutil.copytree(made, ckpt_dir / "best")
    assert open_checkpoint(ckpt_dir / "best").path == ckpt_dir / "best"
    shutil.copytree(ckpt_dir.parent, ckpt_dir.parent.parent / "best")  # a run folder of that name
    assert open_checkpoint(ckpt_dir.parent.parent / "best").path.name == "step-00000010"


def test_a_copy_of_a_run_has_its_own(ckpt_dir: Path, tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save_best(ckpt_dir, step, best=10)
    copy = Path(shutil.copytree(ckpt_dir.parent, tmp_path / "copy"))
    shutil.rmtree(ckpt_dir.parent)
    assert open_checkpoint(copy / "best").path == copy / "checkpoints" / "step-00000010"


def test_naming_the_best(ckpt_dir: Path) -> None:
    save_best(ckpt_dir, 10, best=None)
    assert not name_best(ckpt_dir, None) and not name_best(ckpt_dir, 20) and not (ckpt_dir / "best").exists()
    assert name_best(ckpt_dir, 10) and best_step(ckpt_dir) == 10
    assert not name_best(ckpt_dir, 20) and not (ckpt_dir / "best").exists()
    assert not name_best(ckpt_dir / "nowhere", 10) and not (ckpt_dir / "nowhere").exists()


# --- going back


def test_going_back_takes_the_later_best_along(ckpt_dir: Path) -> None:
    for step in (10, 20, 30):
        save_best(ckpt_dir, step, best=20, keep=0)
    _, said = module.go_back_to(open_checkpoint(ckpt_dir / "step-00000010"), ckpt_dir)
    (aside,) = ckpt_dir.glob("before-step-00000010-*")
    assert best_of(aside / "best") == 20 and best_step(ckpt_dir) is None and not (ckpt_dir / "best").exists()
    assert "step-00000020, step-00000030 moved" in said


def test_going_back_leaves_an_earlier_best_where_it_is(ckpt_dir: Path) -> None:
    for step in (10, 20, 30):
        save_best(ckpt_dir, step, best=10, keep=0)
    module.go_back_to(open_checkpoint(ckpt_dir / "step-00000020"), ckpt_dir)
    assert best_of(ckpt_dir / "best") == 10 and steps(ckpt_dir) == [10, 20]


def test_going_back_to_another_runs_checkpoint_of_the_best_ones_name(ckpt_dir: Path, tmp_path: Path) -> None:
    save_best(ckpt_dir, 10, best=10)
    other = save_best(tmp_path / "other", 10, best=None, course=1)
    module.go_back_to(open_checkpoint(other), ckpt_dir)
    (aside,) = ckpt_dir.glob("before-step-00000010-*")
    assert open_checkpoint(aside / "best").state()["course"] == 0 and not (ckpt_dir / "best").exists()
    assert open_checkpoint(ckpt_dir).state()["course"] == 1


@pytest.mark.parametrize("newest_is_best", [False, True])
def test_a_best_one_that_does_not_compare_is_kept_aside(ckpt_dir: Path, newest_is_best: bool) -> None:
    best = 20 if newest_is_best else 10
    for step in (10, 20):
        save_best(ckpt_dir, step, best=best)
    said = module.move_best_aside(newest_checkpoint(ckpt_dir), ckpt_dir)
    (aside,) = ckpt_dir.glob("before-step-00000020-*")
    assert best_of(aside / "best") == best and not (ckpt_dir / "best").exists()
    assert said == f"step-000000{best} is kept in {aside}; nothing was deleted"
    assert steps(ckpt_dir) == ([10, 20] if newest_is_best else [20])
    assert module.move_best_aside(newest_checkpoint(ckpt_dir), ckpt_dir) == ""  # once


# --- crashes


@pytest.mark.parametrize(("error", "clean_up"), [(OSError, True), (PowerCut, False)])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("improves", [False, True])
def test_a_save_that_fails_anywhere_leaves_a_best_one(
    tmp_path: Path, error: type[BaseException], after: bool, clean_up: bool, improves: bool
) -> None:
    """The file names a whole checkpoint at every moment: the best one of before, or the one that is being saved."""
    best = 40 if improves else 10
    made = tmp_path / "made" / "checkpoints"
    for step in (10, 20, 30):
        save_best(made, step, best=10, keep=1)
    assert steps(made) == [10, 30]
    operations = [*OPERATIONS, (Path, "unlink")] if clean_up else OPERATIONS

    def prepared(name: str) -> Path:
        return Path(shutil.copytree(made.parent, tmp_path / name)) / "checkpoints"

    counted = prepared("count")
    calls, found = count_operations(lambda: save_best(counted, 40, best, keep=1), operations), set()
    for at in range(1, calls + 1):
        ckpt_dir = prepared(f"at{at}")
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(error):
            if not clean_up:
                without_clean_up(patch)
            Crash(patch, at, after, error, operations)
            save_best(ckpt_dir, 40, best, keep=1)
        found.add((best_of(ckpt_dir / "best"), newest_checkpoint(ckpt_dir).state()["step"]))
        save_best(ckpt_dir, 40, best, keep=1)
        assert best_of(ckpt_dir / "best") == best and steps(ckpt_dir) == sorted({best, 40})
        assert not list(ckpt_dir.glob(".step-*"))
    assert found == {(10, 30), (10, 40), (best, 40)}


@pytest.mark.parametrize("case", ["its own", "another run's"])
@pytest.mark.parametrize("after", [False, True])
def test_going_back_that_fails_anywhere_loses_no_best_one(tmp_path: Path, case: str, after: bool) -> None:
    made = tmp_path / "made" / "checkpoints"
    for step in (10, 20, 30):
        save_best(made, step, best=20, keep=0)
    save_best(tmp_path / "made" / "other", 20, best=None, course=1)

    def prepared(name: str) -> tuple[module.Checkpoint, Path]:
        folder = Path(shutil.copytree(made.parent, tmp_path / name))
        chosen = "checkpoints/step-00000010" if case == "its own" else "other/step-00000020"
        return open_checkpoint(folder / chosen), folder / "checkpoints"

    counted = prepared("count")
    calls = count_operations(lambda: module.go_back_to(*counted), FILE_OPERATIONS)
    for at in range(1, calls + 1):
        chosen, ckpt_dir = prepared(f"at{at}")
        with pytest.MonkeyPatch.context() as patch:
            without_clean_up(patch)
            Crash(patch, at, after, PowerCut, FILE_OPERATIONS)
            with contextlib.suppress(PowerCut):
                module.go_back_to(chosen, ckpt_dir)
        if best_step(ckpt_dir) is not None:  # if it names one, that is the one it named before
            assert open_checkpoint(ckpt_dir / "best").state() == open_checkpoint(made / "step-00000020").state()
        module.go_back_to(chosen, ckpt_dir)
        assert best_step(ckpt_dir) is None
        everything = [open_checkpoint(each) for each in ckpt_dir.rglob("step-00000020") if each.is_dir()]
        assert 0 in {each.state()["course"] for each in everything}
        for each in everything:
            each.verify()


@pytest.mark.parametrize("newest_is_best", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_best_one_on_its_way_aside_is_never_lost(tmp_path: Path, newest_is_best: bool, after: bool) -> None:
    made, best = tmp_path / "made", 20 if newest_is_best else 10
    for step in (10, 20):
        save_best(made, step, best=best)
    counted = Path(shutil.copytree(made, tmp_path / "count"))
    calls = count_operations(lambda: module.move_best_aside(newest_checkpoint(counted), counted), FILE_OPERATIONS)
    for at in range(1, calls + 1):
        ckpt_dir = Path(shutil.copytree(made, tmp_path / f"at{at}"))
        with pytest.MonkeyPatch.context() as patch:
            without_clean_up(patch)
            Crash(patch, at, after, PowerCut, FILE_OPERATIONS)
            with contextlib.suppress(PowerCut):
                module.move_best_aside(newest_checkpoint(ckpt_dir), ckpt_dir)
        assert newest_checkpoint(ckpt_dir).state()["step"] == 20
        module.move_best_aside(newest_checkpoint(ckpt_dir), ckpt_dir)
        (kept, *_) = [each for each in ckpt_dir.glob(f"before-*/step-{best:08d}") if each.is_dir()]
        open_checkpoint(kept).verify()
