"""The verb `kogpt2 search`: finds better settings of a recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.group import echo, echo_json
from kogpt2_gluon.cli.paths import ANY_PATH

if TYPE_CHECKING:
    from kogpt2_gluon.search.study import Plan, Study, Trial

SHOWN = 5  # trials that the terminal shows at the end


@click.command(no_args_is_help=True)
@click.argument("recipe")
@click.argument("space", type=ANY_PATH)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=ANY_PATH, help="Folder of the search; without it runs/NAME-search.")
@click.option("--trials", default=20, show_default=True, type=click.IntRange(min=1), help="At most so many runs.")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Runs that train at the same time here."
)
@click.option(
    "--rule",
    default="asha",
    show_default=True,
    type=click.Choice(["asha", "median", "none"]),
    help="Which runs go on at a rung: the best 1/ETA, those above the median, or all.",
)
@click.option("--eta", default=3, show_default=True, type=click.IntRange(min=2), help="A rung has ETA times the steps.")
@click.option("--first", type=click.IntRange(min=1), metavar="STEP", help="First rung; without it num_steps/ETA^2.")
@click.option("--sampler", default="tpe", show_default=True, type=click.Choice(["tpe", "random"]))
@click.option("--seed", default=0, show_default=True, help="Of the settings that are proposed.")
@click.option("--journal", is_flag=True, help="For several hosts on a shared file system: a journal file, not SQLite.")
@click.option("--run-with", metavar="COMMAND", help="How a run is started: 'horovodrun --gloo -np 8 kogpt2 train'.")
@options.json_output
def search(
    recipe: str,
    space: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    trials: int,
    workers: int,
    rule: str,
    eta: int,
    first: int | None,
    sampler: str,
    seed: int,
    journal: bool,
    run_with: str | None,
    as_json: bool,
) -> None:
    """Try settings of RECIPE: many runs, of which only the best at each rung go on from their own checkpoint.

    SPACE is a YAML file: a line for each key, with a list of values or {low: .., high: ..} (log: true, step: ..).
    The same command goes on with a search that was stopped or killed, and with more --trials it goes further. It ends
    with OUT/best.yaml, a recipe, and OUT/search.html.

    \b
    Example: kogpt2 search small_cpu space.yaml --trials 30 data.train=shards/train data.test=shards/test
    """
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.recipe import load_recipe

    try:
        import optuna  # noqa: F401  # which the modules below import where they need it
    except ImportError as error:
        raise RecipeError(f"a search needs Optuna ({error}): pip install 'kogpt2-gluon[search]'") from None
    from kogpt2_gluon.machine.interrupts import preempted_on_signals
    from kogpt2_gluon.search.page import write_page
    from kogpt2_gluon.search.searching import search as run_search
    from kogpt2_gluon.search.slices import TRAIN
    from kogpt2_gluon.search.space import read_space
    from kogpt2_gluon.search.study import Plan, Study
    from kogpt2_gluon.training.steps_of_task import with_steps

    loaded = with_steps(load_recipe(recipe, overrides), overrides)
    num_steps = loaded.training.num_steps
    if not (loaded.data.test or loaded.task.name):
        raise RecipeError("a search compares held-out figures: data.test=DIR is needed")
    if first is not None and first > num_steps:
        raise RecipeError(f"--first {first} is above training.num_steps={num_steps}")
    try:
        command = tuple(shlex.split(run_with)) if run_with else TRAIN
    except ValueError as error:
        raise RecipeError(f"--run-with {run_with}: {error}") from None
    first = first or max(1, round(num_steps / eta**2))
    plan = Plan(loaded, read_space(space, loaded), rule, eta, first, sampler, seed, journal, trials)
    for note in plan.space.notes:
        click.echo(note, err=True)
    study = Study(out or Path("runs") / f"{loaded.name}-search", plan, lambda line: click.echo(line, err=True))
    preempted_on_signals("stopped; the trials are saved, and the same command goes on")
    found = run_search(study, workers, command, lambda line: click.echo(line, err=as_json))
    page = write_page(study, found)
    _show(study, plan, found, page, as_json)


def _show(study: Study, plan: Plan, trials: list[Trial], page: Path, as_json: bool) -> None:
    """Prints what was found. KoGPT2Error if no trial went to the end."""
    from kogpt2_gluon.errors import KoGPT2Error
    from kogpt2_gluon.search.page import ranked

    best, last = study.best(trials), plan.rungs[-1]
    if best is None:
        reasons = {trial.reason for trial in trials if trial.reason}
        raise KoGPT2Error(f"{study.folder}: no trial went to the end; {'; '.join(sorted(reasons)) or 'none began'}")
    recipe = study.write_best(best)
    steps = sum(trial.steps for trial in trials)
    if as_json:
        rows = [
            {
                "trial": trial.number,
                "state": trial.standing.state,
                "settings": dict(trial.settings),
                "values": {str(step): value for step, value in trial.values.items()},
                "steps": trial.steps,
                "run": str(trial.path),
                "reason": trial.reason,
            }
            for trial in ranked(study, trials)
        ]
        figures = {"best": best.number, study.measure: best.values[last], "steps": steps, "of": len(trials) * last}
        echo_json({**figures, "recipe": str(recipe), "page": str(page), "trials": rows})
        return
    for trial in ranked(study, trials)[:SHOWN]:
        value = trial.values[max(trial.values)] if trial.values else float("nan")
        settings = " ".join(f"{key}={value}" for key, value in trial.settings.items())
        echo(f"{value:10.4f}  {trial.steps:7,} steps  trial {trial.number:<4} {settings}")
    echo(
        f"{len(trials):,} trials took {steps:,} steps, {steps / (len(trials) * last):.0%} of what all of them would "
        f"take to the end; best: {study.measure.replace('_', ' ')} {best.values[last]:.4f}"
    )
    echo(f"{recipe}\n{page}")
