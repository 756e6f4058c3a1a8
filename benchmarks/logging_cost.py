"""Measures what the log costs a training: a line for every step, to TensorBoard, MLflow and Weights & Biases at once.

    python benchmarks/logging_cost.py [--rounds 3] [--steps 20] [--shape 2x256] [--json] [section.key=value ...]

KoGPT-2 base (124 million parameters) trains on random tokens, once with a log line for each step and all followers
(`everything`: TensorBoard, MLflow in a folder, Weights & Biases offline), once without any (`nothing`), in turn,
each in a process of its own. Of `everything`, `loop` is the time for which the training loop itself logs, per step: it
makes the record, waits for MXNet no longer than the step would, and writes the line. `threads` is the processor time of
the followers' threads per step, which runs while the training computes. Shares are of a step of `nothing`; `slower` is
the whole step of `everything` against it, which on a shared machine differs by more than the log costs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from contestants import Contestant, Result, announce, hand_over, speed_conditions
from training_speed import recipe_of, write_tokens

from kogpt2_gluon.machine import runtime

HERE = Path(__file__).resolve().parent
WARMUP = 3  # steps that are not in the figures: the followers open meanwhile
FOLLOWED = ("tracking.log_interval=1", "tracking.tensorboard=true", "tracking.wandb=offline")
ALONE = ("tracking.log_interval=1000000", "tracking.tensorboard=false")


class Clock:
    """The time spent in functions that it has wrapped, by call."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, which counts; calls within each other must not both be wrapped."""

        def counting(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds.append(time.perf_counter() - began)

        return counting


def run_as_child(arguments: argparse.Namespace) -> Result:
    """Trains in this process; returns the seconds of a step, and those of its log."""
    work = arguments.child
    shape, run_dir = _shape(arguments.shape), work / f"run-{arguments.way}"
    followed = [*FOLLOWED, f"tracking.mlflow={(work / 'mlruns').as_uri()}"]
    tracking = followed if arguments.way == "everything" else list(ALONE)
    steps = [f"training.num_steps={WARMUP + arguments.steps}", "checkpoint.interval=0", "checkpoint.keep_best=false"]
    settings = [*tracking, *steps, f"tracking.run_dir={run_dir}", *arguments.overrides]
    recipe = recipe_of(shape, shape[0], settings, work)
    runtime.prepare(recipe.training.threads)
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # a server of its own would compute meanwhile

    from kogpt2_gluon.runs.metrics import Tracker
    from kogpt2_gluon.training import loop

    clock, begins, threads = Clock(), [], []
    run_step = loop.run_step

    def step(*inputs: Any) -> Any:
        begins.append(time.perf_counter())
        threads.append(seconds_of_followers())
        return run_step(*inputs)

    loop.run_step = step
    loop.step_record = clock.wrapped(loop.step_record)
    Tracker.log_step = clock.wrapped(Tracker.log_step)  # type: ignore[method-assign]
    loop.train(recipe, resume="never")
    shutil.rmtree(run_dir)
    whole = [end - begin for begin, end in zip(begins[WARMUP:], begins[WARMUP + 1 :])]
    each = len(clock.seconds) // max(1, len(begins))  # a record and its line a step
    return {
        "step": statistics.median(whole),
        "loop": sum(clock.seconds[WARMUP * each :]) / arguments.steps,
        "threads": (threads[-1] - threads[WARMUP]) / (arguments.steps - 1),
    }


def seconds_of_followers() -> float:
    """Returns the processor time of the followers' threads, and of those that they have started, so far."""
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    own = psutil.Process()
    follows = {number for number, name in known.items() if name.startswith("follower") or name in STARTED}
    return sum(each.user_time + each.system_time for each in own.threads() if each.id in follows)


STARTED = ("wandb-AsyncioManager-main",)  # by Weights & Biases, whose own process is not counted


def benchmark(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs both ways in interleaved rounds."""
    write_tokens(work, recipe_of(_shape(arguments.shape), 1, arguments.overrides, work).model.vocab_size)
    state, rounds = speed_conditions(2), []
    settings = ["--steps", arguments.steps, "--shape", arguments.shape, "--child", work]
    ways = [
        Contestant(way, [sys.executable, HERE / "logging_cost.py", *settings, "--way", way, *arguments.overrides])
        for way in ("nothing", "everything")
    ]
    for number in range(arguments.rounds):
        nothing, everything = (way.run() for way in ways)
        found = {
            "step": nothing["step"],
            "loop": everything["loop"],
            "threads": everything["threads"],
            "loop_share": everything["loop"] / nothing["step"],
            "threads_share": everything["threads"] / nothing["step"],
            "slower": everything["step"] / nothing["step"] - 1,
        }
        rounds.append(found)
        shown = "  ".join(f"{name} {value:.5f}" for name, value in found.items())
        announce(f"round {number + 1}: {shown}", sys.stderr if arguments.json else sys.stdout)
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return {"conditions": state, "rounds": rounds, "median": medians}


def _shape(text: str) -> tuple[int, int]:
    batch_size, seq_length = map(int, text.split("x"))
    return batch_size, seq_length


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shape", default="2x256")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args(argv)
    if arguments.child:
        hand_over(run_as_child(arguments))
        return
    with tempfile.TemporaryDirectory() as work:
        result = benchmark(arguments, Path(work))
    median = result["median"]
    if arguments.json:
        print(json.dumps(result))
    else:
        loop, threads = (f"{1e3 * median[name]:.2f} ms ({median[f'{name}_share']:.3%})" for name in ("loop", "threads"))
        print(f"a step {median['step']:.3f} s; the log takes {loop} in the loop and {threads} in threads")


if __name__ == "__main__":
    main()
