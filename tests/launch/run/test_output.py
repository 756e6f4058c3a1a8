"""The launcher's output never ends a run: readers that go away or pause, and encodings without Korean."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time

from kogpt2_gluon.machine.console import write_line
from kogpt2_launch.run import output
from kogpt2_launch.run.output import Shown


def run(code: str, stdout, **environment: str) -> int:
    program = f"from kogpt2_launch.run.output import Shown, write_line\nimport sys, time\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], stdout=stdout, env={**os.environ, **environment}, check=False, timeout=60
    ).returncode


def test_reader_that_has_gone():
    read, sent = os.pipe()
    os.close(read)
    assert (
        run("shown = Shown()\nfor _ in range(3): shown('line')\nshown.close()\nwrite_line(sys.stdout, 'more')", sent)
        == 0
    )
    os.close(sent)


def test_encoding_without_the_letter(tmp_path):
    path = tmp_path / "out"
    with path.open("wb") as file:
        assert run("write_line(sys.stdout, '가 \\ufffd 나')", file, PYTHONIOENCODING="euc-kr") == 0
    assert path.read_bytes().decode("euc-kr").strip() == "가 ? 나"


def test_reader_that_stands_still_delays_nobody(monkeypatch):
    monkeypatch.setattr(output, "CLOSE_SECONDS", 0.2)
    read, sent = os.pipe()
    with os.fdopen(sent, "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        shown, began = Shown(), time.monotonic()
        for _ in range(20_000):
            shown("a line that fills the pipe")
        shown.close()
        monkeypatch.undo()
        assert shown._thread.is_alive()  # still at it
        os.close(read)
        shown._thread.join(30)
    assert not shown._thread.is_alive() and time.monotonic() - began < 30


def test_closed_stream():
    stream = io.StringIO()
    stream.close()
    write_line(stream, "line")
