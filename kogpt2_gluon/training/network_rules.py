"""Which networks a run can begin with, or be taught by: rules over two recipes, so that no file is needed.

A run applies them to the networks that it opens, a chain also to those that its stages have yet to train.
"""

from __future__ import annotations

from dataclasses import dataclass

from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import HEADS, Checkpoint
from kogpt2_gluon.runs.saved_codes import is_quantised

FREE = ("dropout",)  # settings of `model` that no weight depends on
# Settings of `model` that may be larger here than there: the key of `training` that says how the rows are made.
MAY_GROW = {"max_length": "init_positions", "vocab_size": "init_vocabulary"}
SAME = ("units", "num_heads", "activation")  # settings of `model` in which a teacher's layers must agree
AT_MOST = ("num_layers", "max_length")  # and in which a student that begins with them may have less


@dataclass(frozen=True)
class Network:
    """A network that is trained, or will be.

    Attributes
    ----------
    name : str
        Its path, or what a message calls it.
    recipe : Recipe
        Its sizes, and how it was trained.
    has_head : bool
        True if it is fine-tuned for a task.
    is_quantised : bool
        True if its matrices are functions of codes.
    """

    name: str
    recipe: Recipe
    has_head: bool
    is_quantised: bool

    @classmethod
    def of_source(cls, source: Source) -> Network:
        """Returns a network that is there."""
        recipe = source.recipe()
        coded = is_quantised(source) if isinstance(source, Checkpoint) else recipe.adaptation.method == "scales"
        return cls(str(source.path), recipe, any(name in HEADS for name in source.model_arrays()), coded)

    @classmethod
    def of_recipe(cls, name: str, recipe: Recipe) -> Network:
        """Returns the network that a run of a recipe leaves."""
        return cls(name, recipe, bool(recipe.task.name), recipe.adaptation.method == "scales")

    @property
    def has_prompt(self) -> bool:
        """True if it has a tuned prompt."""
        return self.recipe.adaptation.method == "prompt"


def check_can_begin(network: Network, recipe: Recipe) -> list[str]:
    """Raises RecipeError unless a recipe's run can begin with the weights of a network, its ``training.init_from``.

    Returns the settings of `model` that are larger in the recipe: rows are made for these.
    """
    training, named = recipe.training, f"training.init_from={recipe.training.init_from}: {network.name}"
    if recipe.adaptation.method == "scales" and network.is_quantised:
        raise RecipeError(
            f"{named} is quantised already; begin with the network that it was made from, or go on with that run"
        )
    if network.has_prompt:
        raise RecipeError(
            f"{named} is a network with a tuned prompt, which would be lost; begin with the network that it was tuned "
            f"on, {network.recipe.training.init_from}"
        )
    theirs, ours = network.recipe.to_dict()["model"], recipe.to_dict()["model"]
    differ: list[str] = []
    grown: list[str] = []
    ways: list[str] = []
    for key in ours:
        if key in FREE or theirs[key] == ours[key]:
            continue
        way = MAY_GROW.get(key) if ours[key] > theirs[key] else None
        if way and getattr(training, way) != "none":
            grown.append(key)
        else:
            differ.append(f"model.{key}: {theirs[key]} -> {ours[key]}")
            ways += [f"training.{way}"] * bool(way)
    if differ:
        more = f", or say how to make more rows with {' and '.join(ways)}" if ways else ""
        raise RecipeError(f"{named} is of another network ({', '.join(differ)}); take its sizes{more}")
    return grown


def check_can_teach(network: Network, recipe: Recipe) -> None:
    """Raises RecipeError unless a network can teach a recipe's, as its ``distillation.teacher``.

    A teacher is a language model that predicts the same pieces for as many positions. With ``distillation.init_layers``
    its layers must fit as well.
    """
    model = network.recipe.model
    named = f"distillation.teacher={recipe.distillation.teacher}: {network.name}"
    if network.has_head:
        raise RecipeError(f"{named} is fine-tuned for a task; name a language model")
    if network.has_prompt:
        raise RecipeError(
            f"{named} has a tuned prompt, and a teacher is a network without one; name the network that it was tuned "
            f"on, {network.recipe.training.init_from}, or leave the prompt out: kogpt2 convert "
            f"{recipe.distillation.teacher} OUT --to checkpoint --part body"
        )
    if model.vocab_size != recipe.model.vocab_size:
        raise RecipeError(
            f"{named} has {model.vocab_size} rows of pieces and model.vocab_size is {recipe.model.vocab_size}; both "
            f"predict the same pieces, so set model.vocab_size={model.vocab_size}"
        )
    if recipe.data.seq_length > model.max_length:
        raise RecipeError(
            f"{named} has {model.max_length} positions, and data.seq_length={recipe.data.seq_length}; take "
            f"data.seq_length={model.max_length} or less"
        )
    if recipe.distillation.init_layers:
        _check_layers(network, recipe)


def _check_layers(network: Network, recipe: Recipe) -> None:
    ours, theirs = recipe.to_dict()["model"], network.recipe.to_dict()["model"]
    faults = [f"model.{key}: {theirs[key]} -> {ours[key]}" for key in SAME if ours[key] != theirs[key]]
    faults += [
        f"model.{key}: {theirs[key]} -> {ours[key]}, which is more" for key in AT_MOST if ours[key] > theirs[key]
    ]
    if faults:
        raise RecipeError(
            f"distillation.init_layers: layers of {network.name} do not fit ({', '.join(faults)}); take its sizes, or "
            "begin with random weights"
        )
