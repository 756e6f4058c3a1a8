"""The verb `kogpt2 runs`: runs as folders, found, compared and forked."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.group import Group, echo, echo_json
from kogpt2_gluon.cli.paths import FOLDER
from kogpt2_gluon.machine.interrupts import interruptible
from kogpt2_gluon.pages.labels import elided
from kogpt2_gluon.wording import width_of

if TYPE_CHECKING:
    from kogpt2_gluon.runs.run_folder import RunFolder

COLUMNS = ("state", "step", "best", "started", "time")  # of a run, in a table
WIDEST = 48  # columns of a terminal that a setting's value takes


@click.group(cls=Group, no_args_is_help=True)
def runs() -> None:
    """Find runs, compare them, and begin one from another's checkpoint. A run is a folder with its recipe.yaml.

    \b
    Example: kogpt2 runs list runs
    """


@runs.command("list")
@click.argument("folder", type=FOLDER, default=Path("runs"), required=False)
@options.json_output
def list_(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER and below: how far each is, its best held-out figure, when it began, how long it took.

    FOLDER may be a prefix of S3, s3://bucket/runs, of which only the records are read.

    \b
    Example: kogpt2 runs list /fsx/runs
    """
    from kogpt2_gluon.errors import DataError
    from kogpt2_gluon.runs.remote import runs_below

    with runs_below(folder) as (found, faults):
        figures = [_figures(run) for run in found]
    if as_json:
        echo_json({"runs": figures, "faults": [str(fault) for fault in faults]})
    elif found:
        _table(["run", *COLUMNS], [[each["run"], *_shown(each)] for each in figures])
    _say_faults(folder, faults)
    if not found:
        raise DataError(f"{folder}: no run there or below")


@runs.command(no_args_is_help=True)
@click.argument("paths", nargs=-1, required=True, metavar="RUN...", type=FOLDER)
@options.json_output
def compare(paths: tuple[Path, ...], as_json: bool) -> None:
    """Print the settings and the data in which runs differ, what each reached, and whether they compare.

    One column a run. A folder that is not a run but holds runs counts as these.

    \b
    Example: kogpt2 runs compare runs/a runs/b runs/c
    """
    from kogpt2_gluon.cli.recipe_keys import written
    from kogpt2_gluon.runs.comparability import notes_on
    from kogpt2_gluon.runs.differences import differences_of
    from kogpt2_gluon.runs.names import names_of
    from kogpt2_gluon.runs.remote import opened

    with opened(paths, lambda line: click.echo(f"kogpt2: {line}", err=True)) as found:
        differ = differences_of(found)
        reached = [_figures(run) for run in found]
        names = names_of(found)
        notes = notes_on(found, names)
    if as_json:
        settings = {**differ.settings, **differ.noise}
        plain = [f"{note.heading}: {note.text}" for note in notes]
        echo_json({"runs": reached, "differ": settings, "data": differ.data, "notes": plain})
        return
    rows = [[key, *map(written, values)] for key, values in differ.settings.items()]
    rows += [[name, *("-" if each is None else each for each in values)] for name, values in differ.data.items()]
    shown = [dict(zip(COLUMNS, _shown(each))) for each in reached]
    gap = [[""] * (len(found) + 1)]
    rows += gap * bool(rows)
    rows += [["best held-out" if name == "best" else name, *(each[name] for each in shown)] for name in COLUMNS]
    rows += gap * bool(differ.noise) + [[key, *map(written, values)] for key, values in differ.noise.items()]
    _table(["", *names], [[elided(cell, WIDEST) for cell in row] for row in rows])
    for note in notes:
        echo(f"\n{note.heading}:\n  {note.text}")


@runs.command()
@click.argument("folder", type=FOLDER, default=Path("runs"), required=False)
@options.json_output
def leaderboard(folder: Path, as_json: bool) -> None:
    """Rank the runs in FOLDER and below: a table for each held-out text or task, the best first.

    The figure is that of the last evaluation, bits per byte or a task's score. Runs on the same text compare whatever
    their tokenizers; one that is not done was scored on evaluation.max_sequences sequences alone, and is marked *.

    \b
    Example: kogpt2 runs leaderboard runs
    """
    from kogpt2_gluon.errors import DataError
    from kogpt2_gluon.runs.remote import runs_below
    from kogpt2_gluon.training.leaderboard import rank

    with runs_below(folder) as (found, faults):
        boards = {
            board: [(ranked[0].measure, {**_figures(run), "figure": run.final}) for run in ranked]
            for board, ranked in rank(found).items()
        }
    if as_json and boards:
        echo_json({board: [figures for _, figures in ranked] for board, ranked in boards.items()})
    for number, (board, ranked) in enumerate(() if as_json else boards.items()):
        echo("\n" * bool(number) + board)
        rows = [
            [
                f"{each['figure']:.4f}{'*' * (each['state'] != 'done')}",
                f"{each['step']:,}",
                _shown(each)[COLUMNS.index("time")],
                each["run"],
            ]
            for _, each in ranked
        ]
        _table([ranked[0][0].replace("_", " "), "step", "time", "run"], rows)
    _say_faults(folder, faults)
    if not boards:
        raise DataError(f"{folder}: no run there or below that was evaluated")


@runs.command(no_args_is_help=True)
@click.argument("run_dir", type=FOLDER, metavar="RUN")
@click.argument("target", type=click.Path(path_type=Path), metavar="NEW")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--at", "step", type=int, metavar="STEP", help="The checkpoint's step; without it the newest one.")
@click.option("--allow-change", multiple=True, metavar="KEY", help="As for `kogpt2 train`; repeatable.")
@interruptible()
def fork(
    run_dir: Path, target: Path, settings: tuple[str, ...], step: int | None, allow_change: tuple[str, ...]
) -> None:
    """Make NEW a run that goes on from a checkpoint of RUN: weights, moments, place in the data, and the record.

    The settings are those that a resume may change. Without any, it ends with the bytes of its parent. NEW/parent.json
    names the parent and the step. RUN is only read. The fork has no mirrors.

    \b
    Example: kogpt2 runs fork runs/mine runs/slower training.learning_rate=1e-4 --at 4000
             kogpt2 train runs/slower/recipe.yaml
    """
    from kogpt2_gluon.training.fork import fork as make

    at, changes = make(run_dir, target, step, settings, allow_change)
    echo(f"{target}: goes on from step {at:,} of {run_dir}")
    for change in changes:
        echo(f"  {change}")
    echo(f"train it: kogpt2 train {target / 'recipe.yaml'}")


@runs.command(no_args_is_help=True)
@click.argument("paths", nargs=-1, required=True, metavar="RUN...", type=FOLDER)
@click.option("--keep", default=1, show_default=True, type=click.IntRange(min=1), help="Checkpoints that stay.")
@click.option("--aside", is_flag=True, help="Those in before-step-* folders, too, which runs have moved aside.")
@click.option("--yes", is_flag=True, help="Remove them; without it they are only listed.")
def prune(paths: tuple[Path, ...], keep: int, aside: bool, yes: bool) -> None:
    """List the checkpoints of runs that are not needed to go on, and remove them with --yes.

    The newest one stays, and the best one in addition to --keep. If the newest is damaged, the newest whole one stays
    too. A run that is training is refused, and so is a copy whose checkpoints are those of the original.

    \b
    Example: kogpt2 runs prune runs/* --keep 2
    """
    from kogpt2_gluon.runs.pruning import prune as remove
    from kogpt2_gluon.runs.pruning import to_prune
    from kogpt2_gluon.runs.run_folder import open_run
    from kogpt2_gluon.wording import gigabytes

    total = 0
    for run in [open_run(path) for path in paths]:
        for path, size in (remove if yes else to_prune)(run, keep, aside, functools.partial(click.echo, err=True)):
            echo(f"{path}  {gigabytes(size)}")
            total += size
    echo(f"{gigabytes(total)} {'removed' if yes else 'would go; --yes removes them'}" if total else "nothing to remove")


def _say_faults(folder: Path, faults: Sequence[Exception]) -> None:
    """Prints what is wrong with runs that cannot be read. DataError if there are any."""
    from kogpt2_gluon.errors import DataError
    from kogpt2_gluon.wording import counted

    for fault in faults:
        click.echo(f"kogpt2: {' '.join(str(fault).split())}", err=True)
    if faults:
        raise DataError(f"{folder}: {counted(len(faults), 'run')} cannot be read")


def _figures(run: RunFolder) -> dict[str, Any]:
    """Returns what a run reached, as plain data."""
    step, best = run.best_of(run.measure)
    return {
        "run": run.place or str(run.path),
        "name": run.recipe.name,
        "state": run.state,
        "step": run.step,
        "num_steps": run.recipe.training.num_steps,
        "measure": run.measure,
        "best": _known(best),
        "best_step": None if math.isnan(best) else step,
        "start": run.start,
        "started": _known(run.started),
        "seconds": _known(run.seconds),
        "parent": run.parent or None,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _shown(figures: dict[str, Any]) -> list[str]:
    """Returns the COLUMNS in words. The best figure has its name, and the word ``untrained`` if step 0 has it."""
    from kogpt2_gluon.wording import duration

    best, started, seconds = figures["best"], figures["started"], figures["seconds"]
    start = f"{figures['start']} " if figures["best_step"] == 0 else ""
    return [
        figures["state"],
        f"{figures['step']:,}/{figures['num_steps']:,}",
        "-" if best is None else f"{start}{best:.4f} {figures['measure'].replace('_', ' ')}",
        "-" if started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(started)),
        "-" if seconds is None else duration(seconds),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(width_of, column)) for column in zip(head, *rows)]
    for row in (head, *rows):
        echo("  ".join(cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths)).rstrip())
