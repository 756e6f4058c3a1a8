"""Every line of a text file is a document; the KoGPT-2 layout ``wiki_news_corpus_aa .. zz`` is read so too."""

from __future__ import annotations

from collections.abc import Iterator

from kogpt2_gluon.corpus.formats.text import LineKind, numbered_lines
from kogpt2_gluon.corpus.layout import LINES
from kogpt2_gluon.corpus.records import BYTE_ORDER_MARK, Block, Document, Item, Rejection


class Lines(LineKind):
    """Every line is a document, an empty one too."""

    name = LINES.name
    meaning = "every line of a text file"
    layout = LINES

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every line, or ``bad_utf8``."""
        for number, offset, line in numbered_lines(block):
            try:
                yield Document(line.decode(), block.source, number, offset)
            except UnicodeDecodeError as error:
                yield Rejection("bad_utf8", block.source, number, offset, (offset + error.start,))

    def texts_at_once(self, block: Block) -> list[str] | None:
        """Returns all lines in one step: they are many and short."""
        if b"\r" in block.data or block.data.startswith(BYTE_ORDER_MARK):
            return None
        try:
            return block.data.decode().removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            return None
