"""The verb `kogpt2 verify`: checks shards, and repairs what can be."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from kogpt2_gluon.cli.progress_bar import progress_bar
from kogpt2_gluon.errors import DataError


@click.command(no_args_is_help=True)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--repair", is_flag=True, help="Make a usable set of the shards that are whole; nothing is deleted.")
@click.option("--processes", default=0, type=click.IntRange(min=0), help="Checking processes; 0: one a core.")
def verify(folder: Path, as_json: bool, repair: bool, processes: int) -> None:
    """Token shards -> every fault in them, with file, chunk and byte; exit code 3 if there is any.

    DIR is a folder of shards, or one with such folders at any depth below it, as DIR/train or DIR/news/train. Manifest,
    sizes, hashes, token ids, document ends and the tokenizer are checked. With --repair damaged shards are moved into
    damaged/ in their folder, swapped ones get their names back, a new manifest is written, and the result is checked
    again. What no repair can mend is left as it is, and said.

    \b
    Example: kogpt2 verify shards --json
    """
    from kogpt2_gluon.machine.limits import available_cores
    from kogpt2_gluon.shards.repair import repair_set, why_not
    from kogpt2_gluon.shards.verify import count_faults
    from kogpt2_gluon.shards.verify import verify as run

    with progress_bar("verifying") as bar:
        report = run(folder, processes or available_cores(), bar.show)
    plain = report.to_dict()
    if not as_json:
        for line in [*report.faults, *report.notes, report.summary()]:
            click.echo(line)
    mendable = [each for each in report.sets if each.faults and not why_not(each)]
    if repair and mendable:
        repairs = []
        for each in mendable:
            repairs.append(repair_set(each))
            if not as_json:
                click.echo("\n".join(repairs[-1].lines()))
        with progress_bar("verifying again") as bar:
            report = run(folder, processes or available_cores(), bar.show)
        plain = {**report.to_dict(), "repaired": [asdict(done) for done in repairs], "before": plain}
        if not as_json:
            for line in [*report.faults, report.summary()]:
                click.echo(line)
    refused = [reason for each in report.sets if each.faults and (reason := why_not(each))]
    if repair:
        plain["refused"] = refused
    if as_json:
        click.echo(json.dumps(plain, ensure_ascii=False))
        sys.exit(DataError.exit_code if report.faults else 0)
    if report.faults:
        for reason in refused[1:] if repair else []:  # the first closes what is said
            click.echo(f"not repaired: {reason}")
        advice = refused[0] if refused and (repair or not mendable) else "--repair mends what can be"
        raise DataError(f"{folder}: {count_faults(len(report.faults))}; {advice}")
