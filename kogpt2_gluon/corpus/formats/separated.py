"""Documents with a mark between them: ``<|endoftext|>``, a line of dashes, a form feed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.formats.text import make_document, read_cut_blocks, without_mark
from kogpt2_gluon.corpus.records import Block, Item
from kogpt2_gluon.errors import RecipeError

SEPARATOR_PREFIX = "separator:"
_ESCAPE = re.compile(r"\\([ntrf\\])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "\\": "\\"}


class Separated(Kind):
    """The texts between marks.

    Parameters
    ----------
    mark : str
        What is between two documents, with ``\\n``, ``\\t``, ``\\f`` and ``\\\\`` for what they mean. A ``\\n`` at its
        beginning or end fits the beginning and end of a line, so that ``\\n---\\n`` is a line of its own.

    RecipeError if the mark is empty.
    """

    name = f"{SEPARATOR_PREFIX}TEXT"
    meaning = r"what is between two marks, such as separator:<|endoftext|> or separator:\n---\n (a line)"

    def __init__(self, mark: str = "") -> None:
        if not mark:
            return  # the entry of the table, for help texts
        self.name = f"{SEPARATOR_PREFIX}{mark}"
        text = _ESCAPE.sub(lambda found: _ESCAPES[found[1]], mark)
        core = text.strip("\n").encode()
        if core:
            begin = rb"(?:^|(?<=\n))" if text.startswith("\n") else b""
            end = rb"(?:\r?\n|\r?\Z)" if text.endswith("\n") else b""
            self._mark = re.compile(begin + re.escape(core) + end)
        else:  # so many empty lines
            self._mark = re.compile(rb"(?:\r?\n){%d,}" % len(text))

    @classmethod
    def of_word(cls, documents: str) -> Separated:
        """Returns the kind that a user's word means. RecipeError if no mark is named."""
        mark = documents.removeprefix(SEPARATOR_PREFIX)
        if not mark:
            raise RecipeError(f"--documents {documents}: say what is between two documents, such as separator:---")
        return cls(mark)

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks that end with a mark; DataError if there is none in LARGEST_DOCUMENT bytes."""

        def last_end(data: bytearray, is_last: bool) -> int:
            if is_last:
                return len(data)
            # A mark at the very end may go on.
            return max((found.end() for found in self._mark.finditer(data) if found.end() < len(data)), default=0)

        return read_cut_blocks(name, stream, line, offset, last_end, f"mark ({self.name})")

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields the texts between marks, without their lines that are not UTF-8; ``empty`` for a mark after a mark."""
        data, offset = without_mark(block)
        begin, line = 0, block.line
        ends = [(found.start(), found.end()) for found in self._mark.finditer(data)]
        for end, after in [*ends, (len(data), len(data))]:
            text = data[begin:end]
            if text.strip() or (end < len(data) and (begin or block.offset)):
                yield make_document(text, block.source, line, offset + begin)
            line += data.count(b"\n", begin, after)
            begin = after
