"""The short form of tests/chaos/run.py: a sample of each scenario, another one each time."""

from __future__ import annotations

import json
import random
import shutil
import sys

import pytest

from tests.chaos import run as program
from tests.chaos.scenario import Chance, Scenario, Trial, command, run_scenario, table
from tests.chaos.world import World
from tests.helpers import ROOT, run


@pytest.fixture(scope="module")
def world(shards, tmp_path_factory):
    return World(tmp_path_factory.mktemp("chaos"), shards)


@pytest.mark.parametrize("name", [name for name, scenario in program.SCENARIOS.items() if not scenario.long])
def test_a_sample(world, name):
    chance = Chance(random.SystemRandom().randrange(10**6), short=True)
    row = run_scenario(program.SCENARIOS[name], world, chance)
    again = [command(program.SCENARIOS[name], chance, trial) for trial in row.failures]
    assert not row.failures, (again, row.failures)
    if row.left_out:
        pytest.skip("it needs root or a compiler")
    assert row.tried


def test_a_fault_that_is_not_taken_well_is_counted_and_its_folder_stays(world, capsys):
    def fails(folder):
        (folder / "trace").touch()
        raise AssertionError("lost")

    scenario = Scenario("mine", "a fault", lambda world, chance: [Trial("a", lambda folder: "held"), Trial("b", fails)])
    row = run_scenario(scenario, world, Chance(7, short=False))
    assert (row.tried, row.held, row.failures) == (2, {"held": 1}, {"b": "lost"})
    assert not (world.folder / "mine" / "a").exists() and (world.folder / "mine" / "b" / "trace").exists()
    assert "python tests/chaos/run.py mine --seed 7 --only b" in capsys.readouterr().out
    assert table([row]).splitlines()[1].split()[:6] == ["mine", "a", "fault", "2", "1", "1"]
    shutil.rmtree(world.folder / "mine")


def test_the_program_prints_and_writes_the_table(tmp_path):
    argv = [sys.executable, ROOT / "tests/chaos/run.py", "shard-bytes", "--short", "--only", "manifest.json"]
    done = run(*argv, "--json", tmp_path / "table.json", "--dir", tmp_path / "world")
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert row["tried"] == 30 and not row["failed"] and done.stdout.count("shard-bytes") == 2
    assert not (tmp_path / "world").exists()
