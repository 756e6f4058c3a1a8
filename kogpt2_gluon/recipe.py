"""A recipe: everything that decides what is trained, in one YAML file.

``load_recipe`` reads the file, applies ``key=value`` overrides, checks every field and reports all faults at once. A
recipe names no hosts (the launcher does), and it can be read without MXNet.

The fields in recipe_sections.py are the reference: each has its meaning and the values it admits. `kogpt2 train --keys`
prints them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import from_plain, keys_of, option, to_yaml
from kogpt2_gluon.recipe_checks import OF_PROMPTS, cross_check
from kogpt2_gluon.recipe_sections import (
    INITIAL,
    WHEN_ODD,
    WHERE_IT_RUNS,
    AdaptationRecipe,
    CheckpointRecipe,
    DataRecipe,
    DistillationRecipe,
    EvaluationRecipe,
    ModelRecipe,
    TaskRecipe,
    TrackingRecipe,
    TrainingRecipe,
)
from kogpt2_gluon.user_files import read_yaml

# Keys of `data` that are part of the fingerprint: of every run, and of one that reads text.
OF_ORDER = ("seq_length", "window", "max_lanes")
OF_TEXT = ("source", "documents", "refresh", "bpe_dropout", "encoding", "include", "exclude")
# Keys that count in the fingerprint only if they are set: runs from before they existed go on.
ONLY_IF_SET = ("encoding", "include", "exclude", *WHEN_ODD, "init_renamed")


@dataclass
class Recipe:
    """One run. `name` and `about` are for people, the sections decide what is done."""

    name: str = option("kogpt2", "short name of the recipe")
    about: str = option("", "expected result, time and exact command")
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    task: TaskRecipe = field(default_factory=TaskRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    adaptation: AdaptationRecipe = field(default_factory=AdaptationRecipe)
    distillation: DistillationRecipe = field(default_factory=DistillationRecipe)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    checkpoint: CheckpointRecipe = field(default_factory=CheckpointRecipe)
    tracking: TrackingRecipe = field(default_factory=TrackingRecipe)

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain data."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """The resolved recipe as a file that `load_recipe` reads back."""
        return to_yaml(self.to_dict())

    def fingerprint(self) -> str:
        """SHA-256 (hex) over what decides the numbers: model, order and training, not paths, logs or devices."""
        apart = WHERE_IT_RUNS if self.training.init_from else (*WHERE_IT_RUNS, *INITIAL)
        decides: dict[str, Any] = {
            "model": dataclasses.asdict(self.model),
            "data": _counting(self.data, only=OF_ORDER + OF_TEXT * (self.data.source == "text")),
            "training": _counting(self.training, but=apart),
        }
        if self.data.train_weights:
            decides["data"]["weights"] = self.data.train_weights
        if self.adaptation.method != "none":  # those without a prompt are from before the keys of prompts existed
            decides["adaptation"] = _counting(self.adaptation, but=OF_PROMPTS * (self.adaptation.method != "prompt"))
        if self.distillation.teacher:
            decides["distillation"] = _counting(self.distillation, but=("teacher",))
        if self.task.name:
            decides["task"] = Path(self.task.name).stem
            if self.task.locales:
                decides["locales"] = self.task.locales
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    @property
    def run_dir(self) -> Path:
        return Path(self.tracking.run_dir)

    @property
    def ckpt_dir(self) -> Path:
        return Path(self.checkpoint.ckpt_dir) if self.checkpoint.ckpt_dir else self.run_dir / "checkpoints"

    @property
    def tokens_per_step(self) -> int:
        """The tokens of one optimizer update, over all workers."""
        return self.training.total_batch_size * self.data.seq_length

    def accumulate(self, size: int) -> int:
        """Micro steps of one update for `size` workers; RecipeError if the batch cannot be dealt out evenly."""
        unit, total = self.training.batch_size * size, self.training.total_batch_size
        if total % unit:
            below, above = total // unit * unit, (total // unit + 1) * unit
            near = " or ".join(str(value) for value in (below, above) if value)
            raise RecipeError(
                f"training.total_batch_size={total} is not divisible by batch_size x workers = "
                f"{self.training.batch_size} x {size} = {unit}; "
                f"the nearest that are: {near} (or fewer workers, or a smaller batch_size)"
            )
        return total // unit


def _counting(section: Any, but: Sequence[str] = (), only: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the keys of a section that count in a fingerprint, with their values: all `but` some, or some `only`."""
    usual, own = dataclasses.asdict(type(section)()), dataclasses.asdict(section)
    names = [name for name in only or own if name not in but]
    return {name: own[name] for name in names if name not in ONLY_IF_SET or own[name] != usual[name]}


def find_recipe(name: str) -> Path:
    """The file of a recipe: `name` is a path, or the name of a recipe that the package ships."""
    path = Path(name)
    if path.is_file():
        return path
    try:
        import kogpt2_recipes  # the installed name of recipes/

        shipped = {file.stem: file for folder in kogpt2_recipes.__path__ for file in Path(folder).glob("*.yaml")}
    except ImportError:
        shipped = {}
    if path.stem in shipped and path.parent == Path():
        return shipped[path.stem]
    raise RecipeError(f"recipe {name}: no such file, and no shipped recipe of that name ({', '.join(sorted(shipped))})")


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe, applies overrides and checks it. RecipeError names all faults at once.

    A run's own recipe.yaml belongs to the folder that it is in, wherever that was copied or moved to, and whatever
    `tracking.run_dir` it names; an override goes before.
    """
    path = find_recipe(name)
    recipe = parse_recipe(read_yaml(path, "recipe"), overrides, source=str(path))
    is_own = path.name == "recipe.yaml" and (path.parent / "checkpoints").is_dir()
    is_elsewhere = recipe.run_dir.resolve() != path.parent.resolve()
    if is_own and is_elsewhere and not any(override.startswith("tracking.run_dir=") for override in overrides):
        recipe.tracking.run_dir = str(path.parent)
    return recipe


def parse_recipe(plain: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "recipe") -> Recipe:
    """Builds a Recipe from plain data and `section.key=value` overrides; `source` names it in messages."""
    recipe, faults = from_plain(Recipe, plain, overrides)
    faults = faults or list(cross_check(recipe))
    if faults:
        given = [override.partition("=")[0] for override in overrides]  # the file is not at fault for these
        lines = [fault.text + " (on the command line)" * fault.is_about(given) for fault in faults]
        head = f"{source}: " if len(lines) == 1 else f"{source}: {len(lines)} faults:\n  "
        raise RecipeError(head + "\n  ".join(lines))
    return recipe


def differences(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two recipes differ, but for `about`, and the values of both."""
    return {
        key: (own, other)
        for key in known_keys()
        if key != "about" and (own := value_of(first, key)) != (other := value_of(second, key))
    }


def changed_keys(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that is not as the defaults have it, as plain data."""
    plain: dict[str, Any] = {}
    for key in known_keys():
        value = value_of(recipe, key)
        if value != value_of(Recipe(), key):
            section, _, name = key.rpartition(".")
            (plain.setdefault(section, {}) if section else plain)[name] = value
    return plain


def value_of(recipe: Recipe, key: str) -> Any:
    """The value of a dotted key."""
    return functools.reduce(getattr, key.split("."), recipe)


def set_value(recipe: Recipe, key: str, value: Any) -> None:
    """Sets the value of a dotted key, unchecked."""
    section, _, name = key.rpartition(".")
    setattr(getattr(recipe, section) if section else recipe, name, value)


def admits(key: str, value: Any) -> bool:
    """Returns True for a value, as a recipe has it, that a dotted key may have by itself."""
    section, _, name = key.rpartition(".")
    recipe, faults = from_plain(Recipe, {section: {name: value}} if section else {name: value})
    return not faults and type(value_of(recipe, key)) is type(value)


def known_keys() -> dict[str, dataclasses.Field[Any]]:
    """The fields of a recipe and of its sections, by their dotted keys."""
    return keys_of(Recipe)
