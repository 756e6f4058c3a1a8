"""The Modu corpus (모두의 말뭉치, "everyone's corpus", of the National Institute of Korean Language).

A file is one JSON object. Its texts are under ``document``, and the pieces of a text, each with a ``form``, under

- ``paragraph``: written language, newspapers, web pages, online posts (NWRW, WARW, EPRW, ...);
- ``utterance``: spoken language, conversations, messengers, parliament (SARW, SDRW, MDRW, ...);
- ``sentence``: the annotated sets (NXMP, NXNE, ...).

::

    {"id": "NWRW1800000021", "metadata": {...}, "document": [
        {"id": "NWRW1800000021.1", "metadata": {...}, "paragraph": [{"id": "...", "form": "첫 문단이다."}, ...]}, ...]}

The minutes of parliament have one object under ``document`` instead of a list. A text becomes one document, and its
forms become the lines. Titles in the metadata are left out (that of a newspaper article is also its first paragraph).
Marks of the transcription (``{laughing}``, ``&name&``) stay: they are text, which filters may drop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from kogpt2_gluon.corpus.formats.json_array import parse_records, read_array_blocks
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection

PIECES = ("paragraph", "utterance", "sentence")


class Modu(Kind):
    """The texts of one file of the corpus."""

    name = "modu"
    meaning = "the texts of the Modu corpora's JSON (모두의 말뭉치)"
    suffixes = (".json",)
    forms = ("json-object",)

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of whole texts; DataError if the file is not such an object or is cut off."""
        return read_array_blocks(name, stream, line, offset, key="document")

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every text of a block, or why there is none.

        Reasons: ``bad_utf8``, ``bad_json``, ``missing_field`` (none of the lists above), ``field_not_text`` (a form
        that is not a string), ``empty``.
        """
        for record in parse_records(block):
            if isinstance(record, Rejection):
                yield record
                continue
            pieces = _pieces(record.value)
            if pieces is None:
                yield Rejection("missing_field", block.source, record.line, record.offset)
                continue
            forms = [piece.get("form") if isinstance(piece, dict) else None for piece in pieces]
            if not all(isinstance(form, str) for form in forms):
                yield Rejection("field_not_text", block.source, record.line, record.offset)
                continue
            text = "\n".join(form for form in forms if form)
            if text:
                yield Document(text, block.source, record.line, record.offset)
            else:
                yield Rejection("empty", block.source, record.line, record.offset)


def _pieces(text: Any) -> list[Any] | None:
    if isinstance(text, dict):
        for key in PIECES:
            if isinstance(text.get(key), list):
                return list(text[key])
    return None
