"""Held-out bits per byte of runs against minutes of training, with n-gram models of the same tokens, as one SVG.

Usage: python benchmarks/curve.py RUN_DIR [RUN_DIR ...] TRAIN_SHARDS TEST_SHARDS --out curve.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ngram_baseline import score_shards
from pictures import COLOURS

from kogpt2_gluon.pages.plot import Series, line_plot
from kogpt2_gluon.pages.standalone import standalone
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.metrics import read_metrics


def main() -> None:
    """Reads the runs and the shards, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", type=Path, nargs="+")
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    runs = [curve(run_dir, f"c{(number + 1) % 4}") for number, run_dir in enumerate(options.run_dirs)]
    last = max(float(run.x[-1]) for run in runs)
    ngrams = [
        Series(np.array([0.0, last]), np.full(2, score.bits_per_byte), "flat", f"{score.order}-gram")
        for score in score_shards(options.train, options.test, [2, 3])
    ]
    title = "held-out bits per byte against minutes of training"
    picture = line_plot([*runs, *ngrams], title=title, unit="bits per byte", width=760, height=380)
    options.out.write_text(standalone(picture, COLOURS), encoding="utf-8")
    for run in runs:
        print(f"{run.label}: {run.y[-1]:.4f} bits per byte after {run.x[-1]:.1f} minutes of training")


def curve(run_dir: Path, style: str) -> Series:
    """A run's evaluations but the first, against the minutes from its start; named by precision and operators."""
    recipe = load_recipe(str(run_dir / "recipe.yaml"), [])
    lines = [line for line in read_metrics(run_dir) if line["kind"] == "evaluation" and line["step"]]
    minutes = np.array([line["seconds"] / 60 for line in lines])
    bits = np.array([line["bits_per_byte"] for line in lines])
    return Series(minutes, bits, style, f"{recipe.training.precision} {recipe.training.ops}")


if __name__ == "__main__":
    main()
