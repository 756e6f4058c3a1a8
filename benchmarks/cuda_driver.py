"""Calls the CUDA operators without MXNet: the launch functions and CUDA's driver, both through ctypes.

The driver gives memory, copies and events; it is there wherever a GPU works.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, Callable

import numpy as np

from kogpt2_gluon.ops.build_cuda import SOURCES


def declared_functions() -> dict[str, tuple[Any, list[Any]]]:
    """{name: (result, arguments)} as ctypes, of every function that launch.h declares."""
    text = re.sub(r"/\*.*?\*/", " ", (SOURCES / "cuda" / "launch.h").read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"KOGPT2_API\s+([\w\s*]+?)(kogpt2_cuda_\w+)\(([^)]*)\);", text)
    return {
        name: (_c_type(result), [_c_type(a) for a in arguments.split(",") if a != "void"])
        for result, name, arguments in found
    }


def _c_type(declaration: str) -> Any:
    if "char*" in declaration:
        return ctypes.c_char_p
    if "*" in declaration or "cudaStream_t" in declaration:
        return ctypes.c_void_p
    types = {"int64_t": ctypes.c_int64, "uint32_t": ctypes.c_uint32, "double": ctypes.c_double, "float": ctypes.c_float}
    words = declaration.split()
    return next((types[word] for word in words if word in types), ctypes.c_int)


def open_library(path: Path) -> ctypes.CDLL:
    """A library with the launch functions, their types set."""
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in declared_functions().items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Tensor(ctypes.Structure):
    """KoGPT2Tensor."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("master", "mean", "variance", "gradient", "working_copy")),
        ("size", ctypes.c_int64),
        ("first_chunk", ctypes.c_int64),
        ("weight_decay", ctypes.c_float),
        ("gradient_dtype", ctypes.c_int32),
    ]


class Chunk(ctypes.Structure):
    """KoGPT2Chunk."""

    _fields_ = [("tensor", ctypes.c_int32), ("index", ctypes.c_int32)]


class UpdateRule(ctypes.Structure):
    """KoGPT2Update."""

    _fields_ = [
        ("optimizer", ctypes.c_int32),
        ("step", ctypes.c_int32),
        *(
            (name, ctypes.c_double)
            for name in ("learning_rate", "beta1", "beta2", "epsilon", "inverse_loss_scale", "clip_factor")
        ),
    ]


class CudaDriver:
    """The first GPU, in the context that CUDA's runtime libraries share. RuntimeError where there is none."""

    def __init__(self) -> None:
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
            self._call("cuInit", 0)
            device, context = ctypes.c_int(), ctypes.c_void_p()
            self._call("cuDeviceGet", ctypes.byref(device), 0)
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
            self._call("cuCtxSetCurrent", context)
        except (OSError, AttributeError) as error:  # no driver, or a stub of it
            raise RuntimeError(str(error)) from None
        self._device = device
        self._owned: list[int] = []

    def _call(self, name: str, *arguments: Any) -> None:
        error = getattr(self._driver, name)(*arguments)
        if error:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(error, ctypes.byref(text))
            raise RuntimeError(f"{name}: error {error}, {(text.value or b'unknown').decode()}")

    def name(self) -> str:
        """The GPU's."""
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), self._device)
        return text.value.decode()

    def capability(self) -> str:
        """Major and minor as one word, such as "80"."""
        part, parts = ctypes.c_int(), ""
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
            self._call("cuDeviceGetAttribute", ctypes.byref(part), attribute, self._device)
            parts += str(part.value)
        return parts

    def allocate(self, size: int) -> int:
        """Device memory of `size` bytes."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self._owned.append(pointer.value)
        return pointer.value

    def free_all(self) -> None:
        """Gives back what allocate() gave."""
        while self._owned:
            self._call("cuMemFree_v2", ctypes.c_uint64(self._owned.pop()))

    def write(self, pointer: int, data: np.ndarray) -> None:
        """Host to device."""
        source = ctypes.c_void_p(data.ctypes.data)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), source, ctypes.c_size_t(data.nbytes))

    def read(self, pointer: int, size: int) -> np.ndarray:
        """Device to host, after all that was started before."""
        data = np.empty(size, np.uint8)
        self._call("cuCtxSynchronize")
        self._call(
            "cuMemcpyDtoH_v2", ctypes.c_void_p(data.ctypes.data), ctypes.c_uint64(pointer), ctypes.c_size_t(size)
        )
        return data

    def copy(self, to: int, source: int, size: int) -> None:
        """Device to device, on the default stream; does not wait."""
        self._call("cuMemcpyDtoDAsync_v2", ctypes.c_uint64(to), ctypes.c_uint64(source), ctypes.c_size_t(size), None)

    def seconds(self, start: Callable[[], object | None], times: int) -> float:
        """Returns the time of a call of `start` on the GPU: `times` calls between two events, after an untimed one."""
        events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in events:
            self._call("cuEventCreate", ctypes.byref(event), 0)
        start()
        self._call("cuEventRecord", events[0], None)
        for _ in range(times):
            start()
        self._call("cuEventRecord", events[1], None)
        self._call("cuEventSynchronize", events[1])
        elapsed = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(elapsed), *events)
        for event in events:
            self._call("cuEventDestroy_v2", event)
        return elapsed.value / 1e3 / times
