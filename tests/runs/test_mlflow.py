"""MLflow gets each run once, whatever fails meanwhile. The client and its store are real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.followers import background
from kogpt2_gluon.runs.followers.background import Background, Figures, close_all
from kogpt2_gluon.runs.followers.chosen import followers_of
from kogpt2_gluon.runs.followers.mlflow import LONGEST_VALUE, MLflow
from kogpt2_gluon.runs.metrics import Tracker
from tests.runs.tracking_helpers import log


@pytest.fixture(autouse=True)
def _file_store(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture
def uri(tmp_path):
    (tmp_path / "run").mkdir()
    return (tmp_path / "mlruns").as_uri()


def recipe_with(run_dir, **tracking):
    return load_recipe("demo", [f"tracking.run_dir={run_dir}", *(f"tracking.{k}={v}" for k, v in tracking.items())])


def runs_there(uri: str):
    client = MlflowClient(tracking_uri=uri)
    return client.search_runs([client.get_experiment_by_name("demo").experiment_id])


def follow(uri: str, run_dir: Path, steps: list[int], is_new: bool, **settings: object) -> list[str]:
    """Sends figures to the run; returns the notes."""
    follower = Background("tracking.mlflow", MLflow(uri, "demo", run_dir, settings, is_new).open)
    for step in steps:
        follower.put(Figures("train", step, 1.0, {"loss": float(step)}))
    return close_all([follower], done=True)


def steps_of(uri: str, run_id: str) -> list[int]:
    return [each.step for each in MlflowClient(tracking_uri=uri).get_metric_history(run_id, "train/loss")]


def test_mlflow_gets_figures_and_settings_and_goes_on_with_the_same_run(uri, tmp_path):
    run_dir = tmp_path / "run"
    recipe = recipe_with(run_dir, mlflow=uri)
    with Tracker(run_dir, 20, tensorboard=False, followers=lambda: followers_of(recipe, True)) as tracker:
        for step in (5, 10):
            log(tracker, step, loss=10.0 / step)
        tracker.log_evaluation(10, {"loss": 1.5, "bits_per_byte": 0.5})
    with Tracker(run_dir, 20, 10, tensorboard=False, followers=lambda: followers_of(recipe, False)) as tracker:
        log(tracker, 15, loss=0.5)
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (5, 2.0),
        (10, 1.0),
        (15, 0.5),
    ]
    assert run.data.metrics["evaluation/bits_per_byte"] == 0.5 and run.info.status == "FINISHED"
    assert run.data.params["tracking.run_dir"] == str(run_dir)
    assert "WARNING" not in (run_dir / "log.txt").read_text()


def test_attempts_that_fail_halfway_leave_one_run(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(background, "LONGEST_PAUSE", 0.02)
    batch, left = MlflowClient.log_batch, [2]

    def fails_twice(self, *arguments, **names):
        if names.get("params") and left[0]:
            left[0] -= 1
            raise ConnectionError("reset by peer")
        return batch(self, *arguments, **names)

    monkeypatch.setattr(MlflowClient, "log_batch", fails_twice)
    follower = Background("tracking.mlflow", MLflow(uri, "demo", tmp_path / "run", {"a": 1}, True).open)
    follower.put(Figures("train", 1, 1.0, {"loss": 1.0}))
    while not any("works again" in note for note in follower.take_notes()):
        pass
    assert close_all([follower], done=True) == []
    (run,) = runs_there(uri)
    assert run.data.params == {"a": "1"} and steps_of(uri, run.info.run_id) == [1]


def test_a_parameter_that_is_refused_costs_itself_alone(uri, tmp_path):
    settings = {"training.seed": 1, "no(name)": 2, "data.train": "x" * 400}
    (note,) = follow(uri, tmp_path / "run", [1, 2], True, **settings)
    assert "WARNING tracking.mlflow: no(name) is refused as a parameter" in note
    (run,) = runs_there(uri)
    assert run.data.params == {"training.seed": "1", "data.train": "x" * LONGEST_VALUE}
    assert steps_of(uri, run.info.run_id) == [1, 2]


def test_a_run_that_was_deleted_there_is_made_again(uri, tmp_path):
    """Deleted, as its page does; removed for good, as `mlflow gc` does; and at a server that never had it."""
    run_dir = tmp_path / "run"
    assert follow(uri, run_dir, [1], True, a=1) == []
    first = json.loads((run_dir / "mlflow.json").read_text())["run"]
    MlflowClient(tracking_uri=uri).delete_run(first)
    (note,) = follow(uri, run_dir, [2], False, a=1)
    assert f"the run {first} was deleted there; a new one is made" in note
    (second,) = runs_there(uri)
    assert second.data.params == {"a": "1"} and steps_of(uri, second.info.run_id) == [2]
    (run_dir / "mlflow.json").write_text(json.dumps({"uri": uri, "run": "0" * 32}))
    (note,) = follow(uri, run_dir, [3], False, a=1)
    assert "was deleted there" in note and len(runs_there(uri)) == 2


def test_a_run_that_is_deleted_meanwhile_is_made_again(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(background, "LONGEST_PAUSE", 0.02)
    follower = MLflow(uri, "demo", tmp_path / "run", {}, True).open(print)
    follower.add([Figures("train", 1, 1.0, {"loss": 1.0})])
    (run,) = runs_there(uri)
    MlflowClient(tracking_uri=uri).delete_run(run.info.run_id)
    with pytest.raises(Exception, match="active"):
        follower.add([Figures("train", 2, 1.0, {"loss": 1.0})])
    follower.add([Figures("train", 2, 1.0, {"loss": 1.0})])
    follower.close(True)
    (other,) = runs_there(uri)
    assert other.info.run_id != run.info.run_id and steps_of(uri, other.info.run_id) == [2]
