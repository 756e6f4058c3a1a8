"""The verb `kogpt2 doctor`."""

from __future__ import annotations

import sys

import click

from kogpt2_gluon.cli import options


@click.command()
@options.json_output
def doctor(as_json: bool) -> None:
    """Show what this machine can do, what is missing, and the command that fixes it.

    \b
    Example: kogpt2 doctor --json
    """
    from kogpt2_gluon.doctor import main as run

    sys.exit(run(as_json))
