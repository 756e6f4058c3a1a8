"""Shares text, and the clock, between the parts of `cleaning.py`."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from kogpt2_gluon.demo.sentences.sample_text import sample_documents


def size_of(texts: list[str]) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def take(texts: Iterator[str], limit: float) -> list[str]:
    """The first texts, of `limit` bytes together."""
    taken: list[str] = []
    size = 0
    for text in texts:
        taken.append(text)
        size += len(text.encode("utf-8", "surrogatepass"))
        if size >= limit:  # asked before the next is drawn, which would be lost
            break
    return taken


def read_texts(arguments: argparse.Namespace, kind: str, limit: float) -> list[str]:
    """Up to `limit` bytes of documents (several lines each) or reviews (one)."""
    path: Path = getattr(arguments, kind)
    if path is None:
        sentences = sample_documents(seed=1)
        if kind == "reviews":
            return take((" ".join(text.split()) for text in sentences), limit)
        return take(("\n".join(itertools.islice(sentences, 12)) for _ in itertools.count()), limit)
    with path.open(encoding="utf-8") as stream:
        if kind == "documents":
            return take((json.loads(line)[arguments.field] for line in stream), limit)
        return take((line.rstrip("\n") for line in stream if line.strip()), limit)


def distinct(texts: list[str]) -> Iterator[str]:
    """Yields the texts, one line each, then again and again with their words in another order, without end."""
    rng = random.Random(0)
    for copy in itertools.count():
        for text in texts:
            words = text.split()
            if copy:
                rng.shuffle(words)
            yield " ".join(words)


def write_texts(path: Path, kind: str, texts: list[str]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogatepass") as stream:
        for text in texts:
            stream.write((json.dumps({"text": text}, ensure_ascii=False) if kind == "documents" else text) + "\n")


def write_distinct(path: Path, texts: list[str], size: float) -> int:
    """About `size` bytes of JSON lines that `distinct` makes of the texts."""
    written = 0
    with path.open("w", encoding="utf-8", errors="surrogatepass") as stream:
        for text in distinct(texts):
            line = json.dumps({"text": text}, ensure_ascii=False)
            stream.write(line + "\n")
            written += len(line.encode("utf-8", "surrogatepass")) + 1
            if written >= size:
                return written
    raise AssertionError("distinct has no end")


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def speeds(megabytes: float, rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of MB/s, and the ratios of the first to each other one, from the seconds of each round."""
    ours, *others = rounds[0]
    return {
        "mb_per_second": {
            name: round(statistics.median(megabytes / seconds[name] for seconds in rounds), 3) for name in rounds[0]
        },
        "ratio_to": {
            name: round(statistics.median(seconds[name] / seconds[ours] for seconds in rounds), 4) for name in others
        },
    }
