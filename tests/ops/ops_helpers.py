"""Helpers for the tests of the fused CPU operators: comparison with a twin, `req`, threads, memory, refusals, masks."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx, num_threads

COMPILER = os.environ.get("CXX") or "g++"
if shutil.which(COMPILER) is None:
    pytest.skip(f"the operators are compiled by {COMPILER}, which is not installed", allow_module_level=True)

from kogpt2_gluon.ops.build import load_cpu_operators  # noqa: E402

_BUILT = load_cpu_operators()
LIBRARY, HAS_BFLOAT16 = _BUILT.path, _BUILT.isa.has_bfloat16
needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="oneDNN has bfloat16 products from AVX-512 on")
PRECISIONS = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]
SEED_SIZE = 64
FLOAT32 = 1e-5  # the largest error, relative to the largest value
BFLOAT16 = 2.0**-6  # 8 bits of significand, and what sums make of their rounding


def array(rng: np.random.RandomState, *shape: int) -> np.ndarray:
    """Normal values, float32."""
    return rng.randn(*shape).astype(np.float32)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = FLOAT32, scale: float = 0.0) -> None:
    """No value is wrong by more than `tolerance` times the largest expected one, or times `scale` if that is larger."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    limit = tolerance * max(scale, np.abs(expected).max())
    worst = np.abs(actual.astype(np.float64) - expected).max()
    assert worst <= limit, f"wrong by {worst:.3g}, at most {limit:.3g} is right"


def assert_same(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Bit for bit."""
    for one, other in zip(actual, expected):
        np.testing.assert_array_equal(one, other)


# ---- one operator and its twin --------------------------------------------------------------------------------------


@dataclass
class Case:
    """A fused operator on certain inputs, and the same of MXNet's own operators.

    fused(F, *inputs, **attributes) and stock(F, *inputs) give the first output; `F` is mx.nd or mx.sym.
    `wanted` are the inputs with a gradient; the others (ids, seed) have none.
    """

    name: str
    fused: Callable[..., Any]
    stock: Callable[..., Any]
    inputs: list[np.ndarray]
    wanted: list[int]
    scale: float = 0.0  # of the gradients, where all of them are 0 but for rounding
    attributes: dict[str, Any] = field(default_factory=dict)

    def request(self, *words: str) -> str:
        """The attribute `req`: these words for the wanted inputs, in turn, and null for the others."""
        named = dict(zip(self.wanted, words * len(self.wanted)))
        return ",".join(named.get(i, "null") for i in range(len(self.inputs)))

    def run(
        self,
        operator: Callable[..., Any],
        grad_req: str = "write",
        before: float = 0.0,
        times: int = 1,
        **attributes: Any,
    ) -> list[np.ndarray]:
        """Output and wanted gradients of `times` passes, the gradient arrays holding `before` at first."""
        arrays = [mx.nd.array(values, dtype=values.dtype) for values in self.inputs]
        for i in self.wanted:
            arrays[i].attach_grad(grad_req)
            arrays[i].grad[:] = before
        for _ in range(times):
            with mx.autograd.record():
                out = operator(mx.nd, *arrays, **attributes)
            out.backward(mx.nd.array(self.out_gradient(out.shape)))
            mx.nd.waitall()
        return [out.asnumpy()] + [arrays[i].grad.asnumpy() for i in self.wanted]

    @staticmethod
    def out_gradient(shape: tuple) -> np.ndarray:
        """Returns the gradient of the output, which is the same for every run."""
        return array(np.random.RandomState(99), *shape)

    def run_fused(self, **options: Any) -> list[np.ndarray]:
        """Runs the fused operator, with write for every wanted gradient unless `options` has another `req`."""
        return self.run(self.fused, **{"req": self.request("write"), **self.attributes, **options})


def check_twin(case: Case, tolerance: float = FLOAT32, **attributes: Any) -> None:
    """Output and all gradients are the twin's; what stood in the gradient arrays is overwritten."""
    fused = case.run_fused(before=np.nan, **attributes)
    for actual, expected in zip(fused, case.run(case.stock)):
        assert_close(actual, expected, tolerance, case.scale)


def check_requests(case: Case) -> None:
    """Each gradient in turn is left alone, then added to, while the others are written."""
    written = case.run_fused()
    for place in range(len(case.wanted)):
        for word in ("null", "add"):
            words = ["write"] * len(case.wanted)
            words[place] = word
            gradients = case.run_fused(before=3.0, req=case.request(*words))
            for i, (actual, expected) in enumerate(zip(gradients[1:], written[1:])):
                if i != place:
                    np.testing.assert_array_equal(actual, expected)
                elif word == "add":
                    assert_close(actual, expected + 3.0)
                else:
                    np.testing.assert_array_equal(actual, 3.0)


def check_gradients_add_up(case: Case) -> None:
    """grad_req='add' of MXNet needs the attribute `req`: with it two passes give twice the gradient, without it once.

    That once is MXNet's trap, which we cannot fix: should it ever become twice, the attribute is no longer needed.
    """
    once = case.run_fused()[1:]
    for actual, expected in zip(case.run_fused(grad_req="add", times=2, req=case.request("add"))[1:], once):
        assert_close(actual, 2 * expected, scale=case.scale)
    assert_same(case.run_fused(grad_req="add", times=2)[1:], once)


def check_hybridized(case: Case) -> None:
    """Symbols give the same bits, with and without static memory, twice in a row."""

    class Net(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, *inputs):
            return case.fused(F, *inputs, req=case.request("write"), **case.attributes)

    expected = case.run_fused()
    for options in ({}, {"static_alloc": True}, {"static_alloc": True, "static_shape": True}):
        net = Net()
        net.hybridize(**options)
        for times in (1, 2):
            assert_same(case.run(lambda F, *inputs, net=net: net(*inputs), times=times), expected)


def check_threads(case: Case, tolerance: float, **attributes: Any) -> None:
    """Each number of threads repeats bit for bit; different ones agree to `tolerance` (0: bit for bit)."""
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(case.run_fused(**attributes))
            assert_same(case.run_fused(**attributes), results[-1])
    for other in results[1:]:
        for actual, expected in zip(other, results[0]):
            if tolerance:
                assert_close(actual, expected, tolerance, case.scale)
            else:
                np.testing.assert_array_equal(actual, expected)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """The operators' number of threads, inside of a block."""
    library = ctypes.CDLL(str(LIBRARY))
    mx.nd.waitall()
    library.kogpt2_set_num_threads(count)
    try:
        yield
        mx.nd.waitall()
    finally:
        library.kogpt2_set_num_threads(num_threads())


def check_refused(operator: str, call: Callable[[], Any], message: str) -> None:
    """`call` fails; MXNet names the operator, and our one line is `message` (a pattern): no earlier one is repeated."""
    with pytest.raises(mx.MXNetError) as caught:
        call().wait_to_read()
    text = str(caught.value)
    assert f"'{operator}'" in text
    (ours,) = re.findall(r"^\s*\[\d+\] (.*)$", text, re.MULTILINE)
    assert re.search(message, ours), ours


# ---- dropout --------------------------------------------------------------------------------------------------------


def training_seed(value: int) -> np.ndarray:
    """Returns the seed that the graph hands to operators in training: 64 values of 0 or 2."""
    return 2.0 * np.random.RandomState(value).randint(0, 2, SEED_SIZE).astype(np.float32)


PREDICTION = np.ones(SEED_SIZE, np.float32)  # the same in prediction mode


def philox4x32(counter: np.ndarray, key: tuple[int, int], rounds: int) -> np.ndarray:
    """Philox4x32 of Salmon et al. (SC 2011): counters (n, 4) and a key of two words give random words (n, 4)."""
    mask = np.uint64(0xFFFFFFFF)
    c = [counter[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = (np.uint64(word) for word in key)
    for _ in range(rounds):
        product0, product1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [
            (product1 >> np.uint64(32)) ^ c[1] ^ k0,
            product1 & mask,
            (product0 >> np.uint64(32)) ^ c[3] ^ k1,
            product0 & mask,
        ]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & mask, (k1 + np.uint64(0xBB67AE85)) & mask
    return np.stack(c, axis=1).astype(np.uint32)


def dropout_mask(seed: np.ndarray, site: int, p: float, rows: int, columns: int) -> np.ndarray:
    """The multipliers (rows, columns) of a dropout site, by NumPy alone; each row begins a block of 8 decisions."""
    if (seed == 1).all():
        return np.ones((rows, columns), np.float32)
    words = [sum(1 << i for i in range(32) if half[i] > 0.5) for half in (seed[:32], seed[32:])]
    blocks_per_row = -(-columns // 8)
    counter = np.zeros((rows * blocks_per_row, 4), np.uint64)
    counter[:, 0], counter[:, 2] = np.arange(len(counter)), site
    random = philox4x32(counter, (words[0], words[1]), 7)
    decisions = random.view("<u2").reshape(rows, blocks_per_row * 8)[:, :columns]
    threshold = round(p * 65536)
    return np.where(decisions >= threshold, np.float32(65536 / (65536 - threshold)), np.float32(0))


# ---- bfloat16 -------------------------------------------------------------------------------------------------------


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of finite values, halves to even, as float32."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32)
