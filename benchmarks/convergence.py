"""Do all precisions learn the same? The same network on real text, trained by each, three seeds, 600 updates.

    python benchmarks/convergence.py SHARDS [--dir convergence] [--updates 600] [--seeds 3] [--json] [--out FILE.svg]

SHARDS holds train/ and test/, as `benchmarks/reviews.sh` makes them. The network is recipes/small_cpu.yaml's, widened
to 10 million parameters, with dropout 0.1; a step is 8 x 128 tokens. Contestants:

    float32 stock      MXNet's own operators: the yardstick
    float32 fused      the project's CPU operators
    bfloat16 fused     the same, products of bfloat16 operands
    float16 emulated   weights, activations and gradients rounded through float16 on the CPU, with the loss scale

The final losses are those of the whole held-out set. Two means are the same when they differ by no more than two pooled
standard errors: with s the pooled standard deviation of a contestant's n seeds, s * sqrt(2 / n). Exit code 1 if two are
not. A run that is there already (its last evaluation in metrics.jsonl) is not made again.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import click
import numpy as np
from conditions import conditions
from pictures import COLOURS
from verbs import kogpt2

from kogpt2_gluon.errors import one_line
from kogpt2_gluon.pages.plot import Series, line_plot
from kogpt2_gluon.pages.standalone import standalone
from kogpt2_gluon.runs.metrics import read_metrics

CONTESTANTS = {
    "float32 stock": ("float32", "stock"),
    "float32 fused": ("float32", "fused"),
    "bfloat16 fused": ("bfloat16", "fused"),
    "float16 emulated": ("float16", "stock"),
}
NETWORK = {"model.units": 320, "model.num_layers": 6, "model.num_heads": 5, "model.dropout": 0.1}
TRAINING = {"training.batch_size": 8, "training.total_batch_size": 8, "training.learning_rate": "1e-3"}


@dataclass(frozen=True)
class Run:
    """One contestant with one seed: steps and held-out losses (nats a token), the last over the whole set."""

    contestant: str
    seed: int
    steps: list[int]
    losses: list[float]
    skipped: int


@click.command()
@click.argument("shards", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--dir", "folder", default="convergence", type=click.Path(path_type=Path), help="Where the runs are kept."
)
@click.option("--updates", default=600, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(CONTESTANTS)), help="These contestants only.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Given to every run.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--out", type=click.Path(path_type=Path), help="Curves, as SVG.")
def main(
    shards: Path,
    folder: Path,
    updates: int,
    seeds: int,
    only: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    out: Path | None,
) -> None:
    """Train the runs that are missing, then compare all."""
    chosen = only or tuple(CONTESTANTS)
    runs = []
    for seed in range(seeds):
        for contestant in chosen:
            click.echo(f"{contestant}, seed {seed}", err=True)
            runs.append(trained(shards, folder, contestant, seed, updates, overrides))
    verdict = compare(runs)
    if out:
        out.write_text(draw(runs), encoding="utf-8")
    if as_json:
        click.echo(json.dumps({**verdict, "runs": [asdict(run) for run in runs], "conditions": conditions()}))
    else:
        for contestant, mean in verdict["means"].items():
            click.echo(f"{contestant:18} {mean:.4f}")
        click.echo(f"two pooled standard errors {verdict['allowed']:.4f}, largest difference {verdict['largest']:.4f}")
    sys.exit(0 if verdict["same"] else 1)


def trained(shards: Path, folder: Path, contestant: str, seed: int, updates: int, overrides: tuple[str, ...]) -> Run:
    """Returns the run of a contestant and a seed; trains it if it does not exist."""
    precision, ops = CONTESTANTS[contestant]
    run_dir = folder / f"{contestant.replace(' ', '-')}-{seed}"
    settings = {
        **NETWORK,
        **TRAINING,
        "training.num_steps": updates,
        "training.seed": seed,
        "training.precision": precision,
        "training.ops": ops,
        "training.device": "cpu",
        "data.train": shards / "train",
        "data.test": shards / "test",
        "evaluation.interval": max(1, updates // 12),
        "tracking.run_dir": run_dir,
        "tracking.sample_prompts": "[]",
        "tracking.tensorboard": "false",
    }
    if not finished(run_dir, updates):
        kogpt2("train", "small_cpu", *(f"{key}={value}" for key, value in settings.items()), *overrides, is_shown=True)
    lines = [line for line in read_metrics(run_dir) if line["kind"] == "evaluation"]
    skipped = [int(line.get("skipped", 0)) for line in read_metrics(run_dir) if line["kind"] == "train"]
    steps, losses = [int(line["step"]) for line in lines], [float(line["loss"]) for line in lines]
    return Run(contestant, seed, steps, losses, max(skipped, default=0))


def finished(run_dir: Path, updates: int) -> bool:
    """Returns True if the run's last evaluation is on record."""
    if not (run_dir / "metrics.jsonl").is_file():
        return False
    return any(line["kind"] == "evaluation" and line["step"] == updates for line in read_metrics(run_dir))


def compare(runs: list[Run]) -> dict:
    """Returns the mean final losses, the difference allowed, the largest difference of two, and if it is allowed."""
    finals = {c: [run.losses[-1] for run in runs if run.contestant == c] for c in {run.contestant: 0 for run in runs}}
    means = {contestant: float(np.mean(losses)) for contestant, losses in finals.items()}
    seeds = min(map(len, finals.values()))
    pooled = math.sqrt(np.mean([np.var(losses, ddof=1) for losses in finals.values()])) if seeds > 1 else math.nan
    allowed = 2 * pooled * math.sqrt(2 / seeds)
    largest = max((abs(means[a] - means[b]) for a, b in combinations(means, 2)), default=0.0)
    return {"means": means, "finals": finals, "allowed": allowed, "largest": largest, "same": bool(largest <= allowed)}


def draw(runs: list[Run]) -> str:
    """Held-out loss against updates: a line for every contestant, the mean of its seeds."""
    series = []
    for number, contestant in enumerate({run.contestant: 0 for run in runs}):
        mine = [run for run in runs if run.contestant == contestant]
        mean = np.mean([run.losses for run in mine], axis=0)
        series.append(Series(np.array(mine[0].steps, float), np.asarray(mean, float), f"c{number}", contestant))
    plot = line_plot(series, title="held-out loss", unit="nats a token", width=760, height=380)
    return standalone(plot, COLOURS)


if __name__ == "__main__":
    with one_line("convergence.py"):
        main()
