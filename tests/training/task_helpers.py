"""A small task with tables of its own, and settings to train a tiny network on it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

PLACES, VERBS = ("학교", "시장", "병원", "공원"), ("간다", "온다", "있다", "없다")

TASKS = {
    "classification": "labels: [home, away]\n",
    "regression": "lowest: 0\nhighest: 5\n",
    "token labels": "labels: [place]\n",
    "pair": "labels: [same, other]\ntext_pair: second\n",
    "joint": "",  # no table of one's own has such answers, but MASSIVE's file has
}
INTENTS = ("transport_query", "calendar_query")
SIZES = {"dev": 24, "test": 30}


def write_task(folder: Path, kind: str = "classification", rows: int = 90, more: str = "") -> Path:
    """Writes train.tsv, dev.tsv and test.tsv, and task.yaml, whose path is returned. The answer is easy to learn.

    Of the kind "joint" it is the one file of MASSIVE that is written and returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(kind)
    if kind == "joint":
        path = folder / "ko-KR.jsonl"
        lines = [json.dumps(each, ensure_ascii=False) for each in _records(rows, draw)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path
    for split, count in {"train": rows, **SIZES}.items():
        lines = ["text\tsecond\tlabel" if kind == "pair" else "text\tlabel"]
        lines += ["\t".join(_row(kind, draw)) for _ in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    head = "classification" if kind == "pair" else kind
    path = folder / "task.yaml"
    files = "files: {train: train.tsv, dev: dev.tsv, test: test.tsv}\n"
    path.write_text(f"name: made\nhead: {head}\n{TASKS[kind]}{files}{more}", encoding="utf-8")
    return path


def _row(kind: str, draw: random.Random) -> list[str]:
    place, verb = draw.choice(PLACES), draw.choice(VERBS)
    text = " ".join(["나는", *["오늘"] * draw.randrange(4), f"{place}에", verb])
    if kind == "regression":
        return [text, str(PLACES.index(place) + 1)]
    if kind == "token labels":
        return [text.replace(place, f"[place : {place}]", 1), ""]
    if kind == "pair":
        second = draw.choice(VERBS)  # decides alone: it takes more than a tiny network to compare two texts
        return [text, f"너는 {second}", "same" if second in VERBS[:2] else "other"]
    return [text, "home" if verb in VERBS[:2] else "away"]


def write_locale(folder: Path, locale: str, rows: int) -> Path:
    """Writes a file of MASSIVE in another language's name, with the same kind of rows; returns it."""
    path = folder / f"{locale}.jsonl"
    records = _records(rows, random.Random(locale), locale)
    path.write_text("".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in records), encoding="utf-8")
    return path


def _records(rows: int, draw: random.Random, locale: str = "ko-KR") -> Iterator[dict[str, str]]:
    """Yields the records of MASSIVE's file: the verb decides the intent, and the place is a slot."""
    for partition, count in {"train": rows, **SIZES}.items():
        for number in range(count):
            text, _ = _row("classification", draw)
            place = next(place for place in PLACES if place in text)
            yield {
                "id": str(number),
                "locale": locale,
                "partition": partition,
                "intent": INTENTS[VERBS.index(text.split()[-1]) // 2],
                "utt": text,
                "annot_utt": text.replace(place, f"[place_name : {place}]", 1),
            }


def name_of(task: Path) -> str:
    """The `task.name` of what write_task returned."""
    return "massive" if task.suffix == ".jsonl" else str(task)


def settings(shards: Path, task: Path, run_dir: Path) -> list[str]:
    """Overrides of the recipe finetune for a tiny network from random weights."""
    return [
        "model.units=32",
        "model.num_heads=2",
        "model.num_layers=2",
        "model.max_length=32",
        "model.vocab_size=1200",
        "data.seq_length=32",
        f"data.tokenizer={shards / 'tokenizer.model'}",
        f"task.name={name_of(task)}",
        f"task.data={task.parent}",
        "training.batch_size=4",
        "training.total_batch_size=8",
        "training.learning_rate=3e-3",
        "training.threads=1",
        "tracking.log_interval=1",
        "tracking.tensorboard=false",
        f"tracking.run_dir={run_dir}",
    ]
