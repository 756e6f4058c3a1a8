"""The verb `kogpt2 train`."""

from __future__ import annotations

import click


@click.command(no_args_is_help=True)
@click.argument("recipe")
@click.argument("overrides", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and what it would take, and stop.")
@click.option("--resume", default="auto", show_default=True, help="auto, never, or a checkpoint's path.")
def train(recipe: str, overrides: tuple[str, ...], dry_run: bool, resume: str) -> None:
    """Recipe -> checkpoints. Under `horovodrun --gloo -np N` the same command is one worker of N.

    RECIPE is a YAML file or the name of a shipped one; OVERRIDES are section.key=value.

    \b
    Example: kogpt2 train demo training.num_steps=200 tracking.run_dir=runs/try
             horovodrun --gloo -np 8 kogpt2 train kogpt2_base data.train=shards/train
    """
    from kogpt2_gluon.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    if dry_run:
        from kogpt2_gluon.training.dry_run import check_data, describe

        click.echo(describe(loaded))
        check_data(loaded)  # last: what it takes is said all the same
        return
    from kogpt2_gluon.machine import runtime

    runtime.prepare(loaded.training.threads)
    from kogpt2_gluon.training.loop import train as run

    run(loaded, resume)
