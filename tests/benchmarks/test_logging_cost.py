"""The benchmark of the log runs, on a small network."""

from __future__ import annotations

import json
import sys

from tests.helpers import ROOT, run
from tests.lazy_modules import needed

needed("mlflow", reason="logs to MLflow")
needed("wandb", reason="logs to Weights & Biases")


def test_logging_cost() -> None:
    program = ROOT / "benchmarks" / "logging_cost.py"
    small = ["model.num_layers=1", "model.units=64", "model.num_heads=2", "model.vocab_size=2000"]
    found = json.loads(
        run(sys.executable, program, "--rounds", 1, "--steps", 4, "--shape", "2x32", "--json", *small).stdout
    )
    median = found["median"]
    assert 0 < median["loop"] < median["step"] and median["threads"] > 0
    assert median["loop_share"] == median["loop"] / median["step"]
