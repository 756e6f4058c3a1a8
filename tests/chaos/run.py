"""Does to real trainings what nights on a cluster do, and prints a table of how they took it.

    python tests/chaos/run.py [NAMES] [--short] [--json FILE] [--seed N] [--only TRIAL]

NAMES choose scenarios (default: all). The long form takes hours; --short takes a sample that takes seconds. The exit
code is 1 if any trial failed; its folder is then kept, and the command that repeats it is printed. Root can mount small
disks and change users; what needs that is left out for others, which the table says.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.chaos import disks, flips, kills, relaunch, starts, stops
from tests.chaos.scenario import Chance, run_scenario, table
from tests.chaos.world import World

MODULES = (kills, relaunch, flips, disks, stops, starts)
SCENARIOS = {scenario.name: scenario for module in MODULES for scenario in module.SCENARIOS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *SCENARIOS], metavar="NAMES", help=", ".join(SCENARIOS))
    parser.add_argument("--short", action="store_true", help="a sample of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TRIAL", help="this trial alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table there")
    parser.add_argument("--dir", type=Path, help="a new folder for the runs; default: among the temporary files")
    given = parser.parse_args()
    if given.dir and given.dir.exists():
        parser.error(f"--dir {given.dir}: exists, and would be removed in the end; name a new one")
    folder = given.dir or Path(tempfile.mkdtemp(prefix="kogpt2-chaos-"))
    chance = Chance(given.seed, given.short)
    world = World(folder)
    names = given.names or [name for name, scenario in SCENARIOS.items() if not (given.short and scenario.long)]
    rows = [run_scenario(SCENARIOS[name], world, chance, given.only) for name in names]
    print(table(rows))
    if given.json:
        content = {"seed": given.seed, "short": given.short, "rows": [row.to_dict() for row in rows]}
        given.json.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    if any(row.failures for row in rows):
        print(f"failed; {folder} has what is left of it")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
