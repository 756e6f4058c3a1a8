"""The verb `kogpt2-launch status`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kogpt2_launch.cli import options


@click.command()
@options.run_dir
@options.json_output
def status(run_dir: Path, as_json: bool) -> None:
    """Show what the launch in RUN_DIR is doing: the step of every rank, and if it moves.

    \b
    Example:
      kogpt2-launch status runs/kogpt2_base
    """
    from kogpt2_launch.run.status import describe, read_status

    found = read_status(run_dir)
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else describe(found))
