"""The part `formats` of `cleaning.py`: the same documents from every container of records, against JSON lines."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pyarrow
from cleaning_memory import peak_memory
from cleaning_text import cpu_seconds, distinct, read_texts, size_of, speeds
from pyarrow import parquet

from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.documents import read_documents
from kogpt2_gluon.corpus.store import Corpus

AIM = 0.7  # of the speed of JSON lines
ROWS = 1000  # of a row group or a batch

Result = dict[str, Any]


def write_json_lines(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(
            json.dumps({"id": n, "text": text}, ensure_ascii=False) + "\n" for n, text in enumerate(texts)
        )


def write_array(path: Path, texts: Iterable[str]) -> None:
    """Writes it in one line."""
    with path.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(texts):
            record = json.dumps({"id": number, "text": text}, ensure_ascii=False)
            stream.write(("[" if not number else ", ") + record)
        stream.write("]")


def write_pretty_array(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(texts):
            record = json.dumps({"id": number, "text": text}, ensure_ascii=False, indent=4)
            stream.write(("[\n" if not number else ",\n") + record)
        stream.write("\n]\n")


def write_csv(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("id", "text")])
        csv.writer(stream).writerows(enumerate(texts))


def write_parquet(path: Path, texts: Iterable[str]) -> None:
    schema = pyarrow.schema([("id", pyarrow.int64()), ("text", pyarrow.string())])
    with parquet.ParquetWriter(path, schema) as writer:
        for batch in _batches(texts, schema):
            writer.write_batch(batch)


def write_arrow_stream(path: Path, texts: Iterable[str]) -> None:
    """Writes batches one after another, as `datasets` does."""
    schema = pyarrow.schema([("id", pyarrow.int64()), ("text", pyarrow.string())])
    with pyarrow.ipc.new_stream(path, schema) as writer:
        for batch in _batches(texts, schema):
            writer.write_batch(batch)


def _batches(texts: Iterable[str], schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    rows: list[Result] = []
    for number, text in enumerate(texts):
        rows.append({"id": number, "text": text})
        if len(rows) == ROWS:
            yield pyarrow.RecordBatch.from_pylist(rows, schema)
            rows = []
    yield pyarrow.RecordBatch.from_pylist(rows, schema)


# JSON lines come first: everything else is compared with them.
CONTAINERS: dict[str, tuple[str, Callable[[Path, Iterable[str]], None]]] = {
    "json_lines": (".jsonl", write_json_lines),
    "json_array": (".json", write_array),
    "json_array_pretty": (".json", write_pretty_array),
    "csv": (".csv", write_csv),
    "parquet": (".parquet", write_parquet),
    "arrow_stream": (".arrow", write_arrow_stream),
}


def measure_formats(arguments: argparse.Namespace, work: Path) -> Result:
    """Measures speed on documents and on reviews, then memory for files of --sizes MB."""
    result: Result = {kind: _measure_speed(arguments, work, kind) for kind in ("documents", "reviews")}
    return {**result, "memory": _measure_memory(arguments, work)}


def _measure_speed(arguments: argparse.Namespace, work: Path, kind: str) -> Result:
    texts = read_texts(arguments, kind, 1e6 * arguments.mb)
    files = {name: work / f"{kind}-{name}{suffix}" for name, (suffix, _) in CONTAINERS.items()}
    for name, (_, write) in CONTAINERS.items():
        write(files[name], texts)
    corpora: dict[str, str] = {}

    def read(name: str) -> None:
        assert sum(1 for _ in read_documents(files[name], "text")) == len(texts)

    def whole(name: str) -> None:
        out = work / "corpus"
        shutil.rmtree(out, ignore_errors=True)
        clean([files[name]], out, "text")
        stored = [path.read_bytes() for split in ("train", "test") for path in Corpus.open(out).files(split)]
        corpora[name] = hashlib.sha256(b"".join(stored)).hexdigest()

    for name in CONTAINERS:  # imports and caches
        whole(name)
    megabytes = size_of(texts) / 1e6
    measured: Result = {"mb": megabytes, "texts": len(texts)}
    for work_name, run in (("read", read), ("clean", whole)):
        rounds = [{name: cpu_seconds(partial(run, name)) for name in CONTAINERS} for _ in range(arguments.rounds)]
        measured[work_name] = speeds(megabytes, rounds)
        ratios = measured[work_name].pop("ratio_to")  # how many times as long as JSON lines
        measured[work_name]["speed_to_json_lines"] = {name: round(1 / ratio, 3) for name, ratio in ratios.items()}
    assert len(set(corpora.values())) == 1, corpora
    return {**measured, "the_same_corpus": True, "aim": AIM}


def _measure_memory(arguments: argparse.Namespace, work: Path) -> list[Result]:
    texts = read_texts(arguments, "documents", 1e6 * arguments.mb)
    rows: list[Result] = []
    for size in (arguments.sizes[0], arguments.sizes[-1]):
        row: Result = {"mb": size}
        for name, (suffix, write) in CONTAINERS.items():
            if name in ("json_array_pretty", "arrow_stream"):
                continue
            file, out = work / f"distinct{suffix}", work / "distinct"
            write(file, _limited(distinct(texts), 1e6 * size))
            command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "clean", str(file), "--documents", "text"]
            peak, seconds = peak_memory([*command, "--out", str(out), "--processes", str(arguments.cores)])
            row[name] = {"peak_mb": round(peak, 1), "mb_per_second": round(size / seconds, 1)}
            shutil.rmtree(out)
            file.unlink()
        rows.append(row)
    return rows


def _limited(texts: Iterator[str], size: float) -> Iterator[str]:
    written = 0
    for text in texts:
        yield text
        written += len(text.encode("utf-8", "surrogatepass"))
        if written >= size:
            return


def formats_table(found: Result) -> list[str]:
    """Returns the figures as lines of text."""
    lines = []
    for kind in ("documents", "reviews"):
        for work_name in ("read", "clean"):
            measured = found[kind][work_name]
            speeds_of = ", ".join(f"{name} {speed:.1f}" for name, speed in measured["mb_per_second"].items())
            ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in measured["speed_to_json_lines"].items())
            lines.append(f"formats {work_name:<6} {kind:<10} MB/s: {speeds_of}; of JSON lines: {ratios}")
    for row in found["memory"]:
        peaks = ", ".join(f"{name} {figures['peak_mb']} MB" for name, figures in row.items() if name != "mb")
        lines.append(f"formats memory {row['mb']:,.0f} MB: {peaks}")
    return lines
