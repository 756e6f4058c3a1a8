"""The devices that tests of CUDA kernels run on, each made once in a session."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Iterator

import pytest
from cuda_kernel_helpers import Device, Gpu, Host, build_for_host

from kogpt2_gluon.cuda import compute_capability
from kogpt2_gluon.ops.build_cuda import build_cuda, find_nvcc


def gpu_device(folder: Path) -> Gpu:
    """The first GPU, with the kernels compiled for it."""
    capability = compute_capability(0)
    nvcc = find_nvcc()
    if capability is None or nvcc is None:
        pytest.skip("no CUDA GPU" if capability is None else "a CUDA GPU, but no nvcc to compile for it")
    build = build_cuda(folder, ("".join(map(str, capability)),))
    for candidate in ("libcudart.so", *map(str, nvcc.resolve().parent.parent.glob("**/libcudart.so*"))):
        try:
            return Gpu(build.library, ctypes.CDLL(candidate))
        except OSError:
            continue
    pytest.skip("a CUDA GPU, but no libcudart.so")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(build_for_host(tmp_path_factory.mktemp("host")))


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Gpu:
    return gpu_device(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(params=["host", "gpu"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    chosen: Device = request.getfixturevalue(request.param)
    yield chosen
    chosen.release()
