"""The verb `kogpt2 recipe`: looks at recipes, and runs nothing."""

from __future__ import annotations

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.group import Group, echo, echo_json


@click.group(cls=Group, no_args_is_help=True)
def recipe() -> None:
    """Look at recipes: show one, check some, compare two, list the keys.

    A RECIPE is a YAML file, or the name of a shipped one.

    \b
    Example: kogpt2 recipe diff small_cpu runs/mine/recipe.yaml
    """


@recipe.command(no_args_is_help=True)
@click.argument("name", metavar="RECIPE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--changed", is_flag=True, help="Only the keys that differ from their defaults.")
@options.json_output
def show(name: str, overrides: tuple[str, ...], changed: bool, as_json: bool) -> None:
    """Print a recipe with the KEY=VALUE overrides applied and every default filled in, as YAML.

    \b
    Example: kogpt2 recipe show kogpt2_base training.precision=float16 > mine.yaml
    """
    from kogpt2_gluon.options import to_yaml
    from kogpt2_gluon.recipe import changed_keys, load_recipe

    loaded = load_recipe(name, overrides)
    plain = changed_keys(loaded) if changed else loaded.to_dict()
    echo_json(plain) if as_json else echo(to_yaml(plain).rstrip("\n"))


@recipe.command(no_args_is_help=True)
@click.argument("names", nargs=-1, required=True, metavar="RECIPE...")
def check(names: tuple[str, ...]) -> None:
    """Check recipes: each fault is a line on stderr, and the exit code is 2 if one has any. No data is opened.

    `kogpt2 train RECIPE --dry-run` looks at the data, memory and disk, too.

    \b
    Example: kogpt2 recipe check recipes/*.yaml
    """
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.recipe import load_recipe
    from kogpt2_gluon.wording import counted

    faulty = 0
    for name in names:
        try:
            load_recipe(name)
            click.echo(f"{name}: good")
        except RecipeError as error:
            faulty += 1
            click.echo(f"kogpt2: {error}", err=True)
    if faulty:
        raise RecipeError(f"{counted(faulty, 'recipe')} of {len(names)} cannot be used")


@recipe.command(no_args_is_help=True)
@click.argument("first", metavar="RECIPE")
@click.argument("second", metavar="OTHER")
@options.json_output
def diff(first: str, second: str, as_json: bool) -> None:
    """Print the keys in which two recipes differ, with the values of both; a run's is RUN/recipe.yaml.

    Two recipes that are spelled otherwise and mean the same do not differ.

    \b
    Example: kogpt2 recipe diff kogpt2_base kogpt2_medium
    """
    from kogpt2_gluon.cli.recipe_keys import written
    from kogpt2_gluon.recipe import differences, load_recipe

    found = differences(load_recipe(first), load_recipe(second))
    if as_json:
        echo_json({key: {"first": own, "second": other} for key, (own, other) in found.items()})
        return
    width = max(map(len, found), default=0)
    for key, (own, other) in found.items():
        echo(f"{key:{width}}  {written(own)} -> {written(other)}")
    if not found:
        echo("they do not differ")


@recipe.command()
@click.argument("section", required=False, default="")
def keys(section: str) -> None:
    """Print every key of a recipe (of one SECTION) with its default, the values it admits and its meaning.

    \b
    Example: kogpt2 recipe keys training
    """
    from kogpt2_gluon.cli.recipe_keys import describe_keys

    echo(describe_keys(section))
