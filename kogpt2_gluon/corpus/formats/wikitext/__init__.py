"""Wikitext to plain text.

`pieces` drops what nests and shows nothing in one linear pass, `render` turns the rest into text with mwparserfromhell;
`templates` and `links` say by name what is shown. Sections such as 같이 보기 ("see also") stay where they have text:
lists of links are plain lines then. What is left out is counted by name.
"""

from __future__ import annotations

import re

from mwparserfromhell.parser import ParserError

from kogpt2_gluon.corpus.formats.wikitext import links, templates
from kogpt2_gluon.corpus.formats.wikitext.links import Prefixes, prefixes_of
from kogpt2_gluon.corpus.formats.wikitext.pieces import BadMarkupError, cut_pieces
from kogpt2_gluon.corpus.formats.wikitext.render import HEADING, MARKS, Renderer
from kogpt2_gluon.corpus.formats.wikitext.templates import Templates
from kogpt2_gluon.corpus.left_out import LeftOut
from kogpt2_gluon.corpus.tags import empty_parentheses, looks_like_tag

__all__ = ["BadMarkupError", "Prefixes", "Templates", "plain_text", "prefixes_of"]

_STYLE = re.compile(r"'{2,5}")
_MAGIC_WORD = re.compile(r"__[A-Z가-힣]{2,30}__")
_PARENTHESIS_BEGIN = re.compile(r"\([ \xa0]?[,;:·][ \xa0]{0,3}")  # a template came first in it
_TWO_COMMAS = re.compile(r"([,;·]) (?=[,;·] )")  # a template was between them
_PARENTHESIS_END = re.compile(r"[ \xa0]?[,;:·][ \xa0]{0,3}\)")
_LIST_MARKS = " \t*#:;"
_LEFTOVER = re.compile(r"\{\{+|\}\}+|\[\[|\]\]|</?[a-zA-Z]+(?P<rest>(?![a-zA-Z])[^<>\n]{0,200})>")


def plain_text(
    wikitext: str,
    prefixes: Prefixes = links.USUAL,
    known: Templates = templates.USUAL,
    left_out: LeftOut | None = None,
) -> str:
    """Returns the text of an article, one line for each heading, paragraph and item of a list.

    Removed are templates that are not a part of a sentence, tables, references, formulas, galleries, files, categories,
    comments, HTML, and headings with nothing below them: `left_out` counts them. A link becomes the words that it
    shows, raised and lowered text plain characters. Raises BadMarkupError for markup made to be slow.
    """
    left_out = LeftOut() if left_out is None else left_out
    renderer = Renderer(prefixes, known, left_out)
    lines: list[str] = []
    empty = empty_parentheses(wikitext)
    for piece in cut_pieces(_without_comments(MARKS.sub("", wikitext), left_out), known, left_out):
        try:
            rendered = renderer.piece(piece)
        except (ParserError, RecursionError) as error:
            raise BadMarkupError(str(error)) from None
        lines += (_plain_line(line, left_out) for line in _tidy(rendered, empty, left_out).split("\n"))
    return "\n".join(_without_empty_headings([line for line in lines if line], left_out))


def _without_comments(text: str, left_out: LeftOut) -> str:
    """Removes comments; one without its end reaches to the end of the page, as in MediaWiki."""
    parts: list[str] = []
    position = 0
    while True:
        begin = text.find("<!--", position)
        if begin < 0:
            return "".join([*parts, text[position:]])
        parts.append(text[position:begin])
        end = text.find("-->", begin + 4)
        left_out.add("comment", text[begin : end if end >= 0 else len(text)])
        if end < 0:
            return "".join(parts)
        position = end + 3


def _tidy(text: str, empty: re.Pattern[str], left_out: LeftOut) -> str:
    """Removes marks of style, and what is left of parentheses whose content was a template."""
    for word in _MAGIC_WORD.findall(text):
        left_out.add("magic word", word)
    text = _MAGIC_WORD.sub("", _STYLE.sub("", text))
    text = empty.sub("", text)
    text = _TWO_COMMAS.sub("", text)
    return _PARENTHESIS_END.sub(")", _PARENTHESIS_BEGIN.sub("(", text))


def _plain_line(line: str, left_out: LeftOut) -> str:
    if line.startswith(HEADING):
        return line if len(line) > 2 else ""
    line = line.lstrip(_LIST_MARKS).rstrip()
    if line.startswith(("|", "!", "{|")):  # a row of a table that was not closed
        if line.strip("|!{}-+ "):
            left_out.add("table row", line)
        return ""
    if not line.strip("-"):  # a rule
        return ""
    return _LEFTOVER.sub(_leftover, line).strip()


def _leftover(found: re.Match[str]) -> str:
    """Returns nothing for a bracket or a tag without its counterpart, and the text itself for what is no tag."""
    return found[0] if found["rest"] is not None and not looks_like_tag(found["rest"]) else ""


def _without_empty_headings(lines: list[str], left_out: LeftOut) -> list[str]:
    """Makes headings plain lines; drops those right before the end, or before one of their own or a higher level."""
    kept: list[str] = []
    following = 1  # level of what follows; the end counts as the highest
    for line in reversed(lines):
        if not line.startswith(HEADING):
            kept.append(line)
            following = 7
            continue
        level = int(line[1])
        if level < following:
            kept.append(line[2:])
            following = level
        else:
            left_out.add("heading without text", line[2:])
    kept.reverse()
    return kept
