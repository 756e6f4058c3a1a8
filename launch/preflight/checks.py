"""The checks of ``kogpt2-launch preflight``: facts of all hosts go in, findings come out. Nothing here asks a host.

A check gets the plan, its recipe and the facts of each reachable host (probe.py). It yields a finding for every host,
or one for all of them. A fail would end the run or spoil it; a warning makes it slower or less safe.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from kogpt2_gluon.estimate import size_of
from kogpt2_gluon.findings import FAIL, PASS, WARN, Finding
from kogpt2_gluon.machine.cuda import GPU_MAJORS
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.storage.lustre import Mount, mount_advice
from kogpt2_gluon.wording import counted, gib
from kogpt2_launch.plan.fabric import parse_version, plugin_generation
from kogpt2_launch.plan.plan import Plan

ALL = "all hosts"
NETWORK_FILE_SYSTEMS = ("lustre", "nfs", "nfs4", "ceph", "glusterfs", "beegfs", "gpfs", "wekafs", "fuse.sshfs", "9p")
CLOCK_WARN, CLOCK_FAIL = (
    1.0,
    60.0,
)  # seconds; AWS refuses requests that are 5 minutes off, and make and logs suffer earlier


@dataclass(frozen=True)
class HostFacts:
    """The facts that probe.py printed on a host. sent, received : start and end of asking, by this machine's clock."""

    host: str
    facts: dict[str, Any]
    sent: float
    received: float


Check = Callable[[Plan, Recipe, Sequence[HostFacts]], Iterator[Finding]]


def clock(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Compares each host's clock with ours; the error is at most half the time that asking took."""
    for each in hosts:
        doubt = (each.received - each.sent) / 2
        skew = float(each.facts["time"]) - (each.sent + doubt)
        off = max(0.0, abs(skew) - doubt)
        status = FAIL if off > CLOCK_FAIL else WARN if off > CLOCK_WARN else PASS
        fix = "systemctl restart chronyd" if status != PASS else ""
        yield Finding(status, "clock", each.host, f"{skew:+.1f} s, give or take {doubt:.1f}", fix)


def code(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks that all hosts have one revision of this package."""
    fix = "install the same revision on every host, or put it on the shared file system"
    yield from _same("code", {each.host: each.facts["code"] for each in hosts}, fix)


def packages(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks that all hosts have one version of each package, and an MXNet."""
    for name in sorted({name for each in hosts for name in each.facts["packages"]}):
        versions = {each.host: each.facts["packages"].get(name) for each in hosts}
        if set(versions.values()) != {None}:
            yield from _same(f"package {name}", versions, f"pip install the same {name} on every host")
    for each in hosts:
        found = each.facts["packages"]
        if not found.get("mxnet") and not found.get("mxnet-cu112"):
            yield Finding(FAIL, "package mxnet", each.host, "no MXNet is installed", "make horovod-gpu")


def data(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks that all hosts see the same shards, and that none is only in the archive."""
    for name in sorted({name for each in hosts for name in each.facts["manifests"]}):
        hashes = {each.host: each.facts["manifests"][name]["sha256"] for each in hosts}
        yield from _same(
            f"data {name}", hashes, f"mount the shared file system; kogpt2 verify {name}", missing="absent"
        )
        released = {path for each in hosts for path in each.facts["manifests"][name]["released"]}
        if released:
            text = f"{len(released)} shards are only in the archive, {min(released)} first"
            yield Finding(FAIL, f"data {name}", ALL, text, f"kogpt2 files stage {_folder(name)}")


def folders(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks that the run folder is writable, has room for the checkpoints, and is on a shared file system."""
    run_dir = str(recipe.run_dir)
    kept = (recipe.checkpoint.keep or 1) + 1
    needed = size_of(recipe).checkpoint * kept
    for each in hosts:
        found = each.facts["folders"].get(run_dir)
        if found is None:
            continue
        if not found["writable"]:
            yield Finding(FAIL, "run folder", each.host, f"{run_dir} cannot be written", f"chown or chmod {run_dir}")
        elif found["free"] < needed:
            text = f"{gib(found['free'])} free, {gib(needed)} needed for {counted(kept, 'checkpoint')}"
            yield Finding(FAIL, "run folder", each.host, text, "make room, or take a smaller checkpoint.keep")
        else:
            yield Finding(PASS, "run folder", each.host, f"{gib(found['free'])} free")
    if len(hosts) > 1:
        mounts = {each.host: _mount(each, run_dir) for each in hosts}
        sources = {host: f"{mount.device} ({mount.kind})" if mount else None for host, mount in mounts.items()}
        fix = f"mount one file system at {run_dir} on every host"
        yield from _same("shared run folder", sources, fix, missing="on a local disk")


def file_system(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks that the run folder is on the plan's FSx; a host's mount table has its address instead of its DNS name."""
    shared = plan.file_system
    for each in hosts if shared is not None else ():
        assert shared is not None
        mount = _mount(each, str(recipe.run_dir))
        if mount is not None and mount.kind == "lustre" and mount.device.endswith(f":/{shared.mount_name}"):
            yield Finding(PASS, "file system", each.host, f"{shared.id} at {mount.point}")
        else:
            there = f"{mount.device} ({mount.kind})" if mount else "a local disk"
            fix = shared.mount_command("FOLDER")
            yield Finding(FAIL, "file system", each.host, f"{recipe.run_dir} is on {there}, not on {shared.id}", fix)


def mount_options(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks the mount options of Lustre; other file systems pass."""
    for each in hosts:
        mount = _mount(each, str(recipe.run_dir))
        if mount is None or mount.kind != "lustre":
            continue
        advice = mount_advice(mount)
        if not advice:
            yield Finding(PASS, "mount options", each.host, ",".join(mount.options))
        for line in advice:
            yield Finding(WARN, "mount options", each.host, line, f"mount -o remount,noatime,flock {mount.point}")


def memory_lock(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks that memory locks are unlimited: EFA pins memory and cannot start otherwise."""
    if not plan.fabric.has_efa:
        return
    for each in hosts:
        limit = each.facts["memlock"]
        if limit == -1:
            yield Finding(PASS, "locked memory", each.host, "unlimited")
        else:
            fix = "echo '* - memlock unlimited' >> /etc/security/limits.conf, and log in again"
            yield Finding(FAIL, "locked memory", each.host, f"limited to {gib(limit)}", fix)


def efa(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks that a host has all EFA devices of its type, that libfabric sees them, and that NCCL's plugin is there."""
    instance = plan.fabric.instance
    if instance is None or not instance.efa:
        return
    for each in hosts:
        devices = [name for name in each.facts["infiniband"]["devices"] if name.startswith("uverbs")]
        status = PASS if len(devices) >= instance.efa else WARN if devices else FAIL
        fix = "" if status == PASS else f"attach {instance.efa} EFA interfaces to the instance; install the EFA driver"
        text = f"{len(devices)} of {instance.efa} devices in /dev/infiniband"
        yield Finding(status, "EFA devices", each.host, text, fix)
        seen = each.facts["tools"]["fi_info"]
        domains = {line.split(":", 1)[1].strip() for line in seen["output"].splitlines() if "domain:" in line}
        if seen["code"] == 0 and domains:
            yield Finding(PASS, "libfabric", each.host, f"provider efa with {len(domains)} domains")
        else:
            problem = seen["problem"] or "no domain of provider efa"
            yield Finding(FAIL, "libfabric", each.host, f"fi_info -p efa: {problem}", "run AWS's EFA installer")
        yield from _libfabric_version(plan, each)
        found = each.facts["plugins"]
        if found:
            yield Finding(PASS, "NCCL plugin", each.host, found[0])
        else:
            fix = "install aws-ofi-nccl, or add its folder to LD_LIBRARY_PATH"
            yield Finding(FAIL, "NCCL plugin", each.host, "no libnccl-net.so: NCCL would use sockets", fix)


def gpus(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks for a GPU for each worker that MXNet's build has code for, if the plan names an instance type."""
    if plan.fabric.instance is None:
        return
    slots = {host.name: host.slots for host in plan.hosts}
    for each in hosts:
        tool = each.facts["tools"]["nvidia_smi"]
        found = [[part.strip() for part in line.split(",")] for line in tool["output"].splitlines() if line.strip()]
        if tool["code"] != 0 or not found:
            text = f"nvidia-smi: {tool['problem'] or 'no GPU'}"
            yield Finding(FAIL, "GPUs", each.host, text, "install NVIDIA's driver; kogpt2 doctor")
            continue
        kinds = Counter(row[1] for row in found)
        text = ", ".join(f"{count} x {name}" for name, count in kinds.items())
        strange = sorted({row[2] for row in found if int(row[2].split(".")[0]) not in GPU_MAJORS})
        if strange:
            text += f" (compute capability {', '.join(strange)}): mxnet-cu112 has no machine code for them"
            fix = "train on V100, T4, A100 or A10G, and take the checkpoint to PyTorch with kogpt2 convert"
            yield Finding(FAIL, "GPUs", each.host, text, fix)
        elif len(found) < slots[each.host]:
            text += f" for {slots[each.host]} workers"
            yield Finding(FAIL, "GPUs", each.host, text, "plan fewer slots on this host")
        else:
            yield Finding(PASS, "GPUs", each.host, f"{text}, driver {found[0][3]}")


def nccl(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks for a single libnccl: Horovod and MXNet must use the same one, and the plugin is made for its version."""
    for each in hosts:
        lines = each.facts["tools"]["ldd_mxnet"]["output"].splitlines()
        linked = sorted({line.split("=>")[1].split("(")[0].strip() for line in lines if "libnccl" in line})
        if "not found" in linked and each.facts["packages"].get("nvidia-nccl-cu11"):
            linked = [f"nvidia-nccl-cu11 {each.facts['packages']['nvidia-nccl-cu11']}, loaded by kogpt2_gluon"]
        if len(linked) > 1:
            fix = "leave one libnccl.so.2 on LD_LIBRARY_PATH"
            yield Finding(FAIL, "libnccl", each.host, f"several: {', '.join(linked)}", fix)
        elif linked:
            yield Finding(PASS, "libnccl", each.host, linked[0])


def interface(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks that every host has the plan's network interface, with addresses of one subnet."""
    name = plan.network_interface
    if name is None:
        return
    subnets: dict[str, str | None] = {}
    for each in hosts:
        there = _subnets(each)
        subnets[each.host] = there.get(name)
        if name not in there:
            tool = each.facts["tools"]["addresses"]
            others = ", ".join(sorted(there)) or (f"none (ip: {tool['problem']})" if tool["problem"] else "none")
            text = f"no {name} with an IPv4 address; it has {others}"
            yield Finding(FAIL, "interface", each.host, text, "kogpt2-launch plan ... --network-interface NAME")
    if len(hosts) > 1 and None not in subnets.values():
        yield from _same(f"subnet of {name}", subnets, "bring the hosts into one subnet", worst=WARN)


def ssh(plan: Plan, recipe: Recipe, hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """Checks ssh from each host to the next and to the first: horovodrun and mpirun start workers along these ways."""
    for each in hosts:
        for peer, tool in sorted(each.facts["peers"].items()):
            if tool["code"] == 0:
                yield Finding(PASS, "ssh", each.host, f"reaches {peer}")
            else:
                lines = str(tool["problem"]).splitlines() or ["no answer"]
                fix = f"ssh-copy-id {peer} on {each.host}; ssh {peer} true must ask nothing"
                yield Finding(FAIL, "ssh", each.host, f"to {peer}: {lines[-1]}", fix)


CHECKS: tuple[Check, ...] = (
    *(clock, code, packages, data, folders, file_system, mount_options, memory_lock),
    *(efa, gpus, nccl, interface, ssh),
)


# ---- parts of these -------------------------------------------------------------------------------------------------


def _same(
    check: str, values: dict[str, str | None], fix: str, missing: str = "not installed", worst: str = FAIL
) -> Iterator[Finding]:
    """One finding for all hosts if they agree, else one for each host that differs from the majority."""
    common, _ = Counter(values.values()).most_common(1)[0]
    odd = [host for host, value in values.items() if value != common or value is None]
    if not odd:
        yield Finding(PASS, check, ALL, str(common)[:60])
    for host in odd:
        others = f"; {common[:60]} on the others" if common is not None and values[host] != common else ""
        yield Finding(worst, check, host, f"{(values[host] or missing)[:60]}{others}", fix)


def _libfabric_version(plan: Plan, each: HostFacts) -> Iterator[Finding]:
    """Checks that the plan's variables are made for the host's version of libfabric."""
    found = re.search(r"libfabric: *v?(\d+(?:\.\d+)+)", each.facts["tools"]["fi_info_version"]["output"])
    plugin, planned = plan.fabric.plugin, plan.fabric.libfabric
    if found is None or plugin is None or planned is None:
        return
    there = parse_version(found[1], "fi_info --version")
    if plugin_generation(plugin, there) == plugin_generation(plugin, planned):
        yield Finding(PASS, "libfabric version", each.host, found[1])
    else:
        text = f"{found[1]}, and the plan is for {plan.fabric.libfabric_version}, which needs other variables"
        fix = f"kogpt2-launch plan ... --libfabric-version {found[1]}"
        yield Finding(FAIL, "libfabric version", each.host, text, fix)


def _folder(manifest: str) -> str:
    return manifest.rpartition("/")[0] or "."


def _mount(each: HostFacts, folder: str) -> Mount | None:
    """The network file system that holds `folder`; None for a local disk."""
    real = each.facts["folders"][folder]["real"]
    best: tuple[int, Mount | None] = (-1, None)
    for line in each.facts["mounts"].splitlines():
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        device, point, kind, options = fields[:4]
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best[0]:
            mount = Mount(device, Path(point), kind, tuple(options.split(",")))
            best = (len(point), mount if kind in NETWORK_FILE_SYSTEMS else None)
    return best[1]


def _subnets(each: HostFacts) -> dict[str, str]:
    """{interface: its IPv4 network}, from the output of ``ip -json address``."""
    try:
        described: list[Any] = json.loads(each.facts["tools"]["addresses"]["output"] or "[]")
    except ValueError:
        return {}
    found = {}
    for link in described:
        for address in link.get("addr_info", []):
            if address.get("family") == "inet":
                text = f"{address['local']}/{address['prefixlen']}"
                found[str(link.get("ifname"))] = str(ipaddress.ip_interface(text).network)
    return found
