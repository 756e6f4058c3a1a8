"""The verb `kogpt2-launch stop`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_launch.cli import options


@click.command()
@options.run_dir
def stop(run_dir: Path) -> None:
    """Let the workers of the launch in RUN_DIR save their state and end, from any host that sees the folder.

    They find the file RUN_DIR/stop within seconds and end after the current step with exit code 75. The launcher ends
    with them. The next run removes the file; so does a `kogpt2 train` without a launcher, once its state is saved.

    \b
    Example:
      kogpt2-launch stop runs/kogpt2_base
    """
    from kogpt2_launch.run.status import ask_to_stop

    click.echo(f"asked by {ask_to_stop(run_dir)}; kogpt2-launch status {run_dir} shows when it has ended")
