"""The verb `kogpt2-launch status`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.group import echo_json
from kogpt2_launch.cli import options


@click.command()
@options.run_dir
@options.json_output
def status(run_dir: Path, as_json: bool) -> None:
    """Show what the launch in RUN_DIR is doing: the step of every rank, and if it moves.

    A single worker has no supervisor. Of it, this shows what its run folder says: the last step in its record, the
    newest checkpoint, the last line of its log.

    \b
    Example:
      kogpt2-launch status runs/kogpt2_base
    """
    from kogpt2_launch.run.status import describe, read_status

    found = read_status(run_dir)
    if as_json:
        echo_json(found)
    else:
        click.echo(describe(found))
