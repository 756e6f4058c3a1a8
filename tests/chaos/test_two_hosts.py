"""A plan on two real hosts, through both engines, with every kind of fault: nothing survives, results are the same.

The hosts are namespaces of this machine (netns_helpers.py): network, processes, names and sshd of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs.checkpoint import newest_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from tests.chaos.netns_helpers import Cluster, command_lines, wait_for, why_not

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]

LAUNCH = [sys.executable, "-m", "launch"]
DETECT = 5  # seconds, as --detect-seconds and --hang-seconds
SURVIVAL = 15  # seconds after detection in which everything must be gone


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("horovod", reason="make horovod builds it")
    hosts = Cluster(tmp_path_factory.mktemp("hosts"))
    yield hosts
    hosts.close()


@pytest.fixture
def settings(tiny, tmp_path):
    """The demo recipe, small, without dropout (whose masks are a worker's own), long enough to be disturbed."""
    changed = ["model.dropout=0", "training.num_steps=200", "checkpoint.interval=20", "evaluation.interval=0"]
    return [*tiny, *changed, "tracking.log_interval=20"]


class Launch:
    """A planned run on h1 and h2."""

    def __init__(self, cluster, folder, settings):
        self.cluster, self.folder, self.run_dir = cluster, folder, folder / "run"
        self.plan = folder / "plan.json"
        hosts = ["--hosts", "h1:1,h2:1", "--network-interface", "eth0", "--out", str(self.plan)]
        cluster.run("h1", *LAUNCH, "plan", "demo", *settings, *hosts)

    def start(self, engine, *options):
        """The launcher, on h1, started now; its stderr goes to a file."""
        times = ["--detect-seconds", str(DETECT), "--hang-seconds", str(DETECT), "--backoff", "0.2"]
        argv = [*LAUNCH, "run", str(self.plan), "--backend", engine, *times, *options]
        with (self.folder / "stderr").open("ab") as errors:
            return subprocess.Popen(
                self.cluster.argv("h1", *argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )

    @property
    def errors(self):
        return (self.folder / "stderr").read_text()

    def step(self):
        """The newest step on record; -1 before the first."""
        try:
            return max((line["step"] for line in read_metrics(self.run_dir) if line["kind"] == "train"), default=-1)
        except DataError:
            return -1

    def send(self, name):
        """A signal to the launcher itself: what was started here is nsenter."""
        pid = json.loads((self.run_dir / "launch" / "status.json").read_text())["launcher"]["pid"]
        self.cluster.run("h1", "kill", f"-{name}", pid)

    def reports(self):
        return [path.read_text() for path in sorted((self.run_dir / "launch").glob("attempt-*.log"))]

    def parameters(self):
        return (newest_checkpoint(self.run_dir / "checkpoints").path / "model.params").read_bytes()


@pytest.fixture
def launch(cluster, tmp_path, settings):
    """A Launch; at the end nothing of it may be there, whatever the test did."""
    made = Launch(cluster, tmp_path, settings)
    yield made
    cluster.link("h2", "up")
    left = cluster.launched()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, command_lines(left)


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.fixture
def undisturbed(cluster, tmp_path, settings, known):
    """Gives the parameters of a run without a fault through an engine; run once."""

    def parameters(engine):
        if engine not in known:
            folder = tmp_path / "undisturbed"
            folder.mkdir()
            launch = Launch(cluster, folder, [*settings, f"tracking.run_dir={folder / 'run'}"])
            assert launch.start(engine).wait(timeout=120) == 0, launch.errors
            known[engine] = launch.parameters()
        return known[engine]

    return parameters


def losses(run_dir):
    return {line["step"]: line["loss"] for line in read_metrics(run_dir) if line["kind"] == "train"}


@pytest.mark.parametrize("engine", ["horovodrun", "mpirun"])
def test_two_hosts_learn_what_one_process_does(launch, engine, settings, known, tmp_path):
    assert launch.start(engine).wait(timeout=120) == 0, launch.errors
    assert not launch.cluster.launched()
    known[engine] = launch.parameters()
    alone = [*settings, f"tracking.run_dir={tmp_path / 'alone'}"]
    subprocess.run(
        [sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "demo", *alone], check=True, capture_output=True
    )
    together, one = losses(launch.run_dir), losses(tmp_path / "alone")
    assert together.keys() == one.keys() and len(one) == 10
    assert all(together[step] == pytest.approx(one[step], rel=2e-4) for step in one)


def test_preflight_asks_both_hosts(launch):
    """All is well but for what is so: the run folder is on a disk, which here both hosts happen to see."""
    done = launch.cluster.run("h1", *LAUNCH, "preflight", launch.plan, "--json", check=False)
    findings = json.loads(done.stdout)
    reached = {(each["host"], each["text"]) for each in findings if each["check"] == "ssh"}
    assert reached == {("h1", "reaches h2"), ("h2", "reaches h1")}
    assert {each["host"] for each in findings if each["check"] == "clock"} == {"h1", "h2"}
    assert {each["text"] for each in findings if each["check"] == "subnet of eth0"} == {"10.77.0.0/24"}
    assert {each["check"] for each in findings if each["status"] == "fail"} == {"shared run folder"}
    assert done.returncode == 1


def fault(launch, kind):
    """Does it, and returns when."""
    if kind == "kill a worker":
        os.kill(max(launch.cluster.launched(rank=1)), signal.SIGKILL)
    elif kind == "cut the link":
        launch.cluster.link("h2", "down")
    elif kind == "freeze a rank":
        os.kill(max(launch.cluster.launched(rank=1)), signal.SIGSTOP)
    return time.monotonic()


REASONS = {
    "kill a worker": "rank 1 on h2 was killed by SIGKILL",
    "cut the link": "rank 1: nothing heard from h2",
    "freeze a rank": "rank 1 on h2: its process is stopped",
}


OTHER_ENGINE = pytest.mark.slow  # each fault with the engine that it has not met above, in make test-all


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        *[("horovodrun", "kill a worker"), ("mpirun", "cut the link")],
        pytest.param("horovodrun", "freeze a rank", marks=pytest.mark.slow),
        pytest.param("mpirun", "kill a worker", marks=OTHER_ENGINE),
        pytest.param("horovodrun", "cut the link", marks=OTHER_ENGINE),
        pytest.param("mpirun", "freeze a rank", marks=OTHER_ENGINE),
    ],
)
def test_a_fault_is_named_and_mended_by_a_restart(launch, engine, kind, undisturbed):
    process = launch.start(engine, "--backoff", "3" if kind == "cut the link" else "0.2")
    wait_for(lambda: launch.step() >= 30, "step 30", 60)
    began = set(launch.cluster.launched())
    at = fault(launch, kind)
    wait_for(lambda: launch.reports(), "a report", DETECT + SURVIVAL + 10)
    wait_for(
        lambda: not began & set(launch.cluster.launched()),
        f"nothing left: {kind}",
        at + DETECT + SURVIVAL - time.monotonic(),
    )
    assert REASONS[kind] in launch.reports()[0].splitlines()[0]
    launch.cluster.link("h2", "up")
    assert process.wait(timeout=120) == 0, launch.errors
    assert launch.parameters() == undisturbed(engine)
    if kind == "freeze a rank":
        assert launch.reports()[0].count("training/loop.py") >= 2, "stacks of both ranks"


@pytest.mark.parametrize(
    ("engine", "how"),
    [
        ("mpirun", "SIGKILL"),
        pytest.param("horovodrun", "SIGTERM", marks=pytest.mark.slow),
        pytest.param("horovodrun", "SIGKILL", marks=OTHER_ENGINE),
        pytest.param("mpirun", "SIGTERM", marks=OTHER_ENGINE),
    ],
)
def test_the_launcher_itself_is_ended(launch, engine, how, undisturbed):
    process = launch.start(engine)
    wait_for(lambda: launch.step() >= 30, "step 30", 60)
    launch.send(how[3:])
    at = time.monotonic()
    code = process.wait(timeout=30)
    wait_for(lambda: not launch.cluster.launched(), f"nothing left: {how}", at + DETECT + SURVIVAL - time.monotonic())
    if how == "SIGTERM":
        assert code == 75 and "state saved" in launch.reports()[0].splitlines()[0]
    else:
        log = (launch.run_dir / "launch" / "attempt-01" / "rank-00001.log").read_text()
        assert "the launcher ended; this worker ends" in log
    assert launch.start(engine).wait(timeout=120) == 0, launch.errors
    assert launch.parameters() == undisturbed(engine)


def test_no_secret_and_no_variable_stands_on_a_command_line(launch, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("KOGPT2_MARKER", "seen-by-workers-only")
    process = launch.start("horovodrun", "--restarts", "0")
    wait_for(lambda: launch.step() >= 1, "step 1", 60)
    lines = " ".join(path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    worker = Path(f"/proc/{max(launch.cluster.launched(rank=1))}/environ").read_text()
    launch.send("TERM")
    assert process.wait(timeout=60) == 75
    assert "hunter2" not in lines + worker and "seen-by-workers-only" not in lines
    assert "KOGPT2_MARKER=seen-by-workers-only" in worker
