"""The followers that a recipe asks for, besides TensorBoard."""

from __future__ import annotations

from kogpt2_gluon.recipe import Recipe, changed_keys
from kogpt2_gluon.runs.environment import hide_users
from kogpt2_gluon.runs.followers.background import Background
from kogpt2_gluon.runs.followers.mlflow import MLflow
from kogpt2_gluon.runs.followers.wandb import WandB


def followers_of(recipe: Recipe, is_new: bool) -> list[Background]:
    """Starts the followers of a run; `is_new` if it begins at step 0, and is not to go on with what was logged.

    They get the settings without names and passwords in addresses.
    """
    settings = {
        f"{section}.{key}": hide_users(value) if isinstance(value, str) else value
        for section, keys in changed_keys(recipe).items()
        if isinstance(keys, dict)
        for key, value in keys.items()
    }
    run_dir, name, chosen = recipe.run_dir, recipe.name, []
    if uri := recipe.tracking.mlflow:
        chosen.append(Background("tracking.mlflow", MLflow(uri, name, run_dir, settings, is_new).open))
    if (mode := recipe.tracking.wandb) != "off":
        chosen.append(Background("tracking.wandb", lambda _: WandB(mode, name, run_dir, settings, is_new)))
    return chosen
