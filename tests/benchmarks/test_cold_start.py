"""benchmarks/cold_start.py: what it prints follows from processes that were measured and wrote the same text."""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers import ROOT, run

BENCHMARKS = ROOT / "benchmarks"
TINY = [
    "model.units=64", "model.num_layers=2", "model.num_heads=2", "model.max_length=64", "model.vocab_size=1000",
    "data.seq_length=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def cold_start() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("cold_start")


@pytest.mark.slow
def test_all_ways_write_the_same_text() -> None:
    command = [sys.executable, BENCHMARKS / "cold_start.py", "--rounds", 2, "--before", ROOT, "--json", *TINY]
    result = json.loads(run(*command).stdout)
    assert len(result["rounds"]) == 2
    for round_ in result["rounds"]:
        assert list(round_) == ["ours", "before", "transformers"]
        for found in round_.values():
            assert 0 < found["cpu_seconds"] < 16 * found["seconds"] and found["peak_memory_mb"] > 50
    for name in ("before", "transformers"):
        for key in ("seconds", "cpu_seconds", "peak_memory_mb"):
            ratios = [each["ours"][key] / each[name][key] for each in result["rounds"]]
            assert result["ours_is"][name][key] == pytest.approx(statistics.median(ratios))
    assert result["ours_is"]["transformers"]["peak_memory_mb"] < 1


def test_a_process_is_measured_with_all_that_it_took() -> None:
    """By a small process, as the benchmark is one: the peak of a child begins with the memory of its parent."""
    code = """if True:
        import time
        held = b"x" * (400 << 20)
        while time.process_time() < 0.3:
            pass
        print("한 줄")
    """
    measure = "import json, sys; from cold_start import Start; print(json.dumps(Start(sys.argv[1:]).run()))"
    took = json.loads(run(sys.executable, "-c", measure, sys.executable, "-c", code, PYTHONPATH=str(BENCHMARKS)).stdout)
    assert took["text"] == "한 줄"
    assert took["cpu_seconds"] >= 0.3 and took["seconds"] > 0.3
    assert 400 < took["peak_memory_mb"] < 800


def test_a_way_that_fails_ends_the_benchmark(cold_start: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="no such weights"):
        cold_start.Start([sys.executable, "-c", "raise SystemExit('no such weights')"]).run()


def test_other_texts_are_not_compared(cold_start: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way but ours writes one more word."""

    def made_up(self: object) -> dict[str, object]:
        is_ours = "TRANSFORMERS" not in str(self) and "transformers" not in str(self)
        return {**dict.fromkeys(cold_start.FIGURES, 1.0), "load": 0.0, "text": "바람" if is_ours else "바람 더"}

    monkeypatch.setattr(cold_start.Start, "run", made_up)
    monkeypatch.setattr(cold_start, "make_tokenizer", lambda work, size: (work / "text.txt").write_text("바람 비"))
    monkeypatch.setattr(cold_start.subprocess, "run", lambda *arguments, **options: None)
    with pytest.raises(RuntimeError, match="the texts differ"):
        cold_start.benchmark(1, None, TINY, tmp_path)
