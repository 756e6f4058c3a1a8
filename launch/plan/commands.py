"""The commands of the engines, horovodrun and mpirun, which start a supervisor for every rank of a plan.

The command line and the environment of an engine end up on command lines of ssh, where ``ps`` shows them. They
therefore hold the program to start and what is needed to find it, and no more. The workers' own environment takes
another way (launch/host).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kogpt2_gluon.machine import job
from kogpt2_launch.hosts import Host
from kogpt2_launch.ssh import OPTIONS as SSH_OPTIONS

HOROVODRUN, MPIRUN = "horovodrun", "mpirun"
ENGINES = (HOROVODRUN, MPIRUN)
FLAT_TREE_HOSTS = 64  # from here on mpirun starts all daemons itself: a chain of ssh through the hosts breaks easily
PRESET_MAPPING = {"period-2019": "ppr:4:socket"}  # for a name of fabric.PRESETS: four workers on each socket of p3dn
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "SSH_AUTH_SOCK", "LD_LIBRARY_PATH")

# Open MPI's variables for --allow-run-as-root: root is the usual user of a container. For other users they do nothing.
ROOT_MAY_RUN = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def launch_folder(launch_id: str) -> str:
    """The folder of the supervisors' archive. An engine starts the archive by name, so all hosts have the same one."""
    return f"/tmp/kogpt2-launch-{launch_id}"


def supervisor_argv(python: str, launch_id: str) -> list[str]:
    """The command of a supervisor (launch/host), which an engine starts for every rank."""
    return [python, f"{launch_folder(launch_id)}/agent.zip"]


def engine_argv(
    engine: str, hosts: Sequence[Host], interface: str | None, preset: str | None, port: int | None = None
) -> list[str]:
    """The command of an engine, up to the program that it starts. preset : a name of fabric.PRESETS; port : of sshd."""
    if engine == HOROVODRUN:
        return horovodrun_argv(hosts, interface, port)
    return mpirun_argv(hosts, interface, port, PRESET_MAPPING.get(preset or ""))


def horovodrun_argv(hosts: Sequence[Host], interface: str | None, port: int | None = None) -> list[str]:
    """The command of horovodrun, up to the program. port : of sshd.

    Without ``--disable-cache`` it would believe an hour-old answer about hosts and interfaces.
    """
    named = ",".join(f"{host.name}:{host.slots}" for host in hosts)
    network = ["--network-interfaces", interface] if interface else []
    ssh = ["-p", str(port)] if port is not None else []
    return [HOROVODRUN, "--gloo", "--disable-cache", "-np", str(_size(hosts)), "-H", named, *network, *ssh]


def mpirun_argv(
    hosts: Sequence[Host], interface: str | None, port: int | None = None, mapping: str | None = None
) -> list[str]:
    """The command of Open MPI's mpirun, up to the program.

    Workers are not bound to cores, because MXNet's threads need them. Ranks go slot by slot, as the plan numbers them.
    Open MPI's own few messages use TCP: openib would take the EFA device for InfiniBand. mapping : instead of ``slot``,
    for example ``ppr:4:socket``.
    """
    named = ",".join(f"{host.name}:{host.slots}" for host in hosts)
    argv = [MPIRUN, "-np", str(_size(hosts)), "-H", named, "-bind-to", "none", "-map-by", mapping or "slot"]
    argv += ["-mca", "pml", "ob1", "-mca", "btl", "^openib"]
    if interface:
        argv += ["-mca", "btl_tcp_if_include", interface, "-mca", "oob_tcp_if_include", interface]
    if len(hosts) >= FLAT_TREE_HOSTS:
        argv += ["-mca", "plm_rsh_no_tree_spawn", "1"]
    # Full host names, as pods have, are not cut at their first dot; and ssh asks no questions.
    ssh = [*SSH_OPTIONS, *(["-p", str(port)] if port is not None else [])]
    return [*argv, "-mca", "orte_keep_fqdn_hostnames", "1", "-mca", "plm_rsh_args", " ".join(ssh)]


def engine_environment(ours: Mapping[str, str], mark: str) -> dict[str, str]:
    """The environment that the engine itself needs. Others may read all of it. mark : the id of the attempt."""
    return {
        **{name: ours[name] for name in PASSED_ON if name in ours},
        **ROOT_MAY_RUN,
        job.LAUNCH_ID: mark,
        "PYTHONUNBUFFERED": "1",
    }


def _size(hosts: Sequence[Host]) -> int:
    return sum(host.slots for host in hosts)
