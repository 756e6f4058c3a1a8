"""A small task with tables of its own, and settings to train a tiny network on it."""

from __future__ import annotations

import random
from pathlib import Path

PLACES, VERBS = ("학교", "시장", "병원", "공원"), ("간다", "온다", "있다", "없다")

TASKS = {
    "classification": "labels: [home, away]\n",
    "regression": "lowest: 0\nhighest: 5\n",
    "token labels": "labels: [place]\n",
    "pair": "labels: [same, other]\ntext_pair: second\n",
}


def write_task(folder: Path, kind: str = "classification", rows: int = 90, more: str = "") -> Path:
    """Writes train.tsv, dev.tsv and test.tsv, and task.yaml, whose path is returned. The answer is easy to learn."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(kind)
    for split, count in {"train": rows, "dev": 24, "test": 30}.items():
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
        f"task.name={task}",
        f"task.data={task.parent}",
        "training.batch_size=4",
        "training.total_batch_size=8",
        "training.learning_rate=3e-3",
        "training.threads=1",
        "tracking.log_interval=1",
        "tracking.tensorboard=false",
        f"tracking.run_dir={run_dir}",
    ]
