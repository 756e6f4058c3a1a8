"""The command lines and the environment of the engines."""

from __future__ import annotations

from kogpt2_launch.hosts import Host, parse_hosts
from kogpt2_launch.plan.commands import (
    FLAT_TREE_HOSTS,
    ROOT_MAY_RUN,
    engine_argv,
    engine_environment,
    horovodrun_argv,
    mpirun_argv,
)
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.plan.variables import Fabric

HOSTS = parse_hosts("h1:8,h2:8")


def pairs(argv):
    return list(zip(argv, argv[1:]))


def test_horovodrun_always_names_the_interface():
    argv = horovodrun_argv(HOSTS, "ens32", 2222)
    for pair in (("-np", "16"), ("-H", "h1:8,h2:8"), ("--network-interfaces", "ens32"), ("-p", "2222")):
        assert pair in pairs(argv)


def test_mpirun_does_not_bind_and_keeps_off_infiniband():
    argv = mpirun_argv(HOSTS, "ens32")
    for pair in (("-bind-to", "none"), ("-map-by", "slot"), ("pml", "ob1"), ("btl", "^openib")):
        assert pair in pairs(argv)
    assert ("btl_tcp_if_include", "ens32") in pairs(argv) and "btl_tcp_if_exclude" not in argv
    assert "plm_rsh_no_tree_spawn" not in argv


def test_mpirun_reaches_many_hosts_itself():
    hosts = [Host(f"n{number}", 8) for number in range(FLAT_TREE_HOSTS)]
    assert ("plm_rsh_no_tree_spawn", "1") in pairs(mpirun_argv(hosts, "eth0"))


def test_preset_of_2019_maps_four_workers_a_socket():
    plan = make_plan("kogpt2_base", [], HOSTS, "eth0", fabric=Fabric("p3dn.24xlarge", "1.5.0", "1.17", "period-2019"))
    assert ("-map-by", "ppr:4:socket") in pairs(plan.processes()["mpirun"])


def test_mpirun_keeps_whole_names_and_its_ssh_asks_nobody():
    argv = engine_argv("mpirun", HOSTS, "eth0", None, 2222)
    (given,) = [value for name, value in pairs(argv) if name == "plm_rsh_args"]
    assert "BatchMode=yes" in given and "StrictHostKeyChecking=accept-new" in given and given.endswith("-p 2222")
    assert ("orte_keep_fqdn_hostnames", "1") in pairs(argv)


def test_engines_get_no_more_than_they_need():
    ours = {"PATH": "/bin", "HOME": "/root", "AWS_SECRET_ACCESS_KEY": "x", "KOGPT2_MARKER": "y", "NCCL_DEBUG": "INFO"}
    given = engine_environment(ours, "mark")
    assert set(given) == {"PATH", "HOME", "KOGPT2_LAUNCH_ID", "PYTHONUNBUFFERED", *ROOT_MAY_RUN}
