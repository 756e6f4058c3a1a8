"""The optimizer's state next to converted weights, under the names of PyTorch's Adam and AdamW.

``optimizer.safetensors`` has ``exp_avg.NAME`` and ``exp_avg_sq.NAME`` for each parameter NAME of GPT2LMHeadModel,
turned as the parameter is. The recipe and the checkpoint's state.json lie next to it: with them a conversion back gives
the checkpoint that it was, bit for bit. :mod:`kogpt2_gluon.training.torch_optimizer` takes all of it into PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.convert.names import Parameter, parameters_of, turned
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile, write_safetensors

Array = NDArray[Any]

OPTIMIZER, RECIPE, STATE = "optimizer.safetensors", "recipe.yaml", "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")  # of the gradients, of their squares: a checkpoint's NAME:0 and NAME:1


def write_optimizer(folder: Path, source: Source) -> None:
    """Writes the three files. RecipeError if the source has no optimizer's arrays; DataError if they do not fit."""
    recipe, arrays = source.recipe(), source.optimizer_arrays()
    if not arrays:
        raise no_optimizer(source)
    places = _places(recipe.model)
    for name in sorted(arrays.keys() ^ {here for here, _ in places.values()}):
        raise DataError(f"{source.model_path.parent}: optimizer's array {name} is in one of file and network only")
    shapes = {there: each.transformers_shape for there, (_, each) in places.items()}
    write_safetensors(folder / OPTIMIZER, _Turned(arrays, places), shapes)
    (folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    (folder / STATE).write_text(json.dumps(source.state(), indent=1), encoding="utf-8")


def read_optimizer(folder: Path, model: ModelRecipe) -> Mapping[str, Array]:
    """Returns a checkpoint's optimizer arrays, {structural name:k : float32}; empty if the folder has none."""
    path = folder / OPTIMIZER
    if not path.is_file():
        return {}
    file, places = SafetensorsFile(path), _places(model)
    for name in sorted(file.keys() ^ places.keys()):
        raise DataError(f"{path}: {name} is in one of file and network only")
    return _Turned(file, {here: (there, each) for there, (here, each) in places.items()})


def no_optimizer(source: Source) -> RecipeError:
    """Returns the error for a source without an optimizer's state."""
    return RecipeError(f"{source.model_path.parent}: there is no state of an optimizer; leave out --with-optimizer")


def _places(model: ModelRecipe) -> dict[str, tuple[str, Parameter]]:
    """{name in the file: (name in a checkpoint, parameter)}."""
    numbered = list(enumerate(MOMENTS))
    return {
        f"{moment}.{each.in_transformers}": (f"{each.name}:{k}", each)
        for k, moment in numbered
        for each in parameters_of(model)
    }


class _Turned(LazyArrays[tuple[str, Parameter]]):
    """Moments under other names, turned where their parameter is; each is made when it is read."""

    def __init__(self, arrays: Mapping[str, Array], places: Mapping[str, tuple[str, Parameter]]) -> None:
        super().__init__(places)
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        old, parameter = self._places[name]
        array = self._arrays[old]
        if sorted(array.shape) != sorted(parameter.shape) or array.dtype != np.float32:
            raise DataError(f"optimizer's array {old}: {array.dtype} of shape {array.shape} is not the network's")
        return turned(array) if parameter.transposed else array
