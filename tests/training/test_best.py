"""A run keeps its best checkpoint by held-out loss: whatever is pruned, resumed, killed, moved or changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, DivergedError, RecipeError
from kogpt2_gluon.inference.evaluation import evaluate_checkpoint
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import best_step
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.training.dry_run import check
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.saved_records import check_records
from tests.helpers import kogpt2, run
from tests.training.run_helpers import HORUN, kill_all, log_of, wait_for

WORSE = "training.learning_rate=3"  # each step makes the network worse
STILL = ("training.learning_rate=0", "training.final_learning_rate=0")
EACH = (
    *("evaluation.interval=1", "checkpoint.interval=100", "checkpoint.keep=1", "evaluation.max_sequences=0"),
    "training.final_learning_rate=1e-3",  # so that the last step is one, too
)


def trained(tiny: list[str], *options: str, resume: str = "auto") -> Path:
    recipe = load_recipe("debug_cpu", [*tiny, *options])
    train(recipe, resume)
    return recipe.run_dir


def steps(run_dir: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run_dir / "checkpoints").glob("step-*"))


def held_out(run_dir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(run_dir) if line["kind"] == "evaluation"}


def best(run_dir: Path) -> dict:
    return open_checkpoint(run_dir / "best").state()["best"]


@pytest.fixture()
def spoilt(tiny: list[str]) -> Path:
    """A run that learns for four steps and unlearns for three more; checkpoints only when they are due, or the best."""
    run_dir = trained(tiny, *EACH, "training.num_steps=4", "training.learning_rate=1e-2")
    assert steps(run_dir) == [4] and best_step(run_dir / "checkpoints") == 4
    return trained(tiny, *EACH, "training.num_steps=7", WORSE)


def test_the_best_outlives_worse_ones(spoilt: Path, shards: Path) -> None:
    losses = held_out(spoilt)
    assert min(losses, key=losses.__getitem__) == 4 and losses[7] > losses[4]
    assert steps(spoilt) == [4, 7] and best(spoilt)["step"] == 4 and best(spoilt)["loss"] == losses[4]
    assert open_checkpoint(spoilt).state()["best"] == best(spoilt)
    assert evaluate_checkpoint(spoilt / "checkpoints" / "best", shards / "test").loss == pytest.approx(losses[4])
    assert evaluate_checkpoint(spoilt, shards / "test").loss == pytest.approx(losses[7])
    said = f"held-out loss {losses[7]:.4f} is not below {losses[4]:.4f} of step 4, the best checkpoint"
    assert said in log_of(spoilt)


def test_a_better_one_takes_its_place(spoilt: Path, tiny: list[str]) -> None:
    options = [*EACH, "training.num_steps=12", "training.learning_rate=1e-2", "evaluation.interval=4"]
    run_dir = trained(tiny, *options, resume=str(spoilt / "best"))
    losses = held_out(run_dir)
    assert min(losses, key=losses.__getitem__) == 12 and steps(run_dir) == [12] and best(run_dir)["step"] == 12


def test_going_back_to_the_best(spoilt: Path, tiny: list[str]) -> None:
    run_dir = trained(tiny, *EACH, "training.num_steps=5", resume=str(spoilt / "best"))
    assert best(run_dir)["step"] in (4, 5) and steps(run_dir)[-1] == 5
    (aside,) = (run_dir / "checkpoints").glob("before-step-00000004-*")
    assert open_checkpoint(aside).state()["step"] == 7


def test_going_back_beyond_the_best_looks_for_another(tiny: list[str]) -> None:
    options = [*tiny, *EACH, "training.learning_rate=1e-2", "checkpoint.interval=1", "checkpoint.keep=0"]
    run_dir = trained(options, "training.num_steps=4")
    back = run_dir / "checkpoints" / "step-00000002"
    trained(options, "training.num_steps=4", WORSE, resume=str(back))
    assert best(run_dir)["step"] == 2  # of the steps that are left, it was the best
    (aside,) = (run_dir / "checkpoints").glob("before-step-00000002-*")
    assert open_checkpoint(aside / "best").state()["step"] == 4


def test_the_best_of_a_state_may_be_gone(spoilt: Path, tiny: list[str]) -> None:
    """Somebody removed it: the run says so, and keeps the best from there on, even if that one was better."""
    shutil.rmtree(spoilt / "checkpoints" / "step-00000004")
    trained(tiny, *EACH, "training.num_steps=8", *STILL)
    assert "of step 4 with held-out loss" in log_of(spoilt) and "the best one from here on is kept" in log_of(spoilt)
    assert steps(spoilt) == [8] and best(spoilt)["step"] == 8


@pytest.mark.parametrize(("latest", "named"), [(3, 2), (2, 3)])
def test_a_crash_between_the_two_names(tiny: list[str], latest: int, named: int) -> None:
    """Whatever `best` names by then, a resume goes by the state of the newest checkpoint, and comes to the same."""
    options = [*tiny, *EACH, "training.learning_rate=1e-2", "checkpoint.keep=0"]
    run_dir = trained(options, "training.num_steps=2")
    before = Path(shutil.copytree(run_dir, run_dir.with_name("before")))
    trained(options, "training.num_steps=4")
    shutil.copytree(run_dir / "checkpoints" / "step-00000003", before / "checkpoints" / "step-00000003")
    for file, step in (("latest", latest), ("best", named)):
        (before / "checkpoints" / file).write_text(f"step-{step:08d}\n", encoding="utf-8")
    moved = [*options, f"tracking.run_dir={before}"]
    trained(moved, "training.num_steps=2")  # nothing to do, so nothing is saved
    assert best_step(before / "checkpoints") == latest
    trained(moved, "training.num_steps=4")
    for name in ("best", "latest"):
        ours, theirs = (open_checkpoint(folder / "checkpoints" / name) for folder in (before, run_dir))
        assert (ours.path.name, ours.model_path.read_bytes()) == (theirs.path.name, theirs.model_path.read_bytes())


def test_it_may_be_switched_off_and_on(spoilt: Path, tiny: list[str]) -> None:
    trained(tiny, *EACH, "training.num_steps=8", WORSE, "checkpoint.keep_best=false")
    assert steps(spoilt) == [8] and best_step(spoilt / "checkpoints") is None
    assert open_checkpoint(spoilt).state()["best"] is None
    with pytest.raises(DataError, match=r"checkpoint\.keep_best=true"):
        open_checkpoint(spoilt / "best")
    trained(tiny, *EACH, "training.num_steps=9", WORSE)
    assert steps(spoilt) == [9] and best(spoilt)["step"] == 9


def test_a_folder_of_that_name_is_in_the_way(spoilt: Path, tiny: list[str]) -> None:
    """Somebody may have copied a checkpoint to it, before there was a file of that name."""
    ckpt_dir = spoilt / "checkpoints"
    (ckpt_dir / "best").unlink()
    shutil.copytree(ckpt_dir / "step-00000004", ckpt_dir / "best")
    for look in (lambda: trained(tiny, *EACH), lambda: check(load_recipe("debug_cpu", [*tiny, *EACH]))):
        with pytest.raises(RecipeError, match=r"checkpoints/best: a folder, .* checkpoint\.keep_best=false"):
            look()
    trained(tiny, *EACH, WORSE, "training.num_steps=8", "checkpoint.keep_best=false")
    assert open_checkpoint(ckpt_dir / "best").state()["step"] == 4
    shutil.rmtree(ckpt_dir / "best")
    (ckpt_dir / "best").symlink_to("step-00000008")  # a link is replaced
    trained(tiny, *EACH, "training.num_steps=9")
    assert (ckpt_dir / "best").read_text() == "step-00000009\n"


def test_without_held_out_data_there_is_none(tiny: list[str]) -> None:
    run_dir = trained(tiny, "data.test=", "training.num_steps=2")
    assert not (run_dir / "checkpoints" / "best").exists() and open_checkpoint(run_dir).state()["best"] is None


def test_without_held_out_data_the_best_so_far_stays(spoilt: Path, tiny: list[str]) -> None:
    trained(tiny, *EACH, "training.num_steps=9", "data.test=")
    trained(tiny, *EACH, "training.num_steps=10", "data.test=")
    assert steps(spoilt) == [4, 10] and best(spoilt)["step"] == 4
    trained(tiny, *EACH, "training.num_steps=11", WORSE)  # the data is back, and the same
    assert steps(spoilt) == [4, 11]


@pytest.mark.parametrize("how", ["other data", "fewer sequences"])
def test_a_loss_that_is_measured_in_another_way_does_not_compare(
    spoilt: Path, tiny: list[str], shards: Path, how: str
) -> None:
    """On easier data every network would be better than the best, on harder data none."""
    other = f"data.test={shards / 'train'}" if how == "other data" else "evaluation.max_sequences=5"
    trained(tiny, *EACH, "training.num_steps=8", *STILL, other)
    (aside,) = (spoilt / "checkpoints").glob("before-step-00000007-*")
    kept = open_checkpoint(aside / "best").state()
    assert kept["step"] == 4 and best(spoilt)["step"] in (7, 8)
    assert (
        f"was measured in another way than from here on, so they do not compare; step-00000004 is kept in {aside}"
        in (log_of(spoilt))
    )
    trained(tiny, *EACH, "training.num_steps=9", *STILL, other)
    assert len(list((spoilt / "checkpoints").glob("before-*"))) == 1


def test_the_last_evaluation_compares_by_the_same_sequences(tiny: list[str]) -> None:
    """It is over the whole held-out set; the others are over a part, which may be much easier."""
    options = [*tiny, *EACH, "evaluation.max_sequences=4", "training.num_steps=3"]
    run_dir = trained(options, "training.learning_rate=1e-2")
    losses = held_out(run_dir)
    assert best(run_dir)["step"] == 3 and best(run_dir)["sequences"] == 4
    assert abs(best(run_dir)["loss"] - losses[3]) > 1e-4  # the whole set has another loss
    assert (
        f"the 4 sequences of the earlier evaluations (evaluation.max_sequences): {best(run_dir)['loss']:.4f}"
        in log_of(run_dir)
    )


def test_a_finetuning_that_only_gets_worse_keeps_where_it_began(spoilt: Path, tiny: list[str], tmp_path: Path) -> None:
    tuned = trained(
        tiny,
        *EACH,
        WORSE,
        "training.num_steps=3",
        f"training.init_from={spoilt / 'best'}",
        f"tracking.run_dir={tmp_path / 'tuned'}",
    )
    assert steps(tuned) == [0, 3] and best(tuned)["step"] == 0
    assert best(tuned)["loss"] == pytest.approx(best(spoilt)["loss"])


def test_an_untrained_network_is_not_kept(tiny: list[str]) -> None:
    run_dir = trained(tiny, *EACH, "checkpoint.interval=0", WORSE, "training.num_steps=2", "checkpoint.keep=0")
    assert 0 not in steps(run_dir) and best(run_dir)["step"] in (1, 2)


@pytest.mark.parametrize(
    "record",
    [
        7,
        {},
        {"step": 4, "loss": "low", "held_out": "", "seq_length": 32, "sequences": 16},
        {"step": True, "loss": 1.0, "held_out": "", "seq_length": 32, "sequences": 16},
        {"step": -1, "loss": 1.0, "held_out": "", "seq_length": 32, "sequences": 16},
        {"step": 4, "loss": float("inf"), "held_out": "", "seq_length": 32, "sequences": 16},
    ],
)
def test_a_record_that_no_run_made_is_refused(record: object) -> None:
    check_records({"best": None}, "here")
    with pytest.raises(DataError, match=r'^here: "best" in its state'):
        check_records({"best": record}, "here")


def test_a_run_that_diverges_keeps_its_best(spoilt: Path, tiny: list[str]) -> None:
    """A loss of NaN is never the lowest one, and nothing is saved with it."""
    with pytest.raises(DivergedError):
        trained(tiny, *EACH, "training.num_steps=20", "training.learning_rate=1e30", "training.clip_norm=0")
    assert best(spoilt)["step"] == 4 and 4 in steps(spoilt)


# Real processes.


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_comes_to_the_same_best(tiny: list[str], tmp_path: Path, size: int) -> None:
    """Killed (-9) as soon as `best` has changed, which is in the middle of a save; a straight run has the same."""
    launch = [] if size == 1 else [*HORUN, "--gloo", "-np", size]
    options = ["training.num_steps=12", "evaluation.interval=2", "checkpoint.interval=5", "checkpoint.keep=1"]
    command = [*launch, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "debug_cpu", *tiny, *options]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run(*command, f"tracking.run_dir={straight}")
    file = broken / "checkpoints" / "best"
    for wanted in ("step-00000002", "step-00000006"):
        process = subprocess.Popen(
            [str(part) for part in (*command, f"tracking.run_dir={broken}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda wanted=wanted: file.is_file() and file.read_text() >= wanted, process)
        kill_all(process)
        open_checkpoint(file).verify()
    run(*command, f"tracking.run_dir={broken}")
    assert steps(broken) == steps(straight)
    for name in ("best", "latest"):
        ours, theirs = (open_checkpoint(each / "checkpoints" / name) for each in (broken, straight))
        assert (ours.path.name, ours.state()["best"]) == (theirs.path.name, theirs.state()["best"])
        assert ours.model_path.read_bytes() == theirs.model_path.read_bytes()


def test_the_verbs_take_its_name(spoilt: Path, shards: Path, tmp_path: Path) -> None:
    score = json.loads(kogpt2("evaluate", spoilt / "best", shards / "test", "--json").stdout)
    assert score["loss"] == pytest.approx(best(spoilt)["loss"])
    kogpt2("generate", spoilt / "checkpoints" / "best", "오늘은", "--max-new-tokens", 3)
    kogpt2("convert", spoilt / "best", tmp_path / "out")
    missing = kogpt2("evaluate", tmp_path / "best", shards / "test", code=3).stderr
    assert "best: names no checkpoint" in missing and missing.count("\n") == 1
