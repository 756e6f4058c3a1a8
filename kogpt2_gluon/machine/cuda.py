"""NVIDIA's side of the mxnet-cu112 wheel: the libraries it links, the GPUs it runs on, the GPUs that are here.

Nothing here needs MXNet or a GPU.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

GPU_MAJORS = (5, 6, 7, 8)  # the wheel holds sm_50, 60, 70, 80 and 86; such code runs on any later minor, no other major


class Library(NamedTuple):
    """A library that mxnet-cu112 links: its file, the wheel that carries it, the wheel's folder below ``nvidia/``."""

    file: str
    package: str
    folder: str


# In the order of loading: each is loaded after what it links itself.
LIBRARIES = (
    Library("libcudart.so.11.0", "nvidia-cuda-runtime-cu11==11.7.99", "cuda_runtime"),
    Library("libcublasLt.so.11", "nvidia-cublas-cu11==11.10.3.66", "cublas"),
    Library("libcublas.so.11", "nvidia-cublas-cu11==11.10.3.66", "cublas"),
    Library("libcufft.so.10", "nvidia-cufft-cu11==10.7.2.91", "cufft"),
    Library("libcurand.so.10", "nvidia-curand-cu11==10.2.10.91", "curand"),
    Library("libcusolver.so.11", "nvidia-cusolver-cu11==11.4.0.1", "cusolver"),
    Library("libnvrtc.so.11.2", "nvidia-cuda-nvrtc-cu11==11.7.99", "cuda_nvrtc"),
    Library("libnvToolsExt.so.1", "nvidia-nvtx-cu11==11.7.91", "nvtx"),
    Library("libnccl.so.2", "nvidia-nccl-cu11==2.14.3", "nccl"),
    Library("libcudnn.so.8", "nvidia-cudnn-cu11==8.5.0.96", "cudnn"),
)


def load_libraries() -> list[Library]:
    """Loads what mxnet-cu112 links, from NVIDIA's wheels or else the loader's path, and returns what is missing."""
    return [library for library in LIBRARIES if not _load_library(library)]


def _load_library(library: Library) -> bool:
    carried = [Path(path) / "nvidia" / library.folder / "lib" / library.file for path in sys.path]
    for name in (*(str(path) for path in carried if path.is_file()), library.file):
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            return True
        except OSError:
            continue
    return False


def driver_state() -> str:
    """Returns "none" without libcuda.so.1, "stub" if it has no driver below it, else a version such as "CUDA 11.4"."""
    version = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == 34 or driver.cuDriverGetVersion(ctypes.byref(version)):  # 34: CUDA_ERROR_STUB_LIBRARY
            return "stub"
    except OSError:
        return "none"
    except AttributeError:
        return "stub"
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def compute_capability(ordinal: int) -> tuple[int, int] | None:
    """Returns (major, minor) of a visible GPU, from the driver; None if the driver does not report it."""
    device, part, parts = ctypes.c_int(), ctypes.c_int(), []
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), ordinal):
            return None
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
            if driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device):
                return None
            parts.append(part.value)
    except (OSError, AttributeError):  # no driver, or a stub of it
        return None
    return parts[0], parts[1]


def unsupported_gpu(name: str, major: int, minor: int) -> str | None:
    """Returns why MXNet's wheel cannot run on a GPU, with the way out, in one sentence; None if it can."""
    if major in GPU_MAJORS:
        return None
    return (
        f"{name} has compute capability {major}.{minor}, and mxnet-cu112 1.9.1 holds code for 5.x to 8.x only "
        "(V100, T4, A100, A10G): train on those or with training.device=cpu, or go on in PyTorch with `kogpt2 convert`"
    )


@dataclass(frozen=True)
class Gpu:
    """One GPU, as nvidia-smi reports it. `capability` is None if an old driver does not report it."""

    index: int
    name: str
    driver: str
    memory_mib: str
    capability: tuple[int, int] | None


def list_gpus() -> tuple[list[Gpu], str]:
    """Returns the GPUs that nvidia-smi lists, and its own words if it fails; neither if it is absent."""
    program = shutil.which("nvidia-smi")
    if not program:
        return [], ""
    problem, fields = "", "index,name,driver_version,memory.total"
    # Drivers before 510 do not know compute_cap and refuse the whole query.
    for query in (f"{fields},compute_cap", fields):
        command = [program, f"--query-gpu={query}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return [], f"nvidia-smi: {error}"
        said = " ".join(f"{done.stderr} {done.stdout}".split())[:300]  # it prints its errors on stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
        found = [_gpu(row) for row in rows if len(row) == query.count(",") + 1] if done.returncode == 0 else []
        if found:
            return found, ""
        problem = f"nvidia-smi: {said or f'exit code {done.returncode}'}"
        if done.returncode == 0:
            break
    return [], problem


def _gpu(row: list[str]) -> Gpu:
    index, name, driver, memory = row[:4]
    reported = re.fullmatch(r"(\d+)\.(\d+)", row[4]) if len(row) > 4 else None
    capability = (int(reported.group(1)), int(reported.group(2))) if reported else compute_capability(int(index))
    return Gpu(int(index), name, driver, memory, capability)
