"""Plans as text, compared with files: every instance type times each generation of the plugin, and 1 to 64 hosts.

After an intended change, ``KOGPT2_UPDATE_GOLDEN=1 pytest tests/launch/plan/test_golden.py`` writes the files again.
Read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.hosts import Host
from kogpt2_launch.plan.fabric import INSTANCE_TYPES
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.plan.plan_file import load_plan
from kogpt2_launch.plan.variables import Fabric

GOLDEN = Path(__file__).parent / "golden"
PLUGINS = {"plugin-1.5": ("1.5.0", "1.17.1"), "plugin-1.6": ("1.6.0", "1.17.1"), "plugin-1.7": ("1.7.4", "1.18.1")}
TYPES = [name for name, each in INSTANCE_TYPES.items() if each.runs_mxnet and each.gpus > 1]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "data: {seq_length: 1024}\ntraining: {batch_size: 1, total_batch_size: 512}\ntracking: {run_dir: /fsx/run}\n"
    Path("base.yaml").write_text(text, encoding="utf-8")
    return "base.yaml"


def compare(name: str, plan) -> None:
    # The fingerprint is that of every field of a recipe, also of those to come.
    text = re.sub(r"(?m)^(fingerprint +)\w+$", r"\1(of the recipe)", plan.describe())
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("KOGPT2_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("plugin", PLUGINS)
def test_types_and_plugins(recipe, name, plugin):
    instance = INSTANCE_TYPES[name]
    fabric = Fabric(name, *(PLUGINS[plugin] if instance.efa else (None, None)))
    hosts = [Host(host, instance.gpus) for host in ("node1", "node2")]
    compare(f"{name}-{plugin}" if instance.efa else name, make_plan(recipe, [], hosts, "eth0", fabric=fabric))


@pytest.mark.parametrize("count", [1, 2, 8, 64])
def test_numbers_of_hosts(recipe, count, tmp_path):
    hosts = [Host(f"10.0.0.{number}", 8) for number in range(1, count + 1)]
    fabric = Fabric("p4d.24xlarge", "1.13.2-aws", "1.22.0amzn1.0")
    overrides = ["data.max_lanes=512"]
    plan = make_plan(recipe, overrides, hosts, "ens32", fabric=fabric)
    compare(f"{count}-hosts", plan)
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json(), encoding="utf-8")
    assert load_plan(path) == plan


def test_hosts_of_a_type_with_efa_that_have_none(recipe):
    plan = make_plan(recipe, [], [Host("node1", 8), Host("node2", 8)], "eth0", fabric=Fabric("p3dn.24xlarge", "none"))
    compare("p3dn.24xlarge-without-efa", plan)


def test_preset_and_the_users_own(recipe):
    fabric = Fabric("p3dn.24xlarge", "1.4.0", "1.11", preset="period-2019")
    user = {"NCCL_SOCKET_NTHREADS": "4", "RDMAV_FORK_SAFE": "1", "NCCL_DEBUG": "WARN"}
    compare("period-2019", make_plan(recipe, [], [Host("node1", 8), Host("node2", 8)], "eth0", user, fabric))


@pytest.mark.parametrize(
    ("fabric", "slots", "user", "told"),
    [
        (("p5.48xlarge",), 8, {}, r"H100 \(sm_90"),
        (("p4d.24xlarge", "1.7", None), 8, {}, "give --libfabric-version as well"),
        ((None, "1.7", "1.18"), 8, {}, "go with --instance-type"),
        ((None, "none", None), 8, {}, "go with --instance-type"),
        (("p4d.24xlarge", "nine", "1.18"), 8, {}, "--plugin-version 'nine': not a version"),
        (("p3.16xlarge",), 16, {}, r"16 slots, but p3.16xlarge has 8 GPUs"),
        (("p4d.24xlarge", "1.6", "1.18"), 8, {"NCCL_PROTO": "LL128"}, "corrupted"),
        (("p3dn.24xlarge", "1.6", "1.18"), 8, {"FI_EFA_USE_DEVICE_RDMA": "1"}, "GPUDirect"),
        ((None, None, None, "period-2031"), 8, {}, r"--preset period-2031: not one of period-2019"),
    ],
)
def test_refusals(recipe, fabric, slots, user, told):
    with pytest.raises(RecipeError, match=told) as caught:
        make_plan(recipe, [], [Host("node1", slots), Host("node2", slots)], "eth0", user, Fabric(*fabric))
    assert len(str(caught.value).splitlines()) == 1
