"""A stage of a chain as a command, as a recipe, and as what its result depends on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from kogpt2_gluon.chain.chain_file import Chain, Stage
from kogpt2_gluon.convert.source import network_fingerprint
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe import Recipe, known_keys, load_recipe, value_of
from kogpt2_gluon.recipe_sections import WHERE_IT_RUNS
from kogpt2_gluon.runs.checkpoint_folder import BEST, named_in
from kogpt2_gluon.runs.run_folder import open_run
from kogpt2_gluon.shards.format import MANIFEST, Manifest
from kogpt2_gluon.tasks.score_table import SYSTEM
from kogpt2_gluon.training.finetune_plan import TUNED
from kogpt2_gluon.training.kept_scores import SCORES

NETWORKS = ("training.init_from", "distillation.teacher")  # keys of a recipe that name one
DATA = ("data.train", "data.test", "data.tokenizer", "task.data", "task.name")  # that name data, or may do so
# Sections and keys that do not decide what is trained.
WHERE = [f"training.{key}" for key in WHERE_IT_RUNS]
NOT_DECIDING = ("name", "about", "tracking.", "checkpoint.", "data.cache", *WHERE)
READ_WHOLE = 64 << 20  # bytes; of a larger file, size and time of change count


def run_dir_of(chain: Chain, stage: Stage) -> Path:
    """Returns the folder of a stage."""
    return chain.folder / stage.name


def result_path(chain: Chain, stage: Stage) -> Path:
    """Returns the checkpoint that a reference to a stage means; what it would be if the stage has not run yet."""
    folder = run_dir_of(chain, stage)
    if stage.verb == "finetune":
        seeds = [each for each in folder.glob("seed-*") if each.name[len("seed-") :].isdigit()]
        folder = min(seeds, key=lambda each: int(each.name[len("seed-") :]), default=folder / "seed-0")
    if not folder.exists() or named_in(folder / "checkpoints", BEST):
        return folder / BEST
    return folder


def placed(chain: Chain, stage: Stage) -> Stage:
    """Returns a stage with paths instead of its references."""
    return stage.resolved(lambda name: str(result_path(chain, chain.stage(name))))


def arguments_of(chain: Chain, stage: Stage) -> list[str]:
    """Returns the words after `kogpt2` that run a stage."""
    options, own = placed(chain, stage).options, [f"tracking.run_dir={run_dir_of(chain, stage)}"]
    if stage.verb == "evaluate":
        words = ["evaluate", options.evaluate, options.data, "--json", f"--batch-size={options.batch_size}"]
        words += [f"--stride={options.stride}"] * bool(options.stride)
        return words + ["--documents", options.documents] * bool(options.documents)
    settings = overrides_of(placed(chain, stage))
    if stage.verb == "train":
        return ["train", recipe_file(chain, options.train), *settings, *own]
    words = ["finetune", options.finetune, "--task", options.task, "--data", options.data]
    words += ["--recipe", recipe_file(chain, options.recipe), "--seeds", str(options.seeds)]
    words += ["--untrained"] * options.untrained + ["--no-baselines"] * (not options.baselines)
    return [*words, *settings, *own]


def recipe_file(chain: Chain, name: str) -> str:
    """Returns a recipe's file if one of this name is next to the chain's, else the name itself."""
    there = chain.path.parent / name
    return str(there) if there.is_file() else name


def overrides_of(stage: Stage) -> list[str]:
    """Returns the settings of a stage as ``section.key=value``."""
    return [f"{key}={_text(value)}" for key, value in stage.settings.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(getattr(value, "written", value))


def recipe_of(chain: Chain, stage: Stage) -> Recipe | None:
    """Returns the recipe of a stage, None for one that trains nothing. RecipeError if it is not one.

    References stay as they are unless the stage is :func:`placed`. Sizes that a fine-tuning takes from its checkpoint
    are not in it.
    """
    options, own = stage.options, [f"tracking.run_dir={run_dir_of(chain, stage)}"]
    if stage.verb == "evaluate":
        return None
    if stage.verb == "finetune":
        given = [f"task.name={options.task}", f"task.data={options.data}", f"training.init_from={options.finetune}"]
        return load_recipe(recipe_file(chain, options.recipe), [*given, *overrides_of(stage), *own])
    return load_recipe(recipe_file(chain, options.train), [*overrides_of(stage), *own])


# ---- what a result depends on ---------------------------------------------------------------------------------------


def deciding_settings(chain: Chain, stage: Stage) -> dict[str, Any]:
    """Returns all settings that decide the result of a stage, by their keys, but for the paths of its inputs."""
    paths = ("train", "finetune", "evaluate", "data", "task", "recipe")
    found = {key: value for key, value in vars(stage.options).items() if key not in paths}
    recipe = recipe_of(chain, stage)
    if recipe:
        for key in known_keys():
            if not key.startswith(NOT_DECIDING) and key not in (*NETWORKS, *DATA):
                found[key] = value_of(recipe, key)
        found["checkpoint.keep_best"] = recipe.checkpoint.keep_best
        found["data.train"] = recipe.data.train_weights
        found["task.name"] = Path(recipe.task.name).stem
    plain: dict[str, Any] = json.loads(json.dumps({"verb": stage.verb, **found}))  # as it comes back from a record
    return plain


def inputs_of(chain: Chain, stage: Stage) -> dict[str, str]:
    """Returns {key: fingerprint} of the networks and the data that a stage reads. DataError if one is not there."""
    found: dict[str, str] = {}
    for key, path, is_network in _paths(chain, placed(chain, stage)):
        found[key] = network_fingerprint(path) if is_network else data_fingerprint(path)
    return found


def _paths(chain: Chain, stage: Stage) -> Iterator[tuple[str, str, bool]]:
    """Yields (key, path, True for a network) of the inputs of a placed stage."""
    recipe = recipe_of(chain, stage)
    if recipe is None:
        yield "evaluate", stage.options.evaluate, True
        yield "data", stage.options.data, False
        return
    for key in NETWORKS:
        if path := value_of(recipe, key):
            yield key, path, True
    sets = recipe.data.train_sets
    yield from (("data.train" + f"[{number}]" * (len(sets) > 1), path, False) for number, path in enumerate(sets))
    for key in ("data.test", "data.tokenizer", "task.data"):
        if path := value_of(recipe, key):
            yield key, path, False
    if Path(recipe.task.name).suffix.lower() in (".yaml", ".yml"):
        yield "task.name", recipe.task.name, False


def data_fingerprint(path: str) -> str:
    """Returns a fingerprint of data: of shards that of their manifest, else of names and contents.

    For files above 64 MiB size and time of change count instead of contents; for S3 its address is all.
    """
    if path.startswith("s3:/"):
        return path
    root = Path(path)
    if (root / MANIFEST).is_file():
        return Manifest.load(root).fingerprint()
    if not root.exists():
        raise DataError(f"{path}: no such file or folder")
    digest = xxhash.xxh3_128()
    files = [root] if root.is_file() else sorted(each for each in root.rglob("*") if each.is_file())
    for file in files:
        facts = file.stat()
        digest.update(f"{file.relative_to(root)}\0{facts.st_size}\0".encode("utf-8", "surrogateescape"))
        digest.update(file.read_bytes() if facts.st_size <= READ_WHOLE else str(facts.st_mtime_ns).encode())
    return digest.hexdigest()


# ---- its result -----------------------------------------------------------------------------------------------------


def result_of(chain: Chain, stage: Stage) -> str:
    """Returns what a stage that is done has reached, in a few words."""
    folder = run_dir_of(chain, stage)
    if stage.verb == "evaluate":
        plain = json.loads((folder / SCORES).read_bytes())
        return f"{plain['bits_per_byte']:.4f} bits per byte, perplexity {plain['perplexity']:.2f}"
    if stage.verb == "finetune":
        scores = json.loads((folder / SCORES).read_bytes())["scores"]
        tuned = [each for each in scores if each["kind"] == SYSTEM and each["system"] == TUNED]
        first = min(tuned, key=lambda each: len(each["split"]))  # all rows; a part of them has a longer name
        mean = "none" if first["mean"] is None else f"{first['mean']:.4f}"
        return f"{first['metric']} {mean} on {first['split']}, {first['seeds']} seed(s)"
    run = open_run(folder)
    figure = run.best if run.recipe.task.name else run.final
    if math.isfinite(figure):
        return f"{run.measure.replace('_', ' ')} {figure:.4f} after {run.step:,} steps"
    return f"training loss {run.last.get('loss', math.nan):.4f} after {run.step:,} steps"


def same_but_for(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns the keys in which two mappings differ."""
    return [key for key in dict.fromkeys((*before, *now)) if before.get(key) != now.get(key)]


def is_empty(folder: Path) -> bool:
    """Returns True for a folder that is missing or holds nothing."""
    return not folder.exists() or not any(folder.iterdir())
