"""The tables of launch/plan/fabric.py: every type times every generation of the plugin, and the lints of variables."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.findings import FAIL, WARN
from kogpt2_launch.plan.fabric import INSTANCE_TYPES, fabric_settings, instance_type, parse_version, plugin_generation
from kogpt2_launch.plan.lint import RULES, lint

PROVIDER = {"FI_PROVIDER": "efa", "NCCL_PROTO": "simple"}
RDMA = {"FI_EFA_USE_DEVICE_RDMA": "1"}
SHARED_MEMORY = {"NCCL_SHM_USE_CUDA_MEMCPY": "1"}
# type: what a plugin up to 1.5, of 1.6, and of 1.7 with libfabric 1.18 needs
WANTED = {
    "p3.16xlarge": ({}, {}, {}),
    "p3dn.24xlarge": (PROVIDER, {}, {}),
    "p4d.24xlarge": ({**PROVIDER, **RDMA}, RDMA, {}),
    "p4de.24xlarge": ({**PROVIDER, **RDMA}, RDMA, {}),
    "g4dn.8xlarge": (PROVIDER, {}, {}),
    "g4dn.12xlarge": ({**PROVIDER, **SHARED_MEMORY}, SHARED_MEMORY, SHARED_MEMORY),
    "g5.4xlarge": ({}, {}, {}),
    "g5.8xlarge": (PROVIDER, {}, {}),
    "g5.12xlarge": ({**PROVIDER, **SHARED_MEMORY}, SHARED_MEMORY, SHARED_MEMORY),
    "g5.48xlarge": ({**PROVIDER, **SHARED_MEMORY}, SHARED_MEMORY, SHARED_MEMORY),
}
VERSIONS = [((1, 5, 0), (1, 17)), ((1, 6, 0), (1, 18, 1)), ((1, 7, 4), (1, 18, 1))]


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("column", range(3), ids=["1.5", "1.6", "1.7"])
def test_variables_of_each_type_and_plugin(name, column):
    settings = fabric_settings(instance_type(name), *VERSIONS[column])
    assert {setting.name: setting.value for setting in settings} == WANTED[name][column]
    assert all(name in setting.source and ":" in setting.source for setting in settings)


@pytest.mark.parametrize(
    ("plugin", "libfabric", "generation"),
    [
        ("1.4.0-aws", "1.11", "1.5"),
        ("v1.5.0-aws", "1.22.0amzn1.0", "1.5"),
        ("1.6.0", "1.17", "1.6"),
        ("1.7.0", "1.17.1", "1.6"),
        ("1.7.0", "1.18", "1.7"),
        ("1.13.2-aws", "1.22.0amzn1.0", "1.7"),
        ("1.13.2-aws", "1.9", "1.6"),
    ],
)
def test_generation_of_the_plugin(plugin, libfabric, generation):
    """A libfabric before 1.18 makes any later plugin a 1.6; versions compare as numbers, not as text."""
    assert plugin_generation(parse_version(plugin, "x"), parse_version(libfabric, "y")) == generation


@pytest.mark.parametrize("text", ["", "1", "1.x", "latest", "1.7;id", "1.7 ", "1.2.3.4.5"])
def test_bad_versions_are_refused(text):
    with pytest.raises(RecipeError, match=r"--plugin-version .*not a version"):
        parse_version(text, "--plugin-version")


def test_versions_are_asked_for_where_they_decide():
    with pytest.raises(RecipeError, match=r"p4d.24xlarge has EFA.*--plugin-version"):
        fabric_settings(instance_type("p4d.24xlarge"), None, (1, 18))
    with pytest.raises(RecipeError, match="--libfabric-version"):
        fabric_settings(instance_type("p4d.24xlarge"), (1, 7))
    assert fabric_settings(instance_type("p3.16xlarge")) == ()


def test_gpus_without_machine_code_are_refused_with_the_way_out():
    with pytest.raises(RecipeError, match=r"p5.48xlarge: mxnet-cu112 has no machine code for H100.*kogpt2 convert"):
        instance_type("p5.48xlarge")
    with pytest.raises(RecipeError, match=r"not in the table; it has p3.2xlarge"):
        instance_type("p9.metal")


def test_types_are_as_ec2_describes_them():
    """Against the answers of DescribeInstanceTypes that moto carries; it lacks some types of ours."""
    moto = pytest.importorskip("moto")
    path = Path(moto.__file__).parent / "ec2" / "resources" / "instance_types.json.gz"
    described = json.loads(gzip.decompress(path.read_bytes()))
    compared = 0
    for name, ours in INSTANCE_TYPES.items():
        if name not in described:
            continue
        compared += 1
        network, gpu = described[name]["NetworkInfo"], described[name]["GpuInfo"]["Gpus"][0]
        efa = network.get("EfaInfo") or {"MaximumEfaInterfaces": 0}
        assert (gpu["Name"], gpu["Count"]) == (ours.gpu, ours.gpus)
        assert efa["MaximumEfaInterfaces"] == ours.efa
        cards = network["NetworkPerformance"].removeprefix("Up to ").removesuffix(" Gigabit").split("x ")
        assert ours.gigabits == float(cards[-1]) * (int(cards[0]) if len(cards) == 2 else 1)
    assert compared >= 18


# ---- lints ----------------------------------------------------------------------------------------------------------

P3DN, P4D = (INSTANCE_TYPES[name] for name in ("p3dn.24xlarge", "p4d.24xlarge"))
SOCKETS = None


@pytest.mark.parametrize(
    ("name", "value", "instance", "status", "said"),
    [
        ("RDMAV_FORK_SAFE", "1", SOCKETS, WARN, "fork"),
        ("RDMAV_HUGEPAGES_SAFE", "1", P4D, WARN, "fork"),
        ("NCCL_TREE_THRESHOLD", "0", SOCKETS, WARN, "ignore it"),
        ("NCCL_MIN_NRINGS", "8", SOCKETS, WARN, "old name of NCCL_MIN_NCHANNELS"),
        ("NCCL_MIN_NCHANNELS", "32", P4D, WARN, "starves"),
        ("HOROVOD_HIERARCHICAL_ALLREDUCE", "1", P4D, WARN, "does nothing"),
        ("NCCL_SOCKET_NTHREADS", "4", P3DN, WARN, "sockets"),
        ("NCCL_NSOCKS_PERTHREAD", "4", P3DN, WARN, "sockets"),
        ("NCCL_PROTO", "LL128", P4D, FAIL, "corrupted"),
        ("NCCL_PROTO", "Simple,LL", P3DN, FAIL, "corrupted"),
        ("NCCL_PROTO", "^LL", P4D, FAIL, "corrupted"),
        ("FI_EFA_USE_DEVICE_RDMA", "1", P3DN, FAIL, "GPUDirect"),
        ("FI_PROVIDER", "tcp", P4D, FAIL, "take efa"),
        ("FI_PROVIDER", "^efa", P4D, FAIL, "take efa"),
        ("NCCL_IB_DISABLE", "1", P4D, WARN, "InfiniBand"),
    ],
)
def test_harmful_variables(name, value, instance, status, said):
    (finding,) = lint({name: value, "NCCL_DEBUG": "INFO"}, instance)
    assert (finding.status, finding.what) == (status, name)
    assert said in finding.text and finding.where


@pytest.mark.parametrize(
    ("name", "value", "instance"),
    [
        ("NCCL_MIN_NCHANNELS", "8", SOCKETS),
        ("NCCL_SOCKET_NTHREADS", "4", SOCKETS),
        ("NCCL_PROTO", "simple", P4D),
        ("NCCL_PROTO", "^LL,LL128", P4D),
        ("NCCL_PROTO", "LL", SOCKETS),
        ("FI_EFA_USE_DEVICE_RDMA", "1", P4D),
        ("FI_EFA_USE_DEVICE_RDMA", "0", P3DN),
        ("FI_PROVIDER", "efa", P4D),
        ("FI_PROVIDER", "tcp", SOCKETS),
        ("FI_PROVIDER", "^tcp", P4D),
        ("NCCL_DEBUG", "INFO", P4D),
    ],
)
def test_variables_that_are_right(name, value, instance):
    assert lint({name: value}, instance) == ()


def test_a_preset_means_what_it_sets():
    preset = {"NCCL_TREE_THRESHOLD": "0"}
    assert lint({"NCCL_TREE_THRESHOLD": "0"}, SOCKETS, preset) == ()
    assert len(lint({"NCCL_TREE_THRESHOLD": "15"}, SOCKETS, preset)) == 1


def test_every_rule_has_a_case():
    names = {case[0] for mark in test_harmful_variables.pytestmark for case in mark.args[1]}
    for rule in RULES:
        assert any(name == rule.pattern or name.startswith(rule.pattern.rstrip("*")) for name in names), rule.pattern
