"""The verb `kogpt2 report`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.paths import FOLDER
from kogpt2_gluon.machine.interrupts import interruptible


@click.command(no_args_is_help=True)
@click.argument("run_dir", type=FOLDER)
@interruptible()
def report(run_dir: Path) -> None:
    """A run's folder -> RUN_DIR/report.html: its curves, recipe and samples on one page.

    \b
    Example: kogpt2 report runs/demo
    """
    from kogpt2_gluon.runs.report import write_report
    from kogpt2_gluon.storage.disk import full_disk_named

    with full_disk_named(run_dir, lambda: "the page is not written; make room"):
        click.echo(write_report(run_dir))
