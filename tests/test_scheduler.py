"""A process of tests that is killed: its test has failed, all others run, and every failure has its name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, run

pytest.importorskip("xdist")

CONFTEST = """
import pytest

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from tests.scheduler import FileScheduling

    return FileScheduling(config, log, lambda nodeid: nodeid.partition("::")[0])
"""
KILLED = """
import os

def test_before(): pass
def test_killed(): os.kill(os.getpid(), 9)
def test_after(): pass
def test_fails(): assert 0
"""
ALONE = "import os\n\ndef test_alone(): os.kill(os.getpid(), 9)\n"
PLAIN = "def test_one(): pass\ndef test_fails(): assert 0\n"


@pytest.mark.slow
def test_killed_processes(tmp_path: Path) -> None:
    files = {"conftest": CONFTEST, "test_a": KILLED, "test_b": KILLED, "test_c": PLAIN, "test_d": ALONE}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    quiet = ["-q", "-n2", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:schemathesis"]
    command = [sys.executable, "-m", "pytest", "--rootdir", tmp_path, *quiet, tmp_path]
    done = run(*command, code=1, PYTHONPATH=str(ROOT), PYTEST_ADDOPTS="", COLUMNS="300")
    failed = re.findall(r"^FAILED \S*(test_\w\.py::\S+) - (worker .* crashed|assert 0)", done.stdout, re.MULTILINE)
    assert sorted((name, why.split()[-1]) for name, why in failed) == [
        ("test_a.py::test_fails", "0"),
        ("test_a.py::test_killed", "crashed"),
        ("test_b.py::test_fails", "0"),
        ("test_b.py::test_killed", "crashed"),
        ("test_c.py::test_fails", "0"),
        ("test_d.py::test_alone", "crashed"),
    ]
    assert "6 failed, 5 passed" in done.stdout and "INTERNALERROR" not in done.stdout
