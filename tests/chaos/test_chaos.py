"""The short form of tests/chaos/run.py: a sample of the scenarios, always the same one."""

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


SAMPLES = {  # how many scenarios of those that follow
    "save": (1, ["save"]),
    "record": (1, ["record"]),
    "other kills": (1, ["power", "back", "again", "two-renames"]),
    "relaunch": (1, ["relaunch"]),
    "bytes": (3, ["checkpoint-bytes", "shard-bytes", "damaged-run"]),
    "disks": (2, ["full", "read-only", "vanished", "forbidden", "stale", "io-error", "quota", "clock", "slow"]),
    "stop": (1, ["stop"]),
    "starts": (1, ["starts"]),
}
BY_OTHERS = ("relaunch", "stop")  # tests/launch/run/test_job.py and tests/training/test_training.py have such too
LONG = {"memory", "record-fails"}  # tests/training/test_replicas.py; of the others, `record` comes nearest


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in BY_OTHERS)) for name in SAMPLES]
)
def test_a_sample(world, name):
    seed = 26  # a sample drawn again each time would now and then show a rare fault to somebody else
    count, names = SAMPLES[name]
    tried = 0
    for chosen in random.Random(seed).sample(names, count):
        scenario, chance = program.SCENARIOS[chosen], Chance(seed, short=True)
        row = run_scenario(scenario, world, chance)
        assert not row.failures, ([command(scenario, chance, trial) for trial in row.failures], row.failures)
        tried += row.tried
    if not tried:
        pytest.skip("it needs root, or a compiler")


def test_every_scenario_is_sampled():
    assert {each for _, names in SAMPLES.values() for each in names} | LONG == program.SCENARIOS.keys()


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
