"""Every file is a document: essays, books, one text of a site a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.formats.text import make_document, without_mark
from kogpt2_gluon.corpus.records import Block, Item, make_block
from kogpt2_gluon.errors import DataError


class WholeFiles(Kind):
    """Files of one document each."""

    name = "file"
    forms = ("text", "wikitext")
    meaning = "a whole text file"

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields all of the file as one block; DataError if it is longer than LARGEST_DOCUMENT."""
        data = stream.read(records.LARGEST_DOCUMENT + 1)
        if len(data) > records.LARGEST_DOCUMENT:
            raise DataError(f"{name}: over {records.LARGEST_DOCUMENT:,} bytes; too long for one document")
        if data:
            yield make_block(name, line, offset, data)

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields the document, without its lines that are not UTF-8; ``empty`` or ``bad_utf8`` if nothing is left."""
        data, offset = without_mark(block)
        yield make_document(data, block.source, block.line, offset)
