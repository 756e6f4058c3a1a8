"""Preflight: every check with right and wrong facts, the probe on this machine, and 512 hosts at once."""

from __future__ import annotations

import copy
import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.findings import FAIL, PASS, WARN
from kogpt2_gluon.recipe import load_recipe
from kogpt2_launch.cli.main import main
from kogpt2_launch.hosts import FileSystem, Host
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.plan.variables import Fabric
from kogpt2_launch.preflight import checks, probe
from kogpt2_launch.preflight.checks import HostFacts
from kogpt2_launch.preflight.preflight import preflight, to_table
from kogpt2_launch.ssh import Answer, Shell

MANIFEST = "/fsx/train/manifest.json"
MOUNTS = """/dev/nvme0n1p1 / ext4 rw,relatime 0 0
10.0.0.5@tcp:/abc /fsx lustre rw,noatime,flock 0 0
"""
ADDRESSES = [
    {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
    {
        "ifname": "eth0",
        "addr_info": [
            {"family": "inet", "local": "10.0.1.7", "prefixlen": 20},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
        ],
    },
]
FI_INFO = """provider: efa
    fabric: efa
    domain: {name}-rdm
    version: 122.0
    type: FI_EP_RDM
    protocol: FI_PROTO_EFA
"""
LDD = """\tlinux-vdso.so.1 (0x00007ffd)
\tlibnccl.so.2 => /usr/lib/libnccl.so.2 (0x00007f)
\tlibcudart.so.11.0 => /usr/local/cuda/lib64/libcudart.so.11.0 (0x00007f)
"""


def tool(output: str = "", code: int | None = 0, problem: str = "") -> dict:
    return {"code": code, "output": output, "problem": problem}


def good() -> dict:
    """The facts of a p4d.24xlarge that is in order."""
    return {
        "time": 1000.1,
        "hostname": "node",
        "python": "3.11.7",
        "tools": {
            "fi_info": tool("".join(FI_INFO.format(name=f"rdmap{i}s27") for i in range(4))),
            "fi_info_version": tool("fi_info: 1.22.0amzn1.0\nlibfabric: 1.22.0amzn1.0\nlibfabric api: 1.22\n"),
            "nvidia_smi": tool("".join(f"{i}, NVIDIA A100-SXM4-40GB, 8.0, 535.161, 40960 MiB\n" for i in range(8))),
            "addresses": tool(json.dumps(ADDRESSES)),
            "ldd_mxnet": tool(LDD),
        },
        "infiniband": {"devices": ["rdma_cm", *(f"uverbs{i}" for i in range(4))], "class": []},
        "plugins": ["/opt/amazon/ofi-nccl/lib/libnccl-net.so"],
        "memlock": -1,
        "packages": {"mxnet-cu112": "1.9.1", "horovod": "0.28.1", "mxnet": None},
        "code": "0123456789abcdef",
        "mounts": MOUNTS,
        "folders": {"/fsx/run": {"exists": True, "real": "/fsx", "writable": True, "free": 1 << 40}},
        "manifests": {MANIFEST: {"sha256": "ab" * 32, "problem": "", "released": []}},
        "peers": {"node2": tool()},
    }


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "data: {seq_length: 1024}\ntraining: {batch_size: 1, total_batch_size: 512}\ntracking: {run_dir: /fsx/run}\n"
    Path("base.yaml").write_text(text, encoding="utf-8")
    fabric, shared = Fabric("p4d.24xlarge", "1.13.2", "1.22"), FileSystem("fs-1", "fs-1.fsx.amazonaws.com", "abc", "s")
    return make_plan("base.yaml", [], [Host("node1", 8), Host("node2", 8)], "eth0", fabric=fabric, file_system=shared)


def run(check, plan, *facts: dict):
    hosts = [HostFacts(f"node{i}", each, 1000.0, 1000.2) for i, each in enumerate(facts, 1)]
    return list(check(plan, load_recipe(plan.recipe, plan.overrides), hosts))


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_hosts_in_order_pass(plan, check):
    findings = run(check, plan, good(), good())
    assert findings and {each.status for each in findings} == {PASS}
    assert not any(each.fix for each in findings)


def put(value, *path):
    """A change of the facts: the value at a path."""

    def change(facts: dict) -> None:
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = value

    return change


ONE_NCCL_MORE = LDD + "\tlibnccl.so.2 => /opt/nccl/libnccl.so.2 (0x00007f)\n"
HOPPER = tool("0, NVIDIA H100 80GB HBM3, 9.0, 535.161, 81559 MiB\n")
ELSEWHERE = json.dumps([{"ifname": "eth0", "addr_info": [{"family": "inet", "local": "10.9.1.7", "prefixlen": 20}]}])
OTHER_NAME = json.dumps([{"ifname": "ens5", "addr_info": [{"family": "inet", "local": "10.0.1.8", "prefixlen": 20}]}])


@pytest.mark.parametrize(
    ("check", "change", "status", "said", "fix"),
    [
        (checks.clock, put(1005.0, "time"), WARN, "+4.9 s", "chronyd"),
        (checks.clock, put(700.0, "time"), FAIL, "-300.1 s", "chronyd"),
        (checks.code, put("f" * 16, "code"), FAIL, "ffff", "same revision"),
        (checks.packages, put("0.27.0", "packages", "horovod"), FAIL, "0.27.0", "the same horovod"),
        (checks.packages, put(None, "packages", "mxnet-cu112"), FAIL, "no MXNet", "make horovod-gpu"),
        (checks.data, put("cd" * 32, "manifests", MANIFEST, "sha256"), FAIL, "cdcd", "kogpt2 verify"),
        (checks.data, put(None, "manifests", MANIFEST, "sha256"), FAIL, "absent", "mount the shared file system"),
        (
            checks.data,
            put(["/fsx/train/0.ktok"], "manifests", MANIFEST, "released"),
            FAIL,
            "1 shards",
            "stage /fsx/train",
        ),
        (checks.folders, put(False, "folders", "/fsx/run", "writable"), FAIL, "cannot be written", "chmod"),
        (checks.folders, put(1 << 20, "folders", "/fsx/run", "free"), FAIL, "1 MiB free, ", "make room"),
        (
            checks.folders,
            put("/dev/sda / ext4 rw 0 0\n", "mounts"),
            FAIL,
            "a local disk",
            "mount one file system",
        ),
        (checks.file_system, put(MOUNTS.replace(":/abc", ":/other"), "mounts"), FAIL, "not on fs-1", "tcp:/abc FOLDER"),
        (checks.file_system, put("", "mounts"), FAIL, "a local disk", "mount -t lustre"),
        (
            checks.mount_options,
            put(MOUNTS.replace("noatime,flock", "relatime"), "mounts"),
            WARN,
            "without flock",
            "remount,noatime,flock /fsx",
        ),
        (checks.memory_lock, put(65536, "memlock"), FAIL, "limited", "limits.conf"),
        (checks.efa, put(["uverbs0"], "infiniband", "devices"), WARN, "1 of 4 devices", "attach 4 EFA"),
        (checks.efa, put([], "infiniband", "devices"), FAIL, "0 of 4 devices", "attach 4 EFA"),
        (
            checks.efa,
            put(tool(code=None, problem="not installed"), "tools", "fi_info"),
            FAIL,
            "not installed",
            "installer",
        ),
        (checks.efa, put(tool("", 0), "tools", "fi_info"), FAIL, "no domain", "installer"),
        (
            checks.efa,
            put(tool("libfabric: 1.17.1amzn1.0\n"), "tools", "fi_info_version"),
            FAIL,
            "1.17.1, and the plan is for 1.22",
            "--libfabric-version 1.17.1",
        ),
        (checks.efa, put([], "plugins"), FAIL, "sockets", "aws-ofi-nccl"),
        (checks.gpus, put(HOPPER, "tools", "nvidia_smi"), FAIL, "no machine code", "kogpt2 convert"),
        (
            checks.gpus,
            put(tool("0, Tesla V100, 7.0, 470, 1 MiB\n"), "tools", "nvidia_smi"),
            FAIL,
            "for 8 workers",
            "slots",
        ),
        (checks.gpus, put(tool(code=9, problem="no devices"), "tools", "nvidia_smi"), FAIL, "no devices", "driver"),
        (checks.nccl, put(tool(ONE_NCCL_MORE), "tools", "ldd_mxnet"), FAIL, "several", "LD_LIBRARY_PATH"),
        (checks.interface, put(tool(OTHER_NAME), "tools", "addresses"), FAIL, "it has ens5", "--network-interface"),
        (
            *(checks.interface, put(tool(code=1, problem="ip: not permitted"), "tools", "addresses")),
            *(FAIL, "it has none (ip: ip: not permitted)", "--network-interface"),
        ),
        (checks.interface, put(tool(ELSEWHERE), "tools", "addresses"), WARN, "10.9.0.0/20", "one subnet"),
        (checks.ssh, put(tool(code=255, problem="Permission denied"), "peers", "node2"), FAIL, "denied", "ssh-copy-id"),
    ],
)
def test_a_host_that_is_not(plan, check, change, status, said, fix):
    """The second of three hosts is wrong: it is named, and the others pass or are not mentioned."""
    plan = replace(plan, hosts=(*plan.hosts, Host("node3", 8)))
    wrong = copy.deepcopy(good())
    change(wrong)
    found = [each for each in run(check, plan, good(), wrong, good()) if each.status != PASS]
    assert {each.where for each in found} <= {"node2", checks.ALL}
    assert any(each.status == status and said in each.text and fix in each.fix for each in found), found
    assert all(each.fix for each in found)


def test_every_check_has_a_wrong_host():
    tried = {case[0] for mark in test_a_host_that_is_not.pytestmark for case in mark.args[1]}
    assert tried == set(checks.CHECKS)


def test_no_file_system_is_looked_for_that_the_plan_does_not_name(plan):
    assert run(checks.file_system, replace(plan, file_system=None), good()) == []


def test_no_efa_is_looked_for_where_the_plan_says_that_there_is_none(plan):
    plan = replace(plan, fabric=Fabric("p4d.24xlarge", "none"))
    assert run(checks.efa, plan, good()) == [] == run(checks.memory_lock, plan, good())
    assert run(checks.gpus, plan, good())


def test_no_gpu_checks_without_an_instance_type(plan):
    plan = replace(plan, fabric=Fabric())
    for check in (checks.gpus, checks.efa, checks.memory_lock):
        assert run(check, plan, good()) == []


# ---- asking ---------------------------------------------------------------------------------------------------------


def test_this_machine(tmp_path, monkeypatch):
    """The real probe: it runs under this Python, and says what is so."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text("tracking: {run_dir: run}\n", encoding="utf-8")
    findings = preflight(make_plan("tiny.yaml", [], [Host("localhost", 1)]), Shell(sys.executable))
    by_check = {each.what: each for each in findings}
    assert not [each for each in findings if each.status == FAIL], to_table(findings)
    assert by_check["clock"].status == PASS and by_check["code"].status == PASS
    assert "GiB free" in by_check["run folder"].text
    assert by_check["package numpy"].status == PASS


def fake_ssh(folder: Path, monkeypatch, script: str) -> Path:
    """An `ssh` on PATH that takes what comes on stdin, and answers after 100 ms."""
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat > /dev/null\nsleep 0.1\n{script}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.mark.slow
def test_512_hosts(tmp_path, monkeypatch, plan):
    """Planned and asked through the command line; findings that are alike are one line."""
    facts = {**good(), "time": "NOW", "peers": {}, "manifests": {}}
    (tmp_path / "facts").write_text(json.dumps(facts), encoding="utf-8")
    fake_ssh(tmp_path, monkeypatch, f"echo Welcome; sed s/NOW/$(date +%s.%N)/ {tmp_path}/facts")
    hosts = ",".join(f"10.0.{i // 250}.{i % 250 + 1}:8" for i in range(512))
    options = ["training.total_batch_size=4096", "data.max_lanes=4096", "--hosts", hosts, "--network-interface", "eth0"]
    options += ["--instance-type", "p4d.24xlarge", "--plugin-version", "1.13.2", "--libfabric-version", "1.22"]
    made = CliRunner().invoke(main, ["plan", "base.yaml", *options, "--out", "plan.json"])
    assert made.exit_code == 0, made.stderr
    asked = CliRunner().invoke(main, ["preflight", "plan.json", "--json"])
    findings = json.loads(asked.stdout)
    assert {each["host"] for each in findings if each["check"] == "GPUs"} == {item[:-2] for item in hosts.split(",")}
    assert {each["check"]: each["text"] for each in findings if each["status"] == FAIL} == {}
    table = CliRunner().invoke(main, ["preflight", "plan.json"])
    assert table.exit_code == 0 and "and 511 more" in table.stdout and len(table.stdout.splitlines()) < 60


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'ssh: connect to host: Connection refused' >&2; exit 255", "Connection refused"),
        ("echo hello", "'hello', which is not what the program prints"),
        ("exit 3", "exit code 3"),
        ("exec sleep 60", "no answer within"),
        ("echo '{}'", "an answer is not understood"),
    ],
)
def test_hosts_that_do_not_answer(tmp_path, monkeypatch, plan, script, told):
    fake_ssh(tmp_path, monkeypatch, script)
    findings = preflight(plan, Shell("python3"), seconds=3.0)
    assert any(each.status == FAIL and told in each.text for each in findings)
    assert all(each.fix for each in findings if each.status == FAIL)


def test_nothing_but_a_constant_is_on_the_command_line(plan):
    argv = Shell("/opt/venv/bin/python", 2222).argv(Host("node1", 8))
    assert argv[0] == "ssh" and argv[-4:] == ["node1", "exec", "/opt/venv/bin/python", "-"]
    for wrong in ("python3; rm -rf /", "$(id)", "-c", "py thon", ""):
        with pytest.raises(RecipeError, match="--python"):
            Shell(wrong)


def test_problem_of_an_answer():
    assert Answer("h", 0, "", "warning", 0, 1).problem == ""
    assert Answer("h", 255, "", "a\nb\n", 0, 1).problem == "b"
    assert Answer("h", None, "", "", 0, 9).problem == "no answer within 9 s"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'NVIDIA-SMI has failed'; exit 9", "NVIDIA-SMI has failed"),
        ("echo out; echo 'no permission' >&2; exit 1", "no permission"),
        ("echo fine", ""),
    ],
)
def test_a_tool_is_quoted_wherever_it_says_why(tmp_path, script, problem):
    (tmp_path / "tool").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "tool").chmod(0o755)
    assert probe.run([str(tmp_path / "tool"), "-q"])["problem"] == problem
