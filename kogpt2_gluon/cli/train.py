"""The verb `kogpt2 train`: trains a recipe, or says what it would take."""

from __future__ import annotations

import math
from typing import Any

import click


def _print_keys(ctx: click.Context, option: click.Parameter, section: Any) -> None:
    """Prints the reference of a recipe's keys and ends the program; no recipe is needed for it."""
    if section is None:
        return
    from kogpt2_gluon.cli.recipe_keys import describe_keys

    click.echo(describe_keys(section))
    ctx.exit()


@click.command(no_args_is_help=True)
@click.argument("recipe")
@click.argument("overrides", nargs=-1)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the recipe, what it would take, and what it would start from, and stop.",
)
@click.option("--init-from", metavar="CHECKPOINT|FOLDER", help="Begin a new run with its weights: training.init_from.")
@click.option("--resume", default="auto", show_default=True, help="auto, never, or a checkpoint's path (RUN/best).")
@click.option(
    "--allow-change",
    multiple=True,
    metavar="KEY",
    help="Let the resumed run change data.seq_length, training.total_batch_size or model.dropout; repeatable.",
)
@click.option(
    "--until",
    type=click.IntRange(min=1),
    metavar="STEP",
    help="Stop after STEP, evaluated if it is due, and saved: exit code 75. The schedule stays that of the whole run.",
)
@click.option(
    "--keys",
    metavar="[SECTION]",
    is_flag=False,
    flag_value="",
    expose_value=False,
    is_eager=True,
    callback=_print_keys,
    help="Print every key of a recipe (of one section) with default, admitted values and meaning, and stop.",
)
def train(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    init_from: str | None,
    resume: str,
    allow_change: tuple[str, ...],
    until: int | None,
) -> None:
    """Train a recipe and save checkpoints. Under `horovodrun --gloo -np N` the same command is one worker of N.

    RECIPE is a YAML file or the name of a shipped one; OVERRIDES are section.key=value. A dry run makes the checks of
    the run, with its exit codes, and writes nothing; it leaves out only device and operators (kogpt2 doctor has them).

    \b
    Example: kogpt2 train demo training.num_steps=200 tracking.run_dir=runs/try
             kogpt2 train --keys training
             kogpt2 train my_recipe --init-from runs/kogpt2_base tracking.run_dir=runs/mine
             kogpt2 train my_recipe data.seq_length=512 --allow-change data.seq_length
             horovodrun --gloo -np 8 kogpt2 train kogpt2_base data.train=shards/train
    """
    from kogpt2_gluon.recipe import load_recipe
    from kogpt2_gluon.training.resume_point import resume_choice
    from kogpt2_gluon.training.resume_rules import check_allowed
    from kogpt2_gluon.training.steps_of_task import with_steps

    if init_from is not None:
        overrides = (*overrides, f"training.init_from={init_from}")
    loaded, resume, allowed = (
        with_steps(load_recipe(recipe, overrides), overrides),
        resume_choice(resume),
        check_allowed(allow_change),
    )
    if dry_run:
        from kogpt2_gluon.training.dry_run import check, describe

        click.echo(describe(loaded))
        # Last, so that the numbers are printed even if the data is at fault.
        for line in check(loaded, resume, allow_change=allowed):
            click.echo(line)
        return
    from kogpt2_gluon.machine import runtime

    runtime.prepare(loaded.training.threads)
    from kogpt2_gluon.training.loop import train as run

    run(loaded, resume, allowed, until=until or math.inf)
