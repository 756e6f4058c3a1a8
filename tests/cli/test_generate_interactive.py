"""`kogpt2 generate -i` on a terminal, and with lines from a pipe."""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.inference.generation import generate_from_checkpoint
from kogpt2_gluon.inference.sampling import Sampling
from tests.convert.convert_helpers import make_checkpoint

CTRL_C, CTRL_D = b"\x03", b"\x04"
ASK = "> "


@pytest.fixture(scope="module")
def path(small_tokenizer, tmp_path_factory) -> Path:
    """Its network has room for texts that take a while."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints"), small_tokenizer).path


class Terminal:
    """A program on a terminal of its own, so that Ctrl-C and Ctrl-D are keys."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "kogpt2_gluon.cli.main", *(str(each) for each in arguments)]
        self._pid, self._end = pty.fork()
        if not self._pid:
            os.environ["TERM"] = "dumb"
            os.execv(sys.executable, command)
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end inside a syllable
        self._seen = 0

    def type(self, keys: str | bytes) -> None:
        os.write(self._end, keys.encode() if isinstance(keys, str) else keys)

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Waits for what it shows after what was waited for last; returns that."""
        end = time.monotonic() + seconds
        while not (found := re.compile(pattern).search(self.text, self._seen)):
            ready, _, _ = select.select([self._end], [], [], 0.2)
            assert time.monotonic() < end, self.text
            if ready:
                self.text += self._decoder.decode(os.read(self._end, 4096)).replace("\r", "")
        shown, self._seen = self.text[self._seen : found.end()], found.end()
        return shown

    def press(self, key: bytes) -> None:
        """Types a key once the program waits for one, as it does long before a person's next key.

        Python's `input` looks at signals when they end its wait: one that comes while readline still shows the letter
        before is heard at the next line's end only.
        """
        state = Path(f"/proc/{self._pid}/stat")
        end = time.monotonic() + 60
        while state.read_text().rpartition(") ")[2][0] != "S":
            assert time.monotonic() < end, state.read_text()
            time.sleep(0.01)
        self.type(key)

    def leave(self) -> int:
        """Waits for its end; returns its exit code."""
        _, status = os.waitpid(self._pid, 0)
        os.close(self._end)
        return os.waitstatus_to_exitcode(status)


def test_a_conversation_on_a_terminal(path):
    """Prompts are answered, Ctrl-C ends a text or clears a line, Ctrl-D ends the program."""
    options = ("--max-new-tokens", 60, "--ops", "stock", "--min-new-tokens", 60)
    terminal = Terminal("generate", path, "-i", *options)
    terminal.wait_for("a prompt a line; Ctrl-C ends a text, Ctrl-D the program")
    (first,) = generate_from_checkpoint(path, "오늘은", Sampling(60, min_new_tokens=60), ops="stock")
    terminal.wait_for(ASK)
    terminal.type("오늘은\n")
    assert first in terminal.wait_for(f"{re.escape(first)}\n{ASK}")
    terminal.type("가나")
    terminal.wait_for("가나")
    terminal.press(CTRL_C)  # of a line that is being typed
    terminal.wait_for(f"\n{ASK}")
    terminal.type("가 나 " * 60 + "\n")
    terminal.wait_for("kogpt2: the prompt has [0-9]+ tokens with <s>")
    terminal.wait_for(ASK)
    terminal.type(CTRL_D)
    assert terminal.leave() == 0


def test_ctrl_c_ends_the_text_and_not_the_program(path):
    """Many texts one after another, of which the first is seen when the key is pressed."""
    terminal = Terminal("generate", path, "-i", "--max-new-tokens", 60, "-n", 400, "--ops", "stock", "--slots", 1)
    terminal.wait_for(ASK)
    terminal.type("오늘은\n")
    terminal.wait_for("1 of 400 -+\n오늘은.")
    terminal.type(CTRL_C)
    terminal.wait_for("400 of 400 -+\n오늘은\n")
    terminal.wait_for(ASK)
    terminal.type("이 영화는\n")
    terminal.wait_for("1 of 400 -+\n이 영화는.")
    terminal.type(CTRL_C)
    terminal.wait_for(f"400 of 400 -+\n이 영화는\n{ASK}")
    terminal.type(CTRL_D)
    assert terminal.leave() == 0


def test_a_terminal_shows_how_many_prompts_are_done(path, tmp_path):
    (tmp_path / "p.txt").write_text("오늘은\n이 영화는\n값이\n", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    terminal = Terminal("generate", path, "--prompts", tmp_path / "p.txt", "--out", out, "--ops", "stock")
    terminal.wait_for("prompts .*3/3")
    terminal.wait_for(f"{out}: 3 prompts continued")
    assert terminal.leave() == 0


def test_lines_from_a_pipe(path):
    lines = "오늘은\r\n\n이 영화는\n" + "가 나 " * 60 + "\n값이"
    arguments = ["generate", str(path), "-i", "--max-new-tokens", "5", "--ops", "stock"]
    done = CliRunner().invoke(cli, arguments, input=lines.encode() + b"\n" + "가".encode("cp949") + b"\n")
    assert done.exit_code == 0
    expected = [
        generate_from_checkpoint(path, prompt, Sampling(5), ops="stock")[0]
        for prompt in ("오늘은", "이 영화는", "값이")
    ]
    assert done.stdout.splitlines() == expected
    notes = done.stderr.splitlines()
    assert "tokens with <s>" in notes[0] and notes[-1] == "kogpt2: that line is not UTF-8"


def test_a_pipe_that_ends_at_once(path):
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "generate", path, "-i", "--ops", "stock"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
    assert done.stdout == b""
