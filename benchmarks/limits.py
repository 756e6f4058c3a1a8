"""The most that this machine can do, as a yardstick for other figures: float32 products, and reading memory.

    python benchmarks/limits.py [--threads 2]

The best of ten: a 4096 x 4096 product (PyTorch's, oneDNN or MKL), and the sum of 124 million float32 numbers.
"""

from __future__ import annotations

import json
import time
from typing import Callable

import click
from conditions import conditions

SIZE, NUMBERS, TRIALS = 4096, 124_000_000, 10


@click.command()
@click.option("--threads", default=2, show_default=True)
def main(threads: int) -> None:
    """Print one JSON object."""
    import torch

    torch.set_num_threads(threads)
    a, b, numbers = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE), torch.randn(NUMBERS)
    limits = {
        "float32_gflops": 2 * SIZE**3 / seconds(lambda: a @ b) / 1e9,
        "read_gb_per_second": 4 * NUMBERS / seconds(numbers.sum) / 1e9,
    }
    click.echo(json.dumps({**limits, "threads": threads, "conditions": conditions()}))


def seconds(work: Callable[[], object]) -> float:
    """Returns the time of the fastest of TRIALS, after one that does not count."""
    work()
    taken = []
    for _ in range(TRIALS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


if __name__ == "__main__":
    main()
