"""The number of steps of a fine-tuning: from the passes over the rows that its recipe asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.wording import silent


def with_steps(recipe: Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Returns a recipe whose training.num_steps follows from task.epochs; any other recipe as it is.

    An evaluation.interval of 0 becomes an epoch. The rows are read for it: DataError and RecipeError as at the start of
    a run; RecipeError too if one of the `overrides` names the number of steps, which would have no effect.
    """
    if not (recipe.task.name and recipe.task.epochs):
        return recipe
    if any(override.startswith("training.num_steps=") for override in overrides):
        raise RecipeError(f"training.num_steps follows from task.epochs={recipe.task.epochs:g}; give task.epochs=0 too")
    from kogpt2_gluon.tasks.locales import task_of_recipe
    from kogpt2_gluon.training.task_objective import training_rows

    rows, _ = training_rows(task_of_recipe(recipe.task), recipe, silent)
    epoch = len(rows) / recipe.training.total_batch_size
    training = replace(recipe.training, num_steps=max(1, math.ceil(recipe.task.epochs * epoch)))
    evaluation = replace(recipe.evaluation, interval=recipe.evaluation.interval or math.ceil(epoch))
    return replace(recipe, training=training, evaluation=evaluation)
