"""The programs on a host: the connection and its proof, the place of a rank, spot notices, stacks, processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from kogpt2_gluon.machine.job import LAUNCH_ID
from kogpt2_launch.host.link import Link
from kogpt2_launch.host.place import place
from kogpt2_launch.host.processes import kill_marked, marked, process_state, stacks
from kogpt2_launch.host.spot import spot_notice
from kogpt2_launch.hosts import Host
from kogpt2_launch.run.agent import archive, program
from kogpt2_launch.run.control import Control
from kogpt2_launch.ssh import Shell

LAUNCH = {
    "address": "10.0.0.1",
    "rendezvous_port": 4000,
    "interface": "eth0",
    "hosts": [["h1", 2], ["h2", 1], ["h3", 2]],
}


def with_control(client, ranks=2, detect=2.0):
    """Runs `client(port)` in a thread next to a Control; returns what it returned or raised, and the Control."""

    async def both():
        async with Control(["h1"] * ranks, "token", detect, lambda line: None, "127.0.0.1") as control:
            done = asyncio.get_running_loop().run_in_executor(None, client, control.port)
            try:
                return await asyncio.wait_for(asyncio.shield(done), 20), control
            except OSError as error:
                return error, control

    return asyncio.run(both())


def connect(port, rank=0, token="token", detect=2.0):
    return Link.connect({"address": "127.0.0.1", "port": port, "token": token, "detect_seconds": detect}, rank)


def test_both_ends_of_a_connection_know_the_token():
    def client(port):
        link = connect(port, rank=1)
        link.send("started", pid=77)
        link.send("beat", step=5, beats=9, state="S")
        link.send("exit", code=3, lines=["one", "둘"])
        link.wait_for_release(0.5)
        return link.closed

    closed, control = with_control(client)
    rank = control.ranks[1]
    assert not closed and (rank.pid, rank.step, rank.code, rank.last_lines) == (77, 5, 3, ["one", "둘"])
    assert not control.ranks[0].present


@pytest.mark.parametrize("wrong", [{"token": "other"}, {"rank": 2}, {"rank": -1}])
def test_a_stranger_is_not_let_in(wrong):
    error, control = with_control(lambda port: connect(port, **wrong))
    assert isinstance(error, OSError) and not any(rank.present for rank in control.ranks)


def test_a_rank_that_is_there_is_not_taken_by_another():
    def client(port):
        first = connect(port)
        with pytest.raises(OSError):
            connect(port)
        return first.closed

    closed, _ = with_control(client)
    assert closed is False


def test_nonsense_and_silence_do_no_harm():
    def client(port):
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100 + b"\n", b"[1]\n", b'{"rank": "x"}\n'):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(sent)
        with socket.create_connection(("127.0.0.1", port)):
            link = connect(port)  # while the other one says nothing
        link.send("beat", step=1, beats=1, state="R")
        time.sleep(0.3)
        return True

    done, control = with_control(client)
    assert done is True and control.ranks[0].step == 1


def test_a_launcher_without_the_token_is_not_obeyed():
    server = socket.create_server(("127.0.0.1", 0))

    def pretend():
        connection, _ = server.accept()
        with connection:
            connection.sendall(b'{"nonce": "1"}\n')
            connection.recv(4096)
            connection.sendall(b'{"proof": "00"}\n{"kind": "end", "grace": 0}\n')
            time.sleep(0.5)

    threading.Thread(target=pretend, daemon=True).start()
    with pytest.raises(OSError, match="not this launch's launcher"):
        connect(server.getsockname()[1])
    server.close()


def test_ranks_follow_from_the_plan_where_the_engine_is_not_horovodrun():
    places = [place(LAUNCH, rank, {"OMPI_COMM_WORLD_RANK": str(rank)}) for rank in range(5)]
    told = [(p["HOROVOD_HOSTNAME"], p["HOROVOD_LOCAL_RANK"], p["HOROVOD_LOCAL_SIZE"]) for p in places]
    assert told == [("h1", "0", "2"), ("h1", "1", "2"), ("h2", "0", "1"), ("h3", "0", "2"), ("h3", "1", "2")]
    assert [(p["HOROVOD_CROSS_RANK"], p["HOROVOD_CROSS_SIZE"]) for p in places] == [
        *[("0", "3"), ("0", "2"), ("1", "3"), ("2", "3"), ("1", "2")]
    ]
    assert all(p["HOROVOD_SIZE"] == "5" and p["HOROVOD_GLOO_IFACE"] == "eth0" for p in places)


def test_the_same_places_as_horovods_own():
    hosts = pytest.importorskip("horovod.runner.common.util.hosts", reason="make horovod builds it")
    slots = hosts.get_host_assignments(hosts.parse_hosts("h1:2,h2:1,h3:2"), 5)
    for slot in slots:
        ours = place(LAUNCH, slot.rank, {})
        assert ours["HOROVOD_HOSTNAME"] == slot.hostname
        for name in ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size"):
            assert ours[f"HOROVOD_{name.upper()}"] == str(getattr(slot, name)), (slot.rank, name)


def test_an_engine_that_places_ranks_otherwise_is_refused():
    with pytest.raises(ValueError, match="rank 2 is process 2 of its host, but in the plan it is process 0 of h2"):
        place(LAUNCH, 2, {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "2"})
    with pytest.raises(ValueError, match="rank 5, but the plan has 5 ranks"):
        place(LAUNCH, 5, {})


def test_spot_notice_by_imds_version_2(metadata, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # link-local: no proxy is asked
    assert spot_notice(metadata.address) == ""
    metadata.notice = json.dumps({"action": "terminate", "time": "2026-11-21T20:00:00Z"})
    assert spot_notice(metadata.address) == "terminate at 2026-11-21T20:00:00Z"
    for damaged in ("", "[]", "{}", "not json"):
        metadata.notice = damaged
        assert spot_notice(metadata.address) == ""
    assert spot_notice("http://127.0.0.1:1") == ""


def sleeper(**variables):
    code = "import time\ndef wait_here():\n    time.sleep(120)\nwait_here()"
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **variables})


def test_only_marked_processes_are_found_and_ended():
    ours, other = sleeper(**{LAUNCH_ID: "one"}), sleeper(**{LAUNCH_ID: "two"})
    try:
        assert marked({LAUNCH_ID: "one"}) == [ours.pid]
        assert kill_marked({LAUNCH_ID: "one"}) == 0
        assert ours.wait(5) == -signal.SIGKILL and other.poll() is None
    finally:
        for each in (ours, other):
            each.kill()
            each.wait()


def test_stacks_of_a_stopped_process():
    process = sleeper()
    try:
        time.sleep(0.5)
        process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while process_state(process.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.01)
        text = stacks(process.pid)
        assert "state T (stopped by a signal)" in text and "wait_here" in text
    finally:
        process.kill()
        process.wait()


def test_stacks_say_why_there_are_none(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert "py-spy is not installed" in stacks(os.getpid())
    assert stacks(os.getpid()).startswith(f"process {os.getpid()}, state")


def test_the_archive_is_the_same_each_time_and_runs_alone(tmp_path):
    assert archive() == archive.__wrapped__()
    (tmp_path / "agent.zip").write_bytes(archive())
    (tmp_path / "launch.json").write_text("{}")
    done = subprocess.run(
        # -S: without the installed packages, as on a host whose interpreter has none.
        [sys.executable, "-I", "-S", str(tmp_path / "agent.zip")],
        capture_output=True,
        text=True,
        env={},
        check=False,
    )
    assert done.returncode == 2 and "no engine has set the rank of this worker" in done.stderr


def test_hosts_are_prepared_and_swept(tmp_path):
    folder, launch = tmp_path / "launch", {"cwd": str(tmp_path), "token": "s"}
    data = {"launch": launch, "folder": str(folder), "remote": False}
    host, shell = Host("localhost", 1), Shell(sys.executable)
    said, problem = shell.run(host, program("prepare", data)).said()
    assert not problem and said["address"] == "127.0.0.1"
    assert folder.stat().st_mode & 0o777 == 0o700 and (folder / "launch.json").stat().st_mode & 0o777 == 0o600
    _, problem = shell.run(host, program("prepare", data)).said()
    assert "File exists" in problem  # a folder that somebody else has made is not used
    left = sleeper(**{LAUNCH_ID: "this"})
    _, problem = shell.run(host, program("sweep", {"id": "this", "folder": str(folder)})).said()
    assert not problem and not folder.exists() and left.wait(5) == -signal.SIGKILL


def test_a_host_without_the_working_folder_says_so(tmp_path):
    data = {"launch": {"cwd": "/nonexistent"}, "folder": str(tmp_path / "launch"), "remote": False}
    _, problem = Shell(sys.executable).run(Host("localhost", 1), program("prepare", data)).said()
    assert "no folder /nonexistent here" in problem
