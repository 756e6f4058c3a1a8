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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import Fault, from_plain, keys_of, option, to_yaml
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

OF_PROMPTS = ("prompt_length", "prompt_text", "encoder", "encoder_size")  # keys of `adaptation`


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
        plain = self.to_dict()
        data = {key: plain["data"][key] for key in ("seq_length", "window", "max_lanes")}
        if self.data.train_weights:
            data["weights"] = self.data.train_weights
        if self.data.source == "text":
            data.update({key: plain["data"][key] for key in ("source", "documents", "refresh", "bpe_dropout")})
            defaults = dataclasses.asdict(DataRecipe())
            given = ("encoding", "include", "exclude")  # only if set: runs from before they existed go on
            data.update({key: plain["data"][key] for key in given if plain["data"][key] != defaults[key]})
        apart: tuple[str, ...] = WHERE_IT_RUNS if self.training.init_from else (*WHERE_IT_RUNS, *INITIAL)
        usual = TrainingRecipe()  # keys about what is odd count only if set: runs from before they existed go on
        later = (*WHEN_ODD, "init_renamed")
        apart += tuple(key for key in later if getattr(self.training, key) == getattr(usual, key))
        decides: dict[str, Any] = {
            "model": plain["model"],
            "data": data,
            "training": {key: value for key, value in plain["training"].items() if key not in apart},
        }
        if self.adaptation.method != "none":
            is_prompt = self.adaptation.method == "prompt"  # other runs are from before the keys of prompts existed
            own = {key: value for key, value in plain["adaptation"].items() if is_prompt or key not in OF_PROMPTS}
            decides["adaptation"] = own
        if self.distillation.teacher:
            decides["distillation"] = {key: value for key, value in plain["distillation"].items() if key != "teacher"}
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
    faults = faults or list(_cross_check(recipe))
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


def _cross_check(recipe: Recipe) -> Iterator[Fault]:
    """Yields the faults between fields that are each admissible alone."""
    model, data, training = recipe.model, recipe.data, recipe.training
    if model.units % model.num_heads:
        yield Fault(
            ("model.units", "model.num_heads"),
            f"model.units={model.units} is not divisible by model.num_heads={model.num_heads}",
        )
    if data.seq_length > model.max_length:
        yield Fault(
            ("data.seq_length", "model.max_length"),
            f"data.seq_length={data.seq_length} is above model.max_length={model.max_length}",
        )
    if data.source == "text" and isinstance(data.train, dict):
        yield Fault(
            ("data.train", "data.source"),
            "data.train: weights need shards; with data.source=text name one path or a list of them",
        )
    yield from _shards_in_s3(data)
    yield from _unfit_task(recipe)
    yield from _unfit_adaptation(recipe)
    yield from _unfit_distillation(recipe)
    yield from _unfit_mirrors(recipe)
    yield from _options_without_effect(data, is_task=bool(recipe.task.name))
    if data.cache != "off" and not data.cache_dir:
        yield Fault(
            ("data.cache", "data.cache_dir"),
            f"data.cache={data.cache} needs a folder on a disk of the node itself: data.cache_dir=DIR",
        )
    if training.final_learning_rate > training.learning_rate:
        yield Fault(
            ("training.final_learning_rate", "training.learning_rate"),
            "training.final_learning_rate is above training.learning_rate",
        )
    for name in ("beta1", "beta2"):
        if getattr(training, name) >= 1:
            yield Fault((f"training.{name}",), f"training.{name} must be below 1")
    if training.precision == "bfloat16" and training.ops == "stock":
        yield Fault(
            ("training.precision", "training.ops"),
            "training.precision=bfloat16 needs the fused operators, and training.ops is stock: MXNet has no bfloat16 "
            "LayerNorm or batch_dot of its own; set training.ops=auto, or training.precision=float32",
        )


def _shards_in_s3(data: DataRecipe) -> list[Fault]:
    """The faults of S3 addresses where folders of shards are read."""
    named = [("train", path) for path in data.train_sets if data.source == "shards"] + [("test", data.test)]
    return [
        Fault(
            (f"data.{key}", "data.source"),
            f"data.{key}={path}: shards are read from folders; first: kogpt2 files download {path} DIR",
        )
        for key, path in named
        if path.startswith("s3:/")
    ]


def _unfit_task(recipe: Recipe) -> Iterator[Fault]:
    """Yields the faults of settings that do not go together with a task, or without one."""
    task, data, usual = recipe.task, recipe.data, TaskRecipe()
    if not task.name:
        for key in ("data", "epochs", "dev_share", "too_long", "locales", "zero_shot"):
            if getattr(task, key) != getattr(usual, key):
                yield Fault((f"task.{key}", "task.name"), f"task.{key} is set, and task.name, which needs it, is empty")
        if recipe.evaluation.patience and not (data.test and recipe.checkpoint.keep_best):
            yield Fault(
                ("evaluation.patience", "data.test", "checkpoint.keep_best"),
                "evaluation.patience needs held-out data, data.test=DIR, and checkpoint.keep_best=true",
            )
        return
    if not task.data:
        yield Fault(("task.data",), f"task.name={task.name} needs the folder of its files: task.data=DIR")
    if not recipe.checkpoint.keep_best:
        yield Fault(("checkpoint.keep_best",), "checkpoint.keep_best=false: a task is judged by its best checkpoint")
    for section, key, why in (
        ("data", "train", "a task's rows are in task.data"),
        ("data", "test", "a task has a dev set of its own"),
        ("evaluation", "stop_improvement", "it is about perplexity; evaluation.patience is for tasks"),
        ("tracking", "sample_prompts", "a network with a task's head writes no text"),
    ):
        if getattr(getattr(recipe, section), key):
            yield Fault((f"{section}.{key}", "task.name"), f"{section}.{key} and task.name are both set: {why}")
    for key in ("source", "window", "max_lanes", "corrupt", "cache", "cache_dir", "cache_gib"):
        if getattr(data, key) != getattr(DataRecipe(), key):
            yield Fault(
                (f"data.{key}", "task.name"),
                f"data.{key} and task.name are both set: it is about shards and text, and a task has tables",
            )
    if recipe.training.recompute != "none":
        yield Fault(
            ("training.recompute", "task.name"), "training.recompute=layer is for language models; leave it out"
        )


def _unfit_adaptation(recipe: Recipe) -> Iterator[Fault]:
    """Yields the faults of settings of an adaptation that would have no effect, or have nothing to adapt."""
    adaptation, usual = recipe.adaptation, AdaptationRecipe()
    if adaptation.method != "none" and not recipe.training.init_from:
        yield Fault(
            ("adaptation.method", "training.init_from"),
            f"adaptation.method={adaptation.method} needs a network to adapt: training.init_from=CHECKPOINT",
        )
    used = {
        "none": (),
        "lora": ("targets", "rank", "alpha"),
        "scales": ("targets", "bits", "group_size", "scales"),
        "prompt": OF_PROMPTS,
    }
    for key in ("targets", "rank", "alpha", "bits", "group_size", "scales", *OF_PROMPTS):
        if key not in used[adaptation.method] and getattr(adaptation, key) != getattr(usual, key):
            yield Fault(
                (f"adaptation.{key}", "adaptation.method"),
                f"adaptation.{key} is set, and adaptation.method={adaptation.method} does not use it",
            )
    if adaptation.method == "prompt":
        yield from _unfit_prompt(recipe)


def _unfit_prompt(recipe: Recipe) -> Iterator[Fault]:
    """Yields the faults of a prompt that leaves too few positions, or of settings that an encoder changes."""
    adaptation, length, most = recipe.adaptation, recipe.data.seq_length, recipe.model.max_length
    if length <= most < length + adaptation.prompt_length:
        yield Fault(
            ("data.seq_length", "adaptation.prompt_length", "model.max_length"),
            f"data.seq_length={length} and adaptation.prompt_length={adaptation.prompt_length} together are above "
            f"model.max_length={most}",
        )
    if adaptation.encoder == "none" and adaptation.encoder_size:
        yield Fault(
            ("adaptation.encoder_size", "adaptation.encoder"),
            "adaptation.encoder_size is set, and adaptation.encoder=none does not use it",
        )
    if adaptation.encoder != "none" and adaptation.prompt_text:
        yield Fault(
            ("adaptation.prompt_text", "adaptation.encoder"),
            f"adaptation.prompt_text is set, and adaptation.encoder={adaptation.encoder} begins with random numbers",
        )


def _unfit_distillation(recipe: Recipe) -> Iterator[Fault]:
    """Yields the faults of settings that need a teacher, or do not go together with one."""
    distillation, usual = recipe.distillation, DistillationRecipe()
    if not distillation.teacher:
        for key in ("temperature", "weight", "hidden_weight", "init_layers"):
            if getattr(distillation, key) != getattr(usual, key):
                yield Fault(
                    (f"distillation.{key}", "distillation.teacher"),
                    f"distillation.{key} is set, and there is no teacher: distillation.teacher=CHECKPOINT",
                )
        return
    if not distillation.weight and not distillation.hidden_weight:
        yield Fault(
            ("distillation.weight", "distillation.hidden_weight"),
            "distillation.weight and distillation.hidden_weight are both 0, so the teacher would have no effect",
        )
    for key, usual_value, why in (
        ("task.name", "", "a teacher is one of language models; distil first, then fine-tune the student"),
        ("adaptation.method", "none", "a student trains all its parameters; distil first, then adapt"),
        ("training.recompute", "none", "layers are not computed again while there is a teacher; leave it out"),
    ):
        if value_of(recipe, key) != usual_value:
            yield Fault(
                (key, "distillation.teacher"),
                f"{key}={value_of(recipe, key)} and distillation.teacher are both set: {why}",
            )
    if distillation.init_layers and recipe.training.init_from:
        yield Fault(
            ("distillation.init_layers", "training.init_from"),
            "distillation.init_layers and training.init_from are both set: a run begins with weights of one network",
        )


def _unfit_mirrors(recipe: Recipe) -> Iterator[Fault]:
    """Yields the faults of addresses where no mirror of the checkpoints can be."""
    own, mirrors = recipe.ckpt_dir.absolute(), recipe.checkpoint.mirrors
    for mirror in mirrors:
        scheme, is_url, rest = mirror.partition("://")
        bucket, path = rest.partition("/")[0], Path(mirror).absolute()
        if is_url and scheme == "s3" and "@" in bucket:  # which is not repeated here
            fault = "an address with a user or key in it; S3's credentials come from the environment or ~/.aws"
        elif (is_url and scheme != "s3") or (scheme == "s3" and not bucket):
            fault = f"{mirror}: neither a folder nor s3://bucket/prefix"
        elif not mirror.strip():
            fault = "is empty; name a folder or s3://bucket/prefix, or none: []"
        elif mirrors.count(mirror) > 1:
            fault = f"names {mirror} twice"
        elif not is_url and (path == own or path in own.parents or own in path.parents):
            fault = f"{mirror}: is, holds, or lies in the folder of checkpoints; a mirror needs another place"
        else:
            continue
        yield Fault(("checkpoint.mirrors",), f"checkpoint.mirrors: {fault}")
        return


def _options_without_effect(data: DataRecipe, is_task: bool) -> list[Fault]:
    """The faults of options that were set and would do nothing with this `data.source`."""
    for_text = (
        *("tokenizer",) * (not is_task),
        "documents",
        "refresh",
        "encoding",
        "include",
        "exclude",
        "bpe_dropout",
    )
    other = {"shards": for_text, "text": ("cache",)}[data.source]
    defaults, needed = DataRecipe(), "text" if data.source == "shards" else "shards"
    return [
        Fault(
            (f"data.{key}", "data.source"),
            f"data.{key}={getattr(data, key)} needs data.source={needed}, and data.source is {data.source}",
        )
        for key in other
        if getattr(data, key) != getattr(defaults, key)
    ]
