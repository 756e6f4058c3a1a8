"""A network in a file, with matrices in binary codes (binary_codes.py): a `.safetensors` file with names of its own.

A quantised matrix NAME is two arrays, ``NAME.bits`` (bits, out_units, ceil(in_units / 8)) uint8, the first column of a
row in the lowest bit of a byte, and ``NAME.scales`` (bits, out_units, groups) float32. All else is float32 or bfloat16
under its own name. The metadata has ``format`` and, as in_units need not be a multiple of 8, ``columns``: a JSON object
with those of each matrix.

A file is not trusted: names, types and shapes are compared before an array is read, and scales must be finite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.binary_codes import MAX_BITS, PackedCodes
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile, write_arrays

Array = NDArray[Any]

FORMAT = "kogpt2-codes-1"
BITS, SCALES = ".bits", ".scales"
REST_DTYPES = {"float32": "F32", "bfloat16": "BF16"}  # of what is not quantised


class CodesFile(LazyArrays[int]):
    """The arrays of a network by name, in float32, each restored when it is asked for.

    DataError, naming the file, if it is missing or damaged, or not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = SafetensorsFile(path)
        metadata = self._file.metadata
        if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
            raise DataError(f"{path}: not a file of codes: its metadata does not have the format {FORMAT}")
        columns = self._columns()
        parts = {f"{name}{end}" for name in columns for end in (BITS, SCALES)}
        rest = [name for name in self._file if name not in parts]
        dtypes = self._file.dtypes
        if wrong := [name for name in rest if name in columns or dtypes[name] not in REST_DTYPES.values()]:
            raise DataError(f"{path}: {wrong[0]} is {dtypes[wrong[0]]}; what is not codes is float32 or bfloat16")
        super().__init__({**dict.fromkeys(rest, 0), **columns})
        for name in columns:
            self._check(name)

    def __getitem__(self, name: str) -> Array:
        return self.codes(name).matrix() if self._places[name] else self._file[name]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array by its name; nothing is read."""
        stored = self._file.shapes
        return {
            name: (stored[f"{name}{BITS}"][1], columns) if columns else stored[name]
            for name, columns in self._places.items()
        }

    @property
    def coded(self) -> list[str]:
        """The names of the matrices that are in codes."""
        return [name for name, columns in self._places.items() if columns]

    def codes(self, name: str) -> PackedCodes:
        """Reads the codes of a matrix. DataError if a scale is not finite."""
        scales, planes = self._file[f"{name}{SCALES}"], self._file[f"{name}{BITS}"]
        if not np.isfinite(scales).all():
            raise DataError(f"{self.path}: {name} has a scale that is not finite")
        return PackedCodes(scales, planes, self._places[name])

    def _columns(self) -> dict[str, int]:
        try:
            columns = json.loads(self._file.metadata["columns"])
            if not all(type(each) is int and each > 0 for each in columns.values()):
                raise ValueError("columns are whole numbers")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{self.path}: not a file of codes, or damaged: columns ({error})") from None
        found: dict[str, int] = columns
        return found

    def _check(self, name: str) -> None:
        shapes, dtypes, columns = self._file.shapes, self._file.dtypes, self._places[name]
        bits, scales = f"{name}{BITS}", f"{name}{SCALES}"
        there = bits in shapes and scales in shapes and (dtypes[bits], dtypes[scales]) == ("U8", "F32")
        if not (there and _fit(shapes[bits], shapes[scales], columns)):
            found = {each: (dtypes[each], shapes[each]) for each in (bits, scales) if each in shapes}
            raise DataError(f"{self.path}: {name} with {columns:,} columns has no codes that fit: {found or 'none'}")


def _fit(bits: tuple[int, ...], scales: tuple[int, ...], columns: int) -> bool:
    if not (len(bits) == len(scales) == 3 and bits[:2] == scales[:2] and 1 <= bits[0] <= MAX_BITS and bits[1] > 0):
        return False
    return bits[2] == -(-columns // 8) and scales[2] > 0 and columns % scales[2] == 0


class CodedArrays(LazyArrays[bool]):
    """A network's arrays to write, some of them as codes: {structural name: float32 array}, restored where it is codes.

    Parameters
    ----------
    arrays : mapping
        All of them in float32. Those in `codes` are not read.
    codes : mapping
        Of some matrices.
    rest : str
        The dtype in the file of all others: float32 or bfloat16.
    """

    def __init__(self, arrays: Mapping[str, Array], codes: Mapping[str, PackedCodes], rest: str = "float32") -> None:
        super().__init__({name: name in codes for name in arrays})
        self._arrays, self.codes, self.rest = arrays, codes, rest

    def __getitem__(self, name: str) -> Array:
        return self.codes[name].matrix() if self._places[name] else self._arrays[name]


def write_codes(file: BinaryIO, network: CodedArrays, without: str = "") -> None:
    """Writes a network to an open file; `without` is the name of an array that is left out.

    DataError for a number that the dtype of the rest cannot hold.
    """
    parts: dict[str, Array] = {}
    dtypes: dict[str, str] = {}
    for name in network:
        if name in network.codes:
            codes = network.codes[name]
            parts |= {f"{name}{BITS}": codes.planes, f"{name}{SCALES}": codes.scales}
            dtypes |= {f"{name}{BITS}": "U8", f"{name}{SCALES}": "F32"}
        elif name != without:
            parts[name] = network[name]
            dtypes[name] = REST_DTYPES[network.rest]
    columns = json.dumps({name: codes.columns for name, codes in network.codes.items()})
    shapes = {name: array.shape for name, array in parts.items()}
    write_arrays(file, parts, shapes, dtypes, {"format": FORMAT, "columns": columns})
