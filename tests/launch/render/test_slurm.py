"""Rendered jobs with Debian's own Slurm, on two hosts that are namespaces of this machine (slurm_helpers.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs.checkpoint import newest_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_launch.hosts import parse_hosts
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.plan.variables import Fabric
from kogpt2_launch.render import Site, render
from tests.chaos.netns_helpers import Cluster, command_lines, wait_for
from tests.launch.render.slurm_helpers import Slurm, why_not

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]

LAUNCH = [sys.executable, "-m", "launch"]
P4D = Fabric("p4d.24xlarge", "1.13.2", "1.22")
P3DN = Fabric("p3dn.24xlarge", "1.13.2", "1.22")
STEPS = 150


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    pytest.importorskip("horovod", reason="make horovod builds it")
    cluster, made = Cluster(tmp_path_factory.mktemp("hosts")), None
    try:
        made = Slurm(cluster, tmp_path_factory.mktemp("slurm"))
        yield made
    finally:
        cluster.close()
        if made is not None:
            made.close()


@pytest.fixture
def settings(tiny):
    """The demo recipe, small, and long enough to be disturbed."""
    changed = [f"training.num_steps={STEPS}", "checkpoint.interval=0", "evaluation.interval=0"]
    return [*tiny, *changed, "tracking.log_interval=10"]


class Job:
    """A plan for hosts of any name, rendered and submitted as a person would."""

    def __init__(self, slurm, folder, settings):
        self.slurm, self.folder, self.run_dir = slurm, folder, folder / "run"
        self.settings = settings
        self.id = ""

    def submit(self, hosts):
        plan = self.folder / "plan.json"
        arguments = ["--hosts", hosts, "--network-interface", "eth0", "--out", plan]
        self.slurm.run(*LAUNCH, "plan", "demo", *self.settings, *arguments)
        self.slurm.run(*LAUNCH, "render", plan, "--to", "slurm", "--out", self.folder, "--time-limit", "10")
        self.id = self.slurm.submit(self.folder / "job.sbatch")

    @property
    def log(self):
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def hosts(self):
        """Those of the plan that was made in the allocation, with their slots."""
        plan = json.loads((self.folder / f"plan-{self.id}.json").read_text())
        return {host["name"]: host["slots"] for host in plan["hosts"]}

    def steps(self):
        """On record."""
        try:
            return [line["step"] for line in read_metrics(self.run_dir) if line["kind"] == "train"]
        except DataError:
            return []

    def saved(self):
        return newest_checkpoint(self.run_dir / "checkpoints").state()["step"]

    def wait_for_step(self, step):
        wait_for(lambda: max(self.steps(), default=-1) >= step, f"step {step}", 90)

    def ended(self):
        found = self.slurm.wait(self.id, 120)
        return found["JobState"], found["ExitCode"], int(found["Restarts"])


@pytest.fixture
def job(slurm, tmp_path, settings):
    """A Job; at the end nothing of it may be there."""
    made = Job(slurm, tmp_path, settings)
    yield made
    slurm.forget()
    left = slurm.cluster.launched()
    assert not left, command_lines(left)


def script(folder, hosts, fabric=None):
    """The rendered file of a plan: demo, or the real network on GPU instances."""
    recipe, interface = ("demo", None) if fabric is None else ("kogpt2_base", "ens32")
    settings = ["data.train=/fsx/train", "training.batch_size=2"]
    plan = make_plan(recipe, settings, parse_hosts(hosts), interface, fabric=fabric)
    path = folder / "job.sbatch"
    path.write_text(render(plan, "slurm", Site())["job.sbatch"])
    return path


@pytest.mark.parametrize(
    ("hosts", "fabric"),
    [("n1:1", None), ("n1:2,n2:2", None), ("n1:8,n2:8", P4D), ("n1:4,n2:4", P3DN), ("n1:8", P4D)],
)
def test_slurm_takes_the_rendered_file(slurm, tmp_path, hosts, fabric):
    tried = slurm.run("sbatch", "--test-only", script(tmp_path, hosts, fabric), check=False)
    assert tried.returncode == 0, tried.stderr
    nodes = "h1 " if hosts.count(":") == 1 else "h[1-2] "
    assert " to start at " in tried.stderr and f"on nodes {nodes}" in tried.stderr


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("--requeue", "--requeue-it", "unrecognized option '--requeue-it'"),
        ("--nodes=2", "--nodes=3", "node configuration is not available"),
        ("--gpus-per-node=8", "--gpus-per-node=9", "node configuration is not available"),
        ("--signal=B:TERM@180", "--signal=B:NONE@180", "signal"),
        ("--time=7-00:00:00", "--time=soon", "time"),
    ],
)
def test_slurm_refuses_what_is_wrong(slurm, tmp_path, line, instead, told):
    path = script(tmp_path, "n1:8,n2:8", P4D)
    text = path.read_text()
    assert f"#SBATCH {line}\n" in text
    path.write_text(text.replace(f"#SBATCH {line}\n", f"#SBATCH {instead}\n"))
    tried = slurm.run("sbatch", "--test-only", path, check=False)
    assert tried.returncode != 0 and told in tried.stderr.lower(), tried.stderr


def test_a_job_trains_on_two_nodes(job):
    """A worker each, although --exclusive hands the job all GPUs that the nodes say they have."""
    job.submit("n1:1,n2:1")
    assert job.ended() == ("COMPLETED", "0:0", 0), job.log
    assert job.hosts() == {"h1": 1, "h2": 1}
    assert job.steps()[-1] == STEPS == job.saved()
    assert Path(job.folder / f"demo-{job.id}.log").stat().st_size


def went_on(job):
    """Checks a job that was stopped once and queued again: it resumes where it was, and runs to its end."""
    assert "asked to stop: state saved" in (job.run_dir / "launch" / "attempt-01.log").read_text(), job.log
    saved = job.saved()
    assert 10 <= saved < STEPS
    assert job.ended() == ("COMPLETED", "0:0", 1), job.log
    assert f"going on from {job.run_dir}/checkpoints/step-{saved:08d}" in job.log
    assert job.steps() == list(range(10, STEPS + 1, 10)) and job.saved() == STEPS


@pytest.mark.slow
def test_sigterm_saves_and_the_job_queues_again_and_ends(job):
    job.submit("n1:1,n2:1")
    job.wait_for_step(10)
    job.slurm.run("scancel", "--signal=TERM", "--batch", job.id)
    wait_for(lambda: job.slurm.job(job.id)["Restarts"] == "1", "requeued", 60)
    went_on(job)


@pytest.mark.slow
def test_a_preempted_job_saves_and_goes_on_after_the_other(job):
    job.submit("n1:1,n2:1")
    job.wait_for_step(10)
    other = job.folder / "other.sbatch"
    other.write_text("#!/bin/bash\n")
    number = job.slurm.submit(other, "--partition=urgent", "--nodes=2", "--exclusive", "--time=1")
    assert job.slurm.wait(number, 60)["JobState"] == "COMPLETED"
    went_on(job)


@pytest.mark.slow
def test_a_run_that_a_person_stops_does_not_queue_again(job):
    """On one node with two workers, planned with the interface that several nodes would share."""
    job.submit("n1:2")
    job.wait_for_step(10)
    assert len(job.hosts()) == 1 and set(job.hosts().values()) == {2}
    job.slurm.run(*LAUNCH, "stop", job.run_dir)
    assert job.ended() == ("FAILED", "75:0", 0), job.log
    assert 10 <= job.saved() < STEPS
