"""`kogpt2 set`: a run that is asked for changes while it trains is one that was stopped and went on with them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.errors import PreemptedError, RecipeError
from kogpt2_gluon.recipe import known_keys, load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.runs.requests import FOLDER, Request, me, read_request, send, waiting
from kogpt2_gluon.training.live_changes import can_change, changed_recipe
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.saved_records import check_records
from kogpt2_gluon.training.signals import StopRequest
from tests.helpers import kogpt2, run
from tests.training.run_helpers import HORUN, kill_all, log_of, losses_by_step, parameters, wait_for

RATE, DECAY = "training.learning_rate=0.02", "training.weight_decay=0.3"
STEPS = "training.num_steps=6"


def prepared(tiny: list[str], folder: Path, *requests: Request) -> list[str]:
    """The options of a run into whose folder requests are put before it starts: it obeys them after its first step."""
    folder.mkdir()
    for request in requests:
        send(folder, request)
    return [*tiny, STEPS, "evaluation.interval=0", "checkpoint.keep=0", f"tracking.run_dir={folder}"]


def stopped_after_one_step(options: list[str]) -> None:
    stop = StopRequest(wanted=True)
    with pytest.raises(PreemptedError), stop:
        train(load_recipe("debug_cpu", options), asked=stop)


def test_a_change_is_a_stop_and_a_resume(tiny: list[str], tmp_path: Path) -> None:
    """Two requests at once, too: the later one wins where they differ."""
    live, other = tmp_path / "live", tmp_path / "other"
    requests = Request([RATE, DECAY], by="kim@node1"), Request(["training.learning_rate=0.01"], by="lee@node2")
    train(load_recipe("debug_cpu", prepared(tiny, live, *requests)))
    options = prepared(tiny, other)
    stopped_after_one_step(options)
    train(load_recipe("debug_cpu", [*options, DECAY, "training.learning_rate=0.01"]))
    assert parameters(live, 6) == parameters(other, 6) and losses_by_step(live) == losses_by_step(other)
    assert not waiting(live)
    state = open_checkpoint(live).state()
    expected = [
        {"key": "training.learning_rate", "from": 0.001, "to": 0.02, "by": "kim@node1"},
        {"key": "training.weight_decay", "from": 0.01, "to": 0.3, "by": "kim@node1"},
        {"key": "training.learning_rate", "from": 0.02, "to": 0.01, "by": "lee@node2"},
    ]
    assert state["changes"] == [{"step": 1, **change} for change in expected]
    assert state["live"]["training.learning_rate"]["from"] == 0.001
    recorded = [line for line in read_metrics(live) if line["kind"] == "change"]
    assert [{key: line[key] for key in ("key", "from", "to", "by")} for line in recorded] == expected
    assert "training.learning_rate 0.001 -> 0.02, which kim@node1 has set" in log_of(live)


def test_a_later_start_keeps_the_change_unless_its_recipe_has_another_value(tiny: list[str], tmp_path: Path) -> None:
    live = tmp_path / "live"
    options = prepared(tiny, live, Request([RATE], by="kim@node1"))
    train(load_recipe("debug_cpu", options))
    more = [*options, "training.num_steps=8"]
    train(load_recipe("debug_cpu", more))
    assert "note: training.learning_rate=0.02, set at step 1 by kim@node1; the recipe has 0.001" in log_of(live)
    assert open_checkpoint(live).recipe().training.learning_rate == 0.02
    assert load_recipe(str(live / "recipe.yaml")).training.learning_rate == 0.02
    train(load_recipe("debug_cpu", [*more, "training.num_steps=9", "training.learning_rate=0.005"]))
    assert "training.learning_rate=0.005 by the recipe, no longer 0.02, set at step 1 by kim@node1" in log_of(live)
    state = open_checkpoint(live).state()
    assert state["live"] == {} and open_checkpoint(live).recipe().training.learning_rate == 0.005


def test_two_workers_take_a_change_at_the_same_step(tiny: list[str], tmp_path: Path) -> None:
    """Started again from the change's checkpoint with the same command, the run ends as one that went on."""
    launch = [*HORUN, "--gloo", "-np", 2]
    live, other, killed = (tmp_path / name for name in ("live", "other", "killed"))
    command = [*launch, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "debug_cpu"]
    run(*command, *prepared(tiny, live, Request([RATE], evaluate=True, by="kim@node1")))
    held_out = [line["step"] for line in read_metrics(live) if line["kind"] == "evaluation"]
    assert held_out == [0, 1, 6] and "step 1: kim@node1 asks for an evaluation" in log_of(live)
    shutil.copytree(live / "checkpoints" / "step-00000001", killed / "checkpoints" / "step-00000001")
    run(*command, *prepared(tiny, other), f"tracking.run_dir={killed}", STEPS)
    assert parameters(killed, 6) == parameters(live, 6)


def test_saving_and_evaluating_change_nothing(tiny: list[str], tmp_path: Path) -> None:
    live, plain = tmp_path / "live", tmp_path / "plain"
    for folder, requests in ((live, [Request(save=True, evaluate=True, by="kim@node1")]), (plain, [])):
        train(load_recipe("debug_cpu", prepared(tiny, folder, *requests)))
    assert {path.name for path in (live / "checkpoints").glob("step-*")} == {
        f"step-{step:08d}" for step in (0, 1, 3, 6)
    }
    assert {path.name for path in (plain / "checkpoints").glob("step-*")} == {f"step-{step:08d}" for step in (0, 3, 6)}
    assert parameters(live, 6) == parameters(plain, 6)


def test_a_run_that_is_asked_for_more_steps_at_its_last_one_goes_on(tiny: list[str], tmp_path: Path) -> None:
    live = tmp_path / "live"
    options = prepared(tiny, live, Request(["training.num_steps=4"], by="kim@node1"))
    train(load_recipe("debug_cpu", [*options, "training.num_steps=1"]))
    assert open_checkpoint(live).state()["step"] == 4 and not waiting(live)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1, 2]",
        b'{"settings": "training.num_steps=3"}',
        b'{"settings": [1]}',
        b'{"settings": [], "other": 1}',
        b"[" * 70_000,
        b'{"settings": ["training.seed=3"]}',
        b'{"settings": ["training.learning_rate=-1"]}',
        b'{"settings": ["training.learning_rat=1"]}',
        b'{"settings": ["evaluation.patience=2"], "by": "a\\nb"}',
    ],
)
def test_a_request_that_cannot_be_obeyed_is_a_line_of_the_log(tiny: list[str], tmp_path: Path, content: bytes) -> None:
    live = tmp_path / "live"
    options = [*prepared(tiny, live), "training.num_steps=2", "data.test="]
    (live / FOLDER).mkdir()
    (live / FOLDER / "1.json").write_bytes(content)
    train(load_recipe("debug_cpu", options))
    assert "WARNING: a request is refused: " in log_of(live)
    assert not waiting(live) and open_checkpoint(live).state()["step"] == 2


def test_a_run_that_is_killed_after_the_change_has_saved_it(tiny: list[str], tmp_path: Path) -> None:
    live = tmp_path / "live"
    wait = ["checkpoint.interval=0", "training.num_steps=100000", "tracking.log_interval=1"]
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "debug_cpu", *prepared(tiny, live), *wait]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (live / "metrics.jsonl").exists() and max(losses_by_step(live), default=0) > 2, process)
        asked = kogpt2("set", live, RATE, "--wait", 60).stdout
        assert asked == f"asked: {RATE}\n"
        wait_for(lambda: "going on from" in log_of(live), process)
    finally:
        kill_all(process)
    saved = open_checkpoint(live)
    assert saved.state()["live"]["training.learning_rate"]["by"] == me()
    assert saved.state()["step"] == saved.state()["changes"][0]["step"] > 0


def test_settings_are_checked_before_they_are_sent(tiny: list[str], tmp_path: Path) -> None:
    live = tmp_path / "live"
    train(load_recipe("debug_cpu", [*prepared(tiny, live), "training.num_steps=1"]))
    for words, part in (
        (["training.seed=3"], "training.seed: a run keeps it while it trains; these can change: "),
        (["training.learning_rate=fast"], "training.learning_rate"),
        (["training.learning_rat=1"], "did you mean training.learning_rate?"),
        (["training.final_learning_rate=1"], "training.final_learning_rate is above training.learning_rate"),
        (["sav"], "sav: neither KEY=VALUE nor one of save, evaluate, stop"),
    ):
        assert part in kogpt2("set", live, *words, code=2).stderr
        assert not waiting(live)
    assert "is this the folder of a run?" in kogpt2("set", tmp_path, "save", code=2).stderr
    late = kogpt2("set", live, "save", "stop", "--wait", 0.3, code=2).stderr
    assert "has not taken the request up in 0.3 seconds" in late and len(waiting(live)) == 1
    assert read_request(waiting(live)[0]) == Request(save=True, by=me())
    assert not (live / "stop").exists()
    assert kogpt2("set", live, "stop").stdout == "asked: stop\n" and (live / "stop").exists()


def test_keys_that_can_change_are_those_of_numbers_and_times(tmp_path: Path) -> None:
    can = {key for key in known_keys() if can_change(key)}
    assert {"training.learning_rate", "training.num_steps", "evaluation.interval", "checkpoint.keep"} <= can
    assert {"tracking.sample_prompts", "training.on_spike", "training.compare_interval"} <= can
    assert not {"training.seed", "training.ops", "model.dropout", "data.train", "tracking.run_dir"} & can
    with pytest.raises(RecipeError, match=r"training\.ops: a run keeps it"):
        changed_recipe(load_recipe("debug_cpu"), ["training.ops=stock"])


@pytest.mark.parametrize(
    "live",
    [
        [],
        {"nokey": {"step": 1, "from": 1, "to": 2, "by": "a"}},
        {"training.seed": {"step": 1, "from": 1, "to": "2", "by": "a"}},
        {"training.learning_rate": {"step": -1, "from": 0.1, "to": 0.2, "by": "a"}},
        {"training.learning_rate": {"step": 1, "from": 0.1, "to": 0.2}},
        {"training.learning_rate": {"step": 1, "from": 0.1, "to": -0.2, "by": "a"}},
    ],
)
def test_a_forged_record_is_refused(live: object) -> None:
    from kogpt2_gluon.errors import DataError

    good = {"training.learning_rate": {"step": 1, "from": 0.1, "to": 0.2, "by": "a"}}
    check_records(json.loads(json.dumps({"live": good})), "here")
    with pytest.raises(DataError, match='here: "live" in its state'):
        check_records({"live": live}, "here")
