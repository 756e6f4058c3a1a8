"""Followers get every figure once and in order, and none can stop a run. The clients are real."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.followers import background, chosen
from kogpt2_gluon.runs.followers.background import Background, Figures, close_all
from kogpt2_gluon.runs.followers.chosen import followers_of
from kogpt2_gluon.runs.metrics import Tracker, read_metrics, tracker_for
from tests.helpers import small_disk
from tests.runs.tracking_helpers import log


def figures(step: int) -> Figures:
    return Figures("train", step, 1.0, {"loss": float(step)})


class Kept:
    """A follower that keeps what it gets, and fails so many times."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.closed: bool | None = None
        self.fails = 0

    def add(self, records) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no route to host")
        self.steps += [record.step for record in records]

    def close(self, done: bool) -> None:
        self.closed = done


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(background, "CLOSE_SECONDS", 0.5)
    monkeypatch.setattr(background, "LONGEST_PAUSE", 0.02)


def test_every_record_arrives_once_and_in_order():
    kept = Kept()
    follower = Background("kept", lambda _: kept)
    for step in range(5000):
        follower.put(figures(step))
    assert close_all([follower], done=True) == []
    assert kept.steps == list(range(5000)) and kept.closed is True


def test_what_fails_for_a_while_gets_the_same_records_again(impatient):
    kept = Kept()
    kept.fails = 1
    follower = Background("tracking.kept", lambda _: kept)
    follower.put(figures(1))
    while not kept.steps:
        time.sleep(0.01)
    notes = close_all([follower], done=False)
    assert kept.steps == [1] and kept.closed is False
    assert "ConnectionError: no route to host; the run goes on" in notes[0] and notes[1] == "tracking.kept: works again"


def test_loss_of_records_is_said_while_the_run_goes_on(impatient, monkeypatch):
    monkeypatch.setattr(background, "MOST_WAITING", 10)
    release = threading.Event()

    class Slow(Kept):
        def add(self, records) -> None:
            release.wait()
            super().add(records)

    follower = Background("tracking.slow", lambda _: Slow())
    for step in range(1000):
        follower.put(figures(step))
    assert follower.take_notes() == [
        "WARNING tracking.slow: 10 records wait for it already; from here on some are lost"
    ]
    assert follower.take_notes() == []
    release.set()
    (note,) = close_all([follower], done=True)
    assert "of 1,000 records did not arrive" in note


def test_a_tracker_that_cannot_begin_starts_no_follower(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("damage\n{}\n")
    started = []
    with (
        pytest.raises(DataError),
        tracker_for(0, tmp_path, 20, 5, tensorboard=False, followers=lambda: started.append(1) or []),
    ):
        pass
    assert started == []


def test_what_hangs_costs_its_records_and_nothing_else(impatient, monkeypatch):
    monkeypatch.setattr(background, "MOST_WAITING", 10)
    release = threading.Event()

    class Hangs(Kept):
        def add(self, records) -> None:
            release.wait()

    follower = Background("tracking.hangs", lambda _: Hangs())
    began = time.monotonic()
    for step in range(100_000):
        follower.put(figures(step))
    assert time.monotonic() - began < 30  # it would be for ever
    notes = close_all([follower], done=True)
    release.set()
    assert notes == [
        "WARNING tracking.hangs: 10 records wait for it already; from here on some are lost",
        "WARNING tracking.hangs: 100,000 of 100,000 records did not arrive",
    ]


def test_a_package_that_is_not_installed_is_one_line(monkeypatch, tmp_path):
    for name in ("mlflow.tracking", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    settings = [f"tracking.run_dir={tmp_path}", "tracking.mlflow=http://localhost:1", "tracking.wandb=offline"]
    notes = close_all(followers_of(load_recipe("demo", settings), is_new=True), done=True)
    assert len(notes) == 2 and "pip install mlflow-skinny" in notes[0] and "pip install wandb" in notes[1]


def test_a_password_in_an_address_reaches_no_server_and_no_log(tmp_path, monkeypatch):
    address, given = "http://kim:geheim@127.0.0.1:1", []

    class Refused(Kept):
        def __init__(self, where, name, run_dir, settings, is_new) -> None:
            super().__init__()
            given.append(settings)

        def open(self, say) -> None:
            raise ConnectionError(f"API request to {address}/api/2.0 failed")

    monkeypatch.setattr(chosen, "MLflow", Refused)
    monkeypatch.setattr(background, "LONGEST_PAUSE", 0.02)
    notes = close_all(followers_of(load_recipe("demo", [f"tracking.mlflow={address}"]), is_new=True), done=True)
    assert given[0]["tracking.mlflow"] == "http://(hidden)@127.0.0.1:1"
    assert notes and "geheim" not in " ".join(notes) and "http://(hidden)@127.0.0.1:1/api" in notes[0]


class Broken(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("kind", ["refuses", "silent", "fails"])
def test_a_dead_server_costs_the_run_nothing(tmp_path, kind):
    """A port where nobody listens, one where nobody answers, one that answers with 500: in a process of its own."""
    server = None
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen(1)
        if kind == "fails":
            server = HTTPServer(("127.0.0.1", 0), Broken)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port if server else listener.getsockname()[1]
        code = (
            "import sys, time; from pathlib import Path\n"
            "from kogpt2_gluon.recipe import load_recipe\n"
            "from kogpt2_gluon.runs.followers import background\n"
            "from kogpt2_gluon.runs.followers.chosen import followers_of\n"
            "from kogpt2_gluon.runs.metrics import Tracker\n"
            "from tests.runs.tracking_helpers import log\n"
            "background.CLOSE_SECONDS = 1.0\n"
            "run_dir = Path(sys.argv[1])\n"
            "settings = [f'tracking.run_dir={run_dir}', f'tracking.mlflow=http://127.0.0.1:{sys.argv[2]}']\n"
            "recipe = load_recipe('demo', settings)\n"
            "with Tracker(run_dir, 2000, tensorboard=False, followers=lambda: followers_of(recipe, True)) as tracker:\n"
            "    for step in range(1, 2001):\n"
            "        log(tracker, step)\n"
        )
        argv = [sys.executable, "-c", code, str(tmp_path), str(port)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)  # its own attempts take minutes
        if server:
            server.shutdown()
            server.server_close()
    assert done.returncode == 0, done.stderr
    assert len(read_metrics(tmp_path)) == 2000
    assert "tracking.mlflow: 2,000 of 2,000 records did not arrive" in (tmp_path / "log.txt").read_text()


def test_a_full_disk_for_tensorboard_costs_the_run_nothing(tmp_path, impatient):
    (tmp_path / "run").mkdir()
    with small_disk(tmp_path / "run" / "tensorboard", 64 << 10) as events:
        (events / "full").write_bytes(b"x" * 60_000)
        with Tracker(tmp_path / "run", 5000) as tracker:
            for step in range(1, 5001):
                log(tracker, step)
    assert len(read_metrics(tmp_path / "run")) == 5000
    log_text = (tmp_path / "run" / "log.txt").read_text()
    assert "WARNING tracking.tensorboard: OSError: [Errno 28]" in log_text and "records did not arrive" in log_text
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 5000
