"""The launch functions of the CUDA operators under test: on a GPU, or with every GPU thread run on the host.

On the host g++ compiles the very .cu files, with cuda_on_host/ in place of CUDA's headers. Both sorts of device have
put(), empty() and call(), so that a test is written once.
"""

from __future__ import annotations

import ctypes
import subprocess
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cuda_driver import CudaDriver, open_library
from kogpt2_gluon.ops.build import LINK_FLAGS
from tests.helpers import ROOT

CUDA_SOURCES = ROOT / "kogpt2_gluon" / "ops" / "src" / "cuda"
ON_HOST = Path(__file__).resolve().parent / "cuda_on_host"
WRITE, ADD, NULL = 1, 2, 0
GUARD = 256  # bytes before and after every array: 0xFF, which is NaN as float16, float32 and float64


# ---- devices -----------------------------------------------------------------------------------------------------


class Array:
    """Device memory with guards around it. `shift` elements of padding move its beginning off the 16 byte grid."""

    def __init__(self, device: Device, values: np.ndarray, shift: int = 0):
        self.shape, self.dtype, self._device = values.shape, values.dtype, device
        self._before = GUARD + shift * values.itemsize
        data = np.full(self._before + values.nbytes + GUARD, 0xFF, np.uint8)
        data[self._before : self._before + values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
        self._nbytes, self._total = values.nbytes, data.size
        self._memory = device.allocate(data)
        self.pointer = self._memory + self._before

    def get(self) -> np.ndarray:
        """The values; fails when anything around them was written to."""
        data = self._device.fetch(self._memory, self._total)
        around = np.concatenate([data[: self._before], data[self._before + self._nbytes :]])
        assert (around == 0xFF).all(), f"written outside of an array of {self.shape} {self.dtype}"
        return data[self._before : self._before + self._nbytes].view(self.dtype).reshape(self.shape)


class Device(ABC):
    """Where kernels run: memory, and the functions of launch.h by their names without kogpt2_cuda_."""

    name = ""

    def __init__(self, library: Path):
        self.library = open_library(library)
        self._owned: list[Any] = []

    @abstractmethod
    def allocate(self, data: np.ndarray) -> int: ...

    @abstractmethod
    def fetch(self, pointer: int, size: int) -> np.ndarray: ...

    def release(self) -> None:
        """Frees all arrays."""
        self._owned.clear()

    def put(self, values: Any, dtype: Any = None, shift: int = 0) -> Array:
        return Array(self, np.ascontiguousarray(values, dtype=dtype), shift)

    def empty(self, shape: Any, dtype: Any, shift: int = 0) -> Array:
        """Not a number throughout, or -1: what a kernel leaves out is seen."""
        array = np.empty(shape, dtype)
        array.view(np.uint8).fill(0xFF)
        return Array(self, array, shift)

    def returns(self, name: str, *arguments: Any) -> Any:
        """Calls a function with arrays as pointers; None is a null pointer."""
        plain = [a.pointer if isinstance(a, Array) else a for a in arguments]
        return getattr(self.library, f"kogpt2_cuda_{name}")(*plain)

    def call(self, name: str, *arguments: Any) -> None:
        """Starts kernels on the default stream and checks that they started."""
        error = self.returns(name, *arguments, None)
        text = self.returns("error_text", error).decode()
        assert error == 0, f"{name}: error {error}, {text}"

    def workspace(self, name: str, *sizes: int) -> Array:
        return self.empty((self.returns(f"{name}_workspace", *sizes),), np.uint8)

    def dropout(self, seed: np.ndarray | None, probability: float, site: int) -> Array | None:
        """A Dropout in device memory from a seed array, or None for a null pointer."""
        if seed is None:
            return None
        decoded = self.empty((self.returns("dropout_size"),), np.uint8)
        self.call("decode_seed", self.put(seed, np.float32), probability, site, decoded)
        return decoded


class Host(Device):
    """The kernels compiled by g++, thread by thread."""

    name = "host"

    def allocate(self, data: np.ndarray) -> int:
        aligned = np.empty(data.size + 64, np.uint8)
        start = -aligned.ctypes.data % 64
        aligned[start : start + data.size] = data
        self._owned.append(aligned)
        return aligned.ctypes.data + start

    def fetch(self, pointer: int, size: int) -> np.ndarray:
        return np.frombuffer(ctypes.string_at(pointer, size), np.uint8)

    def run_backwards(self, yes: bool) -> None:
        """Threads and blocks in the opposite order."""
        self.library.on_host_run_backwards(int(yes))


class Gpu(Device):
    """The compiled libraries on the first GPU."""

    name = "gpu"

    def __init__(self, library: Path, driver: CudaDriver):
        super().__init__(library)
        self._driver = driver

    def allocate(self, data: np.ndarray) -> int:
        pointer = self._driver.allocate(data.size)
        self._driver.write(pointer, data)
        return pointer

    def fetch(self, pointer: int, size: int) -> np.ndarray:
        return self._driver.read(pointer, size)

    def release(self) -> None:
        self._driver.free_all()


def run_compiler(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def build_for_host(folder: Path, mxnet: Path | None = None) -> Path:
    """Compiles the kernels with g++; with MXNet's folder, its operators for "cpu" too."""
    library = folder / "libkogpt2_cuda_on_host.so"
    sources = sorted(path for path in CUDA_SOURCES.glob("*.cu") if mxnet or not path.name.startswith("mxnet_"))
    sources += [ON_HOST / "threads.cc", *([CUDA_SOURCES.parent / "common" / "lib_api.cc"] if mxnet else [])]
    flags = ["-std=c++17", "-O1", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-Wall"]
    flags += ["-Wno-unknown-pragmas"]
    if mxnet:
        flags += ['-DKOGPT2_DEVICE="cpu"', f"-I{mxnet / 'include'}", f"-I{mxnet}"]

    def compile_one(source: Path) -> str:
        to = str(folder / f"{source.stem}.o")
        # MXNet's own source takes its own header: the one in cuda_on_host renames a function that it defines.
        in_place = [] if source.name == "lib_api.cc" else [f"-I{ON_HOST}"]
        run_compiler("g++", *in_place, *flags, "-x", "c++", "-c", str(source), "-o", to)
        return to

    with ThreadPoolExecutor(max_workers=2) as pool:
        objects = list(pool.map(compile_one, sources))
    run_compiler("g++", *LINK_FLAGS, *objects, "-o", str(library))
    return library


# ---- what is expected --------------------------------------------------------------------------------------------


def philox_mask(seed: np.ndarray, probability: float, site: int, rows: int, columns: int) -> np.ndarray:
    """Dropout's multipliers (rows, columns) as float64, by Philox4x32-7 in NumPy; 1 throughout for a seed of ones."""
    if (seed == 1.0).all():
        return np.ones((rows, columns))
    bits = seed > 0.5
    keys = [sum(int(bit) << i for i, bit in enumerate(bits[k : k + 32])) for k in (0, 32)]
    blocks_per_row = -(-columns // 8)
    block = np.arange(rows * blocks_per_row, dtype=np.uint64)
    low32, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    counter = [block & low32, block >> shift, np.full_like(block, site), np.zeros_like(block)]
    for turn in range(7):
        first, second = np.uint64(0xD2511F53) * counter[0], np.uint64(0xCD9E8D57) * counter[2]
        k0, k1 = ((k + turn * step) & 0xFFFFFFFF for k, step in zip(keys, (0x9E3779B9, 0xBB67AE85)))
        counter = [
            (second >> shift) ^ counter[1] ^ np.uint64(k0),
            second & low32,
            (first >> shift) ^ counter[3] ^ np.uint64(k1),
            first & low32,
        ]
    halves = [(word >> np.uint64(16 * half)) & np.uint64(0xFFFF) for word in counter for half in (0, 1)]
    decisions = np.stack(halves, axis=1).reshape(rows, blocks_per_row * 8)[:, :columns]
    threshold = min(int(probability * 65536 + 0.5), 65535)
    return np.where(decisions >= threshold, 65536 / (65536 - threshold), 0.0)


def training_seed(number: int) -> np.ndarray:
    """Returns 64 values of 0 or 2, as MXNet's Dropout(ones(64), p=0.5) gives them in training."""
    return np.random.RandomState(number).randint(0, 2, 64).astype(np.float32) * 2


def assert_close(actual: np.ndarray, expected: np.ndarray, what: str = "", relative: float = 3e-6) -> None:
    """Within `relative` of the largest expected value and, for float16, the rounding of each."""
    assert actual.shape == expected.shape, what
    actual64 = actual.astype(np.float64)
    assert np.isfinite(actual64).all(), f"{what}: not finite at {np.argwhere(~np.isfinite(actual64))[:3]}"
    allowed = relative * max(np.abs(expected).max(), 1e-30)
    if actual.dtype == np.float16:  # half of the last bit: 2^-11 of the value, 2^-25 below float16's normal numbers
        allowed = allowed + np.maximum(np.abs(expected) * 2.0**-11, 2.0**-25)
    excess = np.abs(actual64 - expected) / allowed
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert excess.max() <= 1.0, f"{what}: {actual64[worst]} at {worst}, expected {expected[worst]}"
