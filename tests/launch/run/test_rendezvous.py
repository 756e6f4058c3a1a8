"""Horovod's rendezvous, for engines that do not bring one."""

from __future__ import annotations

import urllib.request

import pytest

from kogpt2_launch.hosts import parse_hosts
from kogpt2_launch.run.rendezvous import rendezvous

HOSTS = parse_hosts("h1:8,h2:8")


def test_rendezvous_answers_and_ends():
    pytest.importorskip("horovod", reason="make horovod builds it")
    with rendezvous("horovodrun", HOSTS) as port:
        assert port == 0  # it has its own
    with rendezvous("mpirun", HOSTS) as port:
        url = f"http://127.0.0.1:{port}/scope/key"
        put = urllib.request.Request(url, data=b"value", method="PUT")
        with urllib.request.urlopen(put, timeout=5) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.read() == b"value"
