"""CUDA's driver through ctypes: memory, copies and events on the first GPU. It is there wherever a GPU works."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Optional

import numpy as np


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
        self._call(
            "cuMemcpyDtoDAsync_v2", ctypes.c_uint64(to), ctypes.c_uint64(source), ctypes.c_size_t(size), None
        )

    def seconds(self, start: Callable[[], Optional[object]], times: int) -> float:
        """What one call of `start` takes on the GPU: `times` of them between two events, one before them untimed."""
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
