"""The one table of parameter names: those of the released weights, and those of transformers' GPT2LMHeadModel.

The released `.params` file names parameters by their place in the Gluon network, and so does a checkpoint. transformers
keeps the weights of GPT-2's ``Conv1D`` as (in, out), where Gluon's ``Dense`` keeps (out, in): those are transposed.
Both networks use the token embedding again as the output layer. A `.params` file has that matrix under two names,
transformers has it once. Nothing is rounded in either direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import EMBEDDING, TIED_COPY
from kogpt2_gluon.storage.lazy_arrays import LazyArrays

Array = npt.NDArray[Any]
Float32s = npt.NDArray[np.float32]

POSITIONS = "_pos_embed.weight"


class Parameter(NamedTuple):
    """One parameter: its name in the released weights, its name in transformers, and its shape in Gluon."""

    name: str
    in_transformers: str
    shape: tuple[int, ...]
    transposed: bool = False  # transformers keeps it the other way round

    @property
    def transformers_shape(self) -> tuple[int, ...]:
        return self.shape[::-1] if self.transposed else self.shape


def parameters_of(model: ModelRecipe) -> Iterator[Parameter]:
    """Yields every parameter of the network; the tied matrix once, as the embedding."""
    units, hidden = model.units, 4 * model.units
    yield Parameter(EMBEDDING, "transformer.wte.weight", (model.vocab_size, units))
    yield Parameter(POSITIONS, "transformer.wpe.weight", (model.max_length, units))
    dense = {  # Gluon's name: (transformers' name, out, in)
        "_self_attention_layers.{}._multi_head_qkv_proj": ("attn.c_attn", 3 * units, units),
        "_self_attention_layers.{}._out_proj": ("attn.c_proj", units, units),
        "_ffn_layers.{}._hidden_map": ("mlp.c_fc", hidden, units),
        "_ffn_layers.{}._out_map": ("mlp.c_proj", units, hidden),
    }
    for layer in range(model.num_layers):
        there = f"transformer.h.{layer}"
        for name, (target, size_out, size_in) in dense.items():
            here = name.format(layer)
            yield Parameter(f"{here}.weight", f"{there}.{target}.weight", (size_out, size_in), transposed=True)
            yield Parameter(f"{here}.bias", f"{there}.{target}.bias", (size_out,))
        for name, target in (("_attn_ln", "ln_1"), ("_ffn_ln", "ln_2")):
            yield Parameter(f"{name}.{layer}.gamma", f"{there}.{target}.weight", (units,))
            yield Parameter(f"{name}.{layer}.beta", f"{there}.{target}.bias", (units,))
    yield Parameter("_final_ln.gamma", "transformer.ln_f.weight", (units,))
    yield Parameter("_final_ln.beta", "transformer.ln_f.bias", (units,))


def bytes_of(model: ModelRecipe, itemsize: int = 4) -> int:
    """Returns the size of all parameters, the tied matrix counted once."""
    return sum(itemsize * math.prod(each.shape) for each in parameters_of(model))


def checked(arrays: Mapping[str, Array], model: ModelRecipe, source: str) -> Mapping[str, Float32s]:
    """Returns a checkpoint's arrays under their own names, with the checks of :func:`to_transformers`."""
    _check_ours(arrays, model, source)
    places = {each.name: (each.name, each.shape, False) for each in parameters_of(model)}
    return _Renamed(arrays, {**places, TIED_COPY: places[EMBEDDING]}, source)


def to_transformers(arrays: Mapping[str, Array], model: ModelRecipe, source: str) -> Mapping[str, Float32s]:
    """Renames a checkpoint's arrays for GPT2LMHeadModel. `source` names their file in messages.

    Each array is read, and turned where the two networks differ, when it is asked for; float16 becomes float32, which
    holds it exactly. DataError for a missing or unknown name or tied copies that differ; and, with the array, for a
    shape that the recipe does not have or another dtype.
    """
    _check_ours(arrays, model, source)
    places = {each.in_transformers: (each.name, each.shape, each.transposed) for each in parameters_of(model)}
    return _Renamed(arrays, places, source)


def from_transformers(arrays: Mapping[str, Array], model: ModelRecipe, source: str) -> Mapping[str, Float32s]:
    """Renames the arrays of a GPT2LMHeadModel as a checkpoint has them: the inverse of :func:`to_transformers`."""
    parameters = list(parameters_of(model))
    _check_names(arrays, {each.in_transformers for each in parameters}, model, source)
    places = {each.name: (each.in_transformers, each.transformers_shape, each.transposed) for each in parameters}
    return _Renamed(arrays, {**places, TIED_COPY: places[EMBEDDING]}, source)


class _Renamed(LazyArrays[tuple[str, tuple[int, ...], bool]]):
    """Arrays under new names, {new name: (old name, its shape, whether to turn it)}; each is made when it is read."""

    def __init__(
        self, arrays: Mapping[str, Array], places: Mapping[str, tuple[str, tuple[int, ...], bool]], source: str
    ) -> None:
        super().__init__(places)
        self._arrays, self._source = arrays, source

    def __getitem__(self, name: str) -> Float32s:
        old, shape, turn = self._places[name]
        array = self._arrays[old]
        if array.shape != shape:
            raise DataError(f"{self._source}: {old} has shape {array.shape}, but the recipe makes it {shape}")
        if array.dtype not in (np.float32, np.float16):
            raise DataError(f"{self._source}: {old} is {array.dtype}; only float32 and float16 are converted")
        return turned(array.astype(np.float32, copy=False)) if turn else array.astype(np.float32, copy=False)


STRIP = 64  # rows


def turned(array: Array) -> Array:
    """Returns a matrix turned, in C order: strip by strip, three times as fast as NumPy's own copy."""
    out = np.empty(array.shape[::-1], array.dtype)
    for row in range(0, len(array), STRIP):
        out[:, row : row + STRIP] = array[row : row + STRIP].T
    return out


def _check_ours(arrays: Mapping[str, Array], model: ModelRecipe, source: str) -> None:
    """DataError unless the names are a checkpoint's and the tied copies are the same."""
    _check_names(arrays, {each.name for each in parameters_of(model)} | {TIED_COPY}, model, source)
    if not np.array_equal(arrays[EMBEDDING], arrays[TIED_COPY]):
        raise DataError(f"{source}: {EMBEDDING} and {TIED_COPY} differ; they are one tied matrix in GPT-2")


def _check_names(arrays: Mapping[str, Array], expected: set[str], model: ModelRecipe, source: str) -> None:
    """DataError, naming an array, unless these are exactly the expected names."""
    for names, fault in (
        (sorted(expected - arrays.keys()), "is missing"),
        (sorted(arrays.keys() - expected), "is not a parameter of the network"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise DataError(f"{source}: {names[0]} {fault}{more}; the recipe has {model.num_layers} layers")
