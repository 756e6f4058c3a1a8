"""How fast the CUDA kernels of the fused operators move memory, against a copy on the same GPU.

    python benchmarks/cuda_kernels.py [--dtype float16] [--rows 8192] [--times 50] [--rounds 5] [--json]

Shapes are those of GPT-2 base: 768 units, 3072 hidden, 12 heads, 50,000 tokens, 1,024 keys; the update is of its
124,242,432 parameters. Dropout is 0.1. A kernel's traffic is what it must read and write once; `of copy` is its GB/s as
a part of a device-to-device copy's (reading and writing counted). Every call works on other memory than the one before,
256 MB or more in turn, so that no cache holds it. Medians over the rounds, everything in turn in each.

Needs a GPU and nvcc; without them it says so and leaves with 1.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
from conditions import conditions
from cuda_driver import Chunk, CudaDriver, Tensor, UpdateRule, open_library

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.machine.cuda import list_gpus
from kogpt2_gluon.ops.build_cuda import build_cuda

UNITS, HIDDEN, HEADS, VOCAB, LENGTH, LAYERS = 768, 3072, 12, 50_000, 1024, 12
ROTATED_BYTES = 256 << 20
WRITE = 1


@dataclass
class Case:
    """A kernel to time: start(turn) on the memory of that turn; `traffic` in bytes."""

    name: str
    shape: str
    traffic: float
    start: Callable[[int], None]


class Bench:
    """The library on the GPU, and memory for it."""

    def __init__(self, driver: CudaDriver, library: ctypes.CDLL, dtype: str, rows: int):
        self.driver, self.library, self.rows = driver, library, rows
        self.dtype, self.code, self.itemsize = dtype, int(dtype == "float16"), np.dtype(dtype).itemsize
        self.dropout = driver.allocate(self.size("dropout_size"))
        seed = self.filled(np.tile(np.array([0, 2], np.float32), 32))
        self.call("decode_seed", seed, 0.1, 0, self.dropout)

    def size(self, name: str, *sizes: int) -> int:
        return int(getattr(self.library, f"kogpt2_cuda_{name}")(*sizes))

    def call(self, name: str, *arguments: Any) -> None:
        error = getattr(self.library, f"kogpt2_cuda_{name}")(*arguments, None)
        if error:
            raise RuntimeError(f"{name}: {self.library.kogpt2_cuda_error_text(error).decode()}")

    def filled(self, values: np.ndarray) -> int:
        pointer = self.driver.allocate(values.nbytes)
        self.driver.write(pointer, np.ascontiguousarray(values))
        return pointer

    def random(self, count: int, dtype: str = "") -> int:
        """Normal numbers; a million of them, repeated."""
        some = np.random.RandomState(0).standard_normal(min(count, 1 << 20)).astype(dtype or self.dtype)
        return self.filled(np.resize(some, count))

    def matrices(self, columns: int, count: int, rows: int = 0) -> list[tuple[int, ...]]:
        """`count` matrices of (rows, columns) for each turn, the last one to be written to."""
        each = (rows or self.rows) * columns
        turns = max(2, math.ceil(ROTATED_BYTES / (each * self.itemsize * count)))
        return [tuple(self.random(each) for _ in range(count)) for _ in range(turns)]

    def case(self, name: str, columns: int, parts: float, count: int, start: Callable, rows: int = 0) -> Case:
        """A case of one shape: start(*matrices); `parts` is the traffic in matrices."""
        turns = self.matrices(columns, count, rows)
        shape = f"{rows or self.rows} x {columns}"
        traffic = parts * (rows or self.rows) * columns * self.itemsize
        return Case(name, shape, traffic, lambda turn: start(*turns[turn % len(turns)]))


def bias_cases(bench: Bench) -> list[Case]:
    """bias_gelu on the hidden layer, bias_dropout_residual on the branches."""
    rows, code, drop = bench.rows, bench.code, bench.dropout
    bias, bias_gradient = bench.random(HIDDEN), bench.random(HIDDEN)
    work = bench.driver.allocate(bench.size("bias_gelu_workspace", rows, HIDDEN))

    def gelu_forward(data: int, out: int) -> None:
        bench.call("bias_gelu_forward", data, bias, out, rows, HIDDEN, code, drop)

    def gelu_backward(data: int, gradient: int, out: int) -> None:
        made = (out, bias_gradient, WRITE, WRITE, rows, HIDDEN, code, drop, work)
        bench.call("bias_gelu_backward", data, bias, gradient, *made)

    def residual_forward(data: int, residual: int, out: int) -> None:
        bench.call("bias_dropout_residual_forward", data, bias, residual, out, rows, UNITS, code, drop)

    def residual_backward(gradient: int, out: int) -> None:
        made = (out, bias_gradient, None, WRITE, WRITE, 0, rows, UNITS, code, drop, work)
        bench.call("bias_dropout_residual_backward", gradient, *made)

    return [
        bench.case("bias_gelu forward", HIDDEN, 2, 2, gelu_forward),
        bench.case("bias_gelu backward", HIDDEN, 3, 3, gelu_backward),
        bench.case("bias_dropout_residual forward", UNITS, 3, 3, residual_forward),
        bench.case("bias_dropout_residual backward", UNITS, 2, 2, residual_backward),
    ]


def layer_norm_cases(bench: Bench) -> list[Case]:
    rows, sizes = bench.rows, (bench.rows, UNITS, bench.code)
    gamma, beta, made = bench.random(UNITS), bench.random(UNITS), (bench.random(UNITS), bench.random(UNITS))
    saved = bench.random(rows, "float32"), bench.filled(np.ones(rows, np.float32))
    work = bench.driver.allocate(bench.size("layer_norm_workspace", rows, UNITS))

    def forward(data: int, out: int) -> None:
        bench.call("layer_norm_forward", data, gamma, beta, out, *saved, 1e-5, *sizes)

    def backward(data: int, gradient: int, out: int) -> None:
        outputs = (out, *made, WRITE, WRITE, WRITE)
        bench.call("layer_norm_backward", data, gamma, gradient, *saved, *outputs, *sizes, work)

    return [
        bench.case("layer_norm forward", UNITS, 2, 2, forward),
        bench.case("layer_norm backward", UNITS, 3, 3, backward),
    ]


def softmax_cases(bench: Bench) -> list[Case]:
    """Causal softmax, half of whose scores are read, and cross-entropy."""
    rows, code, batch = bench.rows, bench.code, max(1, bench.rows // LENGTH) * HEADS
    log_sum = bench.random(max(rows, batch * LENGTH), "float32")
    sizes = (0.125, batch, LENGTH, LENGTH, code, bench.dropout)
    labels = bench.filled(np.arange(rows, dtype=np.int32) % VOCAB)
    loss, upstream = bench.random(rows, "float32"), bench.random(rows, "float32")

    def forward(scores: int, out: int) -> None:
        bench.call("causal_softmax_forward", scores, out, log_sum, *sizes)

    def backward(scores: int, gradient: int, out: int) -> None:
        bench.call("causal_softmax_backward", scores, gradient, log_sum, out, WRITE, *sizes)

    def entropy_forward(logits: int) -> None:
        bench.call("cross_entropy_forward", logits, labels, loss, log_sum, rows, VOCAB, code)

    def entropy_backward(logits: int) -> None:
        bench.call("cross_entropy_backward", logits, labels, log_sum, upstream, logits, WRITE, rows, VOCAB, code)

    return [
        bench.case("causal_softmax forward", LENGTH, 1.5, 2, forward, batch * LENGTH),
        bench.case("causal_softmax backward", LENGTH, 2, 3, backward, batch * LENGTH),
        bench.case("cross_entropy forward", VOCAB, 1, 1, entropy_forward),
        bench.case("cross_entropy backward, in place", VOCAB, 2, 1, entropy_backward),
    ]


def update_cases(bench: Bench) -> list[Case]:
    """The optimizers over all parameters, with float16 copies where gradients are float16."""
    block = [UNITS] * 4 + [3 * UNITS * UNITS, 3 * UNITS, UNITS * UNITS, UNITS]
    block += [HIDDEN * UNITS, HIDDEN, HIDDEN * UNITS, UNITS]
    sizes = [VOCAB * UNITS, LENGTH * UNITS, *block * LAYERS, UNITS, UNITS]
    half = bench.dtype == "float16"
    tensors = (Tensor * len(sizes))()
    for i, size in enumerate(sizes):
        copy = bench.random(size, "float16") if half else None
        moments = (bench.random(size, "float32"), bench.filled(np.ones(size, np.float32)))
        tensors[i] = Tensor(bench.random(size, "float32"), *moments, bench.random(size), copy, size, 0, 0.01, int(half))
    count = bench.size("plan_update", tensors, len(sizes), None)
    chunks = (Chunk * count)()
    bench.size("plan_update", tensors, len(sizes), chunks)
    tables = [bench.filled(np.frombuffer(bytes(table), np.uint8)) for table in (tensors, chunks)]
    work = bench.driver.allocate(bench.size("update_workspace", len(sizes), count))
    result, total = bench.filled(np.zeros(2)), sum(sizes)
    rules = {name: UpdateRule(i, 1, 1e-6, 0.9, 0.999, 1e-8, 1.0, 1.0) for name, i in (("adamw", 0), ("lamb", 3))}

    def norm(_: int) -> None:
        bench.call("gradient_norm", *tables, count, 1.0, result, work)

    def update(rule: UpdateRule) -> Callable[[int], None]:
        arguments = (tables[0], len(sizes), tables[1], count, ctypes.byref(rule), work)
        return lambda _: bench.call("fused_update", *arguments)

    shape, copies = f"{total:,}", 2 * total * half
    adam_traffic = (bench.itemsize + 24) * total + copies
    return [
        Case("gradient norm", shape, bench.itemsize * total, norm),
        Case("update, adamw", shape, adam_traffic, update(rules["adamw"])),
        Case("update, lamb", shape, adam_traffic + 12 * total, update(rules["lamb"])),
    ]


def copy_case(bench: Bench) -> Case:
    turns = [tuple(bench.driver.allocate(ROTATED_BYTES) for _ in range(2)) for _ in range(2)]
    start = lambda turn: bench.driver.copy(*turns[turn % 2], ROTATED_BYTES)  # noqa: E731
    return Case("copy", f"{ROTATED_BYTES >> 20} MB", 2 * ROTATED_BYTES, start)


def measure(bench: Bench, times: int, rounds: int) -> list[dict[str, Any]]:
    """Each case's median time, GB/s, and GB/s as a part of the copy's in the same round."""
    groups = (bias_cases, layer_norm_cases, softmax_cases, update_cases)
    cases = [copy_case(bench), *(case for group in groups for case in group(bench))]
    speeds: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            turn = iter(range(times + 1))
            seconds = bench.driver.seconds(lambda case=case, turn=turn: case.start(next(turn)), times)
            speeds[case.name].append(case.traffic / seconds)
    return [
        {
            "kernel": case.name,
            "shape": case.shape,
            "microseconds": case.traffic / statistics.median(speeds[case.name]) * 1e6,
            "gb_per_second": statistics.median(speeds[case.name]) / 1e9,
            "of_copy": statistics.median(mine / copy for mine, copy in zip(speeds[case.name], speeds["copy"])),
        }
        for case in cases
    ]


def table(result: dict[str, Any]) -> str:
    lines = [f"{result['gpu']}, driver {result['driver']}, {result['dtype']}", ""]
    lines.append(f"{'kernel':<34} {'shape':>16} {'us':>9} {'GB/s':>8} {'of copy':>8}")
    for row in result["kernels"]:
        figures = f"{row['microseconds']:>9.1f} {row['gb_per_second']:>8.0f} {row['of_copy']:>8.2f}"
        lines.append(f"{row['kernel']:<34} {row['shape']:>16} {figures}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--rows", type=int, default=8192, help="sequences times their length")
    parser.add_argument("--times", type=int, default=50, help="calls between two events")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        driver = CudaDriver()
    except RuntimeError as error:
        sys.exit(f"no CUDA GPU here ({error}): these kernels are timed on a machine with one")
    with tempfile.TemporaryDirectory() as folder:
        try:
            build = build_cuda(Path(folder), (driver.capability(),))
        except KoGPT2Error as error:
            sys.exit(str(error))
        bench = Bench(driver, open_library(build.library), arguments.dtype, arguments.rows)
        kernels = measure(bench, arguments.times, arguments.rounds)
        driver.free_all()
    result = {
        "conditions": conditions(),
        "gpu": driver.name(),
        "driver": next((gpu.driver for gpu in list_gpus()), "unknown"),
        "nvcc": build.nvcc_version,
        "dtype": arguments.dtype,
        "rows": arguments.rows,
        "kernels": kernels,
    }
    print(json.dumps(result) if arguments.json else table(result))


if __name__ == "__main__":
    main()
