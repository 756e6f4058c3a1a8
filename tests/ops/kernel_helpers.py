"""Kernels of matrix products in tests: measured into a cache of the test's own, and chosen by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops import kernel_times, kernels
from kogpt2_gluon.ops.kernel_times import (
    SHARED_LEFT,
    SHARED_RIGHT,
    Network,
    Product,
)
from kogpt2_gluon.ops.kernels import (
    PACKED,
)
from tests.ops.ops_helpers import LIBRARY, ctypes

SMALL = Network(units=128, num_layers=4, vocab_size=9000, tokens=512)  # its products are just worth measuring


@pytest.fixture(autouse=True)
def as_before(monkeypatch, tmp_path):
    """Measures into a cache of this test's own, without compiling; afterwards kernels are chosen by rule again."""
    kept = kernels.load_cpu_operators()
    monkeypatch.delenv("KOGPT2_KERNELS", raising=False)
    monkeypatch.setenv("KOGPT2_CACHE", str(tmp_path / "cache"))
    here = replace(kept, path=tmp_path / "cache" / kept.path.name)
    here.path.parent.mkdir()
    here.path.symlink_to(kept.path)
    monkeypatch.setattr(kernels, "load_cpu_operators", lambda: here)
    for module in (kernels, kernel_times):
        monkeypatch.setattr(module, "opened", lambda library: ctypes.CDLL(str(kept.path)))
    monkeypatch.setattr(kernels, "_measured_here", set())
    yield
    monkeypatch.undo()
    kernels.use_default_kernels()


@pytest.fixture
def measured(monkeypatch):
    """Records the precisions that are measured."""
    calls, measure = [], kernels.measure

    def counted(library, network, precision, columns):
        calls.append(precision)
        return measure(library, network, precision, columns)

    monkeypatch.setattr(kernels, "measure", counted)
    return calls


def force(kernel: int, onednn_bfloat16: bool = False, product: Product | None = None) -> None:
    """Sets one kernel for all products; the shared factor only for one of them."""
    library = ctypes.CDLL(str(LIBRARY))
    library.kogpt2_set_kernel(PACKED if kernel in (SHARED_LEFT, SHARED_RIGHT) else kernel)
    library.kogpt2_set_bfloat16_kernel(int(onednn_bfloat16))
    if product:
        library.kogpt2_set_product_kernel(product.layout, *map(ctypes.c_int64, product[1:]), kernel)


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 values, as float64."""
    bits = values.view(np.uint32).astype(np.uint64)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32)
    return nearest.view(np.float32).astype(np.float64)


def linear(data, weight, bias, gradient, precision="float32", req="write,write,write"):
    """The linear operator and its gradients: out, d data, d weight, d bias."""
    arrays = [mx.nd.array(each) for each in (data, weight, bias)]
    for each in arrays:
        each.attach_grad()
    with mx.autograd.record():
        out = mx.nd.kogpt2_linear(*arrays, precision=precision, req=req)
    out.backward(mx.nd.array(gradient))
    return [out.asnumpy(), *(each.grad.asnumpy() for each in arrays)]
