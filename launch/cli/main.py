"""The command ``kogpt2-launch``: plan a run on given hosts, and run it. Every verb is a file of this folder."""

from __future__ import annotations

from typing import Any

import click

from kogpt2_gluon.cli.group import Group
from kogpt2_gluon.errors import one_line
from kogpt2_launch.cli.logs import logs
from kogpt2_launch.cli.plan import plan
from kogpt2_launch.cli.preflight import preflight
from kogpt2_launch.cli.render import render
from kogpt2_launch.cli.run import run
from kogpt2_launch.cli.status import status
from kogpt2_launch.cli.stop import stop


class _Group(Group):
    """Answers a user's mistake in one line on stderr and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        with one_line("kogpt2-launch"):
            return super().invoke(ctx)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Decide where and how a recipe runs: plan a launch on given hosts, and run it."""


for verb in (plan, preflight, run, status, logs, stop, render):
    main.add_command(verb)

if __name__ == "__main__":
    main()
