"""A verb as a child process: its last line, its exit code, and its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing

import pytest

from kogpt2_gluon.errors import KoGPT2Error, PreemptedError, RecipeError
from kogpt2_gluon.machine.child_verb import ChildVerb, error_of


def ended(code: str, *words: str) -> tuple[int, str]:
    """Runs a line of Python to its end; returns its exit code and last line."""
    with closing(ChildVerb([sys.executable, "-c", code, *words], subprocess.DEVNULL)) as verb:
        return verb.wait(), verb.last_line()


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (b"", ""),
        (b"a\nkogpt2: shards: no such folder\n\n", "shards: no such folder"),
        (b"x\n" * 50_000 + b"kogpt2: last", "last"),
        ("가".encode() * 3000, None),  # cut in the middle of a character
    ],
    ids=["nothing", "two lines", "much", "one long line"],
)
def test_the_last_line_of_stderr_without_the_commands_name(tmp_path, written, line):
    (tmp_path / "said").write_bytes(written)
    says = "import sys; sys.stderr.buffer.write(open(sys.argv[1], 'rb').read()); sys.exit(3)"
    code, said = ended(says, str(tmp_path / "said"))
    assert code == 3
    assert said == line if line is not None else said.strip("\ufffd") == "가" * 1333


def test_it_is_asked_to_save_and_gets_the_time_for_it():
    saves = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.3), sys.exit(75))); "
    with closing(
        ChildVerb([sys.executable, "-c", saves + "print('.', flush=True); time.sleep(60)"], subprocess.PIPE)
    ) as verb:
        verb._process.stdout.read(1)
        assert not verb.has_ended()
        verb.stop()
        assert verb.wait() == 75 and verb.has_ended()
        verb.stop()  # no effect, and no error
        verb._process.stdout.close()


def test_a_command_that_is_not_there_is_one_line():
    with pytest.raises(RecipeError, match=r"^--run-with /nowhere/horovodrun: cannot be started \(No such file"):
        ChildVerb(["/nowhere/horovodrun", "kogpt2"], None)


@pytest.mark.parametrize(
    ("code", "kind", "exit_code", "text"),
    [
        (75, PreemptedError, 75, "run: stopped; the same command goes on"),
        (-signal.SIGTERM, PreemptedError, 75, "run: stopped; the same command goes on"),
        (3, KoGPT2Error, 3, "run: no such folder"),
        (-signal.SIGKILL, KoGPT2Error, 1, "run: no such folder"),
    ],
)
def test_errors_by_exit_codes(code, kind, exit_code, text):
    error = error_of(code, "run", "no such folder", "stopped")
    assert type(error) is kind and error.exit_code == exit_code and str(error) == text
