"""Chooses the kernel of each matrix product of a network by measurement, and says which precision is faster.

The CPU operators have three kernels: oneDNN's, and two ways of their own (ops/src/cpu/packed_matmul.h). Which one is
the fastest depends on the processor. On an Intel Xeon with AVX-512 BF16 and without AMX, oneDNN multiplies bfloat16
factors at half the rate of float32 ones; rounding the factors while they are packed for a float32 product gives sums of
the same products at float32's speed. So every kernel is timed once, on the products that the network at hand consists
of, and the result is kept in a file next to the compiled library.

KOGPT2_KERNELS=onednn or KOGPT2_KERNELS=packed takes one kernel for all products, and measures nothing.
"""

from __future__ import annotations

import ctypes
import functools
import json
import math
import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.runtime import num_threads
from kogpt2_gluon.ops.build import (
    Library,
    OperatorsUnavailable,
    cache_folder,
    instruction_set,
    load_cpu_operators,
    one_at_a_time,
)
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.storage.files import write_file

TRIALS = 3  # of each kernel; they take turns
ROWS = 512  # more tokens take longer to measure and change no choice
WORTH_MEASURING = 1e9  # operations in a pass over a batch; below that the products are not what takes the time
WORTH_BFLOAT16 = 1.1  # `auto` takes bfloat16 where its products are at least that much faster

PRECISIONS = ("bfloat16", "float32")

# Kernel, in ops/src/cpu/kernels.h
BY_RULE, ONEDNN, SHARED_LEFT, SHARED_RIGHT, PACKED = range(5)
FORCED = {"onednn": ONEDNN, "packed": PACKED}


class Product(NamedTuple):
    """A product of (M, K) and (K, N). `layout` says how its factors lie in memory: Layout in kernels.cc."""

    layout: int
    M: int
    N: int
    K: int

    @property
    def operations(self) -> float:
        return 2.0 * self.M * self.N * self.K


@dataclass(frozen=True)
class Network:
    """The sizes that the products of a training step depend on. tokens : of a micro step."""

    units: int
    num_layers: int
    vocab_size: int
    tokens: int

    def products(self, columns: tuple[int, int], tokens: int) -> Iterator[tuple[Product, float]]:
        """Yields each product of a step with `tokens`, and how often it is made.

        `columns` are those of the vocabulary that are in one product of the forward and of the backward pass.
        """
        C = self.units
        maps = [(3 * C, C), (C, C), (4 * C, C), (C, 4 * C)]  # (out, in)
        for out, data in maps:
            for product in _products_of_a_map(tokens, out, data):
                yield product, float(self.num_layers)
        forward, backward = (min(count, self.vocab_size) for count in columns)
        for product in _products_of_a_map(tokens, forward, C)[:1]:
            yield product, self.vocab_size / forward
        for product in _products_of_a_map(tokens, backward, C)[1:]:
            yield product, self.vocab_size / backward


def network_of(recipe: Recipe) -> Network:
    """The sizes of a recipe's products."""
    model = recipe.model
    tokens = recipe.training.batch_size * recipe.data.seq_length
    return Network(model.units, model.num_layers, model.vocab_size, tokens)


BASE = Network(units=768, num_layers=12, vocab_size=50_000, tokens=ROWS)  # KoGPT-2


def _products_of_a_map(tokens: int, out: int, data: int) -> list[Product]:
    """Returns the products of y = x W^T: of the forward pass, of the data's gradient, of the weight's gradient."""
    return [Product(0, tokens, out, data), Product(1, tokens, data, out), Product(2, out, data, tokens)]


@dataclass(frozen=True)
class Choice:
    """The kernels chosen for one precision, as plain data, which goes through JSON and from rank 0 to all ranks.

    Attributes
    ----------
    processor, threads
        Where it was measured.
    precision : str
    gflops : float
        Operations per second of all products together, in thousands of millions; 0: not measured.
    onednn_bfloat16 : bool
        For bfloat16: oneDNN multiplies factors that are stored as bfloat16. Else they are rounded while being packed.
    kernels : list
        [layout, M, N, K, kernel] for each product.
    """

    processor: str
    threads: int
    precision: str
    gflops: float
    onednn_bfloat16: bool
    kernels: list[list[int]]

    def describe(self) -> str:
        """Says what was chosen and why, for the log."""
        if not self.gflops:
            return f"matrix products in {self.precision}: {_forced_or_rule()}"
        counts = {
            "oneDNN": sum(kernel == ONEDNN for *_, kernel in self.kernels),
            "packed": sum(kernel != ONEDNN for *_, kernel in self.kernels),
        }
        by = ", ".join(f"{count} by {name}" for name, count in counts.items() if count)
        return (
            f"matrix products in {self.precision}: {self.gflops:,.0f} GFLOP/s measured, {by}; {self.processor}, "
            f"{self.threads} thread(s)"
        )


def choose_kernels(network: Network, precision: str) -> Choice:
    """Returns the fastest kernels for a network in 'float32' or 'bfloat16'; measures, unless that was done before.

    The operators must be available. Nothing is set: see :func:`use_kernels`.
    """
    library = load_cpu_operators()
    columns = _logits_columns(library)
    work = sum(product.operations * count for product, count in network.products(columns, network.tokens))
    if _forced() or work < WORTH_MEASURING:
        return _by_rule(precision)
    file = library.path.with_suffix(".kernels.json")
    key = _key(network, precision)
    try:
        with one_at_a_time(library.path):  # one process of this machine measures, and the others take what it found
            known = _read(file)
            if key not in known:
                known[key] = vars(_measure(library, network, precision, columns))
                with suppress(OSError):  # the folder is full: the next process measures again
                    write_file(file, json.dumps(known, indent=1).encode())
            return Choice(**known[key])
    except OperatorsUnavailable:  # the library is in a folder that only another user may write to
        return _measure(library, network, precision, columns)


def still_holds(choice: Choice, network: Network, precision: str) -> bool:
    """Returns True if `choice` was measured for this network by a process like this one, and nothing else is forced."""
    columns = _logits_columns(load_cpu_operators())
    products = [list(product) for product, _ in network.products(columns, network.tokens)]
    measured = choice.gflops > 0 and [row[:4] for row in choice.kernels] == products
    here = (choice.processor, choice.threads, choice.precision) == (processor_name(), num_threads(), precision)
    return measured and here and not _forced()


def use_kernels(choice: Choice) -> None:
    """Sets the kernels of all later products in this process, which may run on a lesser processor than rank 0."""
    library = _open(load_cpu_operators())
    library.kogpt2_set_kernel(FORCED.get(_forced(), BY_RULE))
    library.kogpt2_set_bfloat16_kernel(int(choice.onednn_bfloat16 and instruction_set().has_bfloat16))
    for layout, M, N, K, kernel in choice.kernels:
        library.kogpt2_set_product_kernel(layout, *map(ctypes.c_int64, (M, N, K)), kernel)


@functools.cache
def best_gflops(processor: str, threads: int, precision: str) -> float:
    """Returns the highest rate that was measured so far, for products of any network; 0 if none was.

    Other programs slow a measurement down, and nothing makes one faster than the processor is.
    """
    known = _read(load_cpu_operators().path.with_suffix(".kernels.json"))
    found = [Choice(**each) for each in known.values()]
    alike = [
        each for each in found if (each.processor, each.threads, each.precision) == (processor, threads, precision)
    ]
    return max((each.gflops for each in alike), default=0.0)


def use_default_kernels() -> None:
    """Sets the kernels of a process that trains nothing: by rule, or as KOGPT2_KERNELS says."""
    use_kernels(_by_rule("float32"))


def faster_precision(network: Network) -> tuple[str, str]:
    """Returns 'bfloat16' or 'float32', and the reason with the measured rates."""
    rates = {name: choose_kernels(network, name).gflops for name in PRECISIONS}
    if not all(rates.values()):
        return "float32", "its products were not measured"
    return _faster(rates), _reason(rates)


def _faster(rates: dict[str, float]) -> str:
    return "bfloat16" if rates["bfloat16"] >= WORTH_BFLOAT16 * rates["float32"] else "float32"


def _reason(rates: dict[str, float]) -> str:
    return f"products run at {rates['bfloat16']:,.0f} GFLOP/s in bfloat16 and at {rates['float32']:,.0f} in float32"


def known_precision(network: Network) -> str:
    """Says which precision is faster for a network, from what was measured before; '' if it was not.

    Neither MXNet nor the operators are loaded.
    """
    rates: dict[str, float] = {}
    files = sorted(cache_folder().glob("kogpt2-cpu-*.kernels.json"), key=lambda file: file.stat().st_mtime)
    for file in files:
        known = _read(file)
        for name in PRECISIONS:
            if measured := known.get(_key(network, name)):
                rates[name] = measured["gflops"]
    if len(rates) < len(PRECISIONS):
        return ""
    return f"{_faster(rates)}, because {_reason(rates)}"


def processor_name() -> str:
    """Returns the processor's name, with its numbers, since virtual machines hide the name, and the instruction set.

    On a processor for which there are no operators, only the kind of machine.
    """
    try:
        instructions, text = instruction_set().name, Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OperatorsUnavailable, OSError):
        return platform.machine()
    values = {}
    for field in ("model name", "cpu family", "model", "stepping"):
        found = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
        values[field] = found.group(1) if found else "?"
    name = values.pop("model name")
    return f"{name if name != '?' else platform.machine()} ({'-'.join(values.values())}, {instructions})"


def choice_of(data: Any) -> Choice | None:
    """Returns the choice that plain `data` from a file describes, or None if it describes none."""
    return Choice(**data) if _is_choice(data) else None


def _key(network: Network, precision: str) -> str:
    return f"{precision}, {network}, {num_threads()} threads, {processor_name()}"


def _by_rule(precision: str) -> Choice:
    return Choice(processor_name(), num_threads(), precision, 0.0, _onednn_by_rule(), [])


def _measure(library: Library, network: Network, precision: str, columns: tuple[int, int]) -> Choice:
    opened, in_bfloat16 = _open(library), precision == "bfloat16"
    tokens = min(network.tokens, ROWS)
    seconds = (ctypes.c_double * 3)()
    measured: list[tuple[Product, float, list[float]]] = []
    products = zip(network.products(columns, tokens), network.products(columns, network.tokens))
    for (sample, _), (product, count) in products:
        sizes = map(ctypes.c_int64, sample[1:])
        opened.kogpt2_time_product(sample.layout, *sizes, int(in_bfloat16), TRIALS, seconds)
        scale = product.operations / sample.operations
        measured.append((product, count, [each * scale for each in seconds]))
    # Stored as bfloat16, factors are multiplied by oneDNN alone.
    by_onednn = sum(count * times[0] for _, count, times in measured)
    packed = sum(count * min(times[1:]) for _, count, times in measured)
    onednn_bfloat16 = by_onednn <= packed if in_bfloat16 else _onednn_by_rule()
    usable: tuple[int, ...] = (ONEDNN, SHARED_LEFT, SHARED_RIGHT)
    if in_bfloat16:
        usable = (ONEDNN,) if onednn_bfloat16 else (SHARED_LEFT, SHARED_RIGHT)
    kernels, total = [], 0.0
    for product, count, times in measured:
        best = min(usable, key=lambda kernel: times[kernel - ONEDNN])
        kernels.append([*product, best])
        total += count * times[best - ONEDNN]
    work = sum(product.operations * count for product, count, _ in measured)
    return Choice(processor_name(), num_threads(), precision, round(work / total / 1e9, 1), onednn_bfloat16, kernels)


def _read(file: Path) -> dict[str, Any]:
    """Returns what was measured before; nothing if the file is missing or is not what this module writes."""
    try:
        known = json.loads(file.read_bytes())
        return {key: value for key, value in known.items() if _is_choice(value)}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_choice(value: Any) -> bool:
    try:
        choice = Choice(**value)
        numbers = [number for row in choice.kernels for number in row]
        plain = all(type(number) is int and number >= 0 for number in numbers)
        rows = all(len(row) == 5 and ONEDNN <= row[4] <= SHARED_RIGHT for row in choice.kernels)
        texts = isinstance(choice.processor, str) and choice.precision in ("float32", "bfloat16")
        others = type(choice.onednn_bfloat16) is bool and type(choice.threads) is int and math.isfinite(choice.gflops)
        return plain and rows and texts and others
    except TypeError:
        return False


def _forced() -> str:
    forced = os.environ.get("KOGPT2_KERNELS", "")
    if forced and forced not in FORCED:
        raise RecipeError(f"KOGPT2_KERNELS={forced}: {' or '.join(FORCED)}, or nothing, which measures")
    return forced


def _onednn_by_rule() -> bool:
    """Returns which bfloat16 kernel is taken without a measurement.

    AMD's processors multiply twice as many numbers with AVX-512's instruction for bfloat16 as in float32, Intel's as
    many or half as many.
    """
    forced, best = _forced(), instruction_set()
    if forced == "onednn":
        return best.has_bfloat16
    is_fast = best.name == "amx" or (best.name == "avx512_bf16" and processor_name().startswith("AMD"))
    return not forced and is_fast


def _forced_or_rule() -> str:
    return f"KOGPT2_KERNELS={_forced()}" if _forced() else "too few to measure, kernels by rule"


def _open(library: Library) -> Any:
    return ctypes.CDLL(str(library.path))


def _logits_columns(library: Library) -> tuple[int, int]:
    function = _open(library).kogpt2_logits_columns
    function.restype = ctypes.c_int64
    return function(0), function(1)
