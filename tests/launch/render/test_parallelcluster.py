"""Clusters, read with the schema of ParallelCluster itself."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest
import yaml

from kogpt2_launch.render import render
from tests.helpers import ROOT
from tests.launch.render.render_helpers import G5, P3DN, P4D, SITE, changed, planned

PYTHON = ROOT / ".venv-pcluster/bin/python"

# It pins libraries that ours are newer than, so it is never in the project's own environment.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="ParallelCluster is not here: make .venv-pcluster/.ready"),
]


def rendered(fabric=P4D, hosts="h1:8,h2:8", **site):
    files = render(planned(hosts, fabric), "parallelcluster", replace(SITE, **site))
    return yaml.safe_load(files["cluster.yaml"])


def refusals(*clusters):
    """For each what ParallelCluster says against it, or None."""
    argv = [str(PYTHON), str(ROOT / "tests/launch/render/parallelcluster_check.py")]
    done = subprocess.run(argv, input=json.dumps(clusters), stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_clusters_are_read():
    made = [rendered(fabric, hosts) for fabric, hosts in ((P4D, "h1:8,h2:8"), (P3DN, "h1:8"), (G5, "h1:1,h2:1"))]
    sites = ({"file_system": "fs-0123456789abcdef0"}, {"head_subnet": "subnet-0123456789abcdef1"}, {"folder": "/data"})
    made += [rendered(**site) for site in sites]
    assert refusals(*made) == [None] * len(made)


QUEUE = "Scheduling.SlurmQueues.0"
WRONG = [
    ("Image.Os", "ubuntu1804", "Must be one of"),
    ("Scheduler", "slurm", "Unknown field"),
    (f"{QUEUE}.ComputeResources.0.EFA", {"Enabled": True}, "Unknown field"),
    (f"{QUEUE}.ComputeResources.0.MaxCount", "two", "Not a valid integer"),
    (f"{QUEUE}.ComputeResources.0.Efa.Enabled", "sometimes", "Not a valid boolean"),
    (f"{QUEUE}.Networking.PlacementGroup.Enable", True, "Unknown field"),
    (f"{QUEUE}.Networking.SubnetIds", ["net-1"], "does not match expected pattern"),
    ("HeadNode.Ssh.Key", "mine", "Unknown field"),
    ("SharedStorage.0.StorageType", "Lustre", "Must be one of"),
    ("SharedStorage.0.FsxLustreSettings.DeploymentType", "SCRATCH_9", "Must be one of"),
    ("SharedStorage.0.FsxLustreSettings.FileSystemId", "fsx", "does not match expected pattern"),
]


def test_a_wrong_field_is_refused():
    cluster = rendered()
    found = refusals(*(changed(cluster, path, value) for path, value, _ in WRONG))
    for (path, _, told), refusal in zip(WRONG, found):
        assert refusal and told in refusal and path.rpartition(".")[2] in refusal, (path, refusal)
