"""Test the model of scaling: two hosts, a network of known speed between them, and predictions for other speeds.

    python benchmarks/network_scaling.py SHARDS [--dir network] [--rounds 3] [--json]

The two hosts are namespaces of this machine (tests/chaos/netns_helpers.py; needs root). Each has a worker of one
thread, and `tc` holds the link between them to a rate. The benchmark trains the network of recipes/small_cpu.yaml on
SHARDS (train/ and test/, as `benchmarks/reviews.sh` makes them), without a limit and at 10, 100 and 1000 Mbit/s in
turn, for some rounds. An update's time is the median of the steps of its run. The time without a limit counts as the
compute, and the bandwidth that an allreduce reaches is fitted at 100 Mbit/s. kogpt2_gluon/scaling.py then predicts the
time at the other two rates. The exit code is 1 if a prediction is off by more than 15%.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
from conditions import conditions

from kogpt2_gluon.estimate import FLOAT_BYTES, count_parameters
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.scaling import Network, Work, fitted, step_seconds

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.chaos.netns_helpers import HOSTS, Cluster, why_not  # noqa: E402

RATES = (None, 10, 100, 1000)  # Mbit/s; None: no limit
FITTED, ALLOWED = 100, 0.15
STEPS = {None: 30, 10: 6, 100: 15, 1000: 30}


@click.command()
@click.argument("shards", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dir", "folder", default="network", type=click.Path(path_type=Path), help="Where the runs are kept.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(shards: Path, folder: Path, rounds: int, as_json: bool) -> None:
    """Time the updates, fit the model, and compare its predictions."""
    if problem := why_not():
        raise click.ClickException(problem)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts").mkdir()
    cluster = Cluster(folder / "hosts")
    seconds: dict[int | None, list[float]] = {rate: [] for rate in RATES}
    try:
        for number in range(rounds):
            for rate in RATES:
                limit(cluster, rate)
                seconds[rate].append(timed(cluster, shards.resolve(), folder / f"{number}-{rate}", rate))
                click.echo(f"round {number}, {rate or 'no limit'}: {seconds[rate][-1]:.3f} s an update", err=True)
    finally:
        cluster.close()
    medians = {rate: statistics.median(times) for rate, times in seconds.items()}
    result = judge(medians)
    if as_json:
        times = {str(rate): values for rate, values in seconds.items()}
        click.echo(json.dumps({**result, "seconds": times, "conditions": conditions()}))
    else:
        for line in result["predicted"]:
            click.echo(f"{line['rate']:>5} Mbit/s: {line['measured']:.3f} s, predicted {line['predicted']:.3f} s")
        click.echo(
            f"fitted at {FITTED} Mbit/s: {result['efficiency']:.2f} of it; largest error {result['largest']:.1%}"
        )
    sys.exit(0 if result["largest"] <= ALLOWED else 1)


def limit(cluster: Cluster, rate: int | None) -> None:
    """Holds both ends of the link to a rate in Mbit/s."""
    for host in HOSTS:
        cluster.run(host, "tc", "qdisc", "del", "dev", "eth0", "root", check=False)
        if rate is not None:
            burst = max(16, rate * 2)  # kB: more than what passes between two ticks of the kernel's clock
            shape = ["tbf", "rate", f"{rate}mbit", "burst", f"{burst}kb", "latency", "100ms"]
            cluster.run(host, "tc", "qdisc", "add", "dev", "eth0", "root", *shape)


def timed(cluster: Cluster, shards: Path, run_dir: Path, rate: int | None) -> float:
    """Runs a training and returns the seconds of an update: the median of its steps, without the first."""
    settings = {
        "training.num_steps": STEPS[rate],
        "training.batch_size": 8,  # of two workers
        "training.threads": 1,
        "data.train": shards / "train",
        "data.test": "",
        "evaluation.interval": 0,
        "checkpoint.interval": 0,
        "tracking.run_dir": run_dir,
        "tracking.log_interval": 1,
        "tracking.tensorboard": "false",
        "tracking.sample_prompts": "[]",
    }
    launch, plan = [sys.executable, "-m", "kogpt2_launch"], run_dir.with_suffix(".json")
    overrides = [f"{key}={value}" for key, value in settings.items()]
    hosts = ["--hosts", ",".join(f"{host}:1" for host in HOSTS), "--network-interface", "eth0", "--out", str(plan)]
    cluster.run("h1", *launch, "plan", "small_cpu", *overrides, *hosts)
    run = cluster.run("h1", *launch, "run", str(plan), "--restarts", "0", check=False)
    if run.returncode:
        raise click.ClickException(f"{run_dir}: the run ended with {run.returncode}: {run.stderr[-500:]}")
    steps = [line for line in read_metrics(run_dir) if line["kind"] == "train"][1:]
    tokens = load_recipe("small_cpu", []).tokens_per_step
    return statistics.median(tokens / line["tokens_per_second"] for line in steps)


def judge(seconds: dict[int | None, float]) -> dict:
    """The fit at one rate, and the predictions at the others."""
    model = load_recipe("small_cpu", []).model
    embedding = model.vocab_size * model.units
    others = count_parameters(model) - embedding
    compute = seconds[None]
    work = Work(compute / 3, compute * 2 / 3, 1, FLOAT_BYTES * others, FLOAT_BYTES * embedding, jitter=0.0)
    nominal = Network("veth", FITTED * 1e6 / 8, 1e-4, "tc")
    efficiency = fitted(nominal, work, 2, 2, seconds[FITTED]).bandwidth / nominal.bandwidth
    predicted = []
    for rate in (rate for rate in RATES if rate is not None):
        network = replace(nominal, bandwidth=rate * 1e6 / 8 * efficiency)
        predicted.append({"rate": rate, "measured": seconds[rate], "predicted": step_seconds(work, 2, 2, network)})
    errors = [abs(line["predicted"] / line["measured"] - 1) for line in predicted if line["rate"] != FITTED]
    return {"efficiency": efficiency, "compute": compute, "predicted": predicted, "largest": max(errors)}


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))}: {error.stderr[-500:]}")
