"""The networks of a chain before they are there: what each stage will leave, and whether a later stage can use it."""

from __future__ import annotations

from pathlib import Path

from kogpt2_gluon.chain.chain_file import REFERENCE, Chain, Stage
from kogpt2_gluon.chain.stages import overrides_of, recipe_file, recipe_of
from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.training.finetune_plan import Plan
from kogpt2_gluon.training.network_rules import Network, check_can_begin, check_can_teach

Known = dict[str, Network]  # by the names of stages


def check_networks(chain: Chain, stage: Stage, known: Known) -> None:
    """Checks a stage's recipe, and that it can use the networks that it names; adds the one that it will leave.

    `known` has the networks of the stages before. RecipeError or DataError if something does not fit, or a network
    outside of the chain is not there.
    """
    if stage.verb == "evaluate":
        network = _network(stage.options.evaluate, "evaluate", known)
        if network and network.has_head:
            raise RecipeError(
                f"evaluate={stage.options.evaluate}: {network.name} is fine-tuned for a task, and has no language "
                "model's output to score; the stage that tunes it has its scores"
            )
        return
    recipe = recipe_of(chain, stage)
    assert recipe
    key, name = ("finetune", stage.options.finetune) if stage.verb == "finetune" else ("training.init_from", "")
    first = _network(name or recipe.training.init_from, key, known)
    if stage.verb == "finetune":
        if not first:
            return  # of unknown sizes
        recipe = _fine_tuning(chain, stage, first)
    if first:
        check_can_begin(first, recipe)
    if teacher := _network(recipe.distillation.teacher, "distillation.teacher", known):
        check_can_teach(teacher, recipe)
    known[stage.name] = Network.of_recipe(f"the network of stage {stage.name}", recipe)


def _network(name: str, key: str, known: Known) -> Network | None:
    """Returns the network that a key names; None without a name, and for a path in the folder of an earlier stage."""
    if found := REFERENCE.fullmatch(name):
        return known.get(found[1])
    if not name or REFERENCE.search(name):
        return None
    try:
        return Network.of_source(open_source(Path(name))[0])
    except (RecipeError, DataError) as error:
        raise type(error)(f"{key}={name}: {error}") from None


def _fine_tuning(chain: Chain, stage: Stage, network: Network) -> Recipe:
    """The recipe of a fine-tuning, with the sizes of the network that it begins with."""
    options = stage.options
    recipe, overrides = recipe_file(chain, options.recipe), overrides_of(stage)
    plan = Plan(Path(options.finetune), options.task, options.data, recipe, overrides)
    return plan.over(network.recipe.model, lambda line: None)[0]
