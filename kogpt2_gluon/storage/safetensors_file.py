"""Reads and writes `.safetensors` files array by array, so that a network is never in memory as a whole.

The format is a little-endian uint64, the length of a JSON object; that object, {name: {"dtype", "shape",
"data_offsets": [begin, end]}} and perhaps "__metadata__"; and the elements in C order. The library of that name reads
one array at a time too, but cannot give bfloat16 to NumPy, and writes only what is all in memory (safetensors 0.8.0).

A file is not trusted: every place and size is compared with the file's length before memory is allocated for it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.lazy_arrays import LazyArrays

Array = npt.NDArray[Any]

# bfloat16 has no NumPy type: its bits are the upper half of a float32.
DTYPES: dict[str, np.dtype[Any]] = {
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")},
    **{"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1")},
    **{"U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1")},
    "BOOL": np.dtype("?"),
}
MAX_HEADER = 100_000_000  # bytes; the library's own limit
LARGEST = 1 << 40  # bytes of a file, or one dimension: NumPy refuses an array without elements that has larger ones
ALIGNMENT = 8


class _Place(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsFile(LazyArrays["_Place"]):
    """The arrays of a file, by name, each read when it is asked for; bfloat16 as float32, exactly.

    DataError, naming the file, if it is missing or damaged, or has a dtype that NumPy lacks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.metadata, places = _read_header(file)
            super().__init__(places)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}: not a safetensors file, or damaged ({error})") from None

    def __getitem__(self, name: str) -> Array:
        place = self._places[name]
        array = np.empty(place.shape, DTYPES[place.dtype])
        with self.path.open("rb") as file:
            file.seek(place.offset)
            if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise DataError(f"{self.path}: {name!r} ends early: the file shrank")
        return widened(array) if place.dtype == "BF16" else array

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array by its name; nothing is read."""
        return {name: place.shape for name, place in self._places.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtype of each array in the file, such as BF16."""
        return {name: place.dtype for name, place in self._places.items()}


def _read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, _Place]]:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ValueError(f"its header would have {length} bytes of {size}")
    header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    places = {}
    for name, facts in header.items():
        shape, (begin, end) = tuple(facts["shape"]), facts["data_offsets"]
        if facts["dtype"] not in DTYPES:
            raise ValueError(f"{name} has dtype {facts['dtype']}, which NumPy lacks")
        if not all(type(each) is int and 0 <= each <= LARGEST for each in (*shape, begin, end)) or len(shape) > 32:
            raise ValueError(f"{name} has shape {shape} and place {begin} to {end}")
        if end - begin != math.prod(shape) * DTYPES[facts["dtype"]].itemsize or end > size - 8 - length:
            raise ValueError(f"{name} does not lie within the file")
        places[name] = _Place(facts["dtype"], shape, 8 + length + begin)
    return metadata, places


def write_safetensors(
    path: Path,
    arrays: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "F32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes float32 `arrays` in the order of `shapes`, one after another, rounded to `dtype`: F32, F16 or BF16.

    The file is marked as PyTorch's, which transformers requires; `metadata` are further texts by name. DataError for a
    number that `dtype` cannot hold.
    """
    with path.open("wb") as file:
        write_arrays(file, arrays, shapes, dict.fromkeys(shapes, dtype), {"format": "pt", **(metadata or {})})


def write_arrays(
    file: BinaryIO,
    arrays: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    metadata: Mapping[str, str],
) -> None:
    """Writes `arrays` to an open file as :func:`write_safetensors` does, each in a dtype of its own; U8 as it is."""
    at = 0
    described: dict[str, Any] = {"__metadata__": dict(metadata)}
    for name, shape in shapes.items():
        end = at + math.prod(shape) * DTYPES[dtypes[name]].itemsize
        described[name] = {"dtype": dtypes[name], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    encoded = json.dumps(described, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % ALIGNMENT)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for name, array in _read_ahead(arrays, list(shapes)):
        assert array.shape == shapes[name], (name, array.shape, shapes[name])
        file.write(np.ascontiguousarray(rounded(array, dtypes[name], name)).reshape(-1).view(np.uint8).data)


def _read_ahead(arrays: Mapping[str, Array], names: list[str]) -> Iterator[tuple[str, Array]]:
    """Yields (name, array); a thread makes each while its predecessor is being written."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(arrays.__getitem__, names[0])
        for name, following in zip(names, [*names[1:], None]):
            array = ahead.result()
            if following is not None:
                ahead = pool.submit(arrays.__getitem__, following)
            yield name, array


def rounded(array: Array, dtype: str, name: str) -> Array:
    """Rounds float32 to the nearest number of `dtype`, ties to even; bfloat16 as its 16 bits. U8 stays as it is."""
    if dtype in ("F32", "U8"):
        return array
    if not np.isfinite(array).all():
        raise DataError(f"{name}: has numbers that are not finite, which cannot be rounded")
    if dtype == "F16":
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise DataError(f"{name}: has a number beyond float16's 65504; take bfloat16")
        return half
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widened(bits: Array) -> Array:
    """Returns bfloat16 numbers, given as their 16 bits, in float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
