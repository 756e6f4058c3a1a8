"""Measures what it costs that the workers compare their parameters and moments by a hash.

    python benchmarks/comparing.py [--times 9] [section.key=value ...]

Two workers of Horovod, with a core each, train KoGPT-2 base (124 million parameters, 1.5 GB with the moments) at 2 x
256 tokens a worker, and compare after each step. Printed are the medians of a step and of a comparison, and the share
of a training's time that comparisons take at the default training.compare_interval.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from contestants import Contestant, Result, hand_over, peak_memory_mb, speed_conditions
from training_speed import recipe_of, write_tokens

SHAPE, WORKERS = (2, 256), 2


def run_as_child(arguments: argparse.Namespace) -> Result | None:
    """Trains in this process, one of two workers; rank 0 has the result."""
    recipe = recipe_of(SHAPE, SHAPE[0] * WORKERS, arguments.overrides, arguments.child)
    from kogpt2_gluon.machine.runtime import mx
    from kogpt2_gluon.training.loop import run_step
    from kogpt2_gluon.training.setup import set_up
    from kogpt2_gluon.training.signals import StopRequest

    steps, comparisons = [], []
    with set_up(recipe, "never") as run:
        for _ in range(arguments.times):
            began = time.perf_counter()
            run_step(recipe, run, StopRequest())
            mx.nd.waitall()
            run.worker.barrier()
            stepped = time.perf_counter()
            run.replicas.compare(run.state.step, run.state.attempt)
            steps.append(stepped - began)
            comparisons.append(time.perf_counter() - stepped)
        if run.worker.rank:
            return None
    medians = {"step": statistics.median(steps[2:]), "comparison": statistics.median(comparisons[2:])}
    return {**medians, "interval": recipe.training.compare_interval, "peak_memory_mb": peak_memory_mb()}


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=9, help="steps; the first two do not count")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe kogpt2_base")
    arguments = parser.parse_args(argv)
    if arguments.child:
        hand_over(run_as_child(arguments))
        return
    with tempfile.TemporaryDirectory() as work:
        write_tokens(Path(work), recipe_of(SHAPE, SHAPE[0] * WORKERS, arguments.overrides, Path(work)).model.vocab_size)
        speed_conditions(2)
        command = [Path(sys.executable).with_name("horovodrun"), "--gloo", "-np", WORKERS, sys.executable, __file__]
        command += ["--times", arguments.times, "--child", work, *arguments.overrides]
        found = Contestant("two workers", command).run()
    share = found["comparison"] / (found["step"] * found["interval"])
    print(
        f"a step {found['step']:.2f} s, a comparison {found['comparison']:.3f} s; every {found['interval']} steps: "
        f"{share:.4%} of the time; peak memory of the first worker {found['peak_memory_mb']:,.0f} MB"
    )


if __name__ == "__main__":
    main()
