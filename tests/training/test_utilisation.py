"""Model FLOPs utilisation: of a GPU's data sheet, of the best rate measured on a CPU, of nothing that is unknown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kogpt2_gluon.machine.cuda import Gpu
from kogpt2_gluon.training import utilisation


def run(device: str, kernels=None, precision: str = "float32", size: int = 1, number: int = 0):
    return SimpleNamespace(
        ctx=SimpleNamespace(device_type=device, device_id=number),
        products=SimpleNamespace(kernels=kernels, precision=precision),
        worker=SimpleNamespace(size=size),
        objective=SimpleNamespace(flops_per_token=1e9),
    )


def test_of_a_cpu(monkeypatch):
    monkeypatch.setattr(utilisation, "best_gflops", lambda *key: 400.0)
    kernels = SimpleNamespace(gflops=100.0, processor="p", threads=2, precision="float32")
    assert utilisation.utilisation(run("cpu", kernels), 200.0) == pytest.approx(0.5)
    assert utilisation.utilisation(run("cpu", kernels, size=2), 200.0) == pytest.approx(0.25)
    kernels.gflops = 800.0
    assert utilisation.utilisation(run("cpu", kernels), 200.0) == pytest.approx(0.25)
    kernels.gflops = 0.0  # too few products to measure
    assert utilisation.utilisation(run("cpu", kernels), 200.0) is None
    assert utilisation.utilisation(run("cpu"), 200.0) is None


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA A100-SXM4-40GB", "float16", 312),
        ("Tesla V100-SXM2-16GB", "float32", 15.7),
        ("NVIDIA L4", "float32", None),
    ],
)
def test_of_a_gpu(monkeypatch, name, precision, tflops):
    utilisation._peak_of_gpu.cache_clear()
    monkeypatch.setattr(utilisation, "list_gpus", lambda: ([Gpu(0, name, "535", "40960", (8, 0))], ""))
    found = utilisation.utilisation(run("gpu", precision=precision), 1000.0)
    assert found is None if tflops is None else found == pytest.approx(1e12 / (tflops * 1e12))
    assert utilisation.utilisation(run("gpu", number=3), 1000.0) is None
    utilisation._peak_of_gpu.cache_clear()
