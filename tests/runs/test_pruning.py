"""Pruning never costs a run what it would go on from, nor another run anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.runs.checkpoint import newest_whole
from kogpt2_gluon.runs.pruning import prune, to_prune
from kogpt2_gluon.runs.run_folder import open_run
from tests.helpers import kogpt2
from tests.runs.checkpoint_helpers import RECIPE, flip, save, steps


def make_run(run_dir: Path, ckpt_dir: str = "") -> Path:
    """A run with the checkpoints of the steps 1 to 4; returns their folder."""
    settings = [f"tracking.run_dir={run_dir}", f"checkpoint.ckpt_dir={ckpt_dir}"]
    recipe = parse_recipe(RECIPE.to_dict(), settings)
    for step in (1, 2, 3, 4):
        save(recipe.ckpt_dir, step, recipe=recipe)
    run_dir.mkdir(exist_ok=True)
    (run_dir / "recipe.yaml").write_text(recipe.to_yaml())
    return recipe.ckpt_dir


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_whole_one_stays_if_the_newest_is_damaged(tmp_path: Path, keep: int) -> None:
    ckpt_dir = make_run(tmp_path / "run")
    for step in (3, 4):
        flip(ckpt_dir / f"step-0000000{step}" / "optimizer.params")
    listed = kogpt2("runs", "prune", tmp_path / "run", "--keep", keep)
    said = kogpt2("runs", "prune", tmp_path / "run", "--keep", keep, "--yes")
    assert steps(ckpt_dir) == ([2, 4] if keep == 1 else [2, 3, 4])
    assert said.stdout.splitlines()[:-1] == listed.stdout.splitlines()[:-1] and said.stderr == listed.stderr
    assert "step-00000004/optimizer.params" in said.stderr
    assert "step-00000002, the newest checkpoint that is whole, stays too" in said.stderr
    found, _ = newest_whole(ckpt_dir)
    assert found and found.state()["step"] == 2


def test_nothing_goes_if_no_checkpoint_is_whole(tmp_path: Path) -> None:
    ckpt_dir = make_run(tmp_path / "run")
    for step in steps(ckpt_dir):
        flip(ckpt_dir / f"step-0000000{step}" / "model.params")
    with pytest.raises(DataError, match="nothing was removed"):
        list(prune(open_run(tmp_path / "run"), 1))
    assert steps(ckpt_dir) == [1, 2, 3, 4]


@pytest.mark.parametrize("where", ["in the run", "elsewhere", "a link"])
def test_a_copy_does_not_prune_its_original(tmp_path: Path, where: str) -> None:
    own, copy = tmp_path / "run", tmp_path / "copy"
    ckpt_dir = make_run(own, str(tmp_path / "big" / "checkpoints") if where == "elsewhere" else "")
    if where == "a link":
        (tmp_path / "big").mkdir()
        ckpt_dir = ckpt_dir.rename(tmp_path / "big" / "checkpoints")
        (own / "checkpoints").symlink_to(ckpt_dir)
    shutil.copytree(
        own, copy, symlinks=True, ignore=shutil.ignore_patterns("step-*") if where == "in the run" else None
    )
    if where == "in the run":  # the record alone, as an rsync without the large files brings it
        shutil.rmtree(copy / "checkpoints")
    for work in (to_prune, lambda *given: list(prune(*given))):
        with pytest.raises(RecipeError, match="are those of the run in"):
            work(open_run(copy), 1)
    assert steps(ckpt_dir) == [1, 2, 3, 4]
    assert len(list(prune(open_run(own), 1))) == 3 and steps(ckpt_dir) == [4]


@pytest.mark.parametrize("ckpt_dir", ["", "checkpoints elsewhere"])
def test_a_run_that_was_moved_is_its_own(tmp_path: Path, ckpt_dir: str) -> None:
    make_run(tmp_path / "run", str(tmp_path / ckpt_dir) if ckpt_dir else "")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert len(list(prune(open_run(tmp_path / "moved"), 1))) == 3
