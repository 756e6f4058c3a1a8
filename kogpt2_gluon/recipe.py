"""A recipe: everything that decides what is trained, in one YAML file.

``load_recipe`` reads the file, applies ``key=value`` overrides, checks every field and reports all faults at
once. A recipe names no hosts (that is :mod:`launch`'s part) and needs no MXNet to be read.

The fields below are the reference: each carries its meaning and the values it admits.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Union, get_args, get_origin, get_type_hints

import yaml

from kogpt2_gluon.errors import RecipeError


def option(
    default: Any,
    meaning: str,
    *,
    minimum: Optional[float] = None,
    maximum: Optional[float] = None,
    choices: Optional[Sequence[str]] = None,
) -> Any:
    """A dataclass field with its meaning and the values it admits."""
    metadata = {"help": meaning, "minimum": minimum, "maximum": maximum, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelRecipe:
    """The network, in GluonNLP's terms. The defaults are KoGPT-2 base."""

    units: int = option(768, "width of the hidden states; the FFN is four times as wide", minimum=1)
    num_layers: int = option(12, "number of transformer blocks", minimum=1)
    num_heads: int = option(12, "attention heads a block; divides units", minimum=1)
    max_length: int = option(1024, "longest sequence that has position embeddings", minimum=2)
    vocab_size: int = option(50000, "rows of the embedding; at least the tokenizer's size", minimum=5)
    dropout: float = option(0.1, "on embeddings, attention, attention output and FFN", minimum=0.0, maximum=0.99)


@dataclass
class DataRecipe:
    """What is read, as token shards (`kogpt2 shard` writes them) or as text, and how."""

    train: str = option("", "folder of training shards (with its manifest.json)")
    test: str = option("", "folder of held-out shards; empty: no evaluation")
    seq_length: int = option(1024, "tokens a training sequence", minimum=1)
    window: int = option(8, "chunks a lane mixes while shuffling; memory is lanes x (window + 1) x chunk", minimum=1)
    max_lanes: int = option(64, "most lanes of the reading order; the number of workers must divide them", minimum=1)
    corrupt: str = option(
        "stop", "what a damaged chunk does: end the run, or count and skip it", choices=("stop", "skip")
    )
    cache: str = option(
        "off", "copies on the node's own disk: none, of chunks soon needed, of all", choices=("off", "window", "full")
    )
    cache_dir: str = option("/tmp/kogpt2-cache", "folder of that cache, on a local disk")
    cache_gib: float = option(100.0, "most GiB that the cache may take", minimum=0.001)
    source: str = option("shards", "token shards, or text tokenized on the fly", choices=("shards", "text"))
    tokenizer: str = option("", "SentencePiece model, for data.source=text")
    documents: str = option("line", "what a document is, for data.source=text: line, blank-line or a JSON FIELD")
    refresh: str = option("never", "for text: when the list of files is read again", choices=("never", "epoch"))
    bpe_dropout: float = option(0.0, "for text: share of merges left out at random", minimum=0.0, maximum=0.99)


@dataclass
class TrainingRecipe:
    """Steps, batch, optimizer, schedule. A step is one optimizer update over total_batch_size sequences."""

    num_steps: int = option(1000, "optimizer updates of the whole run", minimum=1)
    batch_size: int = option(8, "sequences of one worker in one micro step", minimum=1)
    total_batch_size: int = option(8, "sequences of one update, over all workers and micro steps", minimum=1)
    optimizer: str = option("bertadam", "the update rule", choices=("bertadam", "adamw", "adam", "lamb"))
    learning_rate: float = option(1e-4, "peak learning rate", minimum=0.0)
    final_learning_rate: float = option(0.0, "learning rate at the last step", minimum=0.0)
    schedule: str = option("linear", "decay after the warm-up", choices=("linear", "cosine"))
    warmup_ratio: float = option(0.01, "share of num_steps that warms up linearly", minimum=0.0, maximum=1.0)
    weight_decay: float = option(0.01, "on matrices, not biases or LayerNorm; decoupled, but L2 for adam", minimum=0.0)
    beta1: float = option(0.9, "decay of the first moment", minimum=0.0, maximum=1.0)
    beta2: float = option(0.999, "decay of the second moment", minimum=0.0, maximum=1.0)
    epsilon: float = option(1e-6, "added to the root of the second moment", minimum=1e-12)
    clip_norm: float = option(1.0, "largest global gradient norm; 0: no clipping", minimum=0.0)
    seed: int = option(0, "the one seed of weights, order and dropout", minimum=0)
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "gpu"))
    threads: int = option(0, "CPU threads of one worker; 0: cores / local workers", minimum=0)


@dataclass
class EvaluationRecipe:
    """Held-out loss, and the original's stop rule (KoGPT2 issue #23)."""

    interval: int = option(500, "steps between evaluations; 0: only at the start and the end", minimum=0)
    batch_size: int = option(8, "sequences of one worker in one evaluation step", minimum=1)
    max_sequences: int = option(0, "held-out sequences used during training, evenly spaced; 0: all of them", minimum=0)
    stop_improvement: float = option(
        0.0, "stop when an epoch improves held-out perplexity by less than this share; 0: never", minimum=0.0
    )


@dataclass
class CheckpointRecipe:
    """Where and how often the state is saved."""

    ckpt_dir: str = option("", "folder of checkpoints; empty: RUN_DIR/checkpoints")
    interval: int = option(1000, "steps between checkpoints; 0: only at the end", minimum=0)
    keep: int = option(3, "newest checkpoints kept; 0: all", minimum=0)


@dataclass
class TrackingRecipe:
    """What the run writes for people to look at."""

    run_dir: str = option("runs/kogpt2", "folder of this run")
    log_interval: int = option(10, "steps between log lines", minimum=1)
    tensorboard: bool = option(True, "write TensorBoard events")
    sample_prompts: list[str] = option([], "prompts continued after each evaluation, kept in RUN_DIR/samples")
    sample_length: int = option(40, "most tokens of such a sample", minimum=1)


@dataclass
class Recipe:
    """One run. `name` and `about` are for people; the sections decide what happens."""

    name: str = option("kogpt2", "short name of the recipe")
    about: str = option("", "expected result, time and exact command")
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    checkpoint: CheckpointRecipe = field(default_factory=CheckpointRecipe)
    tracking: TrackingRecipe = field(default_factory=TrackingRecipe)

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain data."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """The resolved recipe as a file that `load_recipe` reads back."""
        text: str = yaml.dump(self.to_dict(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        return text

    def fingerprint(self) -> str:
        """SHA-256 (hex) over what decides the numbers: model, order and training, not paths, logs or devices."""
        plain = self.to_dict()
        decides = {
            "model": plain["model"],
            "data": {key: plain["data"][key] for key in ("seq_length", "window", "max_lanes")},
            "training": {key: value for key, value in plain["training"].items() if key not in ("device", "threads")},
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    @property
    def run_dir(self) -> Path:
        return Path(self.tracking.run_dir)

    @property
    def ckpt_dir(self) -> Path:
        return Path(self.checkpoint.ckpt_dir) if self.checkpoint.ckpt_dir else self.run_dir / "checkpoints"

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer update, over all workers."""
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


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as such a block, not as one escaped line."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def find_recipe(name: str) -> Path:
    """The file that `name` means: a path, or the name of a recipe shipped with the package."""
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
    """Reads, overrides, checks. Raises RecipeError naming every fault of the recipe at once."""
    path = find_recipe(name)
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(plain, dict):
        raise RecipeError(f"recipe {path}: a recipe is a mapping of sections, not a {type(plain).__name__}")
    return parse_recipe(plain, overrides, source=str(path))


def parse_recipe(plain: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "recipe") -> Recipe:
    """Builds a Recipe from plain data and `section.key=value` overrides; `source` names it in messages."""
    faults: list[str] = []
    merged: dict[str, Any] = {key: {} if value is None else value for key, value in plain.items()}
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in merged.items()}
    for override in overrides:
        _apply_override(merged, override, faults)
    recipe = _build(Recipe, merged, "", faults)
    if not faults:
        faults += _cross_check(recipe)
    given = [override.partition("=")[0] for override in overrides]  # the file is not at fault for these
    by_hand = re.compile("|".join(rf"\b{re.escape(key)}\b" for key in given) or "(?!)")
    faults = [f"{fault} (on the command line)" if by_hand.search(fault) else fault for fault in faults]
    if faults:
        head = f"{source}: " if len(faults) == 1 else f"{source}: {len(faults)} faults:\n  "
        raise RecipeError(head + "\n  ".join(faults))
    return recipe  # type: ignore[no-any-return]


def known_keys() -> list[str]:
    """Every key a recipe may hold, dotted."""
    keys = []
    for entry in dataclasses.fields(Recipe):
        section = get_type_hints(Recipe)[entry.name]
        if dataclasses.is_dataclass(section):
            keys += [f"{entry.name}.{inner.name}" for inner in dataclasses.fields(section)]
        else:
            keys.append(entry.name)
    return keys


def _apply_override(merged: dict[str, Any], override: str, faults: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        faults.append(f"override {override!r}: write it as section.key=value")
        return
    value: Any = text
    if not _is_text(key):  # a path such as 2024_01_05 is no number
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            faults.append(f"override {override!r}: the value is not YAML")
            return
    section, dot, name = key.partition(".")
    if not dot:
        merged[key] = value
    elif isinstance(merged.setdefault(section, {}), dict):
        merged[section][name] = value


def _is_text(key: str) -> bool:
    """Whether a dotted key holds a text."""
    kind: Any = Recipe
    for part in key.split("."):
        kind = get_type_hints(kind).get(part) if dataclasses.is_dataclass(kind) else None
    return kind is str


def _build(kind: Any, plain: Any, where: str, faults: list[str]) -> Any:
    """An instance of dataclass `kind` from mapping `plain`; every fault is noted, none raised."""
    if not isinstance(plain, Mapping):
        faults.append(f"{where.rstrip('.')}: expected a section with keys, got {plain!r}")
        return kind()
    hints = get_type_hints(kind)
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in plain.items():
        if key not in entries:
            faults.append(_unknown_key(where + str(key)))
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _build(hints[key], {} if value is None else value, f"{key}.", faults)
        else:
            try:
                values[key] = _coerce(value, hints[key], entries[key].metadata)
            except ValueError as error:
                faults.append(f"{where}{key}: {error}")
    return kind(**values)


def _unknown_key(key: str) -> str:
    keys = [*known_keys(), *(entry.name for entry in dataclasses.fields(Recipe))]
    by_name = {known.rpartition(".")[2]: known for known in keys}
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    near = near or [by_name[n] for n in difflib.get_close_matches(key.rpartition(".")[2], by_name, n=1, cutoff=0.5)]
    return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")


def _coerce(value: Any, hint: Any, rules: Mapping[str, Any]) -> Any:
    """`value` as `hint` (int, float, bool, str, list[str]); ValueError says what was expected."""
    if get_origin(hint) is list:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"expected a list of texts, got {value!r}")
        return value
    assert not get_args(hint) or get_origin(hint) is not Union
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, got {value!r}")
        return value
    if hint is str:
        if isinstance(value, (dict, list, bool)) or value is None:
            raise ValueError(f"expected a text, got {value!r}")
        return _check_choice(str(value), rules)
    return _check_range(_number(value, hint), rules)


def _number(value: Any, hint: type) -> Union[int, float]:
    kind = "a whole number" if hint is int else "a number"
    try:  # PyYAML reads 1e-4 as a text: YAML 1.1 wants 1.0e-4
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected {kind}, got {value!r}") from None
    if number != number or number in (float("inf"), float("-inf")) or (hint is int and number != int(number)):
        raise ValueError(f"expected {kind}, got {value!r}")
    return (value if isinstance(value, int) else int(number)) if hint is int else number


def _check_range(number: Union[int, float], rules: Mapping[str, Any]) -> Union[int, float]:
    if rules["minimum"] is not None and number < rules["minimum"]:
        raise ValueError(f"{number} is below {rules['minimum']:g}")
    if rules["maximum"] is not None and number > rules["maximum"]:
        raise ValueError(f"{number} is above {rules['maximum']:g}")
    return number


def _check_choice(value: str, rules: Mapping[str, Any]) -> str:
    if rules["choices"] and value not in rules["choices"]:
        raise ValueError(f"{value!r} is none of {', '.join(rules['choices'])}")
    return value


def _cross_check(recipe: Recipe) -> list[str]:
    """Faults between fields that are each admissible alone."""
    faults, model, training = [], recipe.model, recipe.training
    if model.units % model.num_heads:
        faults.append(f"model.units={model.units} is not divisible by model.num_heads={model.num_heads}")
    if recipe.data.seq_length > model.max_length:
        faults.append(f"data.seq_length={recipe.data.seq_length} is above model.max_length={model.max_length}")
    if training.final_learning_rate > training.learning_rate:
        faults.append("training.final_learning_rate is above training.learning_rate")
    for name in ("beta1", "beta2"):
        if getattr(training, name) >= 1:
            faults.append(f"training.{name} must be below 1")
    return faults
