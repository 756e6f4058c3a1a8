"""The linear pass before the parser: whole templates, tables and references go, the rest is cut into pieces.

mwparserfromhell runs at about 1 MB/s, and each opening that is never closed makes it read the rest again: 40 kB of
``{{a|`` take half a minute. So one pass over the brackets first drops whole templates, tables and references at the
outermost level, which are half of an article, then cuts at headings and blank lines where nothing is open, and counts
the openings left open. Most paragraphs are then prose with flat links, which needs no parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kogpt2_gluon.corpus.formats.wikitext.templates import Templates, outermost_stays, template_name
from kogpt2_gluon.corpus.left_out import LeftOut
from kogpt2_gluon.corpus.tags import looks_like_tag

# The cost of an opening that is never closed: the parser reads the rest of the piece again, at about 20 µs for each
# mark in it or each 100 characters. A page may cost FREE_COST, one second, plus COST_SHARE times one reading of it.
FREE_COST = 50_000
COST_SHARE = 3

# References, formulas, pictures, code: not sentences.
DROPPED_TAGS = frozenset(
    re.findall(
        r"\w+",
        """ref references table gallery math chem ce timeline score syntaxhighlight source pre imagemap graph mapframe
        maplink hiero templatestyles templatedata section inputbox categorytree indicator includeonly style script""",
    )
)
_VOID_TAGS = frozenset(["br", "hr", "wbr", "img", "meta", "link"])
_LOOSE_TAGS = frozenset(["li", "dd", "dt", "tr", "td", "th", "p"])  # HTML lets their end be left out
_TOKEN = re.compile(
    r"<(?P<raw>nowiki|math|pre|source|syntaxhighlight)\b[^<>]*(?<!/)>[^<]*</(?P=raw)\s*>"
    r"|(?P<open>\{\{|\[\[|^[ \t:]*\{\|)"
    r"|(?P<close>\}\}|\]\]|^[ \t]*\|\}(?!\}))"
    r"|(?P<external>\[(?=https?://|//))"
    r"|(?P<bracket>\])"
    r"|<(?P<slash>/?)(?P<tag>[a-zA-Z]+)\b(?P<rest>[^<>]*)>"
    r"|(?P<broken><[a-zA-Z])"
    r"|(?P<heading>^(?==))"
    r"|(?P<blank>^\n)",
    re.MULTILINE | re.IGNORECASE,
)
_CLOSES = {"}}": "{{", "]]": "[[", "|}": "{|"}


class BadMarkupError(Exception):
    """Wikitext that cannot be parsed in bounded time or depth."""


@dataclass
class _Brackets:
    """The openings without an end so far. Each is put on the stack once and taken off once: linear time."""

    stack: list[tuple[str, int]] = field(default_factory=list)  # kind, place
    counts: dict[str, int] = field(default_factory=dict)
    unclosed: int = 0
    loose: int = 0  # loose tags without an end

    def open(self, kind: str, place: int) -> None:
        self.stack.append((kind, place))
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def _pop(self) -> tuple[str, int]:
        kind, place = self.stack.pop()
        self.counts[kind] -= 1
        return kind, place

    def close(self, kind: str) -> int:
        """Closes the innermost opening of `kind`; returns its place if it was the outermost of all, else -1."""
        if not self.counts.get(kind):
            return -1
        while self.stack[-1][0] != kind:
            self._pop()
            self.unclosed += 1
        _, place = self._pop()
        return -1 if self.stack else place

    def heading(self) -> bool:
        """Returns True if a heading may begin a section here: only links are open, which never reach past a heading."""
        while self.stack and self.stack[-1][0] in ("[[", "["):
            self._pop()
            self.unclosed += 1
        return not self.stack

    def end_piece(self, weight: float) -> float:
        """Returns the cost of the openings left open in the piece that ends here."""
        unclosed = self.unclosed + self.loose + len(self.stack)
        self.unclosed = self.loose = 0
        return unclosed * weight


def cut_pieces(text: str, templates: Templates, left_out: LeftOut) -> list[str]:
    """Cuts the text at headings and blank lines where nothing is open, without outermost templates, tables, references.

    What is dropped is counted in `left_out`. Raises BadMarkupError where the openings left open would cost the parser
    too much.
    """
    pieces: list[str] = []
    parts: list[str] = []
    copied = 0  # everything before it is in `parts`, or dropped
    brackets = _Brackets()
    cost, marks, marks_before, began = 0.0, 0, 0, 0
    for marks, token in enumerate(_TOKEN.finditer(text)):
        begin, kind = -1, ""
        if token["open"]:
            brackets.open(token["open"].lstrip(" \t:"), token.start())
        elif token["close"]:
            kind = _CLOSES[token["close"].lstrip()]
            begin = brackets.close(kind)
        elif token["external"]:
            brackets.open("[", token.start())
        elif token["bracket"]:
            brackets.close("[")
        elif token["tag"]:
            if not looks_like_tag(token["rest"]):  # prose; but the parser may read on for its end
                brackets.unclosed += not token["slash"]
                continue
            kind = token["tag"].lower()
            begin = _take_tag(brackets, token, kind)
        elif token["broken"]:
            brackets.unclosed += 1
        elif token["raw"]:
            kind = token["raw"].lower()
            begin = -1 if brackets.stack else token.start()
        elif brackets.heading() if token.lastgroup == "heading" else not brackets.stack:
            cost += brackets.end_piece(marks - marks_before + (token.start() - began) / 100)
            marks_before, began = marks, token.start()
            parts.append(text[copied : token.start()])
            copied = token.start()
            pieces.append("".join(parts))
            parts = []
        if begin >= copied and _is_dropped(kind, text, begin, token.end(), templates):
            parts.append(text[copied:begin])
            copied = token.end()
            _count(left_out, kind, text[begin:copied])
    cost += brackets.end_piece(marks - marks_before + (len(text) - began) / 100)
    if cost > FREE_COST + COST_SHARE * (marks + len(text) / 100):
        raise BadMarkupError(f"openings without an end that cost {cost:,.0f}")
    parts.append(text[copied:])
    pieces.append("".join(parts))
    return pieces


def _take_tag(brackets: _Brackets, token: re.Match[str], name: str) -> int:
    """Opens or closes a tag; returns the place where it began if now nothing is open, else -1."""
    if name in _LOOSE_TAGS:
        brackets.loose = max(0, brackets.loose + (-1 if token["slash"] else 1))
        return -1
    if token["slash"]:
        return brackets.close(f"<{name}")
    if token["rest"].rstrip().endswith("/") or name in _VOID_TAGS:
        return -1 if brackets.stack else token.start()
    brackets.open(f"<{name}", token.start())
    return -1


def _is_dropped(kind: str, text: str, begin: int, end: int, templates: Templates) -> bool:
    if kind == "{{":
        return not outermost_stays(text, begin, end, templates)
    return kind == "{|" or kind in DROPPED_TAGS


def _count(left_out: LeftOut, kind: str, dropped: str) -> None:
    if kind == "{{":
        left_out.add(f"template {template_name(dropped)}", dropped)
    elif kind == "{|":
        left_out.add("table row", dropped, count_rows(dropped))
    elif not _HOLDS_NOTHING.fullmatch(dropped):
        left_out.add(f"tag {kind}", dropped)


def count_rows(table: str) -> int:
    """Returns how many rows with cells a table in wikitext has, its caption among them; at least one."""
    rows = re.split(r"^[ \t:]*\|-.*$", table, flags=re.MULTILINE)
    return max(1, sum(_CELL.search(row) is not None for row in rows) + ("\n|+" in table))


_CELL = re.compile(r"^[ \t:]*(?:\|(?![-+}])|!)", re.MULTILINE)
_HOLDS_NOTHING = re.compile(r"<[^<>]*>\s*(?:</[^<>]*>)?")
