"""Wikitext to plain text: mwparserfromhell for what nests, and a linear pass before it that bounds what it is given.

The parser runs at about 1 MB/s, and each opening that is never closed makes it read the rest again: 40 kB of ``{{a|``
take half a minute. So one pass over the brackets first drops whole templates, tables and references at the outermost
level, which are half of an article, then cuts at headings and blank lines where nothing is open, and counts the
openings left open. Most paragraphs are then prose with flat links, which needs no parser.

Templates are removed, except those whose text belongs to the sentence around them: ``lang`` and ``llang`` (the foreign
words), ``nowrap``, ``nobr``, ``small``, ``big`` and ``abbr`` (what they show), ``formatnum`` and ``val`` (the number
as typed), ``convert``, ``cvt`` and ``변환`` (number and unit as typed). Sections such as 같이 보기 ("see also") stay
where they have text: lists of links are plain lines then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import mwparserfromhell
from mwparserfromhell.nodes import Argument, Comment, ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.parser import ParserError

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
_DROPPED_LINKS = re.compile(
    r"\s*(?:file|image|media|category|파일|그림|미디어|분류"  # the wiki's own
    r"|[a-z]{2,3}(?:-[a-z]{2,10}){0,2}|simple)\s*:",  # the same article in another language
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"\{\{\s*(?:l?lang|언어)(?:-[a-z]+)?\s*\|", re.IGNORECASE)  # foreign words amid a sentence
_INLINE = re.compile(
    r"\{\{\s*(?:formatnum\s*:|(?:nowrap|nobr|small|big|abbr|val|convert|cvt|변환)\s*\|)", re.IGNORECASE
)
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
_STYLE = re.compile(r"'{2,5}")
_MAGIC_WORD = re.compile(r"__[A-Z가-힣]{2,30}__")
_EMPTY_PARENTHESES = re.compile(r" ?\([ \xa0,;:·/]{0,20}\)")
_PARENTHESIS_BEGIN = re.compile(r"\([ \xa0]?[,;:·][ \xa0]{0,3}")  # a template came first in it
_PARENTHESIS_END = re.compile(r"[ \xa0]?[,;:·][ \xa0]{0,3}\)")
_FLAT_LINK = re.compile(r"\[\[([^\[\]|\n]+)(?:\|([^\[\]\n]*))?\]\]")
_COMPLEX = re.compile(r"[<&]|\{\{|\{\||//|^=|(?<!\[)\[(?!\[[^\[\]|\n]+(?:\|[^\[\]\n]*)?\]\])", re.MULTILINE)
_HEADING = "\x00"  # how a line that is a heading begins, until it is known whether anything follows
_LIST_MARKS = " \t*#:;"
_LEFTOVER = re.compile(r"\{\{+|\}\}+|\[\[|\]\]|</?[a-zA-Z][^<>\n]{0,200}>")


class BadMarkupError(Exception):
    """Wikitext that cannot be parsed in bounded time or depth."""


def plain_text(wikitext: str) -> str:
    """Returns the text of an article, one line for each heading, paragraph and item of a list.

    Removed are templates (except those named above), tables, references, formulas, galleries, files, categories,
    comments, HTML, and headings with nothing below them. A link becomes the words that it shows. Raises BadMarkupError
    for markup made to be slow.
    """
    lines: list[str] = []
    for piece in _pieces(_without_comments(wikitext.replace(_HEADING, ""))):
        try:
            rendered = _render_piece(piece)
        except (ParserError, RecursionError) as error:
            raise BadMarkupError(str(error)) from None
        lines += (_plain_line(line) for line in _tidy(rendered).split("\n"))
    return "\n".join(_without_empty_headings([line for line in lines if line]))


def _without_comments(text: str) -> str:
    """Removes comments; one without its end reaches to the end of the page, as in MediaWiki."""
    parts: list[str] = []
    position = 0
    while True:
        begin = text.find("<!--", position)
        if begin < 0:
            return "".join([*parts, text[position:]])
        parts.append(text[position:begin])
        end = text.find("-->", begin + 4)
        if end < 0:
            return "".join(parts)
        position = end + 3


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


def _pieces(text: str) -> list[str]:
    """Cuts the text at headings and blank lines where nothing is open, without outermost templates, tables, references.

    Raises BadMarkupError where the openings left open would cost the parser too much.
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
        if begin >= copied and _is_dropped(kind, text, begin):
            parts.append(text[copied:begin])
            copied = token.end()
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


def _is_dropped(kind: str, text: str, begin: int) -> bool:
    if kind == "{{":
        return not (_LANGUAGE.match(text, begin) or _INLINE.match(text, begin))
    return kind == "{|" or kind in DROPPED_TAGS


def _render_piece(piece: str) -> str:
    """Returns the text of a piece, which may begin with a heading."""
    line, _, rest = piece.partition("\n")
    heading = line.rstrip()
    level = min(len(heading) - len(heading.lstrip("=")), len(heading) - len(heading.rstrip("=")), 6)
    title = heading[level:-level].strip() if level else ""
    if title:
        return f"{_HEADING}{level}{_render_text(title)}\n{_render_text(rest)}"
    return _render_text(piece)


def _render_text(text: str) -> str:
    if _COMPLEX.search(text):
        return _render(mwparserfromhell.parse(text, skip_style_tags=True))
    return _FLAT_LINK.sub(lambda link: _shown(link[1], link[2] or ""), text)


def _shown(target: str, text: str) -> str:
    """Returns the words that a link to `target` shows; `text` is the part after the bar, if any."""
    if _DROPPED_LINKS.match(target):
        return ""
    return text or target.strip().lstrip(":")


def _render(wikicode: Any) -> str:
    return "".join(_render_node(node) for node in wikicode.nodes)


def _render_node(node: Any) -> str:
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        return _render_link(node)
    if isinstance(node, Tag):
        return _render_tag(node)
    if isinstance(node, Heading):
        return f"\n{_HEADING}{node.level}{_render(node.title).strip()}\n"
    if isinstance(node, ExternalLink):
        return _render(node.title) if node.title is not None else ""
    if isinstance(node, HTMLEntity):
        return str(node.normalize()).replace(_HEADING, "")
    if isinstance(node, Template):
        return _render_template(node)
    assert isinstance(node, (Argument, Comment)), type(node)
    return ""


def _render_link(link: Wikilink) -> str:
    # The text of a dropped link (a file's caption) is not rendered.
    dropped = _DROPPED_LINKS.match(str(link.title)) is not None
    text = _render(link.text) if link.text is not None and not dropped else ""
    return _shown(str(link.title) if dropped else _render(link.title), text)


def _render_tag(tag: Tag) -> str:
    name = str(tag.tag).strip().lower()
    if name in ("br", "hr"):
        return "\n"
    if tag.wiki_markup == ":":
        return ":"  # of "; term : definition"; at the start of a line it goes with the other marks
    if name in DROPPED_TAGS or tag.contents is None:
        return ""
    return str(tag.contents) if name == "nowiki" else _render(tag.contents)


def _render_template(template: Template) -> str:
    if _INLINE.match(str(template)):
        return _render_inline(template)
    if _LANGUAGE.match(str(template)) is None:
        return ""
    values = [parameter.value for parameter in template.params if not parameter.showkey]
    name = str(template.name).strip().lower()
    place = 0 if "-" in name else 1  # {{lang-en|text}}, {{lang|en|text}}
    return _render(values[place]).strip() if len(values) > place else ""


def _render_inline(template: Template) -> str:
    """Returns the number, the number and its unit, or the words that such a template shows."""
    name, colon, number = _render(template.name).strip().partition(":")
    if colon:  # {{formatnum:1234567}}
        return number.strip()
    values = [_render(parameter.value).strip() for parameter in template.params if not parameter.showkey]
    shown = 2 if name.lower() in ("convert", "cvt", "변환") else 1  # {{convert|5|km|mi}}
    return " ".join(values[:shown])


def _tidy(text: str) -> str:
    """Removes marks of style, and what is left of parentheses whose content was a template."""
    text = _MAGIC_WORD.sub("", _STYLE.sub("", text))
    text = _EMPTY_PARENTHESES.sub("", text)
    return _PARENTHESIS_END.sub(")", _PARENTHESIS_BEGIN.sub("(", text))


def _plain_line(line: str) -> str:
    if line.startswith(_HEADING):
        return line if len(line) > 2 else ""
    line = line.lstrip(_LIST_MARKS).rstrip()
    if line.startswith(("|", "!", "{|")) or not line.strip("-"):  # a row of a table that was not closed; a rule
        return ""
    return _LEFTOVER.sub("", line).strip()


def _without_empty_headings(lines: list[str]) -> list[str]:
    """Makes headings plain lines; drops those right before the end, or before one of their own or a higher level."""
    kept: list[str] = []
    following = 1  # level of what follows; the end counts as the highest
    for line in reversed(lines):
        if not line.startswith(_HEADING):
            kept.append(line)
            following = 7
            continue
        level = int(line[1])
        if level < following:
            kept.append(line[2:])
            following = level
    kept.reverse()
    return kept
