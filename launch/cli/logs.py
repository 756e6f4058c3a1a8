"""The verb `kogpt2-launch logs`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_launch.cli import options


@click.command()
@options.run_dir
@click.option("--rank", default=0, show_default=True)
@click.option("--attempt", default=0, help="Number of the attempt.  [default: the newest]")
@click.option("--why", is_flag=True, help="Print how the attempt ended: the reason, all ranks, stacks of a hang.")
def logs(run_dir: Path, rank: int, attempt: int, why: bool) -> None:
    """Print the output of a rank of the launch in RUN_DIR.

    \b
    Example:
      kogpt2-launch logs runs/kogpt2_base --rank 3
    """
    from kogpt2_launch.run.status import log_file, report_file

    path = report_file(run_dir, attempt) if why else log_file(run_dir, rank, attempt)
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            click.echo(line, nl=False)
