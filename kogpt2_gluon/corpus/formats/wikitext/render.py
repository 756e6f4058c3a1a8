"""Pieces of wikitext to text, with mwparserfromhell for what nests; what is not rendered is counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import mwparserfromhell
from mwparserfromhell.nodes import Argument, Comment, ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink

from kogpt2_gluon.corpus.formats.wikitext.links import Prefixes
from kogpt2_gluon.corpus.formats.wikitext.pieces import DROPPED_TAGS, count_rows
from kogpt2_gluon.corpus.formats.wikitext.templates import (
    FIRST,
    FUNCTIONS,
    RULES,
    Show,
    Templates,
    stands_amid,
    template_name,
)
from kogpt2_gluon.corpus.left_out import LeftOut
from kogpt2_gluon.corpus.tags import LOWERED, MARK_END, RAISED, resolve_marks

HEADING = "\x00"  # how a line that is a heading begins, until it is known whether anything follows
MARKS = re.compile("[\x00-\x03]")

_FLAT_LINK = re.compile(r"\[\[([^\[\]|\n]+)(?:\|([^\[\]\n]*))?\]\]")
_COMPLEX = re.compile(r"[<&]|\{\{|\{\||//|^=|(?<!\[)\[(?!\[[^\[\]|\n]+(?:\|[^\[\]\n]*)?\]\])", re.MULTILINE)
_CODE = re.compile(r"[\w#%.,:/+°±×*() -]{0,24}", re.ASCII)  # a language, a unit, a colour, a size: no words to miss
_NODES, _SIDE = 16, 200  # nodes next to a template that are looked at, and characters of each
_WORD = re.compile(r"[^\W_]")


class Renderer:
    """Renders the pieces of one page, and counts in `left_out` what it does not show."""

    def __init__(self, prefixes: Prefixes, templates: Templates, left_out: LeftOut) -> None:
        self._prefixes, self._templates, self._left_out = prefixes, templates, left_out

    def piece(self, piece: str) -> str:
        """Returns the text of a piece, which may begin with a heading."""
        line, _, rest = piece.partition("\n")
        heading = line.rstrip()
        level = min(len(heading) - len(heading.lstrip("=")), len(heading) - len(heading.rstrip("=")), 6)
        title = heading[level:-level].strip() if level else ""
        if title:
            return f"{HEADING}{level}{self._text(title)}\n{self._text(rest)}"
        return self._text(piece)

    def _text(self, text: str) -> str:
        if not _COMPLEX.search(text):
            return _FLAT_LINK.sub(lambda link: self._shown(link[0], link[1], link[2] or ""), text)
        rendered = self._nodes(mwparserfromhell.parse(text, skip_style_tags=True).nodes)
        return resolve_marks(rendered)

    def _shown(self, link: str, target: str, text: str) -> str:
        """Returns the words that a link to `target` shows; `text` is the part after the bar, if any."""
        reason = self._prefixes.hides(target, bool(text.strip()))
        if reason:
            self._left_out.add(reason, link)
            return ""
        return text or target.strip().lstrip(":")

    def _nodes(self, nodes: Sequence[Any]) -> str:
        parts = []
        for place, node in enumerate(nodes):
            if isinstance(node, Template):
                parts.append(self._template(node, nodes, place))
            else:
                parts.append(self._node(node))
        return "".join(parts)

    def _render(self, wikicode: Any) -> str:
        return self._nodes(wikicode.nodes)

    def _node(self, node: Any) -> str:
        if isinstance(node, Text):
            return str(node.value)
        if isinstance(node, Wikilink):
            return self._link(node)
        if isinstance(node, Tag):
            return self._tag(node)
        if isinstance(node, Heading):
            return f"\n{HEADING}{node.level}{self._render(node.title).strip()}\n"
        if isinstance(node, ExternalLink):
            if node.title is None:
                self._left_out.add("address", str(node))
                return ""
            return self._render(node.title)
        if isinstance(node, HTMLEntity):
            return MARKS.sub("", str(node.normalize()))
        assert isinstance(node, (Argument, Comment)), type(node)
        self._left_out.add("argument" if isinstance(node, Argument) else "comment", str(node))
        return ""

    def _link(self, link: Wikilink) -> str:
        # The text of a dropped link (a file's caption) is not rendered.
        has_text = link.text is not None and bool(str(link.text).strip())
        if self._prefixes.hides(str(link.title), has_text):
            return self._shown(str(link), str(link.title), str(link.text or ""))
        text = self._render(link.text) if link.text is not None else ""
        return self._shown(str(link), self._render(link.title), text)

    def _tag(self, tag: Tag) -> str:
        name = str(tag.tag).strip().lower()
        if name in ("br", "hr"):
            return "\n"
        if tag.wiki_markup == ":":
            return ":"  # of "; term : definition"; at the start of a line it goes with the other marks
        if tag.contents is None:
            return ""
        if name in DROPPED_TAGS:
            self._drop_tag(name, tag)
            return ""
        if name == "nowiki":
            return str(tag.contents)
        if name in ("rt", "rp", "rtc"):  # how it is read, above the words of a ruby
            self._drop_tag(name, tag)
            return ""
        text = self._render(tag.contents)
        if name in ("sup", "sub"):
            return (RAISED if name == "sup" else LOWERED) + text + MARK_END
        return text

    def _drop_tag(self, name: str, tag: Tag) -> None:
        contents = str(tag.contents)
        if contents.strip():
            is_table = name == "table" or tag.wiki_markup == "{|"
            self._left_out.add(
                "table row" if is_table else f"tag {name}", str(tag), count_rows(contents) if is_table else 1
            )

    def _template(self, template: Template, nodes: Sequence[Any], place: int) -> str:
        written = str(template)
        name = template_name(written)
        rule = self._templates.rule(name)
        may_stay = rule is None and not self._templates.shows_nothing(name) and "\n" not in written
        if may_stay and stands_amid(_side(nodes, place, -1), _side(nodes, place, 1)):
            rule = FIRST
        shown = self._show(template, name, rule) if rule is not None else ""
        if not shown:
            self._left_out.add(f"template {name}", written)
        return shown

    def _show(self, template: Template, name: str, rule: Show) -> str:
        """Returns what a template shows, and counts the values that it does not."""
        numbered: dict[int, str] = {}
        named: dict[str, str] = {}
        first = 1
        if name in FUNCTIONS:
            numbered[0], first = self._render(template.name).partition(":")[2].strip(), 0
        for parameter in template.params:
            key, value = str(parameter.name).strip(), self._render(parameter.value).strip()
            if key.isascii() and key.isdigit() and 0 < int(key[:6]) < 1000:
                numbered[int(key[:6]) - first] = value
            else:
                named[key] = value
        values = [numbered.get(place, "") for place in range(max(numbered, default=-1) + 1)]
        shown = rule(values, named)
        unseen = [value for value in (*values, *named.values()) if value and value not in shown]
        if any(not _CODE.fullmatch(value) for value in unseen) or (name not in RULES and any(values[1:])):
            self._left_out.add(f"values of template {name}", str(template))
        return shown


def _side(nodes: Sequence[Any], place: int, step: int) -> str:
    """Returns what comes before (`step` -1) or after (1) a template, up to the first words or the end of the line."""
    text = ""
    for other in range(place + step, place + step * _NODES, step):
        if not 0 <= other < len(nodes):
            break
        node = nodes[other]
        if isinstance(node, Template):
            continue
        piece = str(node)
        text = piece[-_SIDE:] + text if step < 0 else text + piece[:_SIDE]
        if "\n" in piece or (isinstance(node, Text) and _WORD.search(piece)):
            break
    return text
