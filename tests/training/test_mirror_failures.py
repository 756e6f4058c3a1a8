"""Mirrors of a real run that fail, hang or lack the end: nothing waits for them, and nothing ends by them."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from kogpt2_gluon.errors import DataError, KoGPT2Error, PreemptedError
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.mirror import Mirror
from kogpt2_gluon.training import loop, mirroring
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.rollback import RollBack
from tests.training.mirror_run_helpers import log_of, mirrored, steps, stop_at

__all__ = ["stop_at"]


def failing(monkeypatch: pytest.MonkeyPatch, times: int, error: Callable[[], Exception]) -> list[str]:
    """Makes copies to mirrors fail so often; returns the names of what was to be copied."""
    asked: list[str] = []
    add = Mirror.add

    def fail(mirror: Mirror, checkpoint: Path, *more: Any) -> int:
        asked.append(checkpoint.name)
        if len(asked) <= times:
            raise error()
        return add(mirror, checkpoint, *more)

    monkeypatch.setattr(Mirror, "add", fail)
    return asked


def test_a_mirror_that_fails_ends_nothing_and_is_tried_again(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = mirrored(tiny, tmp_path / "mirror", checkpoint__interval=1)
    words = iter(("s3://x/a: 2 of 7 parts: the connection broke", "s3://x/b: 5 of 7 parts: the connection broke"))
    asked = failing(monkeypatch, 2, lambda: DataError(next(words)))
    monkeypatch.setattr(loop, "run_step", waits_for_mirrors(loop.run_step))
    assert train(recipe).step == 8
    log = log_of(recipe)
    assert log.count("WARNING") == 1 and len(asked) > 3
    assert "could not be copied: s3://x/a: 2 of 7 parts: the connection broke; the next save tries again" in log
    assert log.count("and works again") == 1 and steps(tmp_path / "mirror") == steps(recipe.ckpt_dir)


def waits_for_mirrors(run_step: Callable[..., Any]) -> Callable[..., Any]:
    """Lets every mirror end its work before each step, so that a test knows what was tried."""

    def waiting(*arguments: Any) -> Any:
        for lock in list(mirroring._busy.values()):
            with lock:
                pass
        for thread in threading.enumerate():
            if thread.name == "save_0":
                mirroring.time.sleep(0.05)
        return run_step(*arguments)

    return waiting


def test_a_mirror_that_lacks_the_end_is_the_exit_code(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = mirrored(tiny, tmp_path / "mirror")
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, 1000, lambda: PermissionError(13, "Permission denied", "/backup/x"))
        with pytest.raises(
            KoGPT2Error, match=r"the training is done .* /backup/x: Permission denied\); run again"
        ) as caught:
            train(recipe)
    assert caught.value.exit_code == 1 and (recipe.run_dir / "report.html").exists()
    assert steps(recipe.ckpt_dir) == [6, 8] and open_checkpoint(recipe.run_dir).state()["step"] == 8
    assert train(recipe).step == 8  # nothing is trained, but the mirror gets it
    assert steps(tmp_path / "mirror") == [8]


def test_a_mirror_that_hangs_delays_no_step_and_no_stop(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: Callable[[int], None]
) -> None:
    recipe, opened, reached = mirrored(tiny, tmp_path / "mirror", checkpoint__keep=1), threading.Event(), []
    add = Mirror.add

    def hang(mirror: Mirror, checkpoint: Path, *more: Any) -> int:
        reached.append(checkpoint.name)
        assert opened.wait(60)
        return add(mirror, checkpoint, *more)

    monkeypatch.setattr(Mirror, "add", hang)
    monkeypatch.setattr(mirroring, "SECONDS_AT_A_STOP", 0.3)
    stop_at(7)
    with pytest.raises(PreemptedError):
        train(recipe)
    assert f"WARNING: mirror {tmp_path}/mirror: not done within 0.3 s; the next start goes on with it" in log_of(recipe)
    assert len(reached) == 1 and steps(recipe.ckpt_dir)[-1] == 7 and steps(tmp_path / "mirror") == []
    opened.set()
    stop_at(-1)
    train(recipe)
    assert "step-00000008" in reached and set(reached[1:]) <= {"step-00000007", "step-00000008"}
    for thread in threading.enumerate():
        if thread.name.startswith("mirror "):
            thread.join(60)
            assert not thread.is_alive()
    assert steps(tmp_path / "mirror") == [8] and not list(recipe.ckpt_dir.glob(".mirror-*"))


def test_what_is_being_copied_is_not_pulled_away(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """keep=1, and a mirror that needs longer than the whole run for its first checkpoint."""
    recipe, opened = (
        mirrored(tiny, tmp_path / "mirror", checkpoint__keep=1, checkpoint__keep_best="false"),
        threading.Event(),
    )
    add, seen = Mirror.add, []

    def slow(mirror: Mirror, checkpoint: Path, *more: Any) -> int:
        if not seen:
            seen.append(checkpoint.name)
            assert opened.wait(60)
            assert steps(recipe.ckpt_dir) == [8]
            sent = add(mirror, checkpoint, *more)
            assert steps(tmp_path / "mirror") == [int(checkpoint.name[5:])]
            seen.append("whole")
            return sent
        return add(mirror, checkpoint, *more)

    monkeypatch.setattr(Mirror, "add", slow)
    finish = mirroring.Mirrors.finish
    monkeypatch.setattr(mirroring.Mirrors, "finish", lambda *arguments: (opened.set(), finish(*arguments)))
    train(recipe)
    assert seen[1] == "whole" and int(seen[0][5:]) < 8 and steps(tmp_path / "mirror") == [8]
    assert re.search(r"has step-00000008.*; slower than the saves, it has left out [12] checkpoint", log_of(recipe))


def test_a_rollback_goes_on_with_the_same_mirror(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copies of the training that ended and those of the one that goes on do not get in each other's way."""
    recipe, back = mirrored(tiny, tmp_path / "mirror"), [RollBack("a spike", [])]
    run_step = loop.run_step

    def spike(recipe: Any, run: Any, *more: Any) -> Any:
        if back and run.state.step == 4:
            raise back.pop()
        return run_step(recipe, run, *more)

    monkeypatch.setattr(loop, "run_step", spike)
    assert train(recipe).step == 8 and not back
    assert steps(tmp_path / "mirror")[-1] == 8 and "WARNING" not in log_of(recipe)
    assert not list(tmp_path.glob("mirror/before-*")) and not list(recipe.ckpt_dir.glob(".*"))
