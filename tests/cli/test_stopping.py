"""Ctrl-C and SIGTERM in verbs that resume."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kogpt2_gluon.cli.stopping import stoppable
from kogpt2_gluon.errors import PreemptedError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
