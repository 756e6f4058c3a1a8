"""MLflow: a run on a tracking server, or in a folder or database that its client opens."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.runs.followers.background import Figures
from kogpt2_gluon.storage.files import write_file

ID_FILE = "mlflow.json"  # in the run folder: a run that goes on is the same one there
MOST_METRICS = 1000  # in one call, by MLflow's interface
LONGEST_VALUE = 500  # characters of a parameter, which every version takes
MOST_PARAMS = 100  # in one call


class MLflow:
    """Logs metrics to the run named in RUN_DIR/mlflow.json, which is made if there is none.

    `uri` is MLflow's tracking URI, `experiment` the recipe's name, `settings` become parameters.
    """

    def __init__(self, uri: str, experiment: str, run_dir: Path, settings: Mapping[str, Any], is_new: bool) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ImportError(f"cannot be imported ({error}): pip install mlflow-skinny") from None
        self._client = MlflowClient(tracking_uri=uri)
        self._id = "" if is_new else _known(run_dir, uri)
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
            return
        known = self._client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self._client.create_experiment(experiment)
        self._id = self._client.create_run(number, run_name=str(run_dir.resolve().name)).info.run_id
        self._log_params(settings)
        write_file(run_dir / ID_FILE, json.dumps({"uri": uri, "run": self._id}).encode())

    def add(self, records: Sequence[Figures]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(f"{record.kind}/{name}", value, int(record.time * 1000), record.step)
            for record in records
            for name, value in record.numbers.items()
        ]
        for begin in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[begin : begin + MOST_METRICS])

    def close(self, done: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")

    def _log_params(self, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in settings.items()]
        for begin in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[begin : begin + MOST_PARAMS])


def _known(run_dir: Path, uri: str) -> str:
    """Returns the id of the run at this server; "" if there is none."""
    try:
        plain = json.loads((run_dir / ID_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    known = isinstance(plain, dict) and plain.get("uri") == uri and isinstance(plain.get("run"), str)
    return plain["run"] if known else ""
