"""Memory of the fused operators stays flat over 1,000 steps of each, also after refusals.

In a process of its own, whose memory nothing else changes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Callable

import numpy as np

from tests.helpers import ROOT, run

LIMIT = 4 << 20  # 4 kB a step; the smallest array of a step below is larger


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(steps: Callable[[int], object]) -> int:
    """Bytes that 1,000 steps add, after 200 that fill pools and caches."""
    steps(200)
    before = resident_bytes()
    steps(1000)
    return resident_bytes() - before


def measure() -> None:
    """Prints a line for each operator: its name and its growth."""
    from kogpt2_gluon.machine.runtime import mx
    from tests.ops import test_ops_cross_entropy, test_ops_embedding, test_ops_layer_norm, test_ops_linear
    from tests.ops.ops_helpers import HAS_BFLOAT16, array, check_refused, threads, training_seed

    precision = "bfloat16" if HAS_BFLOAT16 else "float32"
    cases = [
        test_ops_layer_norm.case(16, 129),
        test_ops_embedding.case(2, 20, 50, 65, 30, 3, seed=training_seed(5), p=0.1),
        test_ops_cross_entropy.case((2, 8), 16, 500, precision=precision),
        test_ops_linear.linear((16, 65), 33, precision=precision),
        test_ops_linear.linear_dropout_residual((16, 65), 33, seed=training_seed(5), p=0.1),
        test_ops_linear.gelu_linear_dropout_residual((16, 65), 33, training_seed(5), p=0.1, precision=precision),
        test_ops_linear.norm_linear((16, 65), 33, precision=precision),
    ]
    arrays = [mx.nd.array(array(np.random.RandomState(i % 4), 5000)) for i in range(8)]

    def update(count):
        for _ in range(count):
            mx.nd.kogpt2_adam_update(*arrays, rule="lamb", num_arrays=2, weight_decays="0.1,0.1")
            mx.nd.kogpt2_squared_norm(*arrays, num_arrays=8).wait_to_read()

    for _ in range(200):  # MXNet's own lib_api.cc would copy all of these messages after each later call
        check_refused("kogpt2_squared_norm", lambda: mx.nd.kogpt2_squared_norm(*arrays, num_arrays=0), "num_arrays=0")
    with threads(1):  # so many small calls are faster so on a busy machine
        print("kogpt2_adam_update", growth(update))
        for each in cases:
            print(each.name, growth(lambda count, each=each: each.run_fused(times=count)))


def test_memory_is_flat():
    done = run(
        sys.executable, "-c", "from tests.ops import test_ops_memory; test_ops_memory.measure()", PYTHONPATH=str(ROOT)
    )
    grown = {name: int(size) for name, size in (line.split() for line in done.stdout.splitlines())}
    assert len(grown) == 8
    assert max(grown.values()) < LIMIT, grown
