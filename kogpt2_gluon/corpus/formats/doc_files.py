"""Files of WikiExtractor in its own format: every article between ``<doc id=...>`` and ``</doc>``.

::

    <doc id="5" url="https://ko.wikipedia.org/wiki?curid=5" title="지미 카터">
    지미 카터

    제임스 얼 카터 주니어는 ...
    </doc>
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.formats.text import make_document, read_cut_blocks, without_mark
from kogpt2_gluon.corpus.records import Block, Item, Rejection
from kogpt2_gluon.errors import DataError

_BEGIN = re.compile(rb"^[ \t]*<doc[ \t][^\n]*>[ \t]*\r?$\n?", re.MULTILINE)
_END = re.compile(rb"^[ \t]*</doc>[ \t]*\r?(?:\n|\Z)", re.MULTILINE)


class DocFiles(Kind):
    """The articles of such a file."""

    name = "doc"
    meaning = "the articles between <doc ...> and </doc> (WikiExtractor)"
    forms = ("doc-files",)

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of whole articles; DataError if the file is cut off in one."""

        def last_end(data: bytearray, is_last: bool) -> int:
            # One at the very end may go on.
            ends = (found.end() for found in _END.finditer(data))
            end = max((end for end in ends if end < len(data) or is_last), default=0)
            return len(data) if is_last and end and not data[end:].strip() else end

        for block in read_cut_blocks(name, stream, line, offset, last_end, "</doc>"):
            if _BEGIN.search(block.data) and not _END.search(block.data):
                raise DataError(f"{name}: truncated: the article that begins after line {block.line} has no </doc>")
            yield block

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields the articles; ``empty`` for one without text, ``bad_markup`` for text outside of them."""
        data, offset = without_mark(block)
        position = 0
        line = block.line
        while position < len(data):
            begin = _BEGIN.search(data, position)
            outside = data[position : begin.start() if begin else len(data)]
            if outside.strip():
                yield Rejection("bad_markup", block.source, line, offset + position)
            if begin is None:
                return
            end = _END.search(data, begin.end())
            stop, after = (end.start(), end.end()) if end else (len(data), len(data))
            line += data.count(b"\n", position, begin.end())
            yield make_document(data[begin.end() : stop], block.source, line, offset + begin.end())
            line += data.count(b"\n", begin.end(), after)
            position = after
