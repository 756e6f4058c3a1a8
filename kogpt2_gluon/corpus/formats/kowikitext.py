"""Articles under headings: kowikitext, namuwikitext, and other texts in the layout of WikiText.

::

     = 제목 =

     첫 문단이다.

     = = 역사 = =

     역사 문단이다.

A heading of the first level begins a document. Headings stay as lines, without their signs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.formats.text import make_document, read_cut_blocks, without_mark
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection

# A title is no heading of the second level (= = ... = =), whose spaces some writers leave out.
_TITLE = re.compile(rb"^[ \t]*=[ \t]+(?![ \t]*=)[^\n]*?[^\s=][ \t]+=[ \t]*\r?$", re.MULTILINE)


class WikiText(Kind):
    """The articles of such a file."""

    name = "wikitext"
    meaning = "the articles under ` = Title = ` lines (kowikitext, namuwikitext)"
    forms = ("wikitext", "text")

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of whole articles; DataError if there is no title in LARGEST_DOCUMENT bytes."""

        def last_end(data: bytearray, is_last: bool) -> int:
            if is_last:
                return len(data)
            end = data.rfind(b"\n") + 1  # the title's own line may be cut off
            return max((found.start() for found in _TITLE.finditer(data, 0, end) if found.start()), default=0)

        return read_cut_blocks(name, stream, line, offset, last_end, "title (a line ' = Title = ')")

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields the articles; ``empty`` for a title without text, ``bad_utf8`` if no line of one is UTF-8."""
        data, offset = without_mark(block)
        titles = [found.start() for found in _TITLE.finditer(data)]
        line = block.line
        for begin, end in zip([0, *titles], [*titles, len(data)]):
            piece = data[begin:end]
            if piece.strip():
                item = make_document(piece, block.source, line, offset + begin)
                yield _without_signs(item) if isinstance(item, Document) else item
            line += piece.count(b"\n")


def _without_signs(document: Document) -> Item:
    lines = document.text.split("\n")
    if _TITLE.match(lines[0].encode()) and not any(text.strip() for text in lines[1:]):
        return Rejection("empty", document.source, document.line, document.offset, document.bad_utf8)
    return document._replace(text="\n".join(map(_without_sign, lines)))


def _without_sign(line: str) -> str:
    text = line.strip()
    return text.strip("= ") or line if text.startswith("=") and text.endswith("=") else line
