"""The folder of a run whose matrices are in binary codes as the target of a conversion (storage/codes_file.py).

Everything that takes the run of a training takes it: the matrices are restored when they are read, to the numbers that
the codes are. Those of a network that is quantised already are stored as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kogpt2_gluon.binary_codes import PackedCodes, check_finite, quantise
from kogpt2_gluon.convert.heads import Body
from kogpt2_gluon.convert.names import bytes_of, checked, parameters_of
from kogpt2_gluon.convert.run_folder import CHECKPOINTS, RECIPE
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import target_folder
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import WEIGHTS_ALONE, Checkpoint, save_checkpoint
from kogpt2_gluon.runs.saved_codes import codes_of, is_quantised
from kogpt2_gluon.storage.codes_file import REST_DTYPES, CodedArrays
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer

DEFAULT_BITS = 3


class CodedSize(NamedTuple):
    """How many numbers a network has, and the bytes that they take in codes.

    Attributes
    ----------
    matrices, rest : int
        Numbers in the matrices that are coded, and all others; the tied matrix counts once.
    bits_bytes, scales_bytes, rest_bytes : int
    first_scales, all_scales : int
        The numbers that adaptation.method=scales trains, with adaptation.scales=first and all.
    bits : str
    """

    matrices: int
    rest: int
    bits_bytes: int
    scales_bytes: int
    rest_bytes: int
    first_scales: int
    all_scales: int
    bits: str

    def __str__(self) -> str:
        coded, total = self.bits_bytes + self.scales_bytes, self.matrices + self.rest
        whole = coded + self.rest_bytes
        return (
            f"matrices: {self.matrices:,} numbers in {self.bits} bits, {coded:,} bytes ({self.scales_bytes:,} of them "
            f"scales): 1/{4 * self.matrices / coded:.2f} of float32, 1/{2 * self.matrices / coded:.2f} of bfloat16\n"
            f"embeddings, biases, LayerNorms: {self.rest:,} numbers, {self.rest_bytes:,} bytes\n"
            f"together {whole:,} bytes: 1/{4 * total / whole:.2f} of float32, 1/{2 * total / whole:.2f} of bfloat16\n"
            f"scales to train: {self.first_scales:,} (first), {self.all_scales:,} (all), of {total:,} parameters: "
            f"1/{total / self.first_scales:,.0f}, 1/{total / self.all_scales:,.0f}"
        )


def size_of(model: ModelRecipe, codes: Mapping[str, PackedCodes], dtype: str) -> CodedSize:
    """Returns the sizes of a network whose rest is in `dtype`, float32 or bfloat16."""
    numbers = {each.name: math.prod(each.shape) for each in parameters_of(model)}
    matrices = sum(numbers[name] for name in codes)
    rest = sum(numbers.values()) - matrices
    planes, scales = (sum(getattr(each, part).nbytes for each in codes.values()) for part in ("planes", "scales"))
    first = sum(each.scales[0].size for each in codes.values())
    bits = "/".join(map(str, sorted({each.bits for each in codes.values()})))
    rest_bytes = rest * (4 if dtype == "float32" else 2)
    return CodedSize(matrices, rest, planes, scales, rest_bytes, first, scales // 4, bits)


def write_codes_run(
    source: Source, out: Path, bits: int | None = None, group_size: int | None = None, dtype: str = "float32"
) -> CodedSize:
    """Writes run folder `out` with one checkpoint in codes, whose step is the source's; returns what it takes.

    Parameters
    ----------
    source : Source
        A language model. One that is quantised already keeps its codes.
    bits, group_size : int, optional
        As for :func:`~kogpt2_gluon.binary_codes.quantise`; None: those of the source, else 3 and whole rows.
    dtype : str
        Of what is not quantised: float32 or bfloat16.

    RecipeError for codes other than those of a quantised source, and for groups that do not divide a row; DataError for
    a matrix with NaN or infinity.
    """
    if dtype not in REST_DTYPES:
        raise RecipeError(f"--dtype {dtype}: with --to codes it is {' or '.join(REST_DTYPES)}")
    source.verify(optimizer=False)
    recipe, state = source.recipe(), source.state()
    recipe.tracking.run_dir = str(out)
    arrays = checked(source.model_arrays(), recipe.model, str(source.model_path))
    codes = _own_codes(source, bits, group_size)
    kept = ("step", "evaluation") if codes else ("step",)  # a network that is quantised now has other scores
    state = {**{key: state[key] for key in kept if key in state}, WEIGHTS_ALONE: True}
    matrices = [] if codes else _matrices(recipe.model, group_size or 0)
    with target_folder(out, bytes_of(recipe.model)) as folder:
        for name in matrices:
            matrix = arrays[name]
            check_finite(matrix, f"{source.model_path}: {name}")
            codes[name] = PackedCodes.of(quantise(matrix, bits or DEFAULT_BITS, group_size or 0))
        network = CodedArrays(arrays, codes, dtype)
        save_checkpoint(folder / CHECKPOINTS, state, network, {}, recipe, stored_tokenizer(source.tokenizer_path))
        (folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    return size_of(recipe.model, codes, dtype)


def quantised_in(source: Source) -> Checkpoint | None:
    """Returns the checkpoint in which the codes of a source are; None if it is not quantised."""
    whole = source.whole if isinstance(source, Body) else source
    return whole if isinstance(whole, Checkpoint) and is_quantised(whole) else None


def _own_codes(source: Source, bits: int | None, group_size: int | None) -> dict[str, PackedCodes]:
    """The codes that a source has; empty if it is not quantised. RecipeError if other ones are asked for."""
    checkpoint = quantised_in(source)
    if checkpoint is None:
        return {}
    codes = codes_of(checkpoint)
    for name, each in codes.items():
        others = bits not in (None, each.bits), group_size not in (None, each.group_size, *_whole_row(each))
        if any(others):
            raise RecipeError(
                f"{source.path}: is quantised already, {name} in {each.bits} bits with groups of {each.group_size} "
                "columns; leave out --bits and --group-size, and its codes are stored"
            )
    return codes


def _whole_row(codes: PackedCodes) -> tuple[int, ...]:
    """The other name of groups that are whole rows."""
    return (0,) if codes.group_size == codes.columns else ()


def _matrices(model: ModelRecipe, group_size: int) -> list[str]:
    """The names of the matrices of all layers. RecipeError for groups that do not divide a row."""
    matrices = {each.name: each.shape for each in parameters_of(model) if each.transposed}
    for name, (_, columns) in matrices.items():
        if columns % (group_size or columns):
            raise RecipeError(f"--group-size {group_size} does not divide {columns}, the columns of {name}")
    return list(matrices)
