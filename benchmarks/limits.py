"""The most that this machine can do, as a yardstick for other figures: float32 products, and reading memory.

    python benchmarks/limits.py [--threads 2]

The best of ten: a 4096 x 4096 product (PyTorch's, oneDNN or MKL), and the sum of 124 million float32 numbers. With
--step-flops, a contestant of training_speed.py: a step is as many operations at the product's rate.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Callable

import click
from conditions import conditions
from contestants import peak_memory_mb, wait_for_turn

SIZE, NUMBERS, TRIALS = 4096, 124_000_000, 10


@click.command()
@click.option("--threads", default=2, show_default=True)
@click.option("--step-flops", type=float, help="Operations of a training step.")
@click.option("--steps", nargs=2, type=int, default=(2, 4), help="Warm-up steps, and timed ones.")
@click.option("--tokens", type=int, default=512, help="Tokens of a step.")
def main(threads: int, step_flops: float | None, steps: tuple[int, int], tokens: int) -> None:
    """Print one JSON object."""
    import torch

    torch.set_num_threads(threads)
    if step_flops:
        click.echo(json.dumps(as_steps(step_flops, *steps, tokens)))
        return
    a, b, numbers = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE), torch.randn(NUMBERS)
    limits = {
        "float32_gflops": 2 * SIZE**3 / seconds(lambda: a @ b) / 1e9,
        "read_gb_per_second": 4 * NUMBERS / seconds(numbers.sum) / 1e9,
    }
    click.echo(json.dumps({**limits, "threads": threads, "conditions": conditions()}))


def as_steps(flops: float, warmup: int, steps: int, tokens: int) -> dict[str, object]:
    """Returns what a training step would take if it were a plain product, measured again for each step."""
    import torch

    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    taken = []
    for _ in range(warmup + steps):
        wait_for_turn()
        taken.append(seconds(lambda: a @ b, trials=2) * flops / (2 * SIZE**3))
    timed = taken[warmup:]
    rate, nothing = tokens / statistics.median(timed), {"precision": "float32", "parameters": 0}
    return {"tokens_per_second": rate, "peak_memory_mb": peak_memory_mb(), "step_seconds": timed, **nothing}


def seconds(work: Callable[[], object], trials: int = TRIALS) -> float:
    """Returns the time of the fastest of `trials`, after one that does not count."""
    work()
    taken = []
    for _ in range(trials):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


if __name__ == "__main__":
    main()
