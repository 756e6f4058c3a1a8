"""Folders of runs whose records are written by hand, and what is on a page about them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from kogpt2_gluon.recipe import load_recipe


def make_run(path: Path, steps: int = 60, floor: float = 3.0, settings: tuple[str, ...] = ()) -> Path:
    """A folder with the record of a run, written by hand."""
    recipe = load_recipe("demo", [f"tracking.run_dir={path}", f"training.num_steps={steps}", *settings])
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(recipe.to_yaml())
    with (path / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            common = {"step": step, "time": 1.7e9 + step, "seconds": 0.5 * step}
            figures = {"loss": floor + 6 / step, "tokens": 100 * step, "tokens_per_second": 200.0, "data_wait": 0.01}
            file.write(json.dumps({"kind": "train", **common, **figures}) + "\n")
            if step % 20 == 0:
                figures = {"loss": floor + 7 / step, "perplexity": 9.0, "bits_per_byte": (floor + 7 / step) / 3}
                file.write(json.dumps({"kind": "evaluation", **common, **figures}) + "\n")
    (path / "log.txt").write_text(
        f"2026-11-30 00:00:00 demo: {recipe.model.units:,} parameters; 4 worker(s) on gpu(0)\n"
        "2026-11-30 00:00:30 ended: done\n"
    )
    return path


def make_task_run(path: Path, task: str, metric: str, start: float, end: float) -> Path:
    """A folder with the record of a task's run, written by hand."""
    without_text = ("data.train=", "data.test=", "tracking.sample_prompts=[]")
    make_run(path, 40, settings=(f"task.name={task}", "task.data=rows", *without_text))
    lines = [line for line in map(json.loads, (path / "metrics.jsonl").read_text().splitlines())]
    scores = [
        {"kind": "evaluation", "step": step, "time": 1.7e9 + step, "seconds": step / 2, "loss": 0.5, metric: score}
        for step, score in ((0, start), (20, end - 0.01), (40, end))
    ]
    kept = [line for line in lines if line["kind"] == "train"]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*kept, *scores]))
    return path


def add_data(path: Path, documents: int = 100, size: int = 5000, tokenizer: str = "a", prints: str = "f") -> Path:
    """Adds a data.json to the folder of a run."""
    vocabulary = {"tokenizer": f"4,000 tokens, sha256 {tokenizer * 16}"}
    train = {"role": "train", "path": "shards/train", "documents": 900, "cleaning": f"{documents} read", **vocabulary}
    held_out = {"role": "held-out", "path": "shards/test", "documents": documents, "bytes_of_text": size}
    facts = {"fingerprint": "order", "sets": [train, {**held_out, **vocabulary, "fingerprint": prints}]}
    (path / "data.json").write_text(json.dumps(facts))
    return path


class Page(HTMLParser):
    """Tags, texts and outside references of a page; fails on tags closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.references: list[str] = []
        self.places: list[str] = []
        self.feed(text)
        assert self.open == [] and len(set(self.places)) == len(self.places)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.places += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def numbers_in_svg(text: str) -> list[str]:
    return re.findall(r'(?: d| cx| cy| x| y| x1| x2| y1| y2)="([^"]*)"', text)
