"""The demo's own corpus: an endless, seeded stream of small Korean documents, written from templates and word lists.

A document keeps its topic (the film, the dish, the grandmother), its speech level and its numbers from the first
sentence to the last, so that a language model finds something to learn beyond the next word: particles that agree with
the final consonant, honorifics that agree with the subject, endings that agree with the document.

A seed gives the same bytes for ever, on every Python: only ``random.Random.random`` is drawn from, the one
method whose sequence Python promises to keep, and nothing depends on the order of a set.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from kogpt2_gluon.demo.sentences.grammar import (
    PARTICLES,
    attach,
    copula,
    finish,
    has_final_consonant,
    native_number,
    particle,
    sino_number,
    with_particle,
)
from kogpt2_gluon.demo.sentences.reports import REPORTS
from kogpt2_gluon.demo.sentences.reviews import REVIEWS
from kogpt2_gluon.demo.sentences.scenes import SCENES, Scene
from kogpt2_gluon.demo.sentences.talks import TALKS
from kogpt2_gluon.demo.sentences.words import POOLS, ROWS
from kogpt2_gluon.storage.files import replace_file

__all__ = ["has_final_consonant", "sample_documents", "with_particle", "write_sample_corpus"]

ALL_SCENES: tuple[Scene, ...] = SCENES + REVIEWS + REPORTS + TALKS
MOODS = ("pres", "past", "guess", "plan", "promise", "ne", "ask", "askpast", "req", "let")
# How many middle lines a document has, to draw from; with opening and closing that makes one to six sentences.
MIDDLE_LINES = (0, 1, 1, 2, 2, 2, 3, 3, 4)
CLOSING_RATE = 0.5
# What a speaker calls himself: humble in the polite styles.
SELF = {"haeyo": ("저", "제"), "hapnida": ("저", "제")}
PLAIN_SELF = ("나", "내")

# A title in other quotation marks is the same title.
TITLE_MARKS = "'〈〉"

Item = TypeVar("Item")
NUMBER = re.compile(r"([\d.]+)~([\d.]+)(?:/(\d+))?(?: (.))?$")


class Node(NamedTuple):
    """A piece of a compiled template: kind is text, choice, slot, number, predicate or particle."""

    kind: str
    value: str
    detail: str = ""
    options: tuple[tuple[Node, ...], ...] = ()


# -- templates --------------------------------------------------------------------------------------------------------

_PARTICLE = "|".join(sorted(PARTICLES, key=len, reverse=True))
_TOKEN = re.compile(
    r"(?P<open>\[)|(?P<bar>\|)|(?P<close>\])|\{(?P<slot>[^}]+)\}|<(?P<stem>\{?[^ >]+\}?)(?: (?P<form>[^>]+))?>"
    rf"|~(?P<particle>{_PARTICLE})|(?P<text>[^\[\]|{{}}<>~]+)"
)


@cache
def compile_template(template: str) -> tuple[Node, ...]:
    """Parses the marks that scenes.py explains. Raises AssertionError for a mark that is not closed or not known."""
    tokens = list(_TOKEN.finditer(template))
    assert "".join(token.group() for token in tokens) == template, f"cannot read the template {template!r}"
    nodes, rest = _parse(tokens, 0)
    assert rest == len(tokens), f"a bracket too many in {template!r}"
    return nodes


def _parse(tokens: Sequence[re.Match[str]], at: int) -> tuple[tuple[Node, ...], int]:
    """Returns the nodes from token `at` up to a bar, a closing bracket or the end, and the place of that end."""
    nodes: list[Node] = []
    while at < len(tokens) and tokens[at].lastgroup not in ("bar", "close"):
        token = tokens[at]
        if token["open"]:
            options = []
            while tokens[at].lastgroup != "close":
                option, at = _parse(tokens, at + 1)
                options.append(option)
            nodes.append(Node("choice", "", options=tuple(options)))
        elif token["slot"]:
            nodes.append(Node("number" if NUMBER.match(token["slot"]) else "slot", token["slot"]))
        elif token["stem"]:
            nodes.append(Node("predicate", token["stem"], token["form"]))
        elif token["particle"]:
            nodes.append(Node("particle", token["particle"]))
        else:
            nodes.append(Node("text", token["text"]))
        at += 1
    return tuple(nodes), at


def _lines(block: str) -> list[str]:
    return [line.strip() for line in block.splitlines() if line.strip()]


# -- a document -------------------------------------------------------------------------------------------------------


def _draw(rng: random.Random, items: Sequence[Item]) -> Item:
    return items[int(rng.random() * len(items))]


class Document:
    """The words that one document uses for its slots, and its style."""

    def __init__(self, rng: random.Random, style: str):
        self.rng = rng
        self.style = style
        self.words: dict[str, str] = {}
        self.pools: dict[str, Sequence[str]] = {}
        self.words["I"], self.words["my"] = SELF.get(style, PLAIN_SELF)

    def draw(self, items: Sequence[Item]) -> Item:
        """Returns one of `items`, all equally likely."""
        return _draw(self.rng, items)

    def word(self, slot: str) -> str:
        """The document's word for a slot, drawn at its first use; {friend} and {friend2} are never equal."""
        if slot not in self.words:
            name = slot.rstrip("0123456789")
            taken = [word for other, word in self.words.items() if other.rstrip("0123456789") == name]
            pool = self._pool(name)
            if len(pool) <= len(taken):  # the row has no other; look into the other rows
                pool = [word for row in ROWS[name] for word in row[name].split("/")]
            self.words[slot] = self._fresh(pool, taken)
        return self.words[slot]

    def _pool(self, name: str) -> Sequence[str]:
        if name not in self.pools and name in ROWS:
            for field, cell in self.draw(ROWS[name]).items():
                self.pools[field] = cell.split("/") if not NUMBER.match(cell) else [cell]
        return self.pools[name] if name in self.pools else POOLS[name]

    def _fresh(self, pool: Sequence[str], taken: Sequence[str]) -> str:
        word = self.draw(pool)
        plain = [other.strip(TITLE_MARKS) for other in taken]
        while word.strip(TITLE_MARKS) in plain:
            word = self.draw(pool)
        return self.number(word) if NUMBER.match(word) else word

    def number(self, spec: str) -> str:
        """Returns a figure or number word of the form that `spec` gives: LOW~HIGH[/STEP][ FORMAT]."""
        match = NUMBER.match(spec)
        assert match, spec
        low, high, step, form = match.groups()
        if "." in low:
            tenths = round(float(low) * 10), round(float(high) * 10)
            return f"{self._between(*tenths) / 10:.1f}"
        value = self._between(int(low), int(high), int(step or 1))
        if form == "원":
            return self._money(value)
        if form == "한":
            return native_number(value)
        if form == "일":
            return sino_number(value)
        return f"{value:,}" if form == "," else str(value)

    def _between(self, low: int, high: int, step: int = 1) -> int:
        return low + step * int(self.rng.random() * ((high - low) // step + 1))

    def _money(self, value: int) -> str:
        """Writes an amount as 12,500원, as newspapers do (1만 2500원), or in words."""
        way = self.rng.random()
        man, rest = divmod(value, 10_000)
        if way < 0.6:
            return f"{value:,}원"
        if way < 0.85 and man:
            return f"{man}만 {rest}원" if rest else f"{man}만 원"
        return sino_number(value) + " 원"

    def render(self, nodes: Sequence[Node], text: str = "") -> str:
        """Returns `text` continued by compiled nodes; particles and the copula agree with the word before them."""
        for node in nodes:
            if node.kind == "text":
                text += node.value
            elif node.kind == "choice":
                text = self.render(self.draw(node.options), text)
            elif node.kind == "slot":
                text += self.word(node.value)
            elif node.kind == "number":
                text += self.number(node.value)
            elif node.kind == "particle":
                text += particle(text, node.value)
            else:
                text += self._predicate(node, text)
        return text

    def _predicate(self, node: Node, text: str) -> str:
        stem, form = node.value, node.detail
        if stem == "이":
            return copula(text, form, self.style)
        if stem.startswith("{"):
            stem = self.word(stem[1:-1])
        before, space, stem = stem.rpartition(" ")
        is_final = form[4:] in MOODS if form.startswith("hon.") else form in MOODS
        return before + space + (finish(stem, form, self.style) if is_final else attach(stem, form))

    def sentence(self, line: str) -> str:
        """A template line as text, with a full stop unless it ends otherwise."""
        text = self.render(compile_template(line))
        return text if text[-1] in ".?!" else text + "."


class _Outline(NamedTuple):
    """A scene with its lines split."""

    styles: Sequence[str]
    opening: Sequence[str]
    middle: Sequence[str]
    closing: Sequence[str]
    script: bool


def _outline(scene: Scene) -> _Outline:
    return _Outline(
        scene.styles.split(), _lines(scene.opening), _lines(scene.middle), _lines(scene.closing), scene.script
    )


def _some(document: Document, lines: Sequence[str], count: int) -> list[str]:
    """`count` of `lines`, in their order, each choice equally likely (selection sampling)."""
    chosen: list[str] = []
    for index, line in enumerate(lines):
        if document.rng.random() * (len(lines) - index) < count - len(chosen):
            chosen.append(line)
    return chosen


def _write(outline: _Outline, rng: random.Random) -> str:
    document = Document(rng, _draw(rng, outline.styles))
    lines = [document.draw(outline.opening)]
    count = len(outline.middle) if outline.script else min(document.draw(MIDDLE_LINES), len(outline.middle))
    lines += _some(document, outline.middle, count)
    if outline.closing and len(lines) > 1 and (outline.script or rng.random() < CLOSING_RATE):
        lines.append(document.draw(outline.closing))
    return " ".join(map(document.sentence, lines))


def sample_documents(seed: int = 0) -> Iterator[str]:
    """Yields documents without end, each one line of text; a seed always gives the same ones.

    Most have one to six sentences; a dialogue has four to six turns. No document holds a newline.
    """
    rng = random.Random(seed)
    deck = [_outline(scene) for scene in ALL_SCENES for _ in range(scene.weight)]
    while True:
        yield _write(_draw(rng, deck), rng)


def write_sample_corpus(path: Path, num_bytes: int = 3_500_000, seed: int = 0) -> int:
    """Writes one document a line, UTF-8, until the file has at least `num_bytes`; returns the number of documents.

    The file appears whole or not at all. Missing folders are made.
    """
    written = count = 0
    with replace_file(Path(path)) as file:
        for document in sample_documents(seed):
            if written >= num_bytes:
                break
            written += file.write(document.encode("utf-8") + b"\n")
            count += 1
    return count
