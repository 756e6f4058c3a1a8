"""Ctrl-C, SIGTERM and SIGHUP: verbs that resume say so, and those that do not leave nothing half-written."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest

from kogpt2_gluon.cli.stopping import stoppable
from kogpt2_gluon.errors import INTERRUPTED, PreemptedError
from kogpt2_gluon.machine.interrupts import interruptible
from tests.convert.head_helpers import make_fine_tuned
from tests.helpers import run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stop_says_whether_the_same_command_resumes(
    tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started without
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, interrupt))
    finished = tmp_path / "part-00000"
    with pytest.raises(KeyboardInterrupt), stoppable(finished.is_dir, "part"):
        signal.raise_signal(number)
    finished.mkdir()
    again = "the same command resumes after the last finished part"
    with pytest.raises(PreemptedError, match=again), stoppable(finished.is_dir, "part"):
        signal.raise_signal(number)
    assert signal.getsignal(signal.SIGTERM) == before


# The request to end arrives when a file or folder is whole but for its name: every durable write comes past here.
ENDED_IN_A_WRITE = """
import os, signal, sys
from kogpt2_gluon.cli.main import main
from kogpt2_gluon.storage import files
number = int(sys.argv.pop(1))
def ended(before):
    def write(*arguments):
        for _ in range(2):  # a scheduler's request may arrive twice
            os.kill(os.getpid(), number)
        before(*arguments)
    return write
files.fsync_stream, files._fsync_tree = ended(files.fsync_stream), ended(files._fsync_tree)
main()
"""


@pytest.fixture(scope="module")
def tuned(small_tokenizer: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fine_tuned(tmp_path_factory.mktemp("tuned"), small_tokenizer, "class").path


def arguments_of(verb: str, folder: Path, checkpoint: Path, tuned: Path, corpus: Path) -> list[object]:
    """The arguments of a verb that writes below `folder`."""
    (folder / "rows.txt").write_text("왜\n", encoding="utf-8")
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "time": 1.0, "loss": 2.0}\n', encoding="utf-8")
    return {
        "convert": [checkpoint, folder / "out"],
        "convert --to checkpoint": [checkpoint, folder / "out"],
        "predict": [tuned, folder / "rows.txt", "--out", folder / "out", "--ops", "stock"],
        "report": [folder],
        "tokenizer rename": [corpus.parent / "tokenizer.model", "--token", "<unused0>=리뷰", "--out", folder / "out"],
        "tokenizer train": [corpus, "--vocab-size", 1200, "--unused", 4, "--out", folder / "out"],
    }[verb]


@pytest.mark.parametrize(
    ("verb", "number"),
    [
        ("convert", signal.SIGTERM),
        ("convert", signal.SIGHUP),
        ("convert --to checkpoint", signal.SIGTERM),
        ("predict", signal.SIGTERM),
        ("report", signal.SIGTERM),
        ("tokenizer rename", signal.SIGTERM),
        ("tokenizer train", signal.SIGTERM),
    ],
)
def test_nothing_half_written_is_left(verb, number, checkpoint, tuned, shards, tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    arguments = arguments_of(verb, folder, checkpoint.path, tuned, shards / "corpus")
    before = sorted(folder.iterdir())
    done = run(sys.executable, "-c", ENDED_IN_A_WRITE, int(number), *verb.split(), *arguments, code=INTERRUPTED)
    assert done.stderr.lstrip("\n") == "kogpt2: interrupted\n"  # click ends the line of a ^C
    assert sorted(folder.iterdir()) == before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_no_handler_is_set():
    def enter() -> None:
        with interruptible():
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[object] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
