"""Hosts as people name them, on the command line and in host files."""

from __future__ import annotations

import socket

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.hosts import Host, parse_hosts, read_hostfile
from kogpt2_launch.plan.commands import MPIRUN
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.run.attempt import Options
from kogpt2_launch.run.job import run_job
from kogpt2_launch.run.restart import Policy


def test_hosts_keep_their_order():
    assert parse_hosts("h2:8, h1:4,10.0.0.7:1") == (Host("h2", 8), Host("h1", 4), Host("10.0.0.7", 1))


@pytest.mark.parametrize(
    "text",
    [
        *("h1", "h1:", "h1:0", "h1:-1", "h1:2.5", "h1:2,", "", ":2", "-oProxyCommand=x:1", "h1;ls:1", "h'1:1"),
        *("h1-:1", "a..b:1", "$(id):1", "h1 :x", "호스트:1", "h1\n:1:1", "::1:1", "a" * 64 + ":1", "h1:1,H1:2"),
    ],
)
def test_bad_hosts_are_refused_in_one_line(text):
    with pytest.raises(RecipeError) as caught:
        parse_hosts(text)
    assert len(str(caught.value).strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("h_1", "h_1"),
        ("_gpu0", "_gpu0"),
        ("node_a.b_c", "node_a.b_c"),
        ("h1.example.com.", "h1.example.com"),
        ("h1.", "h1"),
    ],
)
def test_names_that_ssh_and_horovodrun_accept(given, name):
    assert parse_hosts(f"{given}:2") == (Host(name, 2),) and Host(given, 2).name == name


def test_a_last_dot_makes_no_other_host():
    assert Host("localhost.", 1).is_local and Host("localhost.", 1).is_loopback
    with pytest.raises(RecipeError, match=r"host h1 is named twice"):
        parse_hosts("h1.:1,h1:1")


@pytest.mark.parametrize(
    "address", ["::1", "[::1]", "2001:db8::17", "[fe80::1%eth0]", "fe80::1%eth0", "::ffff:10.0.0.1"]
)
def test_ipv6_is_refused_by_name(tmp_path, address):
    for text in (address, f"{address}:8"):
        with pytest.raises(RecipeError, match="IPv6 address cannot be a host; give its IPv4 address"):
            parse_hosts(f"h1:8,{text}")
    path = tmp_path / "hosts"
    path.write_text(f"{address} slots=8\n")
    with pytest.raises(RecipeError, match="IPv6 address cannot be a host"):
        read_hostfile(path)


@pytest.mark.parametrize(("user", "host"), [("ubuntu", "h1"), ("ec2-user", "10.0.0.7"), ("a.b", "h_1.example.com")])
def test_a_user_with_a_host_is_refused_with_the_way_out(user, host):
    told = f"take no user with a host; write {host}, and 'User {user}' under 'Host {host}'"
    with pytest.raises(RecipeError, match=told):
        parse_hosts(f"{user}@{host}:8")


def test_mpirun_takes_no_underscore(recipe):
    plan = make_plan(recipe, [], (Host("h_1", 1), Host("h2", 1)), "eth0")
    with pytest.raises(RecipeError, match="mpirun: host h_1: Open MPI takes no underscore"):
        run_job(plan, Options(MPIRUN), Policy())


def test_a_hostfile_of_windows(tmp_path):
    path = tmp_path / "hosts"
    for raw in (
        b"\xef\xbb\xbfh1 slots=8\r\nh2:4\r\n",
        b"\xff\xfe" + "h1 slots=8\r\n\r\nh2:4\r\n".encode("utf-16-le"),
        b"h1 slots=8\r# half\rh2:4",
        b"\xef\xbb\xbf# hosts\nh1\tslots=8\nh2:4",
    ):
        path.write_bytes(raw)
        assert read_hostfile(path) == (Host("h1", 8), Host("h2", 4))


def test_hostfile_of_horovod_and_mpi(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# the cluster\n\nh1 slots=8\nh2:4  # half\n  h3 slots=2 max_slots=2\n", encoding="utf-8")
    assert read_hostfile(path) == (Host("h1", 8), Host("h2", 4), Host("h3", 2))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("h1 slots=8\nh2\n", "line 2"),
        ("h1 slots=x\n", "line 1"),
        ("h1 8\n", "line 1"),
        ("h1 slots=2 color=red\n", "line 1"),
        ("h1 slots=2\nh1 slots=2\n", "hosts: host h1 is named twice"),
        ("h2:1\nh1 slots=0\n", "hosts, line 2: host h1: 0 slots"),
        ("h1 slots=999999\n", "hosts, line 1: host h1: 999999 slots; a host has at most 1,024"),
        ("h1 slots=2 slots=4\n", "line 1: .* gives one setting twice; write h1 slots=N"),
        ("h1 slots=2 max_slots=4 max-slots=8\n", "line 1: .* gives one setting twice"),
        ("h2:1\nh1 slots=2 slots=2\n", "line 2: .* gives one setting twice"),
        ("h1:2 slots=4\n", "host 'h1:2': not a host name"),
        ("# nobody\n", "names no host"),
    ],
)
def test_bad_hostfile_names_file_and_line(tmp_path, text, told):
    path = tmp_path / "hosts"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=told):
        read_hostfile(path)


def test_missing_hostfile(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        read_hostfile(tmp_path / "none")


def test_own_names_are_local():
    assert Host("localhost", 1).is_local and Host("127.0.0.1", 1).is_local
    assert Host(socket.gethostname(), 1).is_local
    assert not Host("some-other-host.example", 1).is_local
