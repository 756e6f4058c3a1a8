"""An error's text is safe to show, whatever a file put into it."""

from __future__ import annotations

import pytest

from kogpt2_gluon.errors import LONGEST_MESSAGE, DataError, KoGPT2Error, RecipeError, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a.bin: \x1b[31mred\x07", "a.bin: \\x1b[31mred\\x07"),
        ("a\r\nkogpt2: done", "a\\r kogpt2: done"),  # a line that the program did not write
        ("a\u202eb \x85 \ud800", "a\\u202eb \\x85 \\ud800"),
        ("r.yaml: 2 faults:\n  one\n  two", "r.yaml: 2 faults:\n  one\n  two"),
        ("한국어 😀 ㅋㅋ\u3000", "한국어 😀 ㅋㅋ\u3000"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert str(DataError(text)) == shown
    assert str(KoGPT2Error(str(DataError(text)))) == shown  # once, however often it is taken up


def test_a_long_message_keeps_its_beginning_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, one_line("kogpt2"):
        raise RecipeError("a.json: " + "x" * 100_000 + "; make it again")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("kogpt2: a.json: xxx") and told.endswith("x; make it again\n")
    assert len(told) < LONGEST_MESSAGE + 20 and len(told.splitlines()) == 1
