"""Times the matrix products of a network with each kernel of the CPU operators."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kogpt2_gluon.ops.build import Library

TRIALS = 3  # of each kernel; they take turns
ROWS = 512  # more tokens take longer to measure and change no choice

# Kernel, in ops/src/cpu/kernels.h
KERNELS = ONEDNN, SHARED_LEFT, SHARED_RIGHT = 1, 2, 3
# Of kernels that are about as fast, the first is taken: other programs that fill the caches slow down oneDNN's least,
# and most of all ours where all threads share the left factor.
STEADIEST = ONEDNN, SHARED_RIGHT, SHARED_LEFT
ABOUT_AS_FAST = 1.03


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
            for product in products_of_a_map(tokens, out, data):
                yield product, float(self.num_layers)
        forward, backward = (min(count, self.vocab_size) for count in columns)
        for product in products_of_a_map(tokens, forward, C)[:1]:
            yield product, self.vocab_size / forward
        for product in products_of_a_map(tokens, backward, C)[1:]:
            yield product, self.vocab_size / backward


def products_of_a_map(tokens: int, out: int, data: int) -> list[Product]:
    """Returns the products of y = x W^T: of the forward pass, of the data's gradient, of the weight's gradient."""
    return [Product(0, tokens, out, data), Product(1, tokens, data, out), Product(2, out, data, tokens)]


@dataclass(frozen=True)
class Times:
    """How long each product of a step takes with each kernel.

    Attributes
    ----------
    products : list of Product
    counts : list of float
        How often a step makes each.
    seconds : list of list of float
        Of each product, one number for each of KERNELS; infinite: the kernel cannot compute it.
    measurements : int
        How many measurements these are the best of.
    """

    products: list[Product]
    counts: list[float]
    seconds: list[list[float]]
    measurements: int = 1

    def best_of(self, other: Times) -> Times:
        """Returns the shorter of both times everywhere: nothing makes a product faster than the processor is."""
        if other.products != self.products:
            return self
        seconds = [[min(pair) for pair in zip(*rows)] for rows in zip(self.seconds, other.seconds)]
        return Times(self.products, self.counts, seconds, self.measurements + other.measurements)

    def fastest(self, usable: Sequence[int]) -> list[int]:
        """Returns for each product the steadiest of the usable kernels that are about as fast as the fastest."""
        steadiest = [kernel for kernel in STEADIEST if kernel in usable]
        return [self._first_fast(steadiest, times) for times in self.seconds]

    @staticmethod
    def _first_fast(kernels: Sequence[int], times: Sequence[float]) -> int:
        seconds = [times[kernel - ONEDNN] for kernel in kernels]
        return next(kernel for kernel, each in zip(kernels, seconds) if each <= ABOUT_AS_FAST * min(seconds))

    def total(self, usable: Sequence[int]) -> float:
        """Seconds of a step's products, each by the fastest of the usable kernels."""
        return self._seconds_of(self.fastest(usable))

    def gflops(self, kernels: Sequence[int]) -> float:
        """Operations per second of a step's products with these kernels, in thousands of millions."""
        work = sum(count * product.operations for product, count in zip(self.products, self.counts))
        return round(work / self._seconds_of(kernels) / 1e9, 1)

    def _seconds_of(self, kernels: Sequence[int]) -> float:
        rows = zip(self.counts, self.seconds, kernels)
        return sum(count * times[kernel - ONEDNN] for count, times, kernel in rows)

    def state(self) -> dict[str, Any]:
        """Returns plain data for :func:`times_of`. JSON has no infinity: None."""
        seconds = [[each if math.isfinite(each) else None for each in row] for row in self.seconds]
        return {**vars(self), "products": [list(each) for each in self.products], "seconds": seconds}


def times_of(data: Any) -> Times | None:
    """Returns the times that plain `data` from a file describes, or None if it describes none."""
    try:
        products = [Product(*row) for row in data["products"]]
        counts = [float(each) for each in data["counts"]]
        seconds = [[math.inf if each is None else float(each) for each in row] for row in data["seconds"]]
        measurements = data["measurements"]
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    whole = [*(number for product in products for number in product), measurements]
    natural = all(type(number) is int and number >= 0 for number in whole) and measurements
    alike = len(products) == len(counts) == len(seconds) > 0
    times = all(len(row) == len(KERNELS) and min(row) > 0 and math.isfinite(sum(row[1:])) for row in seconds)
    counted = all(0 < each < math.inf for each in counts)
    return Times(products, counts, seconds, measurements) if natural and alike and times and counted else None


def measure(library: Library, network: Network, precision: str, columns: tuple[int, int]) -> Times:
    """Times every product of a step in 'float32' or 'bfloat16' with each kernel: a second or two for KoGPT-2 base."""
    compiled = opened(library)
    tokens = min(network.tokens, ROWS)
    found = (ctypes.c_double * len(KERNELS))()
    times = Times([], [], [])
    products = zip(network.products(columns, tokens), network.products(columns, network.tokens))
    for (sample, _), (product, count) in products:
        sizes = map(ctypes.c_int64, sample[1:])
        compiled.kogpt2_time_product(sample.layout, *sizes, int(precision == "bfloat16"), TRIALS, found)
        scale = product.operations / sample.operations
        times.products.append(product)
        times.counts.append(count)
        times.seconds.append([each * scale for each in found])
    return times


def opened(library: Library) -> Any:
    """Returns the compiled library, whose plain C functions ctypes can call."""
    return ctypes.CDLL(str(library.path))


def logits_columns(library: Library) -> tuple[int, int]:
    """Returns how many columns of the vocabulary are in one product of the forward and of the backward pass."""
    function = opened(library).kogpt2_logits_columns
    function.restype = ctypes.c_int64
    return function(0), function(1)
