"""Finding hosts inside a Slurm job: a fake scontrol plays Slurm."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_launch.hosts import Host
from kogpt2_launch.plan.discovery import from_slurm
from tests.launch.plan.discovery_helpers import plan


def test_plan_of_slurm_nodes(scontrol, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "8")
    result = plan(tmp_path, "--slurm", "--instance-type", "p3.16xlarge", "--preset", "period-2019")
    assert result.exit_code == 0, result.stderr
    assert "node1: 8 slots, ranks 0-7" in result.stdout and "<- preset: period-2019" in result.stdout


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Expands no ranges: it answers with what its first two arguments and the list ask for, or fails."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(
        """#!/bin/sh
[ "$1 $2" = "show hostnames" ] || exit 9
case "$3" in
    "node[1-2]") printf "node1\\nnode2\\n" ;;
    "node[1-4]") printf "node1\\nnode2\\nnode3\\nnode4\\n" ;;
    silent) exit 3 ;;
    none) ;;
    *) echo "scontrol: error: Invalid hostlist: $3" >&2; exit 1 ;;
esac
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    "sizes",
    [
        {"SLURM_GPUS_PER_NODE": "8", "SLURM_GPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "1"},
        {"SLURM_GPUS_PER_NODE": "a100:8", "SLURM_GPUS_ON_NODE": "16"},
        {"SLURM_NTASKS_PER_NODE": "8", "SLURM_GPUS_ON_NODE": "16"},  # --exclusive, and no word about GPUs
        {"SLURM_NTASKS_PER_NODE": "8"},
        {"SLURM_GPUS_ON_NODE": "8"},
    ],
)
def test_slurm(scontrol, sizes):
    found = from_slurm({"SLURM_JOB_NODELIST": "node[1-2]", **sizes})
    assert found.hosts == (Host("node1", 8), Host("node2", 8)) and found.instance_type is None


@pytest.mark.parametrize(
    ("sizes", "slots"),
    [
        ({"SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "2(x2),4,0"}, None),
        ({"SLURM_NTASKS": "12", "SLURM_TASKS_PER_NODE": "2(x2),4(x2)"}, (2, 2, 4, 4)),
        ({"SLURM_NTASKS": "7", "SLURM_TASKS_PER_NODE": "1,2(x3)"}, (1, 2, 2, 2)),
        ({"SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "2(x4)", "SLURM_GPUS_ON_NODE": "8"}, (2, 2, 2, 2)),
        ({"SLURM_TASKS_PER_NODE": "48(x4)", "SLURM_GPUS_ON_NODE": "8"}, (8, 8, 8, 8)),  # all cores: nobody asked
        ({"SLURM_GPUS_PER_NODE": "a100:4,v100:2", "SLURM_NTASKS_PER_NODE": "1"}, (6, 6, 6, 6)),
        ({"SLURM_GPUS_PER_NODE": "gpu:a100:4(S:0-1)"}, (4, 4, 4, 4)),
        ({"SLURM_NTASKS": "2", "SLURM_TASKS_PER_NODE": "1(x2)"}, None),  # of other nodes
        ({"SLURM_NTASKS": "9", "SLURM_TASKS_PER_NODE": "1(x999999)"}, None),
        ({"SLURM_GPUS_PER_NODE": "many"}, None),
        ({"SLURM_NTASKS_PER_NODE": "0"}, None),
    ],
)
def test_counts_of_slurm(scontrol, sizes, slots):
    environment = {"SLURM_JOB_NODELIST": "node[1-4]", **sizes}
    if slots is None:
        with pytest.raises(RecipeError, match=r"does not say how many workers each of 4 nodes gets; allocate with"):
            from_slurm(environment)
    else:
        assert tuple(host.slots for host in from_slurm(environment).hosts) == slots


def test_the_cores_of_a_node_are_no_tasks(scontrol):
    with pytest.raises(RecipeError, match="none of SLURM_GPUS_PER_NODE"):
        from_slurm({"SLURM_JOB_NODELIST": "node[1-4]", "SLURM_TASKS_PER_NODE": "48(x4)"})


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ("node[9", r"exit code 1: scontrol: error: Invalid hostlist: node\[9$"),
        ("silent", r"scontrol show hostnames silent: exit code 3: it said nothing$"),
        ("none", r"exit code 0: it said nothing$"),
    ],
)
def test_scontrol_is_quoted(scontrol, nodes, told):
    with pytest.raises(DataError, match=told):
        from_slurm({"SLURM_JOB_NODELIST": nodes, "SLURM_GPUS_ON_NODE": "8"})


def test_slurm_faults(scontrol, monkeypatch):
    with pytest.raises(RecipeError, match="SLURM_JOB_NODELIST is not set; run this inside sbatch"):
        from_slurm({})
    with pytest.raises(RecipeError, match="--gpus-per-node=N"):
        from_slurm({"SLURM_JOB_NODELIST": "node[1-2]"})
    with pytest.raises(DataError, match=r"scontrol show hostnames elsewhere"):
        from_slurm({"SLURM_JOB_NODELIST": "elsewhere", "SLURM_GPUS_ON_NODE": "8"})
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    with pytest.raises(DataError, match="No such file"):
        from_slurm({"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "8"})
