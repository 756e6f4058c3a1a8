"""The binary codes in a checkpoint: it is stored in them, or its run has trained their scales (adaptation.method)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.binary_codes import BITS_OF_A_NUMBER, PackedCodes, unpack
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.runs.checkpoint import CODES, OPTIMIZER, Checkpoint
from kogpt2_gluon.storage.codes_file import CodesFile
from kogpt2_gluon.storage.params_file import ParamsFile

VALUE = "value"  # ends the name of a trained number's own array in a checkpoint, besides its moments
BITS = ".bits"


def is_quantised(checkpoint: Checkpoint) -> bool:
    """Returns True if the matrices of a checkpoint are functions of codes, whether it has these or not."""
    return checkpoint.model_name == CODES or checkpoint.recipe().adaptation.method == "scales"


def codes_of(checkpoint: Checkpoint) -> dict[str, PackedCodes]:
    """Reads and verifies the codes of a checkpoint, {structural name of a matrix: codes}; empty if it is not quantised.

    A run that trains scales has them among the optimizer's arrays; its matrices are restored from them exactly.
    DataError if they are not those of the network, RecipeError if they were left out.
    """
    if checkpoint.model_name == CODES:
        checkpoint.verify(optimizer=False)
        file = CodesFile(checkpoint.model_path)
        return {name: file.codes(name) for name in file.coded}
    if not is_quantised(checkpoint):
        return {}
    checkpoint.verify(model=False)
    arrays = ParamsFile(checkpoint.path / OPTIMIZER)
    shapes, bits = ParamsFile(checkpoint.model_path).shapes, checkpoint.recipe().adaptation.bits
    names = [name[: -len(BITS)] for name in arrays if name.endswith(BITS)]
    if not names:
        raise RecipeError(
            f"{checkpoint.path}: is quantised already, and its codes are not there, as it was converted without the "
            "optimizer's state; name the run that trained them"
        )
    if strange := [name for name in names if len(shapes.get(name, ())) != 2]:
        raise DataError(f"{arrays.path}: has codes of {strange[0]}, and the network has no such matrix")
    return {name: _trained_codes(arrays, name, (bits, *shapes[name])) for name in names}


def _trained_codes(arrays: ParamsFile, name: str, shape: tuple[int, ...]) -> PackedCodes:
    """The codes of a matrix, `shape` is (bits, out_units, in_units), as AdaptedUpdate keeps them."""
    bits, rows, columns = shape
    alphas = [f"{name}.alpha_{k}" for k in range(bits)]
    alphas = [f"{each}:{VALUE}" if f"{each}:{VALUE}" in arrays else each for each in alphas]
    if missing := [each for each in alphas if each not in arrays]:
        raise DataError(f"{arrays.path}: has no {missing[0]}, a scale of {name} in {bits} bits")
    scales = [arrays[each] for each in alphas]  # (out_units, groups) each
    packed = arrays[f"{name}{BITS}"]
    fits = packed.shape == (-(-bits * rows * columns // BITS_OF_A_NUMBER),) and packed.dtype == np.float32
    if not (fits and all(_are_scales(each, rows, columns) and each.shape == scales[0].shape for each in scales)):
        raise DataError(f"{arrays.path}: the codes of {name} are not those of {rows:,} x {columns:,} in {bits} bits")
    planes = np.packbits(unpack(packed, (bits, rows, columns)) > 0, axis=2, bitorder="little")
    return PackedCodes(np.stack(scales), planes, columns)


def _are_scales(scales: NDArray[Any], rows: int, columns: int) -> bool:
    fit = scales.ndim == 2 and len(scales) == rows and columns % scales.shape[1] == 0
    return fit and scales.dtype == np.float32 and bool(np.isfinite(scales).all())
