"""An update that trains a few numbers, of which the network's matrices are functions (model/reparameterised.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kogpt2_gluon.model.binary_coding import BinaryCodedMatrix
from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters
from kogpt2_gluon.model.lora import LowRankMatrix
from kogpt2_gluon.model.prompt_encoder import make_prompt
from kogpt2_gluon.model.reparameterised import ReparameterisedMatrix
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import AdaptationRecipe
from kogpt2_gluon.runs.checkpoint import HEADS, PROMPT
from kogpt2_gluon.runs.saved_codes import VALUE
from kogpt2_gluon.training.update import Update

TARGETS = {
    "attention": ("_multi_head_qkv_proj.weight", "_out_proj.weight"),
    "feed_forward": ("_hidden_map.weight", "_out_map.weight"),
}


class AdaptedUpdate(Update):
    """The gradients, the trained numbers and the optimizer state of an adapted network.

    Everything that is not a function of trained numbers, but for the heads of a task, stays as it is. `masters` are the
    network's arrays with the adaptation merged into them, so a checkpoint is one of the plain network, or of one with a
    prompt. The trained numbers and the constants are among its moments.
    """

    def __init__(self, net: GPT2Model, recipe: Recipe, *arguments: Any, **options: Any) -> None:
        self._adaptation = recipe.adaptation
        self._seed = recipe.training.seed
        super().__init__(net, recipe.training, *arguments, **options)

    def trained(self, net: GPT2Model) -> tuple[dict[str, Any], dict[str, Any]]:
        every = structural_parameters(net)
        ends = targets_of(self._adaptation)
        heads = {name: each for name, each in every.items() if name in HEADS}
        self._targets = {name: each for name, each in every.items() if name.endswith(ends)}
        self._matrices: dict[str, ReparameterisedMatrix] = {}
        for number, name in enumerate(self._targets):
            self._matrices[name] = _make(self._adaptation, name, self.masters[name], self._seed + number)
        for name, parameter in every.items():
            if name in self._targets:
                parameter.grad_req = "add" if self._accumulate > 1 else "write"
            elif name not in heads:
                parameter.grad_req = "null"
        own = {name: each for matrix in self._matrices.values() for name, each in matrix.trained.items()}
        self._write()
        masters = {**{name: each.data() for name, each in own.items()}, **{name: self.masters[name] for name in heads}}
        return {**own, **heads}, masters

    def start(self) -> None:
        super().start()
        if self._accumulate > 1:
            for parameter in self._targets.values():
                parameter.zero_grad()

    def reduce(self) -> float:
        for name, matrix in self._matrices.items():
            matrix.backward(self._targets[name].grad().astype("float32", copy=False))
        return super().reduce()

    def apply(self, learning_rate: float, norm: float, loss_scale: float = 1.0) -> None:
        super().apply(learning_rate, norm, loss_scale)
        self._write()

    def moments(self) -> dict[str, Any]:
        kept = super().moments()
        for matrix in self._matrices.values():
            kept.update({f"{name}:{VALUE}": each.data() for name, each in matrix.trained.items()})
            kept.update(matrix.constants)
        return kept

    def load_moments(self, arrays: Mapping[str, Any]) -> None:
        super().load_moments(arrays)
        for matrix in self._matrices.values():
            matrix.load(arrays)
        self._write()

    def _write(self) -> None:
        """Writes the matrices of the network."""
        for name, matrix in self._matrices.items():
            master, working = self.masters[name], self._targets[name].data()
            master[:] = matrix.value()
            if working is not master:
                working[:] = master


def targets_of(adaptation: AdaptationRecipe) -> tuple[str, ...]:
    """Returns the ends of the names of the matrices that are adapted; of a prompt, the name of that."""
    if adaptation.method == "prompt":
        return (PROMPT,)
    chosen = TARGETS if adaptation.targets == "all" else {adaptation.targets: TARGETS[adaptation.targets]}
    return tuple(end for ends in chosen.values() for end in ends)


def _make(adaptation: AdaptationRecipe, name: str, matrix: Any, seed: int) -> ReparameterisedMatrix:
    if adaptation.method == "prompt":
        return make_prompt(name, matrix, adaptation.encoder, adaptation.encoder_size, seed)
    if adaptation.method == "lora":
        return LowRankMatrix(name, matrix, adaptation.rank, adaptation.alpha, seed)
    return BinaryCodedMatrix(name, matrix, adaptation.bits, adaptation.group_size, adaptation.scales)


def update_for(net: GPT2Model, recipe: Recipe, *arguments: Any, **options: Any) -> Update:
    """Returns the update that a recipe asks for: of all parameters, or of an adaptation."""
    if recipe.adaptation.method == "none":
        return Update(net, recipe.training, *arguments, **options)
    return AdaptedUpdate(net, recipe, *arguments, **options)
