"""The cores and the memory that this process may use, by its affinity and its control groups."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


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
