"""The text under one key of every record of a JSON lines file."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator

from kogpt2_gluon.corpus.formats.kind import LEAST
from kogpt2_gluon.corpus.formats.text import JSON_SUFFIXES, LineKind, first_lines, numbered_lines
from kogpt2_gluon.corpus.layout import LINES, PARAGRAPHS
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection
from kogpt2_gluon.errors import DataError

FIELDS_SHOWN = 12
_LIKELY_FIELDS = {"text", "content", "body"}


class Field(LineKind):
    """The texts under `field` are documents.

    `name` is the user's word for it: the field, or ``field:`` and the field.
    """

    meaning = "the text under that key of JSON lines"
    suffixes = JSON_SUFFIXES
    forms = ("json-lines",)

    def __init__(self, field: str, name: str | None = None) -> None:
        self.field = field
        self.name = field if name is None else name

    def check_name(self, name: str, suffix: str) -> None:
        """Raises DataError if the file is not called one of JSON lines."""
        if suffix not in self.suffixes:
            raise DataError(
                f"{name}: --documents {self.name} reads that field of JSON lines ({', '.join(self.suffixes)}); "
                f"for plain text say {LINES.name} or {PARAGRAPHS.name}"
            )

    def check_opening(self, block: Block, fewest: int = LEAST) -> None:
        """Raises DataError if none of them has a text under the field."""
        lines = first_lines(block.data)
        fields, texts = self._look_at(lines)
        if self.field in texts:
            return
        if lines and lines[0].startswith(b"["):
            raise DataError(f"{block.source}: a JSON array, not JSON lines; convert it: jq -c '.[]' OLD > NEW.jsonl")
        if not lines or len(lines) < fewest:
            return
        head = f"{block.source}: no text under {self.field!r} in its first {len(lines):,} records"
        if not fields:
            raise DataError(f"{head}, which are not JSON objects, one a line")
        shown = ", ".join(json.dumps(name, ensure_ascii=False)[1:-1] for name, _ in fields.most_common(FIELDS_SHOWN))
        close = difflib.get_close_matches(self.field, texts, 1) or sorted(texts & _LIKELY_FIELDS, reverse=True)
        hint = f"; did you mean --documents {close[0]}?" if close else ""
        raise DataError(f"{head}; their fields: {shown}{hint}")

    def _look_at(self, lines: list[bytes]) -> tuple[Counter[str], set[str]]:
        """Returns how often each field occurs, and the fields that hold texts; ends once `field` is one of them."""
        fields: Counter[str] = Counter()
        texts: set[str] = set()
        for line in lines:
            if line.startswith(b"["):  # not a record, and perhaps an array of gigabytes in one line
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                fields.update(record.keys())
                texts.update(name for name, value in record.items() if isinstance(value, str))
                if self.field in texts:
                    break
        return fields, texts

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every record, or why there is none.

        Reasons: ``empty`` (a blank line), ``bad_utf8``, ``bad_json``, ``missing_field``, ``field_not_text``.
        """
        source, field = block.source, self.field
        for number, offset, line in numbered_lines(block):
            if not line.strip():
                yield Rejection("empty", source, number, offset)
                continue
            try:
                record = json.loads(line.decode())
            except UnicodeDecodeError as error:
                yield Rejection("bad_utf8", source, number, offset, (offset + error.start,))
            except (ValueError, RecursionError):
                yield Rejection("bad_json", source, number, offset)
            else:
                if not isinstance(record, dict) or field not in record:
                    yield Rejection("missing_field", source, number, offset)
                elif not isinstance(record[field], str):
                    yield Rejection("field_not_text", source, number, offset)
                else:
                    yield Document(record[field], source, number, offset)
