"""The verb `kogpt2 note`: a line of one's own in the logbook of a run."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.paths import FOLDER


@click.command(no_args_is_help=True)
@click.argument("run_dir", type=FOLDER)
@click.argument("text", nargs=-1, required=True)
def note(run_dir: Path, text: tuple[str, ...]) -> None:
    """Write TEXT into the logbook of a run, with the time and your name, while it trains or later.

    The logbook is in RUN_DIR/log.txt, and on the page that `kogpt2 report` makes.

    \b
    Example: kogpt2 note runs/mine "node3 was changed; the loss looks right again"
    """
    from kogpt2_gluon.runs.logbook import LOG_FILE, add_note
    from kogpt2_gluon.runs.requests import me

    add_note(run_dir, " ".join(text), me())
    click.echo(f"written into {run_dir / LOG_FILE}; kogpt2 report {run_dir} shows it on the run's page")
