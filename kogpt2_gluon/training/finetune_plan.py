"""Which runs a fine-tuning is made of: a recipe for each seed; without MXNet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.job import job_size
from kogpt2_gluon.recipe import Recipe, find_recipe, load_recipe
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.training.steps_of_task import with_steps
from kogpt2_gluon.user_files import read_yaml
from kogpt2_gluon.wording import Say

ARGUMENTS = {"training.init_from": "CHECKPOINT", "task.name": "--task", "task.data": "--data"}
NOT_COPIED = ("dropout",)  # settings of `model` that are the recipe's, not the checkpoint's
TUNED, UNTRAINED = "fine-tuned", "the same network, not pretrained"
FOLDERS = {TUNED: "seed-{}", UNTRAINED: "untrained-seed-{}"}


@dataclass(frozen=True)
class Plan:
    """The network to fine-tune, the task, and how.

    Attributes
    ----------
    checkpoint : Path
        A checkpoint, a run, or a transformers folder of a GPT-2.
    task, data : str
        As `task.name` and `task.data` in a recipe.
    recipe : str
    overrides : sequence of str
        ``section.key=value``.
    seeds : int
        Runs, with the recipe's seed and those after it.
    with_untrained : bool
        True: the same network is trained from random weights too.
    """

    checkpoint: Path
    task: str
    data: str
    recipe: str = "finetune"
    overrides: Sequence[str] = field(default=())
    seeds: int = 1
    with_untrained: bool = False

    def recipes(self, say: Say) -> dict[str, list[Recipe]]:
        """The recipe of each run: {TUNED: one a seed, UNTRAINED: likewise}.

        RecipeError or DataError if checkpoint, recipe or data do not fit.
        """
        source, notes = open_source(self.checkpoint)
        for note in notes:
            say(note)
        first, given = self.over(source.recipe().model, say)
        first.accumulate(job_size())
        first = with_steps(first, self.overrides)  # the same for all seeds
        folder = self.folder(first)
        starts: dict[str, tuple[str, ...]] = {TUNED: (f"training.init_from={self.checkpoint}",)}
        if self.with_untrained:
            starts[UNTRAINED] = ("training.init_from=", f"data.tokenizer={source.tokenizer_path}")
        runs: dict[str, list[Recipe]] = {}
        for kind, start in starts.items():
            for seed in range(first.training.seed, first.training.seed + self.seeds):
                name = FOLDERS[kind].format(seed)
                own = (f"training.seed={seed}", f"tracking.run_dir={folder / name}", *_apart(first, name))
                recipe = load_recipe(self.recipe, [*given, *self.overrides, *start, *own])
                recipe.training.num_steps = first.training.num_steps
                recipe.evaluation.interval = first.evaluation.interval
                runs.setdefault(kind, []).append(recipe)
        return runs

    def over(self, model: ModelRecipe, say: Say) -> tuple[Recipe, list[str]]:
        """The recipe of the first seed over a network of these sizes, and the overrides that make it one of them.

        RecipeError if they do not go together.
        """
        for key, argument in ARGUMENTS.items():
            if any(override.startswith(f"{key}=") for override in self.overrides):
                raise RecipeError(f"{key} is {argument} here; leave it out")
        sizes = [f"model.{key}={value}" for key, value in vars(model).items() if key not in NOT_COPIED]
        given = [f"task.name={self.task}", f"task.data={self.data}", *sizes, *self._length(model.max_length, say)]
        start = f"training.init_from={self.checkpoint}"
        given += self._batch(load_recipe(self.recipe, [*given, start, *self.overrides]), say)
        return load_recipe(self.recipe, [*given, start, *self.overrides]), given

    def folder(self, recipe: Recipe) -> Path:
        """The folder of the runs: as the user names it, else one of the task's name in the recipe's."""
        return recipe.run_dir / Path(self.task).stem if self.is_default_folder() else recipe.run_dir

    def is_default_folder(self) -> bool:
        """True if the user did not name the folder of the runs."""
        return not any(override.startswith("tracking.run_dir=") for override in self.overrides)

    def _batch(self, recipe: Recipe, say: Say) -> list[str]:
        """Deals the recipe's batch to several workers, unless the user named batch sizes."""
        training, size = recipe.training, job_size()
        named = ("training.batch_size=", "training.total_batch_size=")
        share, rest = divmod(training.total_batch_size, size)
        if rest or share >= training.batch_size or any(override.startswith(named) for override in self.overrides):
            return []
        say(f"training.batch_size={share}: {training.total_batch_size} rows an update, {size} workers")
        return [f"training.batch_size={share}"]

    def _length(self, max_length: int, say: Say) -> list[str]:
        """Shortens the recipe's own rows to what the network takes, unless the user named a length."""
        data = read_yaml(find_recipe(self.recipe), "recipe").get("data")
        length = data.get("seq_length") if isinstance(data, dict) else None
        is_named = any(override.startswith("data.seq_length=") for override in self.overrides)
        if is_named or not isinstance(length, int) or length <= max_length:
            return []
        say(f"data.seq_length={max_length}, the network's longest, instead of the recipe's {length}")
        return [f"data.seq_length={max_length}"]


def _apart(recipe: Recipe, name: str) -> list[str]:
    """Gives a run its own part of the folder and the mirrors that the user named for the checkpoints."""
    rules, overrides = recipe.checkpoint, []
    if rules.ckpt_dir:
        overrides.append(f"checkpoint.ckpt_dir={Path(rules.ckpt_dir) / name}")
    if rules.mirrors:
        overrides.append(f"checkpoint.mirrors={json.dumps([f'{mirror}/{name}' for mirror in rules.mirrors])}")
    return overrides
