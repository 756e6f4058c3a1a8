"""A stage of a chain as a command, as a recipe, and as what its result depends on."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kogpt2_gluon.chain.chain_file import Chain, Stage
from kogpt2_gluon.chain.data_files import Data, KnownData
from kogpt2_gluon.convert.source import network_fingerprint
from kogpt2_gluon.recipe import Recipe, known_keys, load_recipe, value_of
from kogpt2_gluon.recipe_sections import WHERE_IT_RUNS
from kogpt2_gluon.runs.checkpoint_folder import BEST, named_in, newest_in
from kogpt2_gluon.runs.run_folder import open_run
from kogpt2_gluon.tasks.loading import find_split
from kogpt2_gluon.tasks.locales import task_of_recipe
from kogpt2_gluon.tasks.score_table import SYSTEM
from kogpt2_gluon.training.finetune_plan import TUNED
from kogpt2_gluon.training.kept_scores import SCORES

NETWORKS = ("training.init_from", "distillation.teacher")  # keys of a recipe that name one
DATA = ("data.train", "data.test", "data.tokenizer", "task.data", "task.name")  # that name data, or may do so
# Sections and keys that do not decide what is trained.
WHERE = [f"training.{key}" for key in WHERE_IT_RUNS]
NOT_DECIDING = ("name", "about", "tracking.", "checkpoint.", "data.cache", *WHERE)


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


def changed_settings(chain: Chain, stage: Stage, before: Mapping[str, Any]) -> list[str]:
    """Returns the keys in which a stage's deciding settings differ from those on record.

    A key that is not on record is of a later version of the program than the record; it was at its default then.
    """
    usual = {entry.name: entry.default for entry in dataclasses.fields(stage.options)}
    usual |= {key: value_of(Recipe(), key) for key in known_keys()}
    now = deciding_settings(chain, stage)
    return same_but_for({**{key: usual[key] for key in now if key in usual}, **before}, now)


def inputs_of(chain: Chain, stage: Stage, known: KnownData) -> dict[str, str]:
    """Returns {key: fingerprint} of the networks and the data that a stage reads. DataError if one is not there.

    `known` has fingerprints of large data, and gets those that are found.
    """
    there = placed(chain, stage)
    found = {key: network_fingerprint(path) for key, path in networks_of(chain, there).items()}
    return found | {key: data.fingerprint(known) for key, data in data_of(chain, there).items()}


def networks_of(chain: Chain, stage: Stage) -> dict[str, str]:
    """Returns {key: path} of the networks that a placed stage reads."""
    recipe = recipe_of(chain, stage)
    if recipe is None:
        return {"evaluate": stage.options.evaluate}
    return {key: path for key in NETWORKS if (path := value_of(recipe, key))}


def data_of(chain: Chain, stage: Stage) -> dict[str, Data]:
    """Returns {key: data} of a placed stage, each with the files that its reader chooses.

    Text that may grow while the stage trains on it (data.refresh=epoch) is not among them: the run itself refuses files
    that have changed.
    """
    recipe = recipe_of(chain, stage)
    if recipe is None:
        return {"data": Data(stage.options.data)}
    rules, found = recipe.data, {}
    if rules.refresh == "never":
        sets, is_text = rules.train_sets, rules.source == "text"
        for number, path in enumerate(sets):
            key = "data.train" + f"[{number}]" * (len(sets) > 1)
            found[key] = Data(path, not is_text, rules.include, rules.exclude)
    found |= {key: Data(path) for key in ("data.test", "data.tokenizer") if (path := value_of(recipe, key))}
    if recipe.task.name:
        found["task.data"] = Data(recipe.task.data, named=_files_of_task(recipe))
    if Path(recipe.task.name).suffix.lower() in (".yaml", ".yml"):
        found["task.name"] = Data(recipe.task.name)
    return found


def _files_of_task(recipe: Recipe) -> tuple[Path, ...]:
    """The files that a task names below the folder of its data."""
    task, folder = task_of_recipe(recipe.task), Path(recipe.task.data)
    named = (find_split(part, folder, split) for part in task.parts or (task,) for split in part.splits)
    return tuple(dict.fromkeys(filter(None, named)))


# ---- its result -----------------------------------------------------------------------------------------------------


def has_result(chain: Chain, stage: Stage) -> bool:
    """Returns True if what a stage has left is there: a checkpoint, or the scores of its kind."""
    folder = run_dir_of(chain, stage)
    if stage.verb == "train":
        return newest_in(folder / "checkpoints") is not None
    return (folder / SCORES).is_file()


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
