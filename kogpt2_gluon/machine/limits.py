"""The cores and the memory that this process may use, by its affinity and its control groups."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
PROC = Path("/proc")


class Memory(NamedTuple):
    """Memory in bytes: in all, and not in use. `whose` says what sets the bound.

    Processes share it, unless each of them `has_its_own`.
    """

    total: int
    free: int
    whose: str
    has_its_own: bool = False


def available_cores() -> int:
    """Returns the number of cores that this process may use, by its affinity and the CPU quota of its container."""
    return max(1, min(len(os.sched_getaffinity(0)), int(cpu_quota())))


def cpu_quota(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float:
    """Returns the CPU time that the control groups grant, in cores, as a fraction; sys.maxsize without a limit."""
    quotas = [float(sys.maxsize)]
    for folder in cgroup_folders("cpu", root, membership):
        words = _read_words(folder / "cpu.max")  # version 2: "max 100000" or "150000 100000"
        words = words or _read_words(folder / "cpu.cfs_quota_us") + _read_words(folder / "cpu.cfs_period_us")
        if len(words) == 2 and words[0].isdigit():  # no limit reads "max" or "-1"
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas)


def memory_limit(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int | None:
    """Returns the bytes of memory that the control groups grant this process; None without a limit."""
    limits = []
    for folder in cgroup_folders("memory", root, membership):
        words = _read_words(folder / "memory.max") or _read_words(folder / "memory.limit_in_bytes")  # versions 2 and 1
        limits += [int(word) for word in words if word.isdigit()]  # no limit reads "max"
    return min(limits, default=None)


def host_memory(root: Path = CGROUPS, membership: Path = MEMBERSHIP, proc: Path = PROC) -> Memory:
    """Returns the memory that this process can have: the least that machine, control groups and `ulimit -v` grant."""
    machine, own = _read_kib(proc / "meminfo"), _read_kib(proc / "self" / "status")
    found = [Memory(machine.get("MemTotal", sys.maxsize), machine.get("MemAvailable", sys.maxsize), "this machine")]
    for folder in cgroup_folders("memory", root, membership):
        limit = _read_words(folder / "memory.max") or _read_words(folder / "memory.limit_in_bytes")
        used = _read_words(folder / "memory.current") or _read_words(folder / "memory.usage_in_bytes")
        if limit and limit[0].isdigit() and int(limit[0]) < found[0].total:
            free = max(0, int(limit[0]) - int(used[0])) if used else int(limit[0])
            found.append(Memory(int(limit[0]), free, "this process's control group"))
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        # This limit counts addresses, also those of libraries and stacks that are never used as memory.
        unused = own.get("VmSize", 0) - own.get("VmRSS", 0)
        free = max(0, most - own.get("VmSize", 0))
        found.append(Memory(max(0, most - unused), free, "this process's limit (ulimit -v)", has_its_own=True))
    return min(found)


def cgroup_folders(controller: str, root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> list[Path]:
    """Returns the folders of this process's control group and its parents, in version 2 and version 1's `controller`.

    Only folders that exist are returned: in a container, `membership` can name paths of the host, but only the top
    folder is visible.
    """
    folders = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        here = top / path.strip("/")
        folders += [folder for folder in (here, *here.parents) if folder == top or top in folder.parents]
    return [folder for folder in folders if folder.is_dir()]


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _read_kib(path: Path) -> dict[str, int]:
    """Returns the sizes in a file of lines ``Name:  123 kB``, in bytes."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}
