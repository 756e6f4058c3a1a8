"""The faults between fields of a recipe that are each admissible alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kogpt2_gluon.options import Fault
from kogpt2_gluon.recipe_sections import (
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

OF_PROMPTS = ("prompt_length", "prompt_text", "encoder", "encoder_size")  # keys of `adaptation`


class Sections(Protocol):
    """The part of a :class:`~kogpt2_gluon.recipe.Recipe` that is looked at here."""

    model: ModelRecipe
    data: DataRecipe
    task: TaskRecipe
    training: TrainingRecipe
    adaptation: AdaptationRecipe
    distillation: DistillationRecipe
    evaluation: EvaluationRecipe
    checkpoint: CheckpointRecipe
    tracking: TrackingRecipe

    @property
    def ckpt_dir(self) -> Path:
        """The folder of the checkpoints."""


def cross_check(recipe: Sections) -> Iterator[Fault]:
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


def _unfit_task(recipe: Sections) -> Iterator[Fault]:
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


def _unfit_adaptation(recipe: Sections) -> Iterator[Fault]:
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
    yield from _rows_that_stay(recipe)
    yield from _unfit_groups(recipe)
    if adaptation.method == "prompt":
        yield from _unfit_prompt(recipe)


def _rows_that_stay(recipe: Sections) -> Iterator[Fault]:
    """Yields the fault of new pieces that would all keep one and the same row: an adaptation trains no embedding."""
    method = recipe.adaptation.method
    if method != "none" and recipe.training.init_vocabulary == "mean":
        yield Fault(
            ("training.init_vocabulary", "adaptation.method"),
            f"training.init_vocabulary=mean gives all new pieces one row, and adaptation.method={method} would not "
            "train it: train all parameters first (adaptation.method=none), then adapt",
        )


def _unfit_groups(recipe: Sections) -> Iterator[Fault]:
    """Yields the fault of groups of columns that do not divide a row; the longer rows are four times as long."""
    adaptation, units = recipe.adaptation, recipe.model.units
    if adaptation.method == "scales" and units % (adaptation.group_size or units):
        yield Fault(
            ("adaptation.group_size", "model.units"),
            f"adaptation.group_size={adaptation.group_size} does not divide model.units={units}",
        )


def _unfit_prompt(recipe: Sections) -> Iterator[Fault]:
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


def _unfit_distillation(recipe: Sections) -> Iterator[Fault]:
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
        section, _, name = key.partition(".")
        value = getattr(getattr(recipe, section), name)
        if value != usual_value:
            yield Fault((key, "distillation.teacher"), f"{key}={value} and distillation.teacher are both set: {why}")
    if distillation.init_layers and recipe.training.init_from:
        yield Fault(
            ("distillation.init_layers", "training.init_from"),
            "distillation.init_layers and training.init_from are both set: a run begins with weights of one network",
        )


def _unfit_mirrors(recipe: Sections) -> Iterator[Fault]:
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
