"""A request to stop by signal or by file, and the progress that a supervisor reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from kogpt2_gluon.errors import PreemptedError
from kogpt2_gluon.machine import job
from kogpt2_gluon.runs.checkpoint import newest_checkpoint
from kogpt2_gluon.training import signals
from kogpt2_gluon.training.progress import Progress
from kogpt2_gluon.training.signals import StopRequest


@pytest.fixture
def terminated():
    """Counts SIGTERMs, as the handler that a StopRequest replaces."""
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)


def test_first_signal_is_noted_and_the_second_acts(terminated, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.wanted
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wanted and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        os.kill(os.getpid(), signal.SIGTERM)
        assert not terminated  # the same request, by another way
        monkeypatch.setattr(job, "ECHO_SECONDS", 0.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert terminated == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_ctrl_c_acts_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wanted
        os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_does_not_take_the_exit_code_of_what_has_been_saved(terminated):
    with pytest.raises(PreemptedError), StopRequest():
        raise PreemptedError("saved")
    os.kill(os.getpid(), signal.SIGTERM)
    assert not terminated


ENDING = """
import sys, time
from kogpt2_gluon.errors import PreemptedError, one_line
{imports}
class Slow:
    def __del__(self):
        print("taken apart", flush=True)
        time.sleep(1)
held = Slow()
with one_line("test"), {block}:
    {body}
"""
SAVED = "raise PreemptedError('saved')"
TERMINATED = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1); " + SAVED


@pytest.mark.parametrize(
    ("imports", "block", "body"),
    [
        ("from kogpt2_gluon.training.signals import StopRequest", "StopRequest()", SAVED),
        ("from kogpt2_gluon.cli.stopping import stoppable", "stoppable(lambda: True, 'part')", TERMINATED),
        ("from kogpt2_launch.run.stopping import stop_signals", "stop_signals()", TERMINATED),
        (
            "from contextlib import nullcontext; from kogpt2_gluon.machine.interrupts import preempted_on_signals",
            "nullcontext(preempted_on_signals('saved'))",
            TERMINATED,
        ),
    ],
)
def test_sigterm_does_not_take_the_exit_code_of_a_process_that_is_ending(imports, block, body):
    """Not even when Python has already given the signal its default effect back."""
    command = [sys.executable, "-c", ENDING.format(imports=imports, block=block, body=body)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "taken apart\n"
        process.terminate()
        assert process.wait(timeout=30) == 75, process.stderr.read()


def test_file_asks_to_stop_and_one_from_before_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "LOOK_SECONDS", 0.0)
    path = tmp_path / "stop"
    path.touch()
    with StopRequest(path) as stop:
        assert not path.exists() and not stop.wanted
        path.touch()
        assert stop.wanted
        path.unlink()
        assert stop.wanted  # once asked is asked
    with StopRequest(tmp_path / "nowhere" / "stop") as stop:
        assert not stop.wanted


@pytest.mark.parametrize(
    ("launch_id", "error", "left"), [("", PreemptedError, False), ("1", PreemptedError, True), ("", KeyError, True)]
)
def test_a_file_that_was_obeyed_is_removed_by_whoever_obeyed_it(tmp_path, monkeypatch, launch_id, error, left):
    monkeypatch.setattr(signals, "LOOK_SECONDS", 0.0)
    if launch_id:
        monkeypatch.setenv(job.LAUNCH_ID, launch_id)  # the launcher asks the file if a restart is wanted
    path = tmp_path / "stop"
    with pytest.raises(error), StopRequest(path) as stop:
        path.touch()
        assert stop.wanted
        raise error("x")
    assert path.exists() == left
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_the_file_is_looked_for_now_and_then_only(tmp_path):
    path = tmp_path / "stop"
    with StopRequest(path) as stop:
        assert not stop.wanted
        path.touch()
        assert not stop.wanted  # the last look was just now


def test_progress_is_one_short_line(tmp_path, monkeypatch):
    monkeypatch.setenv(job.PROGRESS_FILE, str(tmp_path / "progress"))
    progress = Progress()
    for step in range(3):
        progress.at_step(step)
        progress.beat()
    assert job.read_progress(tmp_path / "progress") == (2, 6)
    progress.close()


def test_progress_is_nothing_without_a_supervisor(monkeypatch):
    monkeypatch.delenv(job.PROGRESS_FILE, raising=False)
    progress = Progress()
    progress.at_step(1)
    progress.close()


def test_training_stops_by_its_file_and_goes_on(tiny, tmp_path):
    """Exit code 75, the state saved; the next run removes the file and makes the rest."""
    run_dir = tmp_path / "run"
    settings = [*tiny, "training.num_steps=100000", "checkpoint.interval=0", "evaluation.interval=0"]
    argv = [sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "demo", *settings]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while not (run_dir / "metrics.jsonl").exists() or "step" not in (run_dir / "metrics.jsonl").read_text():
            assert process.poll() is None
            time.sleep(0.05)
        (run_dir / "stop").touch()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75 and "run again to go on" in errors
    assert not (run_dir / "stop").exists()  # obeyed
    step = newest_checkpoint(run_dir / "checkpoints").state()["step"]
    again = [*argv, f"training.num_steps={step + 1}"]
    assert subprocess.run(again, capture_output=True, check=False).returncode == 0
    assert not (run_dir / "stop").exists()
