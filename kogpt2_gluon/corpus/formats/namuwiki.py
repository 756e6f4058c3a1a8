"""NamuWiki's database dump: one JSON array of pages, each with its text in namumark.

::

    [{"namespace":"0","title":"가","text":"[목차]\\n== 개요 ==\\n'''가'''는 ...","contributors":["namubot"]}, ...]

Articles (namespace 0) become documents, but redirects do not: headings, paragraphs and list items are lines.
The title is left out. `plain_text` removes the markup, and counts what goes with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from kogpt2_gluon.corpus.formats.json_array import parse_records, read_array_blocks
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.left_out import LeftOut
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection
from kogpt2_gluon.corpus.tags import empty_parentheses, subscript, superscript

_REDIRECT = re.compile(r"\s*#(?:redirect|넘겨주기)\s", re.IGNORECASE)
_DROPPED_LINKS = ("파일:", "분류:", "이미지:", "file:", "category:", "image:")
EXAMPLE_PARTS = 20  # pieces of text that are quoted of something left out
_DROPPED_BLOCKS = ("html", "syntax", "if")
_MACROS = (
    "목차|tableofcontents|각주|footnote|clearfix|pagecount|date|datetime|youtube|kakaotv|nicovideo|navertv|vimeo|"
    "include|anchor|age|dday|math|펼접|rumble|twitter"
)
# Every alternative ends at once or at a character that it cannot pass: the whole text is read in linear time.
_TOKEN = re.compile(
    r"\\(?P<escaped>[^\n])"
    r"|(?P<block>\{\{\{(?:#!(?P<processor>[a-z]+)[^\n}]*\n?|#[0-9A-Za-z,#]{1,40} |[+-][1-5] ?)?)"
    r"|(?P<block_end>\}\}\}|\{\{\||\|\}\}(?!\}))"
    r"|\[ruby\((?P<ruby>[^,\n\]()]{0,200}),[^\n\]]{0,200}\)\]"
    r"|(?P<math><math>[^<]*</math>)"
    r"|(?P<footnote>\[\*)"
    r"|(?P<newline>\[br\])"
    rf"|(?P<macro>\[(?:{_MACROS})(?=[\](]))"
    r"|(?P<link>\[\[(?P<target>[^\[\]|\n]*)(?P<bar>\|?))"
    r"|(?P<bracket>\[)"
    r"|(?P<end>\])"
    r"|(?P<heading>\n(?==))"
    r"|'{2,5}",
    re.IGNORECASE,
)
_PAIRS = re.compile(r"(~~|--|__|\^\^|,,)(?!\1)(?=\S)([^\n]+?)\1")
_LIST_ITEM = re.compile(r" +(?:\*|[1aAiI]\.)(?:#\d+)? ?")


class NamuWiki(Kind):
    """The articles of the dump."""

    name = "namuwiki"
    meaning = "the articles of NamuWiki's JSON dump"
    forms = ("json-array",)

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of whole pages; DataError if the file is not a JSON array or is cut off."""
        return read_array_blocks(name, stream, line, offset)

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every article of a block, or why there is none.

        Reasons: ``bad_utf8``, ``bad_json``, ``missing_field``, ``field_not_text``, ``namespace`` (a template, a
        category, ..., but not an article), ``redirect``, ``empty`` (no text is left without the markup).
        """
        for record in parse_records(block):
            if isinstance(record, Rejection):
                yield record
                continue
            page = record.value
            reason, text, left_out = "", "", LeftOut()
            if not isinstance(page, dict) or "text" not in page or "namespace" not in page:
                reason = "missing_field"
            elif str(page["namespace"]) != "0":
                reason = "namespace"
            elif not isinstance(page["text"], str):
                reason = "field_not_text"
            elif _REDIRECT.match(page["text"]):
                reason = "redirect"
            else:
                text = plain_text(page["text"], left_out)
                reason = "" if text else "empty"
            if reason:
                yield Rejection(reason, block.source, record.line, record.offset)
            else:
                counted = left_out if left_out.counts else None
                yield Document(text, block.source, record.line, record.offset, left_out=counted)


def plain_text(namumark: str, left_out: LeftOut | None = None) -> str:
    """Returns the text of a page, one line for each heading, paragraph and item; time is linear in the page's length.

    Removed are tables, footnotes, macros and includes, files, categories, HTML, code with its language, comments and
    the marks of style: `left_out` counts what has text. A link becomes the words that it shows, ``{{{ }}}`` its
    content, and raised and lowered text plain characters. Markup that is not closed stays as it was written.
    """
    left_out = LeftOut() if left_out is None else left_out
    text = _resolve(_without_tables(namumark.replace("\r\n", "\n"), left_out), left_out)
    text = empty_parentheses(namumark).sub("", _PAIRS.sub(_unpaired, text))
    lines = (_plain_line(line, left_out) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _unpaired(found: re.Match[str]) -> str:
    """Returns what is between two marks of style; raised and lowered text as plain characters."""
    if found[1] == "^^":
        return superscript(found.string[found.start() - 1] if found.start() else "", found[2])
    return subscript(found[2]) if found[1] == ",," else found[2]


def _plain_line(line: str, left_out: LeftOut) -> str:
    if line.startswith("##"):  # a comment
        left_out.add("comment", line)
        return ""
    item = _LIST_ITEM.match(line)
    if item is not None:
        line = line[item.end() :]
    line = line.strip()
    if line.startswith(">"):
        return line.lstrip("> ")
    if line.startswith("----") and not line.strip("-"):
        return ""
    if line.startswith("=") and line.endswith("="):
        return line.strip("=").strip("#").strip()
    return line


def _without_tables(text: str, left_out: LeftOut) -> str:
    """Drops table rows: each from a line that begins with ``||`` (or ``|caption|``) to one that ends with ``||``.

    A row that does not end before the next row or heading is its first line alone: what follows is prose.
    """
    if "||" not in text:
        return text
    lines = text.split("\n")
    tails = [_after_row(line) for line in lines]
    next_end: list[int | None] = [None] * len(lines)
    following: int | None = None
    for place in range(len(lines) - 1, -1, -1):
        following = place if tails[place] is not None else following
        next_end[place] = following
        if _begins_row(lines[place], tails[place]) or lines[place].startswith("="):
            following = None  # for the lines before it
    kept: list[str] = []
    place = 0
    while place < len(lines):
        if not _begins_row(lines[place], tails[place]):
            kept.append(lines[place])
            place += 1
            continue
        end = next_end[place]
        if end is None:  # a row without end is its first line
            end = place
        tail = tails[end] or ""
        row = "\n".join(lines[place : end + 1])
        row = row[: len(row) - len(tail)]
        left_out.add("table row", row)
        # A block opened before the table may close in a row.
        kept.append("}}}" * max(0, row.count("}}}") - row.count("{{{")) + tail)
        place = end + 1
    return "\n".join(kept)


def _begins_row(line: str, tail: str | None) -> bool:
    line = line.lstrip()
    return line.startswith("||") or (line.startswith("|") and tail is not None)


def _after_row(line: str) -> str | None:
    """Returns what follows a row that ends in this line (nothing, or the end of a block); None if no row ends here."""
    bars = line.rfind("||")
    if bars < 0:
        return None
    tail = line[bars + 2 :].strip()
    return line[bars + 2 :] if not tail or tail.startswith("}}}") else None


class _Output:
    """The text written so far, with the openings that still wait for their end.

    An opening is written as it is and blanked out when its end comes, so that its content is never copied.
    """

    def __init__(self, left_out: LeftOut) -> None:
        self.left_out = left_out
        self.parts: list[str] = []
        # Kind, its place in `parts`, and what replaces it once closed: for a dropped one, the reason to count.
        self.waiting: list[tuple[str, int, str]] = []
        self.counts = {"block": 0, "bracket": 0}

    def open(self, kind: str, written: str, closed: str = "") -> None:
        family = "block" if kind.startswith("block") else "bracket"
        self.counts[family] += 1
        self.waiting.append((kind, len(self.parts), closed))
        self.parts.append(written)

    def pop(self) -> tuple[str, int, str]:
        kind, place, closed = self.waiting.pop()
        self.counts["block" if kind.startswith("block") else "bracket"] -= 1
        return kind, place, closed

    def close(self) -> None:
        """Ends the innermost opening."""
        kind, place, closed = self.pop()
        if kind.endswith("dropped"):
            # [목차] and [*] hold no text; links and blocks have some in their opening.
            if kind != "dropped" or any(self.parts[number].strip() for number in range(place + 1, len(self.parts))):
                example = "".join(self.parts[place : place + EXAMPLE_PARTS])
                self.left_out.add(closed, example)
            del self.parts[place:]
        else:
            self.parts[place] = closed

    def close_block(self) -> None:
        """Ends the innermost block; brackets left open in it stay as they were written."""
        if self.counts["block"]:
            while not self.waiting[-1][0].startswith("block"):
                self.pop()
            self.close()

    def forget_brackets(self) -> None:
        """Gives up the brackets that are still open, which stay as they were written: none spans a heading."""
        while self.waiting and not self.waiting[-1][0].startswith("block"):
            self.pop()


def _resolve(text: str, left_out: LeftOut) -> str:
    """Resolves everything that has brackets: links, footnotes, macros, blocks."""
    out = _Output(left_out)
    position = 0
    while True:
        found = _TOKEN.search(text, position)
        if found is None:
            break
        out.parts.append(text[position : found.start()])
        position = found.end()
        kind = found.lastgroup  # the outer one of groups that contain others
        if kind == "link":
            _open_link(out, found["link"], found["target"], bool(found["bar"]))
        elif kind == "end":
            position = _close_bracket(out, text, position)
        elif kind == "bracket":
            out.open("bracket", "[", "[")
        elif kind == "footnote":
            out.open("dropped", found.group(), "footnote")
        elif kind == "macro":
            out.open("dropped", found.group(), f"macro {found['macro'][1:].lower()}")
        elif kind == "math":
            left_out.add("tag math", found["math"])
        elif kind == "block":
            _open_block(out, found["block"], (found["processor"] or "").lower())
        elif kind == "block_end":
            if found["block_end"] == "}}}":
                out.close_block()
        elif kind == "heading":
            out.forget_brackets()
            out.parts.append("\n")
        elif kind == "newline":
            out.parts.append("\n")
        elif kind is not None:
            if kind == "ruby":
                left_out.add("reading of a ruby", found.group())
            out.parts.append(found[kind])  # escaped, ruby
    out.parts.append(text[position:])
    return "".join(out.parts)


def _open_block(out: _Output, written: str, processor: str) -> None:
    if processor in _DROPPED_BLOCKS:
        out.open("block dropped", written, f"block {processor}")
        return
    if processor == "folding" and written.partition("folding")[2].strip(" []\n"):
        out.left_out.add("title of a folded block", written)
    out.open("block", written)


def _open_link(out: _Output, written: str, target: str, shows_text: bool) -> None:
    if target.lstrip().lower().startswith(_DROPPED_LINKS):
        out.open("link dropped", written, f"link {target.strip().lower().partition(':')[0]}")
    else:
        shown = target[1:] if target.startswith(":") else target
        out.open("link", written, "" if shows_text else shown)


def _close_bracket(out: _Output, text: str, position: int) -> int:
    """Ends what the ``]`` before `position` ends; returns where to continue."""
    if not out.waiting or out.waiting[-1][0].startswith("block"):
        out.parts.append("]")
        return position
    kind = out.waiting[-1][0]
    if kind.startswith("link"):
        if not text.startswith("]", position):  # a lone bracket inside a link
            out.parts.append("]")
            return position
        position += 1
    out.close()
    if kind == "bracket":
        out.parts.append("]")
    return position
