"""The verb `kogpt2 watch`: follows a run from another shell or host."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import click

from kogpt2_gluon.cli.group import echo
from kogpt2_gluon.cli.paths import FOLDER

SILENT = 60.0  # seconds without a line, after which the terminal says how long


@click.command(no_args_is_help=True)
@click.argument("run_dir", type=FOLDER)
@click.option("--last", default=10, show_default=True, type=click.IntRange(min=0), help="Lines to begin with.")
@click.option("--metrics", is_flag=True, help="Print the lines of metrics.jsonl instead, one JSON object each.")
def watch(run_dir: Path, last: int, metrics: bool) -> None:
    """Print what a run says, from another shell or host, until it ends or Ctrl-C; the run does not notice.

    On a terminal a bar below the lines shows how far it is. The exit code is 0 once the run is done, and 1 if it ended
    in another way, which its last line says.

    \b
    Example: kogpt2 watch runs/mine
             kogpt2 watch runs/mine --metrics --last 0 | jq .loss
    """
    from kogpt2_gluon.errors import KoGPT2Error
    from kogpt2_gluon.runs.watching import follow, how_it_ended

    if metrics:
        for line in follow(run_dir, "metrics.jsonl", last):
            if line:
                echo(line)
    else:
        _show(run_dir, last)
    how = how_it_ended(run_dir)
    if how != "done":
        raise KoGPT2Error(f"{run_dir}: ended: {how}")


def _show(run_dir: Path, last: int) -> None:
    """Prints the log until it ends."""
    from kogpt2_gluon.recipe import load_recipe
    from kogpt2_gluon.runs.display import Display
    from kogpt2_gluon.runs.eta import Eta
    from kogpt2_gluon.runs.logbook import LOG_FILE
    from kogpt2_gluon.runs.metrics import printable
    from kogpt2_gluon.runs.watching import GrowingFile, follow

    path = run_dir / "recipe.yaml"
    num_steps = load_recipe(str(path)).training.num_steps if path.is_file() else 1
    display, figures, eta = Display(None, num_steps, 0), GrowingFile(run_dir / "metrics.jsonl", 64), Eta()
    records, heard = figures.first, time.monotonic()
    try:
        for text in follow(run_dir, LOG_FILE, last):
            if text:
                heard = time.monotonic()
                display.print(printable(text))
                continue
            for record in [each for each in map(_record, records) if each]:
                eta.mark(record["step"], record["seconds"])  # without the time between a stop and a start
                rate = f"{_number(record.get('tokens_per_second')):,.0f} tok/s"
                loss = record.get("smoothed_loss", record.get("loss"))
                display.update(record["step"], _number(loss), rate, eta.seconds(num_steps))
            if time.monotonic() - heard > SILENT:
                display.print(f"({time.monotonic() - heard:.0f} s without a line{_perhaps_gone(run_dir)})")
                heard = time.monotonic()
            records = figures.new_lines()
    finally:
        display.close()


def _perhaps_gone(run_dir: Path) -> str:
    from kogpt2_gluon.errors import RecipeError
    from kogpt2_gluon.runs.lock import check_unlocked

    try:
        check_unlocked(run_dir)
    except RecipeError:  # a training holds it
        return ""
    return ", and no process holds the lock of the run: was it killed, or has this file system no locks?"


def _record(line: str) -> dict[str, Any] | None:
    """Returns a record of training with a step and the seconds spent; None for any other line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and record.get("kind") == "train" and type(record.get("step")) is int
    return record if known and isinstance(record.get("seconds"), (int, float)) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
