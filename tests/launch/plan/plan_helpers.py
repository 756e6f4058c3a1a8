"""The command line, for the tests of plans."""

from __future__ import annotations

from click.testing import CliRunner

from kogpt2_launch.cli.main import main


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
