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

from collections import Counter
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
    forms = ("json-object",)

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of whole texts; DataError if the file is not such an object or is cut off."""
        return read_array_blocks(name, stream, line, offset, ("document",))

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every text of a block, or why there is none.

        Reasons: ``bad_utf8``, ``bad_json``, ``missing_field`` (none of the lists above, or no form), ``null_field``,
        ``field_not_text`` (a form that is not a string), ``empty``. A piece without text is left out of its document
        under the same names.
        """
        for record in parse_records(block):
            if isinstance(record, Rejection):
                yield record
                continue
            pieces = _pieces(record.value)
            if pieces is None:
                yield Rejection("missing_field", block.source, record.line, record.offset)
                continue
            forms, lost = _forms(pieces)
            text = "\n".join(forms)
            if text:
                yield Document(text, block.source, record.line, record.offset, (), tuple(sorted(lost.items())))
            else:
                reason = lost.most_common(1)[0][0] if lost else "empty"
                yield Rejection(reason, block.source, record.line, record.offset)


def _forms(pieces: list[Any]) -> tuple[list[str], Counter[str]]:
    """Returns the texts of pieces, and how many pieces have none, by reason; empty ones are no loss."""
    lost: Counter[str] = Counter()
    forms: list[str] = []
    for piece in pieces:
        form = piece.get("form") if isinstance(piece, dict) else None
        if isinstance(form, str):
            forms.append(form)
        elif piece is None or (isinstance(piece, dict) and "form" in piece and form is None):
            lost["null_field"] += 1
        else:
            lost["field_not_text" if form is not None or not isinstance(piece, dict) else "missing_field"] += 1
    return [form for form in forms if form], lost


def _pieces(text: Any) -> list[Any] | None:
    """Returns the pieces of a text under the first key that has any; None if it has no such key."""
    if not isinstance(text, dict):
        return None
    lists = [text[key] for key in PIECES if isinstance(text.get(key), list)]
    return next((pieces for pieces in lists if pieces), lists[0] if lists else None)
