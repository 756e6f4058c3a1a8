"""docs/troubleshooting.md quotes messages as the programs print them: the code has each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.helpers import ROOT
from tests.words.documents import fenced

PAGE = ROOT / "docs" / "troubleshooting.md"
MESSAGES = [(number, line) for number, text in fenced(PAGE, "text") for line in text.splitlines()]
SHORTEST = 10  # letters in a piece of a message; a shorter one could be anybody's
COVERED = 0.6  # of the letters of a message; names, numbers and what is put together from short pieces are the rest


def literals(source: str) -> Iterator[list[str]]:
    """The texts of a program, each as its constant pieces; between two there is a name or number."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces = [""]
            for part in node.values:
                if isinstance(part, ast.Constant):
                    pieces[-1] += str(part.value)
                else:
                    pieces.append("")
            yield pieces
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield [node.value]


@pytest.fixture(scope="module")
def patterns() -> list[re.Pattern[str]]:
    """A regular expression for each text of the programs; its groups are the constant pieces."""
    files = [path for room in ("kogpt2_gluon", "launch") for path in (ROOT / room).rglob("*.py")]
    texts = {tuple(pieces) for path in files for pieces in literals(path.read_text(encoding="utf-8"))}
    long = [text for text in texts if letters("".join(text)) >= SHORTEST and "\n" not in "".join(text)]
    return [re.compile(".*?".join(f"({re.escape(piece)})" for piece in text)) for text in long]


def letters(text: str) -> int:
    return len(re.findall(r"[^\W\d_]", text))


def coverage(message: str, patterns: list[re.Pattern[str]]) -> float:
    """The share of a message's letters, without those of paths, that are in the texts of the programs."""
    known = [False] * len(message)
    for pattern in patterns:
        for match in pattern.finditer(message):
            for group in range(1, pattern.groups + 1):
                known[match.start(group) : match.end(group)] = [True] * (match.end(group) - match.start(group))
    for path in re.finditer(r"[^\s/]*/[^\s/]+/\S+[^\s:,;]", message):
        message = message[: path.start()] + "/" * (path.end() - path.start()) + message[path.end() :]
    return letters("".join(letter for letter, is_known in zip(message, known) if is_known)) / letters(message)


def test_the_code_has_every_message(patterns):
    assert len(MESSAGES) > 30
    unknown = [f"line {number}: {line}" for number, line in MESSAGES if coverage(line, patterns) < COVERED]
    assert not unknown


@pytest.mark.parametrize(
    "message",
    [
        "shards/test: made with a different tokenizer than shards/train; make the shards again",
        "the launcher waits for rank 3, which has not been seen for 600 s",
        "out of GPU memory: a worker wants 26 GiB, and there are 16 GiB; use training.batch_size=2",
    ],
)
def test_a_message_that_no_program_prints_is_found(message, patterns):
    assert coverage(message, patterns) < COVERED
