"""Speed and waits of a step: of one worker, and of several whose gradients travel."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.training import stopwatch
from kogpt2_gluon.training.stopwatch import Stopwatch
from tests.helpers import run
from tests.training.run_helpers import HORUN


class OneOfTwo(Worker):
    """A worker whose neighbour always takes 50 ms for its own part."""

    size = 2

    def gather(self, values):
        return np.array([values, [0.05]])


def test_shares_of_the_time():
    watch = Stopwatch(Worker())
    with watch.phase("read"):
        time.sleep(0.05)
    time.sleep(0.05)
    with watch.paused():
        time.sleep(0.2)
    watch.count(100)
    reading = watch.reading()
    assert 0.3 < reading.data_wait < 0.7
    assert reading.communication is None and reading.last is None
    assert 100 / 0.3 < reading.tokens_per_second <= 100 / 0.1
    assert watch.reading().data_wait == 0.0  # from the beginning again


def test_a_step_is_sampled_now_and_then(monkeypatch):
    waited = []
    monkeypatch.setattr(stopwatch.mx.nd, "waitall", lambda: waited.append(True))
    watch, readings = Stopwatch(OneOfTwo()), []
    for _ in range(2 * stopwatch.SAMPLED_EVERY + 2):
        for name in ("read", "forward", "backward", "reduce", "agree", "update"):
            with watch.phase(name):
                time.sleep(0.001 if name == "reduce" else 0)
        watch.count(1)
        readings.append(watch.reading())
    sampled = [reading for reading in readings if reading.communication is not None]
    assert len(sampled) == len(waited) == 3
    assert all(0 < reading.communication <= 1 and reading.last[0] == 1 for reading in sampled)


@pytest.mark.parametrize("workers", [1, 2])
def test_in_the_record_of_a_run(tiny, tmp_path, workers):
    settings = [*tiny, "training.num_steps=8", "evaluation.interval=0", "tracking.log_interval=2"]
    before = [*HORUN, "--gloo", "-np", 2] if workers == 2 else []
    run(*before, sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "demo", *settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert all(0 <= line["data_wait"] <= 1 and line["smoothed_loss"] > 0 for line in train)
    assert [line["step"] for line in train if "communication" in line] == ([4] if workers == 2 else [])
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert [one["role"] for one in data["sets"]] == ["train", "held-out"]
    assert data["sets"][0]["documents"] > 0 and "unknown" in data["sets"][0]
