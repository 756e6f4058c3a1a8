"""Which settings make the best network in one hour of two cores? Short trials, each at the same cost, one table.

    python benchmarks/hour_trials.py CORPUS [--dir hour-trials] [--minutes 8] [--only NAME ...] [--json]

CORPUS is a folder of `kogpt2 clean`. Each trial is recipes/small_cpu.yaml with the settings of TRIALS, in bfloat16 with
one thread. The speed of each is measured first, one after another, on a core that should have nothing else to do; from
it follow the updates that fit into the minutes. Trials that run at the same time, or next to other work, therefore cost
the same. Tokenizers and shards are made once for each size of vocabulary. What is there already is not made again.

Networks with different vocabularies are compared by bits per byte of the held-out normalised text, all of it. A trial
is about a fifteenth of the hour, and what is best for it need not be for the hour: a longer training wants a wider
network and larger batches.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median

import click
from conditions import conditions
from verbs import kogpt2

from kogpt2_gluon.errors import one_line
from kogpt2_gluon.runs.metrics import read_metrics

VOCABULARY, RATE = "model.vocab_size", "training.learning_rate"
BASE = {
    "training.precision": "bfloat16",
    "training.threads": 1,
    RATE: "2e-3",
    "training.final_learning_rate": 0,
    "training.schedule": "linear",
    "training.warmup_ratio": 0.03,
    "evaluation.interval": 0,
    "evaluation.max_sequences": 0,
    "checkpoint.interval": 0,
    "checkpoint.keep_best": "false",
    "tracking.sample_prompts": "[]",
    "tracking.tensorboard": "false",
}


def batch(sequences: int) -> dict[str, object]:
    """Returns the settings of a batch of so many sequences."""
    return {"training.batch_size": sequences, "training.total_batch_size": sequences}


def shape(layers: int, units: int, heads: int) -> dict[str, object]:
    """Returns the settings of a network's shape."""
    return {"model.num_layers": layers, "model.units": units, "model.num_heads": heads}


TRIALS: dict[str, dict[str, object]] = {
    "base": {},
    "cosine to 1e-4": {"training.schedule": "cosine", "training.final_learning_rate": "1e-4"},
    "rate 1e-3": {RATE: "1e-3"},
    "rate 4e-3": {RATE: "4e-3"},
    "batch 8": batch(8),
    "batch 8, rate 1e-3": {**batch(8), RATE: "1e-3"},
    "batch 32": batch(32),
    "batch 32, rate 3e-3": {**batch(32), RATE: "3e-3"},
    "length 64": {**batch(32), "data.seq_length": 64},
    "beta2 0.95": {"training.beta2": 0.95},
    "beta2 0.99": {"training.beta2": 0.99},
    "weight decay 0.1": {"training.weight_decay": 0.1},
    "12,000 pieces": {VOCABULARY: 12000},
    "16,000 pieces": {VOCABULARY: 16000},
    "12,000 pieces, batch 8, rate 1e-3": {**batch(8), VOCABULARY: 12000, RATE: "1e-3"},
    "4 x 320, 12,000 pieces, batch 8, rate 1e-3": {
        **shape(4, 320, 5),
        **batch(8),
        VOCABULARY: 12000,
        RATE: "1e-3",
    },
    "6 x 256": shape(6, 256, 4),
    "4 x 320": shape(4, 320, 5),
    "4 x 384": shape(4, 384, 6),
    "4 x 384, rate 1e-3": {**shape(4, 384, 6), RATE: "1e-3"},
    "4 x 384, 12,000 pieces, rate 1e-3": {**shape(4, 384, 6), VOCABULARY: 12000, RATE: "1e-3"},
    "6 x 320": shape(6, 320, 5),
    "6 x 320, rate 1e-3": {**shape(6, 320, 5), RATE: "1e-3"},
    "6 x 384": shape(6, 384, 6),
    "6 x 384, rate 1e-3": {**shape(6, 384, 6), RATE: "1e-3"},
    "8 x 256": shape(8, 256, 4),
}


@click.command()
@click.argument("corpus", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dir", "folder", default="hour-trials", type=click.Path(path_type=Path), help="Where all is kept.")
@click.option("--minutes", default=8.0, show_default=True, help="Of one core, for each trial.")
@click.option("--only", multiple=True, type=click.Choice(list(TRIALS)), help="These trials only.")
@click.option("--speeds", is_flag=True, help="Only measure the speeds that are missing.")
@click.option("--json", "as_json", is_flag=True)
def main(corpus: Path, folder: Path, minutes: float, only: tuple[str, ...], speeds: bool, as_json: bool) -> None:
    """Run the trials that are missing, then print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = only or tuple(TRIALS)
    known = {name: speed(corpus, folder, name) for name in chosen}
    if speeds:
        return
    rows = [trial(corpus, folder, name, minutes, known[name]) for name in chosen]
    if as_json:
        click.echo(json.dumps({"minutes": minutes, "trials": rows, "conditions": conditions()}))
        return
    for row in sorted(rows, key=lambda row: row["bits_per_byte"]):
        click.echo(
            f"{row['name']:22} {row['bits_per_byte']:.4f} bits per byte  {row['updates']:6,} updates  "
            f"{row['tokens'] / 1e6:5.2f} million tokens  {row['tokens_per_second']:6,.0f} tokens/s"
        )


def shards_of(corpus: Path, folder: Path, pieces: int) -> Path:
    """Returns a folder of train/ and test/ shards by a tokenizer with so many pieces; makes both if need be."""
    model, shards = folder / f"tokenizer-{pieces}.model", folder / f"shards-{pieces}"
    if not model.is_file():
        kogpt2("tokenizer", corpus, "--vocab-size", pieces, "--out", model, is_shown=True)
    if not shards.is_dir():
        kogpt2("shard", corpus, "--tokenizer", model, "--out", shards, is_shown=True)
    return shards


def speed(corpus: Path, folder: Path, name: str) -> float:
    """Returns the tokens a second of a trial, the median of some updates after the first ones; measures it once.

    Trials that differ in the optimizer's settings alone have the speed of the first one.
    """
    name = next(other for other in TRIALS if costs(other) == costs(name))
    path = folder / "speeds.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    if name not in known:
        load = os.getloadavg()[0]
        if load > 1.2:
            click.echo(f"the load is {load:.1f} already: the speed of {name} may come out too low", err=True)
        run_dir = folder / "speed" / name.replace(" ", "-")
        train(corpus, folder, name, run_dir, 120, {"tracking.log_interval": 20})
        known[name] = median(
            [line["tokens_per_second"] for line in read_metrics(run_dir) if line["kind"] == "train"][2:]
        )
        path.write_text(json.dumps(known, indent=1))
    return known[name]


def costs(name: str) -> dict[str, object]:
    """Returns the settings of a trial that its speed depends on."""
    settings = TRIALS[name].items()
    return {key: value for key, value in settings if key.startswith(("model.", "data.")) or "batch" in key}


def trial(corpus: Path, folder: Path, name: str, minutes: float, tokens_per_second: float) -> dict:
    """Returns the figures of a trial; trains it if its last evaluation is not on record."""
    settings = {"training.total_batch_size": 16, "data.seq_length": 128, **TRIALS[name]}
    step_tokens = int(settings["training.total_batch_size"]) * int(settings["data.seq_length"])  # type: ignore[call-overload]
    updates = round(minutes * 60 * tokens_per_second / step_tokens)
    run_dir = folder / "runs" / name.replace(" ", "-")
    if not (run_dir / "metrics.jsonl").is_file() or last_evaluation(run_dir)["step"] != updates:
        train(corpus, folder, name, run_dir, updates, {"tracking.log_interval": 200})
    found = last_evaluation(run_dir)
    return {
        "name": name,
        "settings": TRIALS[name],
        "updates": updates,
        "tokens": updates * step_tokens,
        "tokens_per_second": tokens_per_second,
        "bits_per_byte": found["bits_per_byte"],
        "perplexity": found["perplexity"],
    }


def last_evaluation(run_dir: Path) -> dict:
    """Returns the last evaluation on record."""
    return [line for line in read_metrics(run_dir) if line["kind"] == "evaluation"][-1]


def train(corpus: Path, folder: Path, name: str, run_dir: Path, updates: int, more: dict[str, object]) -> None:
    """Trains a trial for so many updates."""
    shards = shards_of(corpus, folder, int(TRIALS[name].get(VOCABULARY, 8000)))  # type: ignore[call-overload]
    settings = {
        **BASE,
        **TRIALS[name],
        **more,
        "training.num_steps": updates,
        "data.train": shards / "train",
        "data.test": shards / "test",
        "tracking.run_dir": run_dir,
    }
    click.echo(f"{name}: {updates:,} updates", err=True)
    kogpt2("train", "small_cpu", *(f"{key}={value}" for key, value in settings.items()), is_shown=True)


if __name__ == "__main__":
    with one_line("hour_trials.py"):
        main()
