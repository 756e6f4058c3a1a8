"""The short form of the fuzz run: every parser on some thousand changed files, always the same ones.

`make fuzz` runs the long form. Findings of it are tested in the rooms of their parsers.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError
from tests.fuzz import mutate
from tests.fuzz.run import ROOT, all_targets
from tests.fuzz.target import Target
from tests.fuzz.watch import MEMORY, Watch, limits

EXECUTIONS = 6000


def test_every_parser_reads_or_refuses_in_one_line(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.fuzz.run", "--engine", "plain", "--executions", str(EXECUTIONS)]
    done = subprocess.run([*command, "--together", "--json", str(found)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(found.read_bytes())["targets"]
    assert {result["target"] for result in results} == set(all_targets())
    for result in results:
        assert result["outcomes"].get("read", 0) >= 1, (
            f"{result['target']}: not even the files that it was made of are read"
        )
    assert sum(result["executions"] for result in results) > 0.99 * EXECUTIONS


def outcome(tmp_path: Path, read: Callable[[Path], object]) -> str:
    """The finding of one execution."""
    watch = Watch(Target("a test", "a.bin", lambda folder: [b""], read), tmp_path)
    with limits():
        return watch.execute(b"content").finding


def test_the_watch_finds_what_it_is_there_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(error: BaseException) -> Callable[[Path], object]:
        def read(path: Path) -> None:
            raise error

        return read

    def hangs(path: Path) -> None:
        while True:
            pass

    assert outcome(tmp_path, lambda path: path.read_bytes()) == ""
    assert outcome(tmp_path, raises(DataError("a.bin: damaged"))) == ""
    assert "names no file" in outcome(tmp_path, raises(DataError("damaged")))
    assert "KeyError" in outcome(tmp_path, raises(KeyError("x")))
    assert "GeneratorExit" in outcome(tmp_path, raises(GeneratorExit()))  # no Exception, as a panic of Rust is none
    assert "MemoryError" in outcome(tmp_path, lambda path: bytearray(1 << 40))
    bytearray(MEMORY + (512 << 20))  # a peak from before, which is no longer there
    assert "MiB of memory" in outcome(tmp_path, lambda path: bytearray(MEMORY + (256 << 20)) and None)
    assert outcome(tmp_path, lambda path: bytearray(MEMORY // 4) and None) == ""
    monkeypatch.setattr("tests.fuzz.watch.HANGS", 0.2)
    assert "hangs" in outcome(tmp_path, hangs)
    monkeypatch.setattr("tests.fuzz.watch.CONTROL", __import__("re").compile("d"))
    assert "control characters" in outcome(tmp_path, raises(DataError("a.bin: damaged")))


def test_the_same_seed_makes_the_same_inputs_and_most_are_new() -> None:
    seed = mutate.dump({"a": [1, {"b": "text"}], "c": None})
    for change in (mutate.mutate_bytes, mutate.mutate_json, mutate.text_mutator(["x"])):
        made = [[change(draw, seed) for _ in range(300)] for draw in (random.Random(5), random.Random(5))]
        assert made[0] == made[1] and len(set(made[0])) > 150
