"""A recipe: everything that decides what is trained, in one YAML file.

``load_recipe`` reads the file, applies ``key=value`` overrides, checks every field and reports all faults at once. A
recipe names no hosts (the launcher does), and it can be read without MXNet.

The fields below are the reference: each has its meaning and the values it admits. `kogpt2 train --keys` prints them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import Fault, Paths, from_plain, keys_of, option, to_yaml
from kogpt2_gluon.user_files import read_yaml

# Keys of `training`: those that are not about what is computed,
WHERE_IT_RUNS = ("ops", "device", "threads", "recompute", "compare_interval")
# those about the weights that a run begins with,
INITIAL = ("init_from", "init_positions", "init_vocabulary")
# and those about updates that are out of the ordinary.
WHEN_ODD = ("on_nonfinite", "on_spike", "spike_window", "spike_sigmas", "spike_leave_out", "most_skipped")


class OptimizerChoice(NamedTuple):
    """An optimizer that a recipe may name: its meaning in a few words, and the arrays it keeps for each parameter."""

    meaning: str
    arrays: int


# The implementations are in kogpt2_gluon/training/optimizers.py, under the same names.
OPTIMIZERS = {
    "bertadam": OptimizerChoice("Adam without bias correction, decoupled weight decay (GluonNLP)", 2),
    "adamw": OptimizerChoice("Adam with decoupled weight decay (Loshchilov and Hutter, 2019)", 2),
    "adam": OptimizerChoice("Adam, weight decay as L2 (Kingma and Ba, 2015)", 2),
    "lamb": OptimizerChoice("AdamW with a trust ratio for each parameter, for large batches (You et al., 2020)", 2),
}


@dataclass
class ModelRecipe:
    """The network, in GluonNLP's terms. The defaults are KoGPT-2 base."""

    units: int = option(768, "width of the hidden states; the FFN is four times as wide", minimum=1)
    num_layers: int = option(12, "number of transformer blocks", minimum=1, maximum=10_000)
    num_heads: int = option(12, "attention heads of a block; must divide units", minimum=1)
    max_length: int = option(1024, "longest sequence that has position embeddings", minimum=2)
    vocab_size: int = option(50000, "rows of the embedding; at least the tokenizer's size", minimum=5)
    dropout: float = option(0.1, "on embeddings, attention, attention output and FFN", minimum=0.0, maximum=0.99)
    activation: str = option(
        "gelu",
        "of the FFN: gelu, the erf form, as KoGPT-2 has it; gelu_tanh, its approximation, as OpenAI's GPT-2 has it",
        choices=("gelu", "gelu_tanh"),
    )


@dataclass
class DataRecipe:
    """The data to read and how: token shards (`kogpt2 shard` writes them), or text.

    window, max_lanes and the cache are for shards; tokenizer, documents, refresh, encoding, include, exclude and
    bpe_dropout are for text.
    """

    train: Paths = option(
        "",
        "folder of training shards; or a list of them, read as one corpus; or {folder: weight, ...}, weight > 0; with "
        "data.source=text a file, folder or s3:// prefix of text, or a list of them",
        path=True,
    )
    test: str = option("", "folder of held-out shards, for any data.source; empty: no evaluation", path=True)
    seq_length: int = option(1024, "tokens of a training sequence", minimum=1)
    window: int = option(
        8, "chunks that a lane mixes while shuffling; memory is lanes x (window + 1) x chunk", minimum=1
    )
    max_lanes: int = option(64, "most lanes of the reading order; the number of workers must divide them", minimum=1)
    corrupt: str = option(
        "stop",
        "what happens at a damaged chunk: the run stops, or it skips the chunk, counts it and reads another; for text: "
        "whether a run starts with files that cannot be read, or leaves them out and says so",
        choices=("stop", "skip"),
    )
    cache: str = option(
        "off",
        "copies on the node's own disk: none, of the chunks needed soon, of all chunks",
        choices=("off", "window", "full"),
    )
    cache_dir: str = option(
        "", "folder of the cache, on a disk of the node itself; needed unless data.cache=off", path=True
    )
    cache_gib: float = option(100.0, "the most GiB that the cache may use", minimum=0.001)
    source: str = option("shards", "token shards, or text tokenized on the fly", choices=("shards", "text"))
    tokenizer: str = option("", "SentencePiece model or tokenizer.json, for data.source=text", path=True)
    documents: str = option(
        "line",
        "what a document is, for data.source=text: a kind that `kogpt2 clean --help` names, or a FIELD of JSON or of "
        "a table (field:NAME if NAME is one of these words)",
    )
    refresh: str = option("never", "for text: when the list of files is read again", choices=("never", "epoch"))
    encoding: str = option(
        "auto",
        "for text: its encoding; auto decides it for each file by its bytes",
        choices=("auto", "utf-8", "cp949", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "johab"),
    )
    include: list[str] = option([], "for text: patterns of files, such as '*.txt'; only files that fit are read")
    exclude: list[str] = option([], "for text: patterns of files that are left out")
    bpe_dropout: float = option(0.0, "for text: share of merges left out at random", minimum=0.0, maximum=0.99)

    @property
    def train_sets(self) -> list[str]:
        """The paths that `train` names, in its order; none if it is empty."""
        return list(self.train) if isinstance(self.train, (list, dict)) else [self.train] if self.train else []

    @property
    def train_weights(self) -> list[float] | None:
        """Each set's share of the sequences, adding up to 1; None where the sets' sizes decide."""
        if not isinstance(self.train, dict):
            return None
        largest = max(self.train.values())  # first divided by it: the sum of huge weights would overflow
        scaled = [weight / largest for weight in self.train.values()]
        return [weight / sum(scaled) for weight in scaled]


@dataclass
class TrainingRecipe:
    """Steps, batch, optimizer, schedule. A step is one optimizer update over total_batch_size sequences."""

    num_steps: int = option(1000, "optimizer updates in the whole run", minimum=1)
    batch_size: int = option(8, "sequences of one worker in one micro step", minimum=1)
    total_batch_size: int = option(8, "sequences of one update, over all workers and micro steps", minimum=1)
    optimizer: str = option(
        "bertadam",
        "the update rule; " + "; ".join(f"{name}: {choice.meaning}" for name, choice in OPTIMIZERS.items()),
        choices=tuple(OPTIMIZERS),
    )
    learning_rate: float = option(1e-4, "peak learning rate", minimum=0.0)
    final_learning_rate: float = option(0.0, "learning rate at the last step", minimum=0.0)
    schedule: str = option("linear", "decay after the warm-up", choices=("linear", "cosine"))
    warmup_ratio: float = option(
        0.01, "share of num_steps in which the learning rate rises linearly", minimum=0.0, maximum=1.0
    )
    weight_decay: float = option(
        0.01, "for matrices, not for biases and LayerNorm; decoupled, except L2 for adam", minimum=0.0
    )
    beta1: float = option(0.9, "decay of the first moment, below 1", minimum=0.0, maximum=1.0)
    beta2: float = option(0.999, "decay of the second moment, below 1", minimum=0.0, maximum=1.0)
    epsilon: float = option(1e-6, "added to the root of the second moment", minimum=1e-12)
    clip_norm: float = option(1.0, "largest global gradient norm; 0: no clipping", minimum=0.0)
    on_nonfinite: str = option(
        "stop",
        "what happens at a loss or gradient that is not finite: the run stops, the update is skipped, or the run goes "
        "back to its last checkpoint and leaves out this update. An overflow of float16 alone is always skipped",
        choices=("stop", "skip", "rollback"),
    )
    on_spike: str = option(
        "log",
        "what happens at a spike of loss or gradient norm: nothing, a line in the log, the update is skipped, or the "
        "run goes back to its last checkpoint and leaves out this update",
        choices=("off", "log", "skip", "rollback"),
    )
    spike_window: int = option(128, "a spike is far above the mean of so many last updates", minimum=4)
    spike_sigmas: float = option(6.0, "and that is more than so many standard deviations", minimum=1.0)
    spike_leave_out: int = option(
        1, "updates that a rollback leaves out at a spike: that one, and those right before it", minimum=1
    )
    most_skipped: int = option(
        100,
        "the most updates that on_nonfinite and on_spike skip or roll back; then, or after 10 in a row, the run stops",
        minimum=0,
    )
    compare_interval: int = option(
        500,
        "steps between comparisons of the workers' parameters and moments, by a hash; they also precede every save. A "
        "worker that differs is named and the run stops. 0: never",
        minimum=0,
    )
    init_from: str = option(
        "",
        "a checkpoint or a transformers folder of a GPT-2, whose weights alone a new run begins with; empty: random "
        "weights",
        path=True,
    )
    init_positions: str = option(
        "none",
        "how init_from's positions are extended to a longer model.max_length: repeat them, or interpolate between them",
        choices=("none", "repeat", "interpolate"),
    )
    init_vocabulary: str = option(
        "none",
        "how init_from's embedding is extended to more pieces: each new row is the mean of the trained ones",
        choices=("none", "mean"),
    )
    seed: int = option(0, "the one seed of weights, order and dropout", minimum=0)
    precision: str = option(
        "float32",
        "format of the network's products; parameters and updates are always float32. bfloat16 is for CPUs with the "
        "fused operators. float16, with a loss scale, is for GPUs; on a CPU it is emulated, slowly. auto: on a CPU "
        "bfloat16 if it is measured to be 10% faster, on a GPU with tensor cores float16; else float32",
        choices=("float32", "bfloat16", "float16", "auto"),
    )
    ops: str = option(
        "auto",
        "operators: fused (`kogpt2 ops build` compiles them), MXNet's stock ones, or auto: fused where available",
        choices=("auto", "fused", "stock"),
    )
    recompute: str = option(
        "none",
        "what the backward pass computes again instead of keeping it: nothing, or each layer, of which only the input "
        "is kept. That takes less memory and more time (`--dry-run` says how much) and gives the same numbers",
        choices=("none", "layer"),
    )
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

    ckpt_dir: str = option("", "folder of checkpoints; empty: RUN_DIR/checkpoints", path=True)
    interval: int = option(1000, "steps between checkpoints; 0: only at the end, and the best", minimum=0)
    keep: int = option(3, "newest checkpoints kept; 0: all", minimum=0)
    keep_every: int = option(0, "also keep those whose step is a multiple of this; 0: none", minimum=0)
    keep_best: bool = option(
        True,
        "also keep the checkpoint of the lowest held-out loss, as RUN_DIR/best: each evaluation that improves saves at "
        "once; no effect if data.test is empty",
    )
    in_background: bool = option(
        True,
        "write checkpoints while the training goes on: the first worker keeps a copy of parameters and moments in its "
        "host's memory; false: training waits for the disk, without the copy",
    )
    mirrors: list[str] = option(
        [],
        "folders or S3 prefixes (s3://bucket/prefix) that get a copy of each checkpoint in the background, and keep "
        "what the folder of checkpoints keeps; if that folder is gone, a run goes on from the newest copy. Each run "
        "needs mirrors of its own",
        path=True,
    )


@dataclass
class TrackingRecipe:
    """The record that a run writes for people to read."""

    run_dir: str = option("runs/kogpt2", "folder of this run", path=True, needed=True)
    log_interval: int = option(10, "steps between log lines", minimum=1)
    tensorboard: bool = option(True, "write TensorBoard events")
    sample_prompts: list[str] = option([], "prompts continued after each evaluation, kept in RUN_DIR/samples")
    sample_length: int = option(40, "the most new tokens of such a sample", minimum=1)


@dataclass
class Recipe:
    """One run. `name` and `about` are for people, the sections decide what is done."""

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
        apart += tuple(key for key in WHEN_ODD if getattr(self.training, key) == getattr(usual, key))
        decides = {
            "model": plain["model"],
            "data": data,
            "training": {key: value for key, value in plain["training"].items() if key not in apart},
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
    yield from _unfit_mirrors(recipe)
    yield from _options_without_effect(data)
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


def _options_without_effect(data: DataRecipe) -> list[Fault]:
    """The faults of options that were set and would do nothing with this `data.source`."""
    for_text = ("tokenizer", "documents", "refresh", "encoding", "include", "exclude", "bpe_dropout")
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
