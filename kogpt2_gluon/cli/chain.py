"""The verb `kogpt2 chain`: runs several verbs one after the other, each with the result of those before."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from kogpt2_gluon.cli.group import echo
from kogpt2_gluon.cli.paths import ANY_PATH


@click.command(no_args_is_help=True)
@click.argument("chain_file", metavar="CHAIN")
@click.argument("overrides", nargs=-1, metavar="[STAGE.KEY=VALUE]...")
@click.option("--out", type=ANY_PATH, help="Folder of the chain, instead of the one that its file names.")
@click.option(
    "--again",
    multiple=True,
    metavar="STAGE",
    help="Run a stage again, with all that depend on it; what they have left is moved aside. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan, check every stage's recipe, and stop.")
@click.option("--run-with", metavar="COMMAND", help="How a stage that trains is started: 'horovodrun --gloo -np 8'.")
def chain(
    chain_file: str,
    overrides: tuple[str, ...],
    out: Path | None,
    again: tuple[str, ...],
    dry_run: bool,
    run_with: str | None,
) -> None:
    """Run the stages of CHAIN: pretrain, adapt, distil, fine-tune, evaluate; a table at the end.

    CHAIN is a YAML file or the name of a shipped one; each stage is the run of an ordinary verb in its own folder. The
    same command goes on where a chain was stopped or killed, and a stage that is done is not run again. A stage whose
    settings or inputs have changed since is refused, and so are those after it, until --again or --out says what to do.

    \b
    Example: kogpt2 chain alexatm --dry-run
             kogpt2 chain alexatm pretrain.training.num_steps=2000 --out runs/mine
             kogpt2 chain mine.yaml --again distil
    """
    from kogpt2_gluon.chain.chain_file import load_chain
    from kogpt2_gluon.chain.planning import describe, refuse_changed, standings
    from kogpt2_gluon.chain.record import Record
    from kogpt2_gluon.chain.running import run_chain, table
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.machine.interrupts import preempted_on_signals

    loaded = load_chain(chain_file, overrides, out)
    try:
        words = shlex.split(run_with or "")
    except ValueError as error:
        raise RecipeError(f"--run-with {run_with}: {error}") from None
    if dry_run:
        record = Record.load(loaded.folder)
        found = standings(loaded, record)
        for line in describe(loaded, record, found, words):
            echo(line)
        refuse_changed(loaded, found)
        return
    preempted_on_signals("stopped; the stage's state is saved, and the same command goes on")
    record = run_chain(loaded, again, words, click.echo)
    for line in table(loaded, record):
        echo(line)
