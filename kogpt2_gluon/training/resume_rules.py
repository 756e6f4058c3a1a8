"""When a resume may change a setting: a rule for every key of a recipe. docs/training.md has them as a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import unknown_key
from kogpt2_gluon.recipe import Recipe, known_keys
from kogpt2_gluon.recipe_sections import INITIAL, WHEN_ODD, AdaptationRecipe, DistillationRecipe

FREELY, PATH, IF_ALLOWED, NEVER = "freely", "its path", "with --allow-change", "never"
OPTION = "--allow-change"

ALLOWABLE = ("data.seq_length", "model.dropout", "training.total_batch_size")
# Data may move to another place: what is there is compared, not its name.
MOVABLE = ("data.train", "data.tokenizer", "task.data", "distillation.teacher")
# The other settings of `model`, `training` and OF_THE_TASK decide what is computed, so they make another run.
FREE = (
    "training.num_steps",
    "training.batch_size",
    "training.learning_rate",
    "training.final_learning_rate",
    "training.schedule",
    "training.warmup_ratio",
    "training.weight_decay",
    "training.clip_norm",
    *(f"training.{name}" for name in WHEN_ODD),
    "training.compare_interval",
    "training.device",
    "training.threads",
    "training.ops",
    "training.precision",  # the checkpoint is float32 either way
    "training.recompute",
    *(f"training.{name}" for name in INITIAL),  # the checkpoint has what became of those weights
)
# Settings of the data that the reader compares with its saved state.
OF_THE_ORDER = (
    "data.source",
    "data.window",
    "data.max_lanes",
    "data.documents",
    "data.bpe_dropout",
)
OF_THE_TASK = ("task.name", "task.locales", "task.dev_share", "task.too_long")
OF_A_TECHNIQUE = tuple(f"adaptation.{name}" for name in vars(AdaptationRecipe()))
OF_A_TECHNIQUE += tuple(f"distillation.{name}" for name in vars(DistillationRecipe()))


class Change(NamedTuple):
    """A setting that differs between a checkpoint and the recipe that resumes from it."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.now}"


def rule_of(key: str) -> str:
    """Returns when a resume may change a key of a recipe: FREELY, PATH, IF_ALLOWED or NEVER."""
    if key in ALLOWABLE:
        return IF_ALLOWED
    if key in MOVABLE:
        return PATH
    decides = key.startswith(("model.", "training.")) and key not in FREE
    return NEVER if decides or key in (*OF_THE_ORDER, *OF_THE_TASK, *OF_A_TECHNIQUE) else FREELY


def check_allowed(keys: Sequence[str]) -> tuple[str, ...]:
    """Returns the keys that `--allow-change` names, each once.

    RecipeError for a key that recipes do not have, or that no resume may change.
    """
    for key in keys:
        if key not in known_keys():
            raise RecipeError(f"{OPTION} {key}: {unknown_key(key, list(known_keys())).text}")
        if rule_of(key) == PATH:
            raise RecipeError(
                f"{OPTION} {key}: the same data may be at another path without this option; other data makes another "
                "run: --init-from RUN and another run_dir"
            )
        if rule_of(key) == NEVER:
            raise RecipeError(
                f"{OPTION} {key}: a run keeps it to its end; {', '.join(ALLOWABLE)} can be allowed to change; for "
                "another value, begin another run with the weights of this one: --init-from RUN and another run_dir"
            )
    return tuple(dict.fromkeys(keys))


def notes_on_allowed(allowed: Collection[str], changes: Collection[Change], recipe: Recipe) -> list[str]:
    """Returns a line for each key that was allowed to change and did not, or needs no permission.

    These are not errors, since a run that is started again gets the same command.
    """
    made, plain, lines = {change.key for change in changes}, recipe.to_dict(), []
    for key in allowed:
        if rule_of(key) == FREELY:
            lines.append(f"note: {OPTION} {key}: it may change without")
        elif key not in made:
            section, _, name = key.partition(".")
            lines.append(f"note: {OPTION} {key}: nothing to allow, it does not change from {plain[section][name]}")
    return lines


def refusal(source: str, refused: Sequence[Change]) -> RecipeError:
    """Returns the error for a checkpoint, `source`, of another recipe, with the ways out."""
    can = [change.key for change in refused if rule_of(change.key) == IF_ALLOWED]
    ways = ["restore these values"]
    if can:
        names = " ".join(f"{OPTION} {key}" for key in can)
        ways.append(f"allow the change ({names})" if len(can) == len(refused) else f"allow some of it ({names})")
    ways.append(f"begin another run with its weights: --init-from {source} and another run_dir")
    return RecipeError(f"{source}: saved by another recipe ({', '.join(map(str, refused))}); {', or '.join(ways)}")
