"""The one table of parameter names: those of the released weights, and those of transformers' GPT2LMHeadModel.

The released `.params` file names parameters by their place in the Gluon network, and so does a checkpoint. transformers
keeps the weights of GPT-2's ``Conv1D`` as (in, out), where Gluon's ``Dense`` keeps (out, in): those are transposed.
Both networks use the token embedding again as the output layer. A `.params` file has that matrix under two names,
transformers has it once. Nothing is rounded in either direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe import ModelRecipe

Array = npt.NDArray[Any]
Float32s = npt.NDArray[np.float32]

EMBEDDING, TIED_COPY = "_embed.weight", "_logits_proj.weight"


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
    yield Parameter("_pos_embed.weight", "transformer.wpe.weight", (model.max_length, units))
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


def to_transformers(arrays: Mapping[str, Array], model: ModelRecipe, source: str) -> dict[str, Float32s]:
    """Renames a checkpoint's arrays for GPT2LMHeadModel. `source` names their file in messages.

    DataError for a missing or unknown name, a shape that the recipe does not have, another dtype than float32, or tied
    copies that differ.
    """
    expected = {each.name: each.shape for each in parameters_of(model)}
    expected[TIED_COPY] = expected[EMBEDDING]
    _check(arrays, expected, model, source)
    if not np.array_equal(arrays[EMBEDDING], arrays[TIED_COPY]):
        raise DataError(f"{source}: {EMBEDDING} and {TIED_COPY} differ; they are one tied matrix in GPT-2")
    return {each.in_transformers: _turned(arrays[each.name], each) for each in parameters_of(model)}


def from_transformers(arrays: Mapping[str, Array], model: ModelRecipe, source: str) -> dict[str, Float32s]:
    """Renames the arrays of a GPT2LMHeadModel as a checkpoint has them: the inverse of :func:`to_transformers`."""
    _check(arrays, {each.in_transformers: each.transformers_shape for each in parameters_of(model)}, model, source)
    renamed = {each.name: _turned(arrays[each.in_transformers], each) for each in parameters_of(model)}
    return {**renamed, TIED_COPY: renamed[EMBEDDING]}


def _turned(array: Array, parameter: Parameter) -> Float32s:
    return np.ascontiguousarray(array.T if parameter.transposed else array)


def _check(
    arrays: Mapping[str, Array], expected: Mapping[str, tuple[int, ...]], model: ModelRecipe, source: str
) -> None:
    """DataError, naming the array, unless these are exactly the expected names and shapes, in float32."""
    for names, fault in (
        (sorted(expected.keys() - arrays.keys()), "is missing"),
        (sorted(arrays.keys() - expected.keys()), "is not a parameter of the network"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise DataError(f"{source}: {names[0]} {fault}{more}; the recipe has {model.num_layers} layers")
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise DataError(f"{source}: {name} has shape {array.shape}, but the recipe makes it {expected[name]}")
        if array.dtype != np.float32:
            raise DataError(f"{source}: {name} is {array.dtype}; only float32 is converted")
