"""The contract between launcher and worker: ranks of every engine, the progress file, a child that ends with us."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from kogpt2_gluon.machine import job
from kogpt2_launch.host.processes import process_state
from tests.chaos.netns_helpers import wait_for


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    for name in {name for each in job.NUMBERINGS for name in each if name}:
        monkeypatch.delenv(name, raising=False)


def test_without_an_engine_a_process_is_alone():
    assert (job.rank(), job.local_rank(), job.job_size(), job.local_size()) == (None, None, 1, 1)


@pytest.mark.parametrize("numbering", job.NUMBERINGS)
def test_the_variables_of_every_engine_are_read(numbering, monkeypatch):
    for name, value in zip(numbering, ("5", "8", "1", "4")):
        if name:
            monkeypatch.setenv(name, value)
    sizes = (8, 4) if numbering.size else (1, 1)
    assert (job.rank(), job.local_rank(), job.job_size(), job.local_size()) == (5, 1, *sizes)


def test_an_engine_inside_of_a_slurm_job_counts_before_slurm():
    environment = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "OMPI_COMM_WORLD_RANK": "3"}
    assert job.rank(environment) == 3
    assert job.rank({**environment, "HOROVOD_RANK": "2"}) == 2


def test_numbers_of_a_slurm_job_are_not_numbers_of_workers(monkeypatch):
    """A batch script that runs one worker has them too."""
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    assert (job.job_size(), job.local_size()) == (1, 1)


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5"])
def test_what_is_not_a_number_is_passed_over(value):
    assert job.rank({"HOROVOD_RANK": value, "OMPI_COMM_WORLD_RANK": "4"}) == 4


def test_progress_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "progress"
    assert job.read_progress(path) == (-1, 0)
    path.write_bytes(job.progress_line(7, 12))
    assert job.read_progress(path) == (7, 12)
    assert len(job.progress_line(-1, 0)) == len(job.progress_line(10**9, 10**12))
    path.write_bytes(b"")
    assert job.read_progress(path) == (-1, 0)


def test_a_child_ends_with_the_process_that_started_it():
    parent = """
import os, signal, subprocess, sys
from kogpt2_gluon.machine import job
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], preexec_fn=job.end_with_parent())
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL  # and nobody holds the pipe open any more
    wait_for(lambda: process_state(int(done.stdout)) in ("", "Z"), "the child has ended", 10)
