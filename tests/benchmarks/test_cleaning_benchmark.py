"""The benchmark of cleaning: nothing lost on the way to a figure, the plain loop, and the printed object."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers import ROOT, run

SCRIPT = ROOT / "benchmarks" / "cleaning.py"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        import cleaning

        yield cleaning


def test_batches_hold_every_text(benchmark: ModuleType) -> None:
    texts = ["가" * length for length in range(1, 40)]
    remaining = iter(texts)
    batches = list(iter(lambda: benchmark.take(remaining, 50), []))
    assert [text for batch in batches for text in batch] == texts
    assert all(benchmark.size_of(batch) >= 50 for batch in batches[:-1])


def test_speeds_and_ratios_are_medians_within_rounds(benchmark: ModuleType) -> None:
    rounds = [{"ours": 1.0, "peer": 4.0}, {"ours": 2.0, "peer": 4.0}, {"ours": 4.0, "peer": 40.0}]
    assert benchmark.speeds(8.0, rounds) == {
        "mb_per_second": {"ours": 4.0, "peer": 2.0},
        "ratio_to": {"peer": 4.0},
    }


def test_distinct_text_has_the_size_asked_for(benchmark: ModuleType, tmp_path: Path) -> None:
    texts = benchmark.read_texts(argparse.Namespace(documents=None), "documents", 50_000)
    written = benchmark.write_distinct(tmp_path / "text.jsonl", texts, 300_000)
    lines = (tmp_path / "text.jsonl").read_text(encoding="utf-8").splitlines()
    assert written == (tmp_path / "text.jsonl").stat().st_size and 300_000 <= written < 320_000
    assert len(set(lines)) == len(lines) > 5 * len(texts)


def test_the_plain_loop_filters(benchmark: ModuleType) -> None:
    text = "<b>영화</b> 정말 재미있어요 ㅋㅋㅋㅋㅋㅋㅋㅋ 문의 me@example.com 또는 010-1234-5678"
    assert benchmark.plain_filter(text) == "영화 정말 재미있어요 ㅋㅋㅋ 문의 &email& 또는 &number&"
    assert benchmark.plain_filter("no Hangul in this at all") is None


def test_planted_copies_are_found(benchmark: ModuleType, tmp_path: Path) -> None:
    texts = benchmark.read_texts(argparse.Namespace(documents=None), "documents", 300_000)
    planted = benchmark.measure_planted(texts, tmp_path)
    assert planted["precision"] == 1.0 and planted["recall_at_0.85"] > 0.99
    assert planted["copies_at_0.85"] > 40


def test_memory_is_that_of_all_processes(benchmark: ModuleType) -> None:
    """A process and its child hold 100 MB each."""
    child = "b = bytearray(100_000_000); import time; time.sleep(0.5)"
    parent = f"b = bytearray(100_000_000); import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    peak, _ = benchmark.peak_memory([sys.executable, "-c", parent])
    assert 195 < peak < 300
    with pytest.raises(RuntimeError, match="no such luck"):
        benchmark.peak_memory([sys.executable, "-c", "raise SystemExit('no such luck')"])


def test_peers_that_cannot_be_had_are_skipped(benchmark: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "no environment for peers" in benchmark.make_peers(tmp_path / "file" / "peers")


@pytest.mark.slow
def test_one_json_object(tmp_path: Path) -> None:
    reviews = tmp_path / "reviews.txt"
    reviews.write_text(
        "\n".join(f"{number}번째로 본 영화인데 정말 재미있었다" for number in range(20_000)), encoding="utf-8"
    )
    size = ["--mb", "0.5", "--shard-mb", "1", "--vocab-size", "1000", "--sizes", "1,2", "--rounds", "1"]
    done = run(sys.executable, SCRIPT, "--json", "--reviews", reviews, "--work", tmp_path, *size)
    result = json.loads(done.stdout)
    assert set(result) == {"conditions", "filters", "near_duplicates", "memory", "sharding", "formats"}
    assert result["conditions"]["text"] == {"documents": "the package's sample text", "reviews": "reviews.txt"}
    assert result["near_duplicates"]["peers"].startswith("skipped")
    assert [row["mb"] for row in result["memory"]["sizes"]] == [1.0, 2.0]
    for part in ("filters", "near_duplicates", "sharding"):
        for kind in ("documents", "reviews"):
            assert min(result[part][kind]["mb_per_second"].values()) > 0
            assert result[part][kind]["ratio_to"]
    for kind in ("documents", "reviews"):
        assert result["formats"][kind]["the_same_corpus"]
        assert set(result["formats"][kind]["clean"]["speed_to_json_lines"]) >= {"json_array", "csv", "parquet"}
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.txt"], "something left in --work"
