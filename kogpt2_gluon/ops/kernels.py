"""Chooses the kernel of each matrix product of a network by measurement, and says which precision is faster.

The CPU operators have three kernels: oneDNN's, and two ways of their own (ops/src/cpu/packed_matmul.h). Which one is
the fastest depends on the processor. On an Intel Xeon with AVX-512 BF16 and without AMX, oneDNN multiplies bfloat16
factors at half the rate of float32 ones; rounding the factors while they are packed for a float32 product gives sums of
the same products at float32's speed. So every kernel is timed on the products that the network at hand consists of
(ops/kernel_times.py), and the result is kept in a file next to the compiled library.

KOGPT2_KERNELS=onednn or KOGPT2_KERNELS=packed takes one kernel for all products, and measures nothing.
KOGPT2_KERNELS=measured takes what was measured on this machine where a resumed run would keep to its checkpoint's.
"""

from __future__ import annotations

import ctypes
import functools
import json
import math
import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass, replace
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
from kogpt2_gluon.ops.kernel_times import (
    KERNELS,
    ONEDNN,
    SHARED_LEFT,
    SHARED_RIGHT,
    Network,
    Times,
    logits_columns,
    measure,
    opened,
    times_of,
)
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.storage.files import write_file

MEASUREMENTS = 3  # by as many processes, since other programs may slow one of them down
WORTH_CHANGING = 1.05  # kept kernels are changed where others are that much faster: sums differ in their last digits
MUCH_FASTER = 1.25  # a resumed run, which keeps to its kernels, says that others are that much faster
WORTH_MEASURING = 1e9  # operations in a pass over a batch; below that the products are not what takes the time
WORTH_BFLOAT16 = 1.1  # `auto` takes bfloat16 where its products are at least that much faster

PRECISIONS = ("bfloat16", "float32")

BY_RULE, PACKED = 0, 4  # further kernels of ops/src/cpu/kernels.h; one product has one of KERNELS
FORCED = {"onednn": ONEDNN, "packed": PACKED}
MEASURED = "measured"

_measured_here: set[str] = set()  # keys of what this process has measured


def network_of(recipe: Recipe) -> Network:
    """The sizes of a recipe's products."""
    model = recipe.model
    tokens = recipe.training.batch_size * recipe.data.seq_length
    return Network(model.units, model.num_layers, model.vocab_size, tokens)


BASE = Network(units=768, num_layers=12, vocab_size=50_000, tokens=512)  # KoGPT-2


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


class Kept(NamedTuple):
    """Holds what the file says of a network and a precision."""

    choice: Choice
    times: Times


def choose_kernels(network: Network, precision: str) -> Choice:
    """Returns the fastest kernels for a network in 'float32' or 'bfloat16'.

    The first MEASUREMENTS processes measure, and the best time of each kernel counts. The operators must be available.
    Nothing is set: see :func:`use_kernels`.
    """
    library = load_cpu_operators()
    columns = logits_columns(library)
    work = sum(product.operations * count for product, count in network.products(columns, network.tokens))
    if _forced() in FORCED or work < WORTH_MEASURING:
        return _by_rule(precision)
    file = _file(library)
    key = _key(network, precision)
    try:
        with one_at_a_time(library.path):  # one process of this machine measures, and the others wait for it
            known = _read(file)
            kept = known.get(key)
            if kept is None or (kept.times.measurements < MEASUREMENTS and key not in _measured_here):
                known[key] = _measure_again(kept, measure(library, network, precision, columns), precision)
                _measured_here.add(key)
                with suppress(OSError):  # the folder is full: the next process measures again
                    write_file(file, _text(known))
            return known[key].choice
    except OperatorsUnavailable:  # the library is in a folder that only another user may write to
        return _fastest(measure(library, network, precision, columns), precision)


def _measure_again(kept: Kept | None, times: Times, precision: str) -> Kept:
    """Returns the choice by the best of all times so far; the kept one, unless another is worth a change."""
    if kept is None:
        return Kept(_fastest(times, precision), times)
    times = times.best_of(kept.times)
    fastest = _fastest(times, precision)
    before = replace(kept.choice, gflops=times.gflops([row[4] for row in kept.choice.kernels]))
    return Kept(fastest if fastest.gflops >= WORTH_CHANGING * before.gflops else before, times)


def still_holds(choice: Choice, network: Network, precision: str) -> bool:
    """Returns True if `choice` was measured for this network by a process like this one, and nothing else is forced."""
    columns = logits_columns(load_cpu_operators())
    products = [list(product) for product, _ in network.products(columns, network.tokens)]
    measured = choice.gflops > 0 and [row[:4] for row in choice.kernels] == products
    here = (choice.processor, choice.threads, choice.precision) == (processor_name(), num_threads(), precision)
    return measured and here and not _forced()


def note_of_faster(choice: Choice, network: Network) -> str:
    """Says that a choice that is kept for its sums is slow, by what was measured since; '' if it is not."""
    kept = _read(_file(load_cpu_operators())).get(_key(network, choice.precision))
    if kept is None or kept.choice.gflops < MUCH_FASTER * choice.gflops or kept.choice.kernels == choice.kernels:
        return ""
    return (
        f"note: the checkpoint's kernels were measured at {choice.gflops:,.0f} GFLOP/s, others since at "
        f"{kept.choice.gflops:,.0f}; KOGPT2_KERNELS={MEASURED} takes those, and sums differ in their last digits"
    )


def use_kernels(choice: Choice) -> None:
    """Sets the kernels of all later products in this process, which may run on a lesser processor than rank 0."""
    library = opened(load_cpu_operators())
    library.kogpt2_set_kernel(FORCED.get(_forced(), BY_RULE))
    library.kogpt2_set_bfloat16_kernel(int(choice.onednn_bfloat16 and instruction_set().has_bfloat16))
    for layout, M, N, K, kernel in choice.kernels:
        library.kogpt2_set_product_kernel(layout, *map(ctypes.c_int64, (M, N, K)), kernel)


@functools.cache
def best_gflops(processor: str, threads: int, precision: str) -> float:
    """Returns the highest rate that was measured so far, for products of any network; 0 if none was.

    Other programs slow a measurement down, and nothing makes one faster than the processor is.
    """
    found = [kept.choice for kept in _read(_file(load_cpu_operators())).values()]
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
            if kept := known.get(_key(network, name)):
                rates[name] = kept.choice.gflops
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


def _fastest(times: Times, precision: str) -> Choice:
    usable: tuple[int, ...] = KERNELS
    onednn_bfloat16 = _onednn_by_rule()
    if precision == "bfloat16":  # stored as bfloat16, factors are multiplied by oneDNN alone
        onednn_bfloat16 = times.total([ONEDNN]) <= times.total([SHARED_LEFT, SHARED_RIGHT])
        usable = (ONEDNN,) if onednn_bfloat16 else (SHARED_LEFT, SHARED_RIGHT)
    kernels = times.fastest(usable)
    rows = [[*product, kernel] for product, kernel in zip(times.products, kernels)]
    return Choice(processor_name(), num_threads(), precision, times.gflops(kernels), onednn_bfloat16, rows)


def _file(library: Library) -> Path:
    return library.path.with_suffix(".kernels.json")


def _text(known: dict[str, Kept]) -> bytes:
    plain = {key: {"choice": vars(kept.choice), "times": kept.times.state()} for key, kept in known.items()}
    return json.dumps(plain, indent=1).encode()


def _read(file: Path) -> dict[str, Kept]:
    """Returns what was measured before; nothing if the file is missing or is not what this module writes."""
    try:
        plain = json.loads(file.read_bytes())
        found = {
            key: (choice_of(each.get("choice")), times_of(each.get("times")))
            for key, each in plain.items()
            if isinstance(each, dict)
        }
    except (OSError, ValueError, AttributeError):
        return {}
    return {
        key: Kept(choice, times)
        for key, (choice, times) in found.items()
        if choice and times and [row[:4] for row in choice.kernels] == [list(each) for each in times.products]
    }


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
    if forced and forced not in (*FORCED, MEASURED):
        raise RecipeError(f"KOGPT2_KERNELS={forced}: {', '.join(FORCED)} or {MEASURED}, or nothing, which measures")
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
    return forced != "packed" and is_fast


def _forced_or_rule() -> str:
    return f"KOGPT2_KERNELS={_forced()}" if _forced() in FORCED else "too few to measure, kernels by rule"
