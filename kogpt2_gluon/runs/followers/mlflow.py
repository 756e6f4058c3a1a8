"""MLflow: a run on a tracking server, or in a folder or database that its client opens."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.runs.environment import hide_users
from kogpt2_gluon.runs.followers.background import Figures, Say, in_words
from kogpt2_gluon.storage.files import write_file

ID_FILE = "mlflow.json"  # in the run folder: a run that goes on is the same one there
MOST_METRICS = 1000  # in one call, by MLflow's interface
LONGEST_VALUE = 250  # characters of a parameter: what servers before MLflow 1.28 take
MOST_PARAMS = 100  # in one call
GONE = "RESOURCE_DOES_NOT_EXIST"
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


class MLflow:
    """Logs metrics to the run named in RUN_DIR/mlflow.json, which is made if there is none, or it was deleted.

    `uri` is MLflow's tracking URI, `experiment` the recipe's name, `settings` become parameters. A run that was made
    is named at once, so that an attempt to open which fails later leaves no second one.
    """

    def __init__(self, uri: str, experiment: str, run_dir: Path, settings: Mapping[str, Any], is_new: bool) -> None:
        self._uri, self._experiment, self._run_dir, self._settings = uri, experiment, run_dir, settings
        self._id = "" if is_new else _known(run_dir, uri)
        self._lacks_params = is_new  # of the run that is there

    def open(self, say: Say) -> MLflow:
        """Connects. ImportError if there is no client; what the client raises if the server cannot be reached."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ImportError(f"cannot be imported ({error}): pip install mlflow-skinny") from None
        self._client, self._say = MlflowClient(tracking_uri=self._uri), say
        self._begin()
        return self

    def add(self, records: Sequence[Figures]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(f"{record.kind}/{name}", value, int(record.time * 1000), record.step)
            for record in records
            for name, value in record.numbers.items()
        ]
        if not self._id:
            self._begin()
        try:
            for begin in range(0, len(metrics), MOST_METRICS):
                self._client.log_batch(self._id, metrics=metrics[begin : begin + MOST_METRICS])
        except Exception as error:
            if (
                getattr(error, "error_code", "") in (GONE, *REFUSED) and self._is_gone()
            ):  # the next attempt makes another
                self._id = ""
            raise

    def close(self, done: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")

    def _begin(self) -> None:
        """Takes up the run that is known, or makes one."""
        if self._id and self._is_gone():
            self._say(f"the run {self._id} was deleted there; a new one is made")
            self._id = ""
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
        else:
            known = self._client.get_experiment_by_name(self._experiment)
            number = known.experiment_id if known else self._client.create_experiment(self._experiment)
            self._id = self._client.create_run(number, run_name=str(self._run_dir.resolve().name)).info.run_id
            write_file(self._run_dir / ID_FILE, json.dumps({"uri": hide_users(self._uri), "run": self._id}).encode())
            self._lacks_params = True
        if self._lacks_params:
            self._log_params()
            self._lacks_params = False

    def _is_gone(self) -> bool:
        """Returns True if the server says that there is no such run, or that it was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(self._id).info.lifecycle_stage == "deleted")
        except MlflowException as error:
            if error.error_code == GONE:
                return True
            raise

    def _log_params(self) -> None:
        """Logs the settings; says which ones the server refuses."""
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in self._settings.items()]
        for begin in range(0, len(params), MOST_PARAMS):
            batch = params[begin : begin + MOST_PARAMS]
            try:
                self._client.log_batch(self._id, params=batch)
                continue
            except MlflowException as error:
                if error.error_code not in REFUSED:
                    raise
            for param in batch:  # to find the one
                try:
                    self._client.log_param(self._id, param.key, param.value)
                except MlflowException as error:
                    if error.error_code not in REFUSED:
                        raise
                    self._say(f"{param.key} is refused as a parameter: {in_words(error)}")


def _known(run_dir: Path, uri: str) -> str:
    """Returns the id of the run at this server; "" if there is none."""
    try:
        plain = json.loads((run_dir / ID_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    known = isinstance(plain, dict) and plain.get("uri") == hide_users(uri) and isinstance(plain.get("run"), str)
    return plain["run"] if known else ""
