"""The devices that tests of CUDA kernels run on, each made once in a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cuda_driver import CudaDriver
from kogpt2_gluon.ops.build_cuda import build_cuda, find_nvcc, mxnet_folder
from tests.ops.cuda_kernel_helpers import Device, Gpu, Host, build_for_host


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kernels and, over them, MXNet's operators, compiled for the host."""
    return build_for_host(tmp_path_factory.mktemp("host"), mxnet_folder())


@pytest.fixture(scope="session")
def host(host_library: Path) -> Host:
    return Host(host_library)


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Gpu:
    """The first GPU, with the kernels compiled for it alone."""
    try:
        driver = CudaDriver()
    except RuntimeError:
        pytest.skip("no CUDA GPU")
    if find_nvcc() is None:
        pytest.skip("a CUDA GPU, but no nvcc to compile for it")
    return Gpu(build_cuda(tmp_path_factory.mktemp("gpu"), (driver.capability(),)).library, driver)


@pytest.fixture(params=["host", "gpu"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    chosen: Device = request.getfixturevalue(request.param)
    yield chosen
    chosen.release()
