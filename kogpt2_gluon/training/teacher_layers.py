"""A student that begins with layers of its teacher, as DistilBERT did (Sanh et al., 2019); without MXNet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kogpt2_gluon.convert.names import POSITIONS
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.storage.lazy_arrays import LazyArrays
from kogpt2_gluon.training.initial_weights import Array

OF_A_LAYER = re.compile(r"(_self_attention_layers|_ffn_layers|_attn_ln|_ffn_ln)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class TeacherLayers:
    """Weights to begin with: embeddings and some layers of a teacher."""

    source: Source
    layers: tuple[int, ...]  # of the teacher, in the student's order
    max_length: int
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source, recipe: Recipe) -> TeacherLayers:
        """The layers of a teacher for a recipe's network, in which they fit (training/network_rules.py)."""
        ours, theirs = recipe.model, source.recipe().model
        layers = spread(ours.num_layers, theirs.num_layers)
        note = f"layers {', '.join(map(str, layers))} of the teacher's {theirs.num_layers}, counted from 0"
        return cls(source, layers, ours.max_length, [note])

    @property
    def path(self) -> Path:
        return self.source.path

    def arrays(self) -> Mapping[str, Array]:
        """{structural name: float32 array}; each is made when it is read."""
        return _Chosen(self.source.model_arrays(), self.layers, self.max_length)


def spread(count: int, of: int) -> tuple[int, ...]:
    """Returns `count` of the layers 0 .. `of` - 1, evenly spread, first and last among them: 6 of 12 as DistilBERT."""
    if count == 1:
        return (0,)
    return tuple((2 * i * (of - 1) + count - 1) // (2 * (count - 1)) for i in range(count))


class _Chosen(LazyArrays[str]):
    """Arrays of the chosen layers, under their new numbers, and all that is not of a layer."""

    def __init__(self, arrays: Mapping[str, Array], layers: tuple[int, ...], max_length: int) -> None:
        places: dict[str, str] = {}
        for name in arrays:
            if found := OF_A_LAYER.fullmatch(name):
                kind, number, rest = found.groups()
                for new, old in enumerate(layers):
                    if int(number) == old:
                        places[f"{kind}.{new}.{rest}"] = name
            else:
                places[name] = name
        super().__init__(places)
        self._arrays, self._max_length = arrays, max_length

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[self._places[name]]
        return array[: self._max_length] if name == POSITIONS else array
