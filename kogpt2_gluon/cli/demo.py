"""The verb `kogpt2 demo`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.options import FOLDER


@click.command()
@click.option("--dir", "work_dir", default="demo-run", show_default=True, type=FOLDER, help="Folder for all it makes.")
def demo(work_dir: Path) -> None:
    """The whole road on embedded Korean text, in a few minutes: corpus to PyTorch folder.

    \b
    Example: kogpt2 demo --dir demo-run
    """
    from kogpt2_gluon.demo.demo import run_demo

    run_demo(work_dir, echo=click.echo)
