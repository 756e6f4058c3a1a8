"""Lines up to the next blank one (empty, or ASCII white space alone) are a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.formats.text import TextKind, numbered_lines
from kogpt2_gluon.corpus.layout import LINES, PARAGRAPHS
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection
from kogpt2_gluon.errors import DataError


class Paragraphs(TextKind):
    """Documents of several lines, with blank lines between them."""

    name = PARAGRAPHS.name
    meaning = "lines up to a blank one"

    def _rest_of_record(self, name: str, stream: BinaryIO, data: bytes, line: int) -> bytes:
        """Returns what follows `data` up to the next blank line, and that line."""
        rest: list[bytes] = []
        size = 0
        whole = data.endswith(b"\n")  # otherwise the first line read is the tail of one
        while True:
            rest.append(stream.readline(records.LARGEST_DOCUMENT))
            size += len(rest[-1])
            if size >= records.LARGEST_DOCUMENT:
                raise DataError(
                    f"{name}: no blank line in {size:,} bytes somewhere after line {line}; if its documents are lines, "
                    f"say --documents {LINES.name}"
                )
            if whole and not rest[-1].strip():  # blank, or the end of the file
                return b"".join(rest)
            whole = True

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every paragraph, without its lines that are not UTF-8; ``bad_utf8`` if none is left."""
        lines: list[str] = []
        bad: list[int] = []
        first, start = 0, 0

        def finish() -> Item:
            if lines:
                return Document("\n".join(lines), block.source, first, start, tuple(bad))
            return Rejection("bad_utf8", block.source, first, start, tuple(bad))

        for number, offset, line in numbered_lines(block):
            if not line.strip():
                if lines or bad:
                    yield finish()
                    lines, bad = [], []
                continue
            if not (lines or bad):
                first, start = number, offset
            try:
                lines.append(line.decode())
            except UnicodeDecodeError as error:
                bad.append(offset + error.start)
        if lines or bad:
            yield finish()
