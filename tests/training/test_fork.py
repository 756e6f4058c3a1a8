"""kogpt2 runs: a fork goes on exactly, and runs are found and compared by their folders."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.lock import RunLock
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.runs.run_folder import find_runs, open_run
from kogpt2_gluon.training.fork import fork
from kogpt2_gluon.training.loop import train
from tests.helpers import kogpt2, run
from tests.training.run_helpers import HORUN, losses_by_step, parameters


@pytest.fixture
def parent(tiny: list[str], tmp_path: Path) -> Path:
    """A run of six steps with every checkpoint."""
    options = [*tiny, "training.num_steps=6", "checkpoint.interval=1", "checkpoint.keep=0"]
    recipe = load_recipe("debug_cpu", [*options, f"tracking.run_dir={tmp_path / 'parent'}"])
    train(recipe)
    return recipe.run_dir


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("size", [1, 2])
def test_a_fork_without_changes_ends_with_its_parent_s_bytes(parent: Path, tmp_path: Path, size: int) -> None:
    before = content(parent)
    said = kogpt2("runs", "fork", parent, tmp_path / "fork", "--at", 2).stdout
    assert said.startswith(f"{tmp_path / 'fork'}: goes on from step 2 of {parent}\n")
    theirs = losses_by_step(parent)
    assert losses_by_step(tmp_path / "fork") == {step: loss for step, loss in theirs.items() if step <= 2}
    if size == 1:
        train(load_recipe(str(tmp_path / "fork" / "recipe.yaml")))
    else:  # two workers, each with half of every batch
        twice = load_recipe(str(parent / "recipe.yaml"), [f"tracking.run_dir={tmp_path / 'twice'}"])
        shutil.copytree(parent / "checkpoints" / "step-00000002", twice.ckpt_dir / "step-00000002")
        (tmp_path / "twice.yaml").write_text(twice.to_yaml(), encoding="utf-8")
        command = [*HORUN, "--gloo", "-np", 2, sys.executable, "-m", "kogpt2_gluon.cli.main", "train"]
        run(*command, tmp_path / "twice.yaml")
        run(*command, tmp_path / "fork" / "recipe.yaml")
        assert parameters(tmp_path / "fork", 6) == parameters(tmp_path / "twice", 6)
        return
    assert parameters(tmp_path / "fork", 6) == parameters(parent, 6)
    assert losses_by_step(tmp_path / "fork") == theirs
    assert content(parent) == before
    origin = json.loads((tmp_path / "fork" / "parent.json").read_text())
    assert origin == {"run": str(parent.resolve()), "step": 2, "settings": []}


def test_a_fork_with_another_rate_differs_from_there_on(parent: Path, tmp_path: Path) -> None:
    step, changes = fork(parent, tmp_path / "fork", 3, ["training.learning_rate=0.02"])
    assert step == 3 and [str(change) for change in changes] == ["training.learning_rate: 0.001 -> 0.02"]
    train(load_recipe(str(tmp_path / "fork" / "recipe.yaml")))
    rates = {line["step"]: line["learning_rate"] for line in read_metrics(tmp_path / "fork") if line["kind"] == "train"}
    own = {line["step"]: line["learning_rate"] for line in read_metrics(parent) if line["kind"] == "train"}
    assert rates[3] == own[3] and rates[4] == pytest.approx(20 * own[4])
    assert open_run(tmp_path / "fork").parent["step"] == 3
    shown = kogpt2("runs", "compare", parent, tmp_path / "fork").stdout.splitlines()
    assert shown[1].split() == ["training.learning_rate", "0.001", "0.02"]
    plain = json.loads(kogpt2("runs", "compare", parent, tmp_path / "fork", "--json").stdout)
    assert plain["differ"] == {"training.learning_rate": [0.001, 0.02]}


def test_the_newest_checkpoint_and_a_change_by_permission(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.dropout"):
        fork(parent, tmp_path / "fork", None, ["model.dropout=0.3"])
    assert not (tmp_path / "fork").exists()
    step, _ = fork(parent, tmp_path / "fork", None, ["model.dropout=0.3", "training.num_steps=8"], ["model.dropout"])
    assert step == 6 and open_checkpoint(tmp_path / "fork").state()["step"] == 6


def test_forks_that_cannot_be_are_refused_and_leave_nothing(parent: Path, tmp_path: Path) -> None:
    for words, part in (
        (["--at", 9], "has no checkpoint of step 9; those that are there: 0, 1, 2, 3, 4, 5, 6"),
        (["training.seed=5"], "training.seed: 0 -> 5"),
        (["training.seeds=5"], "did you mean training.seed?"),
        (["training.total_batch_size=7"], "is not divisible by batch_size"),
    ):
        allowed = ["--allow-change", "training.total_batch_size"]
        assert part in kogpt2("runs", "fork", parent, tmp_path / "fork", *words, *allowed, code=2).stderr
        assert not (tmp_path / "fork").exists()
    assert "exists already" in kogpt2("runs", "fork", parent, parent, code=2).stderr
    assert "is this the folder of a run?" in kogpt2("runs", "fork", tmp_path, tmp_path / "fork", code=2).stderr


def test_runs_are_found_below_a_folder(parent: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.copytree(parent, tmp_path / "deep" / "er" / "copy")
    (tmp_path / "only").mkdir()
    shutil.copy(parent / "recipe.yaml", tmp_path / "only" / "recipe.yaml")  # a recipe alone is no run
    found = [each for each in find_runs(tmp_path) if not isinstance(each, RecipeError)]
    assert [each.path for each in found] == [tmp_path / "deep" / "er" / "copy", parent]
    assert {each.state for each in found} == {"done"} and found[1].step == 6
    best = min(line["bits_per_byte"] for line in read_metrics(parent) if line["kind"] == "evaluation")
    assert found[1].measure == "bits_per_byte" and found[1].best == best
    shown = kogpt2("runs", "list", tmp_path).stdout.splitlines()
    assert len(shown) == 3 and shown[2].split()[:3] == [str(parent), "done", "6/6"]
    (parent / "recipe.yaml").write_text("model: {units: -1}")
    partly = kogpt2("runs", "list", tmp_path, code=3)
    assert len(partly.stdout.splitlines()) == 2 and "model.units" in partly.stderr
    assert "no run there or below" in kogpt2("runs", "list", tmp_path / "only", code=3).stderr


def test_runs_on_the_same_held_out_text_are_ranked(parent: Path, tmp_path: Path) -> None:
    fork(parent, tmp_path / "more", None, ["training.num_steps=9"])
    train(load_recipe(str(tmp_path / "more" / "recipe.yaml")))
    shutil.copytree(parent, tmp_path / "other")
    recipe = (tmp_path / "other" / "recipe.yaml").read_text(encoding="utf-8")
    test = load_recipe(str(parent / "recipe.yaml")).data.test
    (tmp_path / "other" / "recipe.yaml").write_text(recipe.replace(test, str(Path(test).with_name("train"))))
    boards = json.loads(kogpt2("runs", "leaderboard", tmp_path, "--json").stdout)
    ranked = {board: [Path(each["run"]).name for each in runs] for board, runs in boards.items()}
    assert sorted(map(sorted, ranked.values())) == [["more", "parent"], ["other"]]
    (both,) = (runs for runs in boards.values() if len(runs) == 2)
    assert both[0]["figure"] <= both[1]["figure"]
    assert both[0]["figure"] == open_run(Path(both[0]["run"])).final
    shown = kogpt2("runs", "leaderboard", tmp_path).stdout
    assert shown.count("bits per byte") == 2 and "*" not in shown
    assert "that was evaluated" in kogpt2("runs", "leaderboard", tmp_path / "other" / "samples", code=3).stderr


def test_pruning_leaves_what_a_run_needs(parent: Path, tmp_path: Path) -> None:
    """The newest checkpoint, the best one, and as many others as are asked for; what it lists is what it removes."""
    (parent / "checkpoints" / "best").write_text("step-00000002\n")
    (parent / "checkpoints" / "before-step-00000001-x").mkdir()
    (parent / "checkpoints" / "before-step-00000001-x" / "file").write_bytes(b"12345")

    def there() -> list[str]:
        return sorted(path.name for path in (parent / "checkpoints").iterdir() if path.is_dir())

    everything = there()
    listed = kogpt2("runs", "prune", parent, "--keep", 2).stdout
    assert there() == everything and "--yes removes them" in listed
    gone = kogpt2("runs", "prune", parent, "--keep", 2, "--yes").stdout
    assert gone.splitlines()[:-1] == listed.splitlines()[:-1] and len(gone.splitlines()) == 5
    assert there() == ["before-step-00000001-x", "step-00000002", "step-00000005", "step-00000006"]
    kogpt2("runs", "prune", parent, "--aside", "--yes")
    assert there() == ["step-00000002", "step-00000006"]
    assert kogpt2("runs", "prune", parent, "--aside", "--yes").stdout == "nothing to remove\n"
    assert open_checkpoint(parent).state()["step"] == 6 and open_checkpoint(parent / "best").state()["step"] == 2
    with RunLock(parent):
        assert "trains in it" in kogpt2("runs", "prune", parent, "--yes", code=2).stderr
