"""The learning rate over the steps: a linear warm-up, then a linear or cosine decay."""

from __future__ import annotations

import math

from kogpt2_gluon.recipe_sections import TrainingRecipe


def learning_rate(recipe: TrainingRecipe, step: int) -> float:
    """The learning rate of update number `step`, from 1 to num_steps.

    The warm-up takes ``ceil(warmup_ratio * num_steps)`` steps and ends at the peak. The decay ends at
    `final_learning_rate` in the last step. The linear decay is BERT's (Devlin et al., 2018), the cosine is GPT's
    (Radford et al., 2018).
    """
    warmup = math.ceil(recipe.warmup_ratio * recipe.num_steps)
    if step <= warmup:
        return recipe.learning_rate * step / warmup
    left = (recipe.num_steps - step) / max(1, recipe.num_steps - warmup)  # 1 at the peak, 0 at the end
    left = max(0.0, left)
    shape = left if recipe.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    return recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * shape
