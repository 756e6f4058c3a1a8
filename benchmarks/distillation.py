"""Trains the same student with and without a teacher at equal steps over several seeds, and compares what they reach.

    python benchmarks/distillation.py TEACHER WORK [--recipe small_cpu] [--seeds 3] [section.key=value ...]

TEACHER is a checkpoint; the overrides make the recipe the student's (model.num_layers=2 data.train=...). Every run is
one of `kogpt2 train` in WORK; what is there already is not trained again, and a run that was stopped goes on. Printed
are bits per byte on all held-out text, as mean and standard deviation over the seeds, and the time of a run as a share
of that without a teacher. All of them share the machine with whatever else runs there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from contestants import speed_conditions
from verbs import kogpt2

from kogpt2_gluon.errors import one_line
from kogpt2_gluon.runs.run_folder import RunFolder, open_run

VARIANTS = {
    "no teacher": (),
    "divergence": ("distillation.weight=0.5",),
    "and hidden states": ("distillation.weight=0.5", "distillation.hidden_weight=1.0"),
    "and its layers": ("distillation.weight=0.5", "distillation.hidden_weight=1.0", "distillation.init_layers=true"),
}


class Row(NamedTuple):
    """The runs of a variant: held-out bits per byte and seconds of each seed."""

    variant: str
    bits_per_byte: list[float]
    seconds: list[float]


def train(recipe: str, settings: Sequence[str], run_dir: Path) -> RunFolder:
    """Trains one run to its end. RecipeError, with its own words, if it fails."""
    kogpt2("train", recipe, *settings, f"tracking.run_dir={run_dir}")
    return open_run(run_dir)


def compare(recipe: str, teacher: Path, work: Path, seeds: int, settings: Sequence[str]) -> list[Row]:
    """Trains all variants, seed by seed, so that what changes on the machine is the same for all of them."""
    rows = [Row(variant, [], []) for variant in VARIANTS]
    for seed in range(seeds):
        for row in rows:
            own = [*settings, f"training.seed={seed}", *VARIANTS[row.variant]]
            own += [f"distillation.teacher={teacher}"] * bool(VARIANTS[row.variant])
            run = train(recipe, own, work / f"{row.variant.replace(' ', '-')}-{seed}")
            row.bits_per_byte.append(run.final)
            row.seconds.append(run.seconds)
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of a table in Markdown; the first row is what times are compared with."""
    lines = ["| student | bits per byte | standard deviation | time |", "|---|---:|---:|---:|"]
    for row in rows:
        spread = f"{statistics.stdev(row.bits_per_byte):.4f}" if len(row.bits_per_byte) > 1 else "-"
        share = statistics.median(mine / first for mine, first in zip(row.seconds, rows[0].seconds))
        lines.append(f"| {row.variant} | {statistics.mean(row.bits_per_byte):.4f} | {spread} | {share:.2f} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--recipe", default="small_cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="section.key=value, of every run")
    arguments = parser.parse_intermixed_args(argv)
    speed_conditions(2)
    rows = compare(arguments.recipe, arguments.teacher, arguments.work, arguments.seeds, arguments.overrides)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    with one_line("distillation.py"):
        main()
