"""Commands in slices of time: only the seconds in which they ran count, and their ends are seen."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.helpers import ROOT

BENCHMARKS = ROOT / "benchmarks"

# Writes what time it is, again and again, so that the file shows when the process ran.
BUSY = """
import sys, time
end, counted, last = float(sys.argv[1]), 0.0, time.monotonic()
with open(sys.argv[2], "w", buffering=1) as file:
    while counted < end:
        now = time.monotonic()
        counted += min(now - last, 0.01)  # a jump: it was stopped
        last = now
        file.write(f"{now}\\n")
        time.sleep(0.002)
print("done")
"""


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("contestants"), importlib.import_module("time_slices")


def command(contestants: ModuleType, name: str, *arguments: object) -> Any:
    return contestants.Contestant(name, [sys.executable, *arguments])


def test_they_run_in_turn(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    contestants, slices = modules
    stamps = {name: tmp_path / f"{name}.stamps" for name in ("long", "short")}
    seconds = {"long": 1.0, "short": 0.4}
    busy = [command(contestants, name, "-c", BUSY, seconds[name], stamps[name]) for name in stamps]
    began = time.monotonic()
    found = slices.run_in_slices(busy, 0.3, tmp_path)
    wall = time.monotonic() - began
    assert all(result["words"].strip() == "done" and result["peak_memory_mb"] > 3 for result in found.values())
    total = sum(result["seconds"] for result in found.values())
    assert total <= wall < 1.5 * total + 1
    assert all(result["seconds"] >= 0.9 * seconds[name] for name, result in found.items())
    # Hardly a moment of one is inside a slice of the other.
    times = {name: [float(line) for line in file.read_text().split()] for name, file in stamps.items()}
    runs = {name: _stretches(values) for name, values in times.items()}
    overlap = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in runs["long"] for b in runs["short"])
    assert overlap < 0.1
    assert len(runs["long"]) > 1


def _stretches(times: list[float]) -> list[tuple[float, float]]:
    """From the first to the last time of each stretch without a gap of 0.15 s."""
    found = [[times[0], times[0]]]
    for each in times[1:]:
        if each - found[-1][1] > 0.15:
            found.append([each, each])
        found[-1][1] = each
    return [(first, last) for first, last in found]


def test_one_that_fails_ends_all(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    contestants, slices = modules
    forever = command(contestants, "forever", "-c", "import time; time.sleep(600)")
    broken = command(contestants, "broken", "-c", "import sys; sys.exit('no such file')")
    began = time.monotonic()
    with pytest.raises(contestants.ContestantError, match="broken: exit code 1: no such file"):
        slices.run_in_slices([forever, broken], 0.1, tmp_path)
    assert time.monotonic() - began < 60
