"""The benchmark of fine-tuning, end to end at a tiny size, on made rows in the form of NSMC."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
from tests.helpers import ROOT, run

SCRIPT = ROOT / "benchmarks" / "finetuning_speed.py"
TINY = [
    "model.units=64",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.max_length=64",
    "model.vocab_size=1000",
]
BATCH_SIZE, TRAIN, TEST = 4, 120, 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with both files of NSMC, and the text that their rows are from."""
    folder = tmp_path_factory.mktemp("nsmc")
    write_sample_corpus(folder / "text.txt")
    lines = [line for line in (folder / "text.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    for name, rows in (("train", lines[:TRAIN]), ("test", lines[TRAIN : TRAIN + TEST])):
        table = [f"{number}\t{text}\t{number % 2}" for number, text in enumerate(rows)]
        (folder / f"ratings_{name}.txt").write_text("\n".join(["id\tdocument\tlabel", *table, ""]), encoding="utf-8")
    return {"data": folder, "text": folder / "text.txt"}


def benchmark(files: dict[str, Path], *options: object, code: int = 0) -> Any:
    named = ["--data", files["data"], "--text", files["text"], "--pieces", 1000, "--batch-size", BATCH_SIZE]
    done = run(sys.executable, SCRIPT, *named, "--threads", 1, "--json", *options, *TINY, code=code, timeout=300)
    return done.stderr if code else json.loads(done.stdout)


@pytest.mark.slow
def test_steps(files: dict[str, Path], tmp_path: Path) -> None:
    result = benchmark(files, "--windows", 1, "--warmup", 3, "--peers", "trainer,grouped", "--work", tmp_path)
    names = [f"{who}-{precision}" for precision in ("float32", "bfloat16") for who in ("ours", "trainer", "grouped")]
    found = result["contestants"]
    assert list(found) == names
    steps, ours = result["rows"]["steps"], found["ours-float32"]
    assert steps == result["rows"]["window"] > 20
    for row in found.values():
        assert len(row["step_seconds"]) == 3 + steps and len(row["rate_of_windows"]) == 1
        assert row["examples_per_second"] == pytest.approx(BATCH_SIZE * steps / sum(row["step_seconds"][3:]))
        assert row["parameters"] == ours["parameters"] and abs(row["loss"] - 0.69) < 0.5
        assert row["padded_tokens_per_row"] >= result["rows"]["tokens_per_row"]
    rate = {name: row["examples_per_second"] for name, row in found.items()}
    assert result["ratio_float32"] == pytest.approx(rate["ours-float32"] / rate["trainer-float32"])
    assert result["ratio_grouped_bfloat16"] == pytest.approx(rate["ours-bfloat16"] / rate["grouped-bfloat16"])
    fastest = {who: max(rate[f"{who}-float32"], rate[f"{who}-bfloat16"]) for who in ("ours", "trainer")}
    assert result["ratio_fastest"] == pytest.approx(fastest["ours"] / fastest["trainer"])
    assert ours["padded_tokens_per_row"] < found["trainer-float32"]["padded_tokens_per_row"]
    assert list(tmp_path.iterdir()) == [], "something left in --work"


@pytest.mark.slow
def test_whole(files: dict[str, Path]) -> None:
    size = ["--whole", "--train-rows", 100, "--test-rows", TEST, "--slice", 1, "--precisions", "float32"]
    result = benchmark(files, *size)
    ours, theirs = (result["contestants"][f"{who}-float32"] for who in ("ours", "trainer"))
    assert result["rows"]["test"] == TEST and 60 < result["rows"]["train"] < 100
    assert result["ratio_float32"] == pytest.approx(theirs["seconds"] / ours["seconds"])
    assert all(0 <= row["score"] <= 1 and row["seconds"] > 1 and row["peak_memory_mb"] > 50 for row in (ours, theirs))
    assert theirs["steps"] == -(-result["rows"]["train"] // BATCH_SIZE)


def test_what_cannot_be_measured_is_said_at_once(files: dict[str, Path]) -> None:
    assert "paddle: not one of trainer, grouped, huge" in benchmark(files, "--peers", "paddle", code=2)
    assert "name a --tokenizer" in run(sys.executable, SCRIPT, "--data", files["data"], code=2).stderr
    assert "error: " in benchmark({**files, "data": files["data"] / "absent"}, code=1)
