"""Compares ways to adapt one trained network to a task: what trains, what is stored, time, memory and score.

    python benchmarks/techniques.py CHECKPOINT --data DIR [--task nsmc] [--rows 12000] [--only 'NAME;NAME'] [--json]

Each technique fine-tunes the same checkpoint on the same rows by `kogpt2 finetune`, the techniques in turn within each
seed, so that whatever else the machine does meets all of them alike. `trained` counts numbers, the task's head
included; `stored` is what a task needs in addition to the body, 4 bytes a number; `body` is the size of the body's
parameters, which all tasks share, in float32, or with the matrices that are quantised in their bits and scales. `step`
and `memory` are ratios to the full fine-tuning of the same seed, from the medians of its log: the time of a token, and
the most memory of the process. `score` is that of the test rows, the mean and the standard deviation of the seeds.

--rows takes so many rows of the training file, evenly spaced, and --epochs how often each is seen; 0 rows: all.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestants import announce, speed_conditions
from verbs import kogpt2

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.errors import one_line
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.weights import TIED_COPY
from kogpt2_gluon.tasks.loading import find_split, open_task
from kogpt2_gluon.training.adapted_update import targets_of

FULL = "full fine-tuning"
NUMBER = 4  # bytes


@dataclass(frozen=True)
class Technique:
    """A way to adapt a network, and what its paper says of it."""

    settings: Sequence[str]
    claim: str = ""


def _scales(bits: int) -> Technique:
    claim = "> 10 times smaller, > 1,000 times fewer numbers trained (Kwon et al., 2022)" if bits == 4 else ""
    wanted = ("method=scales", "targets=all", f"bits={bits}", "scales=first")
    return Technique((*(f"adaptation.{each}" for each in wanted), "training.learning_rate=1e-3"), claim)


TECHNIQUES = {
    FULL: Technique(("training.learning_rate=1e-4",)),  # better than 2e-4 and 5e-4
    "LoRA, attention": Technique(
        ("adaptation.method=lora", "training.learning_rate=2e-3"),
        "as good as full fine-tuning, 10,000 times fewer numbers trained in GPT-3 (Hu et al., 2021)",
    ),
    "LoRA, all matrices": Technique(
        ("adaptation.method=lora", "adaptation.targets=all", "training.learning_rate=2e-3")
    ),
    "a prompt of 20": Technique(
        ("adaptation.method=prompt", "training.learning_rate=1e-2"),
        "close to full fine-tuning above 10 billion parameters, far below it under a billion (Lester et al., 2021)",
    ),
    "a prompt of 20, LSTM": Technique(
        ("adaptation.method=prompt", "adaptation.encoder=lstm", "training.learning_rate=2e-3"),
        "better than BERT of the same size or comparable to it, its weights tuned too (Liu et al., 2021)",
    ),
    **{f"scales, {bits} bits": _scales(bits) for bits in (4, 3, 2, 1)},
}


def run_technique(name: str, seed: int, wanted: argparse.Namespace, data: Path, work: Path) -> dict[str, float]:
    """Fine-tunes with one technique and seed; returns its figures."""
    run_dir = work / re.sub(r"\W+", "-", f"{name}-{seed}")
    settings = [
        *wanted.settings,
        *TECHNIQUES[name].settings,
        f"task.epochs={wanted.epochs}",
        f"training.seed={seed}",
        f"tracking.run_dir={run_dir}",
        "tracking.tensorboard=false",
    ]
    kogpt2("finetune", wanted.checkpoint, "--task", wanted.task, "--data", data, "--no-baselines", *settings)
    scores = json.loads((run_dir / "scores.json").read_text())["scores"]
    score = next(each for each in scores if each["system"] == "fine-tuned" and each["split"] == "test")
    (folder,) = run_dir.glob("seed-*")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    log = (folder / "log.txt").read_text()
    count = re.search(r"([\d,]+) numbers are trained", log) or re.search(r"([\d,]+) parameters;", log)
    assert count, log
    figures = {
        "score": score["mean"],
        "trained": float(count[1].replace(",", "")),
        "token_seconds": statistics.median(1 / record["tokens_per_second"] for record in steps),
        "memory_mb": max(record["memory_mb"] for record in steps),
    }
    shutil.rmtree(run_dir)
    return figures


def body_bytes(name: str, recipe: Recipe, shapes: dict[str, tuple[int, ...]]) -> int:
    """Returns the bytes of the body that a technique leaves: quantised matrices in bits and scales."""
    adaptation = dict(each.split("=") for each in TECHNIQUES[name].settings)
    if adaptation.get("adaptation.method") != "scales":
        return NUMBER * sum(math.prod(shape) for shape in shapes.values())
    bits = int(adaptation["adaptation.bits"])
    recipe.adaptation.targets = adaptation["adaptation.targets"]
    ends, total = targets_of(recipe.adaptation), 0
    for parameter, shape in shapes.items():
        quantised = parameter.endswith(ends)
        total += bits * (math.prod(shape) // 8 + NUMBER * shape[0]) if quantised else NUMBER * math.prod(shape)
    return total


def some_rows(task: str, data: Path, rows: int, work: Path) -> Path:
    """Returns a folder like `data` whose training file, a row a line, has so many of its rows, evenly spaced."""
    if not rows:
        return data
    folder = work / "data"
    shutil.copytree(data, folder)
    path = find_split(open_task(task), folder, "train")
    assert path, f"{data}: no training rows"
    head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [lines[place * len(lines) // rows] for place in range(min(rows, len(lines)))]
    path.write_text("".join([head, *kept]), encoding="utf-8")
    return folder


def summary(name: str, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Returns the row of a technique: medians of the ratios to full fine-tuning, mean and spread of the scores."""
    own, full = found[name], found.get(FULL, found[name])
    scores = [each["score"] for each in own]
    return {
        "technique": name,
        "trained": int(own[0]["trained"]),
        "stored": NUMBER * int(own[0]["trained"]),
        "step": statistics.median(a["token_seconds"] / b["token_seconds"] for a, b in zip(own, full)),
        "memory": statistics.median(a["memory_mb"] / b["memory_mb"] for a, b in zip(own, full)),
        "score": statistics.mean(scores),
        "spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "claim": TECHNIQUES[name].claim,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as Markdown."""
    lines = ["| technique | trained | stored | body, MB | step | memory | score | its paper |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---|")
    for row in rows:
        spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
        lines.append(
            f"| {row['technique']} | {row['trained']:,} | {row['stored'] / 1e3:,.0f} kB | {row['body'] / 1e6:.1f} | "
            f"{row['step']:.2f} | {row['memory']:.2f} | {row['score']:.4f}{spread} | {row['claim']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the task's files")
    parser.add_argument("--task", default="nsmc")
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="names of techniques, separated by semicolons")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("settings", nargs="*", help="section.key=value, for all techniques")
    wanted = parser.parse_intermixed_args()
    names = wanted.only.split(";") if wanted.only else list(TECHNIQUES)
    state = speed_conditions(2)
    source, _ = open_source(wanted.checkpoint)
    arrays = source.model_arrays()
    shapes = {name: tuple(array.shape) for name, array in arrays.items() if name != TIED_COPY}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = some_rows(wanted.task, wanted.data, wanted.rows, work)
        for seed in range(wanted.seeds):
            for name in names:
                found[name].append(run_technique(name, seed, wanted, data, work))
                announce(f"seed {seed}: {name}: {found[name][-1]}", sys.stderr)
    rows = [{**summary(name, found), "body": body_bytes(name, source.recipe(), shapes)} for name in names]
    print(json.dumps({"conditions": state, "rows": rows, "runs": found}) if wanted.json else table(rows))


if __name__ == "__main__":
    with one_line("techniques.py"):
        main()
