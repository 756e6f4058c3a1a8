"""Reads and writes MXNet's `.params` files (a list of named arrays) with NumPy alone.

``mx.nd.save`` and ``Block.save_parameters`` write this format (MXNet 1.9.1, ``src/ndarray/ndarray.cc``). With this
module conversion and checks run where MXNet is not installed. All numbers are little-endian:

    list    uint64 magic 0x112, uint64 0, uint64 count, count arrays, uint64 count, count names
    name    uint64 length, UTF-8 bytes
    array   uint32 magic, then by magic
            V2, V3  int32 storage type (0: dense), int32 ndim, int64 dims
            V1      int32 ndim, int64 dims
            oldest  (the magic itself is ndim), uint32 dims
            and in each: int32 device type, int32 device number, int32 dtype flag, the elements in C order

A file is not trusted: every size is compared with the bytes that are left before memory is allocated for it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.lazy_arrays import LazyArrays

Array = npt.NDArray[Any]

LIST_MAGIC = 0x112
V1_MAGIC, V2_MAGIC, V3_MAGIC = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DENSE = 0
CPU = 1
MAX_NDIM = 32  # NumPy's own limit
# mshadow's type flags; 12, bfloat16, has no NumPy type
DTYPES = {
    flag: np.dtype(code)
    for flag, code in enumerate(["<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?", "<i2", "<u2", "<u4", "<u8"])
}
FLAGS = {dtype: flag for flag, dtype in DTYPES.items()}


def is_params_file(path: Path) -> bool:
    """Returns True if a file begins as a `.params` file does. DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(8) == struct.pack("<Q", LIST_MAGIC)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_params(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Reads every array of a `.params` file by name, in the file's order.

    Arrays are dense, in C order and own their memory; dtypes are float16/32/64, (u)int8/16/32/64 or bool. Raises
    DataError, naming the file and the byte offset, if it is missing or damaged, or holds an array that NumPy cannot
    (sparse or bfloat16, without a name or without elements).
    """
    return dict(ParamsFile(path))


class ParamsFile(LazyArrays["_Place"]):
    """The arrays of a `.params` file, by name, each read from the file when it is asked for.

    Only names, shapes and places are kept in memory. Raises DataError as :func:`read_params` does: for the structure of
    the file when it is opened, for the content of an array when that is read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._opened() as file:
            super().__init__(_Reader(file, str(path)).read_list())

    def __getitem__(self, name: str) -> Array:
        place = self._places[name]
        array = np.empty(place.shape, place.dtype)
        with self._opened() as file:
            file.seek(place.offset)
            if file.readinto(_bytes_of(array)) != array.nbytes:  # type: ignore[attr-defined]  # a BufferedReader has it
                raise DataError(f"{self.path}: byte {place.offset}: array {name!r} ends early: the file shrank")
        return array

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array by its name; nothing is read."""
        return {name: place.shape for name, place in self._places.items()}

    def parts(self, arrays: Mapping[str, Array]) -> list[tuple[int, memoryview]]:
        """Returns where in the file the arrays of these names begin, in its order, with the memory of those given.

        Each is in C order and is there to be filled. DataError if it has another shape or dtype in the file.
        """
        for name, array in arrays.items():
            assert array.flags.c_contiguous and array.flags.writeable, name
            place = self._places[name]
            if (place.shape, place.dtype) != (array.shape, array.dtype):
                raise DataError(
                    f"{self.path}: byte {place.offset}: array {name!r} is {place.dtype} of shape {place.shape}, not "
                    f"{array.dtype} of shape {array.shape}"
                )
        found = [(self._places[name].offset, _bytes_of(array)) for name, array in arrays.items()]
        return sorted(found, key=lambda part: part[0])

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from None


class _Place(NamedTuple):
    """Where an array lies in its file: the offset of its first byte."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int


def write_params(target: str | os.PathLike[str] | BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Writes `arrays` as `mx.nd.save` would, array by array, without a second copy in memory.

    `target` is a path, which is created or overwritten, or a binary file open for writing. The write is not durable by
    itself: pass a file of :func:`~kogpt2_gluon.storage.files.replace_file`, or a path in a folder of `replace_folder`.
    Raises DataError for an array that the format cannot hold: another dtype, no dimension or no element. That is before
    the first byte is written, unless the arrays are made when they are asked for (LazyArrays), which each is once.
    """
    if not isinstance(arrays, LazyArrays):
        for name, array in arrays.items():
            _dtype_flag(name, array)
    if isinstance(target, (str, os.PathLike)):
        with Path(target).open("wb") as file:
            _write_list(file, arrays)
    else:
        _write_list(target, arrays)


def _dtype_flag(name: str, array: Array) -> int:
    flag = FLAGS.get(array.dtype.newbyteorder("<"))
    if flag is None:
        raise DataError(f"array {name}: a .params file cannot hold {array.dtype}; convert it, for example to float32")
    if array.ndim == 0 or array.size == 0:
        raise DataError(
            f"array {name}: a .params file cannot hold a scalar or an empty array; its shape is {array.shape}"
        )
    return flag


def _write_list(file: BinaryIO, arrays: Mapping[str, Array]) -> None:
    file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays)))
    for name, array in arrays.items():
        flag = _dtype_flag(name, array)
        file.write(struct.pack(f"<Iii{array.ndim}q", V2_MAGIC, DENSE, array.ndim, *array.shape))
        file.write(struct.pack("<iii", CPU, 0, flag))
        file.write(_bytes_of(np.ascontiguousarray(array, dtype=DTYPES[flag])))
    file.write(struct.pack("<Q", len(arrays)))
    for name in arrays:
        encoded = name.encode("utf-8")
        file.write(struct.pack("<Q", len(encoded)) + encoded)


def _bytes_of(array: Array) -> memoryview:
    """Returns the memory of a contiguous array, not a copy."""
    return array.reshape(-1).view(np.uint8).data


class _Reader:
    """Reads the structure of one `.params` file, and keeps the offset for its messages."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.size = os.fstat(file.fileno()).st_size
        self.offset = 0

    def read_list(self) -> dict[str, _Place]:
        if self.unpack("Q", "the list's magic number") != LIST_MAGIC:
            raise self.error("not a .params file: the first 8 bytes are not 0x112", at=0)
        self.unpack("Q", "the reserved word")
        count = self.count("the number of arrays", smallest=4)
        arrays = [self.array(index) for index in range(count)]
        if self.count("the number of names", smallest=8) != count:
            raise self.error(f"the number of names is not that of the {count} arrays", at=self.offset - 8)
        named: dict[str, _Place] = {}
        for array in arrays:
            start, name = self.offset, self.text()
            if name in named:
                raise self.error(f"the name {name!r} comes twice", at=start)
            named[name] = array
        if self.offset != self.size:
            raise self.error(f"{self.size - self.offset} bytes are left over after the last name")
        return named

    def array(self, index: int) -> _Place:
        start, what = self.offset, f"array {index}"
        shape = self.shape(self.unpack("I", what), what)
        if not shape or min(shape) < 1:
            raise self.error(f"{what} has shape {shape}: it holds no elements", at=start)
        self.unpack("ii", what)  # the device it was saved from
        flag = self.unpack("i", what)
        if flag not in DTYPES:
            kind = "bfloat16, which NumPy lacks" if flag == 12 else "unknown"
            raise self.error(f"{what} has dtype flag {flag}: {kind}", at=self.offset - 4)
        size = DTYPES[flag].itemsize
        for dim in shape:  # Python's integers don't overflow
            size *= dim
        self.need(size, f"the {size} bytes of {what}, of shape {shape}")
        place = _Place(shape, DTYPES[flag], self.offset)
        self.file.seek(size, os.SEEK_CUR)
        self.offset += size
        return place

    def shape(self, magic: int, what: str) -> tuple[int, ...]:
        if magic in (V2_MAGIC, V3_MAGIC):
            storage = self.unpack("i", what)
            if storage != DENSE:
                raise self.error(f"{what} is sparse (storage type {storage}); only dense arrays are read")
        if magic in (V1_MAGIC, V2_MAGIC, V3_MAGIC):
            ndim, code = self.unpack("i", what), "q"
        else:
            ndim, code = magic, "I"
        if not 0 <= ndim <= MAX_NDIM:
            raise self.error(f"{what} has neither a known magic number nor a possible number of dimensions: {ndim:#x}")
        return self.unpack_all(code * ndim, f"the shape of {what}")

    def text(self) -> str:
        length = self.count("the length of a name", smallest=1)
        start, raw = self.offset, bytearray(length)
        self.fill(memoryview(raw), "a name")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("a name is not UTF-8", at=start) from None

    def count(self, what: str, smallest: int) -> int:
        """Reads a number of things of at least `smallest` bytes each, which must all fit in the rest of the file."""
        count = int(self.unpack("Q", what))
        if count * smallest > self.size - self.offset:
            raise self.error(f"{what} is {count}, more than the file can hold", at=self.offset - 8)
        return count

    def unpack(self, code: str, what: str) -> Any:
        return self.unpack_all(code, what)[0]

    def unpack_all(self, code: str, what: str) -> tuple[Any, ...]:
        raw = bytearray(struct.calcsize("<" + code))
        self.need(len(raw), what)
        self.fill(memoryview(raw), what)
        return struct.unpack("<" + code, raw)

    def need(self, size: int, what: str) -> None:
        if size > self.size - self.offset:
            left = self.size - self.offset
            raise self.error(f"{what} would need {size} bytes where {left} are left; the file is damaged or incomplete")

    def fill(self, buffer: memoryview, what: str) -> None:
        if self.file.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]  # a BufferedReader has it
            raise self.error(f"{what} ends early: the file shrank while it was read")
        self.offset += len(buffer)

    def error(self, message: str, at: int | None = None) -> DataError:
        return DataError(f"{self.name}: byte {self.offset if at is None else at}: {message}")
