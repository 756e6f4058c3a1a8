"""The engines that start a plan's processes on its hosts, horovodrun and mpirun: a supervisor for every rank.

What an engine is given on its command line and in its environment ends on command lines of ssh, where ``ps`` shows it:
it is the program to start and what finding it needs, and no more. The workers' own environment goes another way
(launch/host).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kogpt2_gluon.machine import job
from kogpt2_launch.hosts import Host
from kogpt2_launch.ssh import OPTIONS as SSH_OPTIONS

HOROVODRUN, MPIRUN = "horovodrun", "mpirun"
ENGINES = (HOROVODRUN, MPIRUN)
FLAT_TREE_HOSTS = 64  # from here on mpirun starts all daemons itself: a chain of ssh through the hosts breaks easily
PRESET_MAPPING = {"period-2019": "ppr:4:socket"}  # of fabric.PRESETS: four workers a socket of p3dn
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "SSH_AUTH_SOCK", "LD_LIBRARY_PATH")

# Open MPI's own words for --allow-run-as-root, the usual user of a container; as variables they do for every user.
ROOT_MAY_RUN = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def launch_folder(launch_id: str) -> str:
    """Where the supervisors' archive lies, the same on every host: an engine starts it by this name."""
    return f"/tmp/kogpt2-launch-{launch_id}"


def supervisor_argv(python: str, launch_id: str) -> list[str]:
    """What an engine starts for every rank (launch/host)."""
    return [python, f"{launch_folder(launch_id)}/agent.zip"]


def engine_argv(
    engine: str, hosts: Sequence[Host], interface: str | None, preset: str | None, port: int | None = None
) -> list[str]:
    """An engine's command up to the program that it starts. preset : a name of fabric.PRESETS."""
    if engine == HOROVODRUN:
        return horovodrun_argv(hosts, interface, port)
    return mpirun_argv(hosts, interface, port, PRESET_MAPPING.get(preset or ""))


def horovodrun_argv(hosts: Sequence[Host], interface: str | None, port: int | None = None) -> list[str]:
    """horovodrun up to the program. port : of sshd.

    ``--disable-cache``: it would otherwise believe an hour-old answer about hosts and interfaces.
    """
    named = ",".join(f"{host.name}:{host.slots}" for host in hosts)
    network = ["--network-interfaces", interface] if interface else []
    ssh = ["-p", str(port)] if port is not None else []
    return [HOROVODRUN, "--gloo", "--disable-cache", "-np", str(_size(hosts)), "-H", named, *network, *ssh]


def mpirun_argv(
    hosts: Sequence[Host], interface: str | None, port: int | None = None, mapping: str | None = None
) -> list[str]:
    """Open MPI's mpirun up to the program.

    No binding (MXNet's threads need the cores), ranks slot by slot as the plan numbers them, and TCP for Open MPI's own
    few messages: openib would take the EFA device for InfiniBand. mapping : in place of ``slot``, as ``ppr:4:socket``.
    """
    named = ",".join(f"{host.name}:{host.slots}" for host in hosts)
    argv = [MPIRUN, "-np", str(_size(hosts)), "-H", named, "-bind-to", "none", "-map-by", mapping or "slot"]
    argv += ["-mca", "pml", "ob1", "-mca", "btl", "^openib"]
    if interface:
        argv += ["-mca", "btl_tcp_if_include", interface, "-mca", "oob_tcp_if_include", interface]
    if len(hosts) >= FLAT_TREE_HOSTS:
        argv += ["-mca", "plm_rsh_no_tree_spawn", "1"]
    # Whole names, as a pod has, are not cut at their first dot; and ssh asks nobody.
    ssh = [*SSH_OPTIONS, *(["-p", str(port)] if port is not None else [])]
    return [*argv, "-mca", "orte_keep_fqdn_hostnames", "1", "-mca", "plm_rsh_args", " ".join(ssh)]


def engine_environment(ours: Mapping[str, str], mark: str) -> dict[str, str]:
    """What the engine itself needs; all of it may be read by others."""
    return {
        **{name: ours[name] for name in PASSED_ON if name in ours},
        **ROOT_MAY_RUN,
        job.LAUNCH_ID: mark,
        "PYTHONUNBUFFERED": "1",
    }


def _size(hosts: Sequence[Host]) -> int:
    return sum(host.slots for host in hosts)
