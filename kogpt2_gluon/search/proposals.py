"""The settings of the next run of a search: Optuna's TPE or random draws, never the same ones twice."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.search.space import MOST_COMBINATIONS, Setting, Space, overrides

TPE, RANDOM = "tpe", "random"
SAMPLERS = (TPE, RANDOM)
MOST_DRAWS = 100  # for one run, of settings that a recipe refuses or that were tried
FEW_DRAWS = 10  # where what is left can be listed instead
STARTUP = 8  # runs with random settings, before TPE has enough to go by


class Tried:
    """Settings that a run has, and its costs by step so far; none for a run that has just begun or has failed."""

    def __init__(self, settings: Mapping[str, Setting], costs: Mapping[int, float], done: bool, failed: bool) -> None:
        self.settings, self.costs, self.done, self.failed = dict(settings), dict(costs), done, failed


def propose(space: Space, recipe: Recipe, tried: Sequence[Tried], sampler: str, seed: int) -> dict[str, Setting] | None:
    """Returns the settings of run number ``len(tried)``; None if all combinations of the space were tried.

    They are a function of the arguments alone, so that a search which was killed goes on as it would have. RecipeError
    if a recipe admits none of the combinations that were drawn.
    """
    refused: list[str] = []
    used = [each.settings for each in tried]
    can_be_listed = space.size <= MOST_COMBINATIONS
    for draw in range(FEW_DRAWS if can_be_listed else MOST_DRAWS):
        settings = _draw(space, tried, sampler, hash_of(seed, len(tried), draw))
        if settings not in used and _is_admitted(recipe, settings, refused):
            return settings
    if can_be_listed:
        left = [each for each in space.combinations() if each not in used and _is_admitted(recipe, each, refused)]
        if left:
            return random.Random(hash_of(seed, len(tried), MOST_DRAWS)).choice(left)
        if used:
            return None
    if not refused:  # only settings that were tried: what is left cannot be listed, and is rarely drawn
        return None
    raise RecipeError(f"the recipe admits no settings of the space that were drawn; of the last ones: {refused[-1]}")


def hash_of(*numbers: int) -> int:
    """Returns a seed for Optuna, from some numbers."""
    return random.Random(",".join(map(str, numbers))).getrandbits(32)


def _is_admitted(recipe: Recipe, settings: Mapping[str, Setting], refused: list[str]) -> bool:
    try:
        parse_recipe(recipe.to_dict(), overrides(settings), source="the recipe with these settings")
    except RecipeError as error:
        refused.append(str(error))
        return False
    return True


def _draw(space: Space, tried: Sequence[Tried], sampler: str, seed: int) -> dict[str, Setting]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {
        TPE: lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP),
        RANDOM: lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    study = optuna.create_study(sampler=samplers[sampler]())
    study.add_trials([_as_trial(space, each) for each in tried])
    drawn: dict[str, Any] = study.ask(space.distributions).params
    return drawn


def _as_trial(space: Space, one: Tried) -> Any:
    """Returns a run as Optuna has it: one that has paused counts as pruned at its last rung, a failed one likewise."""
    from optuna.trial import TrialState, create_trial

    costs = {0: math.inf} if one.failed else one.costs
    if not costs and not one.failed:
        state = TrialState.RUNNING
    else:
        state = TrialState.COMPLETE if one.done else TrialState.PRUNED
    return create_trial(
        state=state,
        params=one.settings,
        distributions=space.distributions,
        intermediate_values=costs,
        value=costs[max(costs)] if one.done else None,
    )
