"""Measure two Horovod workers with one core each against one worker with two cores, and the cost of the allreduce.

    python benchmarks/scaling_speed.py --precision bfloat16 --rounds 3 --json

An update is 8,192 tokens of KoGPT-2 base, accumulated over micro steps of `--shape`: 16 of them on one worker, 8 on
each of two. Both run the training loop's own step as `training_speed.py` does, on the same two cores, with the threads
that `kogpt2 train` and `horovodrun -np 2 kogpt2 train` take. `ratio` is tokens/s of two / one, made within a round; the
median of the rounds counts.

`allreduce_seconds` is the time of the mean of all gradients over both workers while nothing else runs, in float32 and
as float16 with the conversions there and back. In a step it overlaps the backward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contestants import (
    Contestant,
    ContestantError,
    Result,
    figures,
    peak_memory_mb,
    ratio,
    run_rounds,
    speed_conditions,
)
from training_speed import RATE, measure_steps, recipe_of, shape_of, write_tokens

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.machine import limits, runtime
from kogpt2_gluon.recipe import Recipe

HERE = Path(__file__).resolve().parent
MEMORY_OF_ALL = "peak_memory_of_all_mb"
CORES = 2


def allreduce_seconds(run: Any, repeats: int) -> dict[str, list[float]]:
    """Seconds that the mean of all gradients takes; the workers begin together."""
    gradients = {name: parameter.grad() for name, parameter in run.update.parameters.items()}
    seconds: dict[str, list[float]] = {"float32": [], "float16": []}
    for way, measured in seconds.items():
        for number in range(1 + repeats):  # the first one, in which Horovod makes its buffers, does not count
            run.worker.sum(np.zeros(1))
            began = time.perf_counter()
            run.worker.mean_gradients(gradients, as_float16=way == "float16")
            runtime.mx.nd.waitall()
            if number:
                measured.append(time.perf_counter() - began)
    return seconds


def run_as_child(arguments: argparse.Namespace, recipe: Recipe) -> Result | None:
    """Runs one worker; rank 0 prints the result."""
    from kogpt2_gluon.training.setup import set_up

    with set_up(recipe, "never") as run:
        result = measure_steps(recipe, run, arguments.warmup, arguments.steps)
        result["workers"], result["threads"] = run.worker.size, runtime.num_threads()
        if run.worker.size > 1:
            result["allreduce_seconds"] = allreduce_seconds(run, arguments.repeats)
        result[MEMORY_OF_ALL] = float(run.worker.sum(np.array([peak_memory_mb()]))[0])
        return result if run.worker.rank == 0 else None


def contestants(arguments: argparse.Namespace, work: Path) -> list[Contestant]:
    """Returns the contestants: one worker, and two."""
    batch_size, seq_length = arguments.shape
    settings = ["--shape", f"{batch_size}x{seq_length}", "--tokens", arguments.tokens, "--repeats", arguments.repeats]
    settings += ["--warmup", arguments.warmup, "--steps", arguments.steps, "--precision", arguments.precision]
    worker = [sys.executable, HERE / "scaling_speed.py", *settings, "--child", work, *arguments.overrides]
    horovodrun = Path(sys.executable).with_name("horovodrun")
    return [Contestant("one", worker), Contestant("two", [horovodrun, "--gloo", "-np", 2, *worker])]


def our_recipe(arguments: argparse.Namespace, work: Path) -> Recipe:
    """Returns the recipe of both. Raises KoGPT2Error if the shape does not make up an update, on one worker or two."""
    batch_size, seq_length = arguments.shape
    overrides = [f"training.precision={arguments.precision}", *arguments.overrides]
    if arguments.tokens % (2 * batch_size * seq_length):
        raise KoGPT2Error(
            f"--tokens {arguments.tokens}: two workers cannot make that of micro steps of {batch_size} x {seq_length} "
            f"tokens; take a multiple of {2 * batch_size * seq_length}"
        )
    return recipe_of(arguments.shape, arguments.tokens // seq_length, overrides, work)


def summary(arguments: argparse.Namespace, rounds: list[dict[str, Result]], state: dict[str, Any]) -> dict[str, Any]:
    """Returns the object that is printed."""
    ways = rounds[0]["two"]["allreduce_seconds"]
    cost = {way: statistics.median(s for r in rounds for s in r["two"]["allreduce_seconds"][way]) for way in ways}
    step = statistics.median(seconds for round_ in rounds for seconds in round_["two"]["step_seconds"])
    return {
        "ratio": ratio(rounds, "two", "one", RATE),
        "tokens_an_update": arguments.tokens,
        "shape": f"{arguments.shape[0]}x{arguments.shape[1]}",
        "precision": arguments.precision,
        "parameters": rounds[0]["one"]["parameters"],
        "contestants": {
            name: {
                **{key: statistics.median(figures(rounds, name, key)) for key in (RATE, MEMORY_OF_ALL)},
                "workers": rounds[0][name]["workers"],
                "threads_of_each": rounds[0][name]["threads"],
                "ops": rounds[0][name]["ops"],
            }
            for name in ("one", "two")
        },
        "allreduce_seconds": cost,
        "allreduce_share_of_step": cost["float32"] / step,
        "conditions": {
            **state,
            "overrides": arguments.overrides,
            "warmup": arguments.warmup,
            "steps": arguments.steps,
        },
        "rounds": rounds,
    }


def table(result: dict[str, Any]) -> str:
    """Prints the figures as text."""
    lines = [
        f"{result['tokens_an_update']:,} tokens an update, micro steps of {result['shape']}, {result['precision']}, "
        f"{result['contestants']['one']['ops']} operators, {result['parameters']:,} parameters",
        f"{'workers':<9} {'threads each':>12} {'tokens/s':>9} {'memory of all, MB':>18}",
    ]
    for row in result["contestants"].values():
        lines.append(
            f"{row['workers']:<9} {row['threads_of_each']:>12} {row[RATE]:>9,.0f} {row[MEMORY_OF_ALL]:>18,.0f}"
        )
    seconds = result["allreduce_seconds"]
    lines.append(f"two workers make {result['ratio']:.3f} of one")
    lines.append(
        f"the allreduce by itself: {seconds['float32']:.3f} s in float32 ({result['allreduce_share_of_step']:.1%} of a "
        f"step), {seconds['float16']:.3f} s as float16"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=shape_of, default=(2, 256), help="batch_size x seq_length of a micro step")
    parser.add_argument("--tokens", type=int, default=8192, help="of an update")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="updates before those that are timed")
    parser.add_argument("--steps", type=int, default=3, help="timed updates of a contestant in a round")
    parser.add_argument("--repeats", type=int, default=5, help="timed allreduces in a round")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--work", type=Path, help="folder for the data; default: a temporary one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe kogpt2_base")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.child:
        result = run_as_child(arguments, our_recipe(arguments, arguments.child))
        if result:
            print(json.dumps(result), flush=True)
        return
    if limits.available_cores() < CORES:
        raise SystemExit(f"error: this compares two workers with two threads: it needs {CORES} cores")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # the contestants inherit it
    os.environ.pop("OMP_NUM_THREADS", None)  # a contestant's workers share these cores, whatever the shell has set
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        try:
            write_tokens(Path(work), our_recipe(arguments, Path(work)).model.vocab_size)
            state = speed_conditions(CORES)
            both = contestants(arguments, Path(work))
            rounds = run_rounds(both, arguments.rounds, needed=("one", "two"), show=(RATE, MEMORY_OF_ALL))
        except (ContestantError, KoGPT2Error) as error:
            raise SystemExit(f"error: {error}") from None
    result = summary(arguments, rounds, state)
    print(json.dumps(result, indent=1) if arguments.json else table(result))


if __name__ == "__main__":
    main()
