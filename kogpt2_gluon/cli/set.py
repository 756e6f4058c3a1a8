"""The verb `kogpt2 set`: asks a run that is training for something."""

from __future__ import annotations

import time
from pathlib import Path

import click

from kogpt2_gluon.cli.paths import FOLDER
from kogpt2_gluon.machine.interrupts import interruptible

WORDS = ("save", "evaluate", "stop")
LOOK = 0.2  # seconds between two looks


@click.command("set", no_args_is_help=True)
@click.argument("run_dir", type=FOLDER)
@click.argument("requests", nargs=-1, required=True, metavar="[KEY=VALUE|save|evaluate|stop]...")
@click.option("--wait", default=0.0, metavar="SECONDS", help="Wait so long for the run to take the request up.")
@interruptible()
def set_(run_dir: Path, requests: tuple[str, ...], wait: float) -> None:
    """Ask a run that is training to change settings, to save, to evaluate or to stop, between two steps.

    RUN_DIR is its folder, on any host that sees it. The settings are checked like a recipe and are those that a resume
    may change, but for where the run computes; all workers take them after the same step, and the numbers are those of
    a run that was stopped there and went on with them. Step and asker are in the log, and a resume keeps the change. A
    run that is not training takes requests up when it goes on, but for stop.

    \b
    Example: kogpt2 set runs/mine training.learning_rate=1e-4
             kogpt2 set runs/mine save evaluate
    """
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.machine import job
    from kogpt2_gluon.recipe import load_recipe
    from kogpt2_gluon.runs.requests import Request, me, send
    from kogpt2_gluon.training.live_changes import changed_recipe

    settings = [each for each in requests if "=" in each]
    words = [each for each in requests if "=" not in each]
    for word in words:
        if word not in WORDS:
            raise RecipeError(f"{word}: neither KEY=VALUE nor one of {', '.join(WORDS)}")
    path = run_dir / "recipe.yaml"
    if not path.is_file():
        raise RecipeError(f"{run_dir}: no recipe.yaml there; is this the folder of a run?")
    changed_recipe(load_recipe(str(path)), settings)
    if settings or "save" in words or "evaluate" in words:
        sent = send(run_dir, Request(settings, "save" in words, "evaluate" in words, me()))
        click.echo(f"asked: {' '.join(each for each in requests if each != 'stop')}")
        if wait and not _is_taken(sent, wait):
            raise RecipeError(f"{run_dir}: the run has not taken the request up in {wait:g} seconds; it stays there")
    if "stop" in words:
        job.stop_file(run_dir).touch()
        click.echo("asked: stop")


def _is_taken(sent: Path, seconds: float) -> bool:
    """Returns True once the run has taken a request up; False if it has not in time."""
    end = time.monotonic() + seconds
    while sent.exists():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK)
    return True
