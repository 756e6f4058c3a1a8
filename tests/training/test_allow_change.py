"""Settings that a resume changes on purpose: said, recorded, and exact from there on by the new recipe."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.training.dry_run import check
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.resume_rules import check_allowed
from kogpt2_gluon.training.saved_records import check_records
from kogpt2_gluon.training.state import TrainState
from tests.helpers import kogpt2, run
from tests.training.run_helpers import HORUN, kill_all, log_of, losses_by_step, parameters, wait_for

LENGTH, DROPOUT, BATCH = "data.seq_length", "model.dropout", "training.total_batch_size"
ALL = (LENGTH, DROPOUT, BATCH)
LATER = (f"{LENGTH}=16", f"{DROPOUT}=0.3", f"{BATCH}=16", "training.num_steps=8")


@pytest.fixture()
def begun(tiny: list[str]) -> Path:
    """A run of three steps, whose evaluations are at its ends."""
    return trained(tiny, "training.num_steps=3", "evaluation.interval=0", "checkpoint.keep=0")


def trained(tiny: list[str], *options: str, allow: tuple[str, ...] = (), resume: str = "auto") -> Path:
    recipe = load_recipe("debug_cpu", [*tiny, *options])
    train(recipe, resume, allow)
    return recipe.run_dir


def copy_of(run_dir: Path, name: str) -> tuple[Path, str]:
    folder = Path(shutil.copytree(run_dir, run_dir.with_name(name)))
    return folder, f"tracking.run_dir={folder}"


def test_a_change_is_refused_by_name_then_allowed_and_recorded(begun: Path, tiny: list[str]) -> None:
    refused = kogpt2("train", "debug_cpu", *tiny, *LATER, code=2).stderr
    assert refused.count("\n") == 1 and "step-00000003: saved by another recipe (" in refused
    for change in ("data.seq_length: 32 -> 16", "model.dropout: 0.1 -> 0.3", "training.total_batch_size: 8 -> 16"):
        assert change in refused
    named = re.search(r"allow the change \((.*?)\)", refused)
    assert named and "--init-from " in refused
    options = named[1].split()  # as the message says them
    one = kogpt2("train", "debug_cpu", *tiny, *LATER, *options[:2], code=2).stderr
    assert options[1] not in one.partition("restore")[0]
    planned = kogpt2("train", "debug_cpu", *tiny, *LATER, *options, "--dry-run").stdout
    done = kogpt2("train", "debug_cpu", *tiny, *LATER, *options).stdout
    note = "training.total_batch_size 8 -> 16, data.seq_length 32 -> 16 (8 lanes -> 16): needs another order"
    for out in (planned, done, log_of(begun)):
        assert note in out and "model.dropout: 0.1 -> 0.3" in out
    changes = [
        {"step": 3, "key": DROPOUT, "from": 0.1, "to": 0.3},
        {"step": 3, "key": BATCH, "from": 8, "to": 16},
        {"step": 3, "key": LENGTH, "from": 32, "to": 16},
    ]
    assert open_checkpoint(begun).state()["changes"] == changes
    recorded = [line for line in read_metrics(begun) if line["kind"] == "change"]
    assert [{key: line[key] for key in ("step", "key", "from", "to")} for line in recorded] == changes
    tokens = {line["step"]: line["tokens"] for line in read_metrics(begun) if line["kind"] == "train"}
    assert tokens[3] == 3 * 8 * 32 and tokens[8] == tokens[3] + 5 * 16 * 16
    report = (begun / "report.html").read_text(encoding="utf-8")
    assert "Settings changed on the way" in report and "<td>data.seq_length</td><td>32</td><td>16</td>" in report
    # Later it is its own recipe: nothing needs to be allowed, and nothing is recorded twice.
    kogpt2("train", "debug_cpu", *tiny, *LATER, "training.num_steps=9")
    assert open_checkpoint(begun).state()["changes"] == changes
    assert len([line for line in read_metrics(begun) if line["kind"] == "change"]) == 3
    # And back is a change again.
    back = kogpt2("train", "debug_cpu", *tiny, *LATER, f"{DROPOUT}=0.1", "training.num_steps=10", code=2).stderr
    assert "model.dropout: 0.3 -> 0.1" in back


@pytest.mark.parametrize(
    "change", [(f"{LENGTH}=16",), (f"{BATCH}=16",), (f"{BATCH}=4",), (f"{DROPOUT}=0.5",), LATER[:3]]
)
def test_two_runs_that_change_alike_are_alike(begun: Path, tiny: list[str], change: tuple[str, ...]) -> None:
    """The second is stopped and resumed after the change, and is not allowed it again."""
    allowed = tuple(each.partition("=")[0] for each in change)
    options = [*change, "evaluation.interval=0", "checkpoint.keep=0"]
    other, there = copy_of(begun, "other")
    trained(tiny, *options, "training.num_steps=8", allow=allowed)
    learning = ["training.num_steps=8", there]
    recipe = load_recipe("debug_cpu", [*tiny, *options, *learning])
    stop_after(recipe, 5, allowed)
    assert open_checkpoint(other).state()["step"] == 5
    trained(tiny, *options, *learning)
    assert parameters(other, 8) == parameters(begun, 8) and losses_by_step(other) == losses_by_step(begun)
    ours, theirs = (open_checkpoint(each).state() for each in (begun, other))
    assert {**ours, "evaluation": None} == {**theirs, "evaluation": None} and ours["changes"]


def stop_after(recipe, step: int, allowed: tuple[str, ...]) -> None:
    """Trains up to a step and asks the run to stop, as a signal would."""
    from kogpt2_gluon.errors import PreemptedError
    from kogpt2_gluon.training import loop

    class Stopping(loop.StopRequest):
        steps = 0

        @property
        def wanted(self) -> bool:
            Stopping.steps += 1
            return Stopping.steps > step - 4

    with pytest.MonkeyPatch.context() as patch, pytest.raises(PreemptedError):
        patch.setattr(loop, "StopRequest", Stopping)
        train(recipe, "auto", allowed)


def test_a_change_of_dropout_alone_changes_the_draws_alone(begun: Path, tiny: list[str]) -> None:
    other, there = copy_of(begun, "other")
    trained(tiny, "training.num_steps=5")
    trained(tiny, "training.num_steps=5", f"{DROPOUT}=0", there, allow=(DROPOUT,))
    first, second = (open_checkpoint(each).state() for each in (begun, other))
    assert first["reader"] == second["reader"] and losses_by_step(begun)[4] != losses_by_step(other)[4]
    assert "order of sequences" not in log_of(other)


def test_a_larger_batch_reads_on(begun: Path, tiny: list[str]) -> None:
    trained(tiny, "training.num_steps=5", f"{BATCH}=16", allow=(BATCH,))
    state = open_checkpoint(begun).state()["reader"]
    assert (state["consumed"], state["lanes"], state["course"]) == (3 * 8 + 2 * 16, 8, 0)
    assert "training.total_batch_size 8 -> 16: the order of sequences stays, and goes on after the 24" in log_of(begun)


def test_scores_of_another_length_do_not_compare(begun: Path, tiny: list[str]) -> None:
    """Neither the stop rule nor the best checkpoint may compare them: shorter contexts score worse."""
    state = open_checkpoint(begun).state()
    assert state["best"]["step"] == 3 and state["best"]["seq_length"] == 32
    trained(tiny, "training.num_steps=4", f"{LENGTH}=8", allow=(LENGTH,))
    (aside,) = (begun / "checkpoints").glob("before-step-00000003-*")
    assert open_checkpoint(aside / "best").state()["best"] == state["best"]
    after = open_checkpoint(begun / "best").state()["best"]
    assert after["seq_length"] == 8 and after["step"] in (3, 4)


def test_a_run_killed_before_it_saved_changes_again_or_not_at_all(begun: Path, tiny: list[str]) -> None:
    """The record of a change that was never saved does not stay."""
    endless = ["training.num_steps=5000", "checkpoint.interval=0", "evaluation.interval=0"]
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "debug_cpu", *tiny, *endless, f"{BATCH}=16"]
    process = subprocess.Popen(
        [*command, "--allow-change", BATCH],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: max(losses_by_step(begun), default=0) > 5, process)
    kill_all(process)
    assert [line["to"] for line in read_metrics(begun) if line["kind"] == "change"] == [16]
    trained(tiny, f"{BATCH}=32", "training.num_steps=4", allow=(BATCH,))
    assert [line["to"] for line in read_metrics(begun) if line["kind"] == "change"] == [32]
    assert [change["to"] for change in open_checkpoint(begun).state()["changes"]] == [32]


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_after_the_change_it_goes_on_exactly(tiny: list[str], tmp_path: Path, size: int) -> None:
    """Real processes: each resume is the same command, as a scheduler gives it."""
    launch = [] if size == 1 else [*HORUN, "--gloo", "-np", size]
    command = [*launch, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "debug_cpu", *tiny]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run(*command, "training.num_steps=3", f"tracking.run_dir={straight}")
    shutil.copytree(straight, broken)
    later = [*LATER, "training.num_steps=12", *(each for key in ALL for each in ("--allow-change", key))]
    run(*command, *later, f"tracking.run_dir={straight}")
    process = subprocess.Popen(
        [str(part) for part in (*command, *later, f"tracking.run_dir={broken}", "evaluation.interval=1")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    latest = broken / "checkpoints" / "latest"
    wait_for(lambda: latest.read_text() >= "step-00000006", process)
    kill_all(process)
    done = run(*command, *later, f"tracking.run_dir={broken}").stdout
    for key, value in ((LENGTH, 16), (DROPOUT, 0.3), (BATCH, 16)):
        assert f"note: --allow-change {key}: nothing to allow, it does not change from {value}" in done
    assert parameters(broken, 12) == parameters(straight, 12)
    assert losses_by_step(broken) == losses_by_step(straight)


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_launcher_passes_it_on(begun: Path, tiny: list[str], size: int) -> None:
    command = [sys.executable, "-m", "launch", "run", "debug_cpu", *tiny, f"{BATCH}=16", "training.num_steps=4"]
    refused = run(*command, "--np", size, code=2)
    assert "--allow-change training.total_batch_size" in refused.stdout + refused.stderr
    run(*command, "--np", size, "--allow-change", BATCH)
    assert open_checkpoint(begun).state()["step"] == 4 and len(open_checkpoint(begun).state()["changes"]) == 1


# What may be named.


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("model.units", "a run keeps it to its end"),
        ("training.seed", "a run keeps it to its end"),
        ("training.optimizer", "a run keeps it to its end"),
        ("data.train", "the same data may be at another path without this option"),
        ("data.window", "a run keeps it to its end"),
        ("training.total_batchsize", "unknown key training.total_batchsize; did you mean training.total_batch_size?"),
        ("seq_length", r"unknown key seq_length; did you mean data.seq_length?"),
        ("data.seq_length=64", "unknown key"),
        ("", "unknown key"),
    ],
)
def test_a_key_that_cannot_be_allowed_is_refused_at_once(tiny: list[str], key: str, said: str) -> None:
    with pytest.raises(RecipeError, match=rf"^--allow-change {re.escape(key)}: {re.escape(said)}") as caught:
        check_allowed([DROPOUT, key])
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match=re.escape(said)):  # in the function that the command calls, too
        check(load_recipe("debug_cpu", tiny), allow_change=[key])


def test_the_command_refuses_it_too(tiny: list[str]) -> None:
    for dry in ([], ["--dry-run"]):
        error = kogpt2("train", "debug_cpu", *tiny, "--allow-change", "model.units", *dry, code=2).stderr
        assert error.startswith("kogpt2: --allow-change model.units: a run keeps it") and error.count("\n") == 1


def test_leave_that_is_not_needed_is_a_note(begun: Path, tiny: list[str], tmp_path: Path) -> None:
    same = load_recipe("debug_cpu", [*tiny, "training.num_steps=4"])
    lines = check(same, allow_change=[BATCH, "training.learning_rate", "evaluation.interval", BATCH])
    assert lines.count(f"note: --allow-change {BATCH}: nothing to allow, it does not change from 8") == 1
    assert "note: --allow-change training.learning_rate: it may change without" in lines
    assert "note: --allow-change evaluation.interval: it may change without" in lines
    new = load_recipe("debug_cpu", [*tiny, f"tracking.run_dir={tmp_path / 'new'}"])
    assert f"note: --allow-change {DROPOUT}: nothing to allow, it does not change from 0.1" in check(
        new, allow_change=[DROPOUT]
    )


def test_a_mixture_of_changes_names_what_can_be_allowed(begun: Path, tiny: list[str]) -> None:
    recipe = load_recipe("debug_cpu", [*tiny, f"{BATCH}=16", "training.seed=3"])
    with pytest.raises(RecipeError) as caught:
        check(recipe)
    assert "allow some of it (--allow-change training.total_batch_size)" in str(caught.value)
    with pytest.raises(RecipeError, match=r"\(training\.seed: 0 -> 3\); restore these values, or begin another run"):
        check(recipe, allow_change=[BATCH])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        ["change"],
        [{"step": 1, "key": BATCH, "from": 8}],
        [{"step": "1", "key": BATCH, "from": 8, "to": 16}],
        [{"step": 1, "key": "training.none", "from": 8, "to": 16}],
        [{"step": 1, "key": BATCH, "from": "8", "to": 16}],
        [{"step": 1, "key": BATCH, "from": float("inf"), "to": 16}],
    ],
)
def test_changes_that_no_run_recorded_are_refused(changes: object) -> None:
    check_records({}, "here")
    check_records({"changes": [{"step": 1, "key": BATCH, "from": 8, "to": 16}]}, "here")
    with pytest.raises(DataError, match=r'^here: "changes" in its state'):
        check_records({"changes": changes}, "here")


def test_tokens_are_counted_over_every_change() -> None:
    recipe = load_recipe("debug_cpu", [f"{BATCH}=64", f"{LENGTH}=32"])
    changes = [
        {"step": 10, "key": LENGTH, "from": 8, "to": 16},
        {"step": 20, "key": BATCH, "from": 8, "to": 64},
        {"step": 20, "key": DROPOUT, "from": 0.1, "to": 0.2},
        {"step": 20, "key": LENGTH, "from": 16, "to": 32},
    ]
    assert TrainState(step=25, changes=changes).tokens(recipe) == 10 * 8 * 8 + 10 * 8 * 16 + 5 * 64 * 32
    assert TrainState(step=25).tokens(recipe) == 25 * 64 * 32
