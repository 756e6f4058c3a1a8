"""Measure how long MXNet takes to be imported, plainly and as `kogpt2` imports it.

    python benchmarks/import_speed.py [--rounds 7] [--json]

Each import is a process of its own; the two run in turn. Times are processor time of the import alone, medians; the
ratio is the median of each round's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import click
from conditions import conditions

CLOCK = "import time; start = time.process_time(); {}; print(time.process_time() - start)"
WAYS = {
    "plain": "import mxnet",
    "kogpt2": "from kogpt2_gluon.machine.mxnet_import import import_mxnet; import_mxnet()",
}


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, as_json: bool) -> None:
    """Time both ways and print the medians and their ratio."""
    times = [{way: seconds(statement) for way, statement in WAYS.items()} for _ in range(rounds)]
    medians = {way: statistics.median(each[way] for each in times) for way in WAYS}
    ratio = statistics.median(each["kogpt2"] / each["plain"] for each in times)
    if as_json:
        click.echo(json.dumps({"rounds": rounds, **medians, "ratio": ratio, **conditions()}))
    else:
        click.echo(f"plain {medians['plain']:.2f} s, kogpt2 {medians['kogpt2']:.2f} s, ratio {ratio:.2f}")


def seconds(statement: str) -> float:
    """Returns the processor time of a statement in a new process."""
    command = [sys.executable, "-W", "ignore", "-c", CLOCK.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
