"""benchmarks/serving_load.py: a few seconds of it, with a small network."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the service needs it: the extra serve")

from tests.helpers import ROOT, run
from tests.serving.page_helpers import make_network

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def serving_load() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("serving_load")


@pytest.mark.slow
def test_a_short_load(tmp_path: Path) -> None:
    checkpoint = make_network(tmp_path / "network", "lossless", end_scale=0.5)
    options = ("--clients", 6, "--seconds", 3, "--new-tokens", 6, "--slots", 4, "--slow", 120, "--memory-minutes", 0.05)
    command = [sys.executable, BENCHMARKS / "serving_load.py", checkpoint, *options, "--json"]
    result = json.loads(run(*command).stdout)
    for part in ("load", "memory"):
        assert result[part]["texts"] >= 6 and result[part]["lost"] == result[part]["mixed"] == 0, result
    assert result["slow"] == {**result["slow"], "connections": 120, "lost": 0} and result["slow"]["texts"] > 0
    assert 50 < result["memory"]["begin_mb"] <= result["memory"]["most_mb"]
    for part in ("load", "peer"):
        found = result[part]
        assert 0 < found["p50_seconds"] <= found["p99_seconds"] and found["tokens_per_second"] > 0
    assert result["ratio"] == pytest.approx(result["load"]["tokens_per_second"] / result["peer"]["tokens_per_second"])


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_exceeded_by_few(serving_load, values, share) -> None:
    found = serving_load.quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)
