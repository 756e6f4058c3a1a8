"""The verb `kogpt2 verify`: checks shards, and repairs what can be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kogpt2_gluon.cli.group import echo_json
from kogpt2_gluon.cli.options import json_output
from kogpt2_gluon.cli.paths import FOLDER
from kogpt2_gluon.cli.progress_bar import progress_bar
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.interrupts import interruptible
from kogpt2_gluon.wording import silent

if TYPE_CHECKING:
    from kogpt2_gluon.shards.verify import VerifyReport


@click.command(no_args_is_help=True)
@click.argument("folder", metavar="DIR", type=FOLDER)
@json_output
@click.option("--repair", is_flag=True, help="Make a usable set of the shards that are whole; nothing is deleted.")
@click.option("--processes", default=0, type=click.IntRange(min=0), help="Checking processes; 0: one a core.")
@interruptible()
def verify(folder: Path, as_json: bool, repair: bool, processes: int) -> None:
    """Token shards -> every fault in them, with file, chunk and byte; exit code 3 if there is any.

    DIR is a folder of shards, or one with such folders at any depth below it, as DIR/train or DIR/news/train. Manifest,
    sizes, hashes, token ids, document ends and the tokenizer are checked. With --repair damaged shards are moved into
    damaged/ in their folder, swapped ones get their names back, a new manifest is written, and the result is checked
    again. A set that cannot be repaired is left as it is, and the reason is printed.

    \b
    Example: kogpt2 verify shards --json
    """
    from kogpt2_gluon.machine.limits import available_cores
    from kogpt2_gluon.shards.repair import is_beyond_repair, refusals, repair_sets
    from kogpt2_gluon.shards.verify import verify as run
    from kogpt2_gluon.wording import counted

    def check(title: str) -> VerifyReport:
        with progress_bar(title) as bar:
            return run(folder, processes or available_cores(), bar.show)

    say: Callable[[str], object] = silent if as_json else click.echo
    report = check("verifying")
    plain = report.to_dict()
    for line in report.lines():
        say(line)
    if repair:
        repairs = repair_sets(report, lambda: check("verifying again"), say)
        report, plain = repairs.after, repairs.to_dict()
    if as_json:
        echo_json(plain)
        sys.exit(DataError.exit_code if report.faults else 0)
    if report.faults:
        reasons = refusals(report) if repair or is_beyond_repair(report) else []
        for reason in reasons[1:] if repair else []:  # the first one is in the closing line
            say(f"not repaired: {reason}")
        advice = reasons[0] if reasons else "--repair fixes what can be fixed"
        raise DataError(f"{folder}: {counted(len(report.faults), 'fault')}; {advice}")
