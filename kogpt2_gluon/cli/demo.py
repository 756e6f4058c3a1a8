"""The verb `kogpt2 demo`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.paths import FOLDER
from kogpt2_gluon.machine.interrupts import interruptible


@click.command()
@click.option("--dir", "work_dir", default="demo-run", show_default=True, type=FOLDER, help="Folder for its files.")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps, instead of the demo recipe's 400.")
@interruptible()
def demo(work_dir: Path, steps: int | None) -> None:
    """Every stage on built-in Korean text, in a few minutes: from text to a PyTorch folder.

    \b
    Example: kogpt2 demo --dir demo-run
    """
    from kogpt2_gluon.demo.demo import run_demo

    run_demo(work_dir, say=click.echo, num_steps=steps)
