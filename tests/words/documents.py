"""Reads the documents: their fenced blocks, the commands in these, code spans, links and headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.helpers import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?<=\n\n)(?:    [^\n]+\n)+")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]*))?\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Command(NamedTuple):
    """A command of a document, with the variables of its block filled in."""

    document: str
    line: int
    words: list[str]

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {shlex.join(self.words)}"


def fenced(path: Path, language: str) -> Iterator[tuple[int, str]]:
    """The blocks of one language ("" for commands): the line of each one's first, and its text."""
    text = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        if match["language"] == language:
            yield text.count("\n", 0, match.start("text")) + 1, match["text"]


def commands(path: Path) -> list[Command]:
    """The commands in a document's plain blocks, in order; `R="..."` and `$R` as a shell reads them."""
    blocks = list(fenced(path, ""))
    text = path.read_text(encoding="utf-8")
    blocks += [
        (text.count("\n", 0, found.start()) + 1, found[0]) for found in _INDENTED.finditer(_without_fences(text))
    ]
    found, variables = [], {}
    for first, block in sorted(blocks):
        number = first
        for line in block.replace("\\\n", "\0").split("\n"):
            for words in _parsed(line.replace("\0", " "), variables):
                found.append(Command(path.relative_to(ROOT).as_posix(), number, words))
            number += 1 + line.count("\0")
    return found


def _without_fences(text: str) -> str:
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def _parsed(line: str, variables: dict[str, str]) -> Iterator[list[str]]:
    """The commands on one line; what is no line of a shell gives none."""
    line = re.sub(r"(^|\s)#.*| {4,}\(.*\)$", "", line)
    for name, value in variables.items():
        line = line.replace(f"${name}", value)
    try:
        words = shlex.split(line)
    except ValueError:
        return
    if len(words) == 1 and (assigned := re.fullmatch(r"([A-Z]+)=(.*)", words[0])):
        variables[assigned[1]] = assigned[2]
        return
    command: list[str] = []
    for word in [*words, "&&"]:
        if word in ("&&", "|", ";"):
            if command:
                yield command
            command = []
        else:
            command.append(word)


def spans(path: Path) -> Iterator[tuple[int, str]]:
    """The pieces of code within a document's sentences and tables, each with its line."""
    text = _without_fences(path.read_text(encoding="utf-8"))
    for match in _SPAN.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, " ".join(match[1].split())


def links(path: Path) -> Iterator[tuple[int, str, str]]:
    """The links to files: line, the path as written ("" for the same document), and the anchor."""
    text = _without_fences(path.read_text(encoding="utf-8"))
    for match in _LINK.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[1], match[2] or ""


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = _HEADING.findall(_without_fences(path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
