"""The text under one key, or several, of every record, in whatever container the records come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, Callable

from kogpt2_gluon.corpus.first_look import look
from kogpt2_gluon.corpus.formats.containers import JsonArray, JsonLines, JsonTexts, Records
from kogpt2_gluon.corpus.formats.delimited import HEAD_BYTES, Delimited
from kogpt2_gluon.corpus.formats.json_array import NoArrayError, Record, sample_object
from kogpt2_gluon.corpus.formats.kind import LEAST, BlockReader, Kind
from kogpt2_gluon.corpus.formats.paths import (
    ITSELF,
    Path,
    Template,
    Text,
    Wanted,
    close_names,
    describe,
    find_text,
    parse_path,
    quoted,
    split_at_list,
    text_paths,
)
from kogpt2_gluon.corpus.formats.tables import FORMS as TABLE_FORMS
from kogpt2_gluon.corpus.formats.tables import Table
from kogpt2_gluon.corpus.formats.text import RECORDS, first_lines
from kogpt2_gluon.corpus.layout import LINES, PARAGRAPHS
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.wording import counted

FIELDS_SHOWN = 12
TEMPLATE_PREFIX = "template:"
_LIKELY_FIELDS = ("text", "content", "body", "document", "sentence", "form")
_INSIDE = "json-object[]"  # `Block.form` of elements of a list in an object
_RECORDS: dict[str, Callable[[Block], Records]] = {
    **{container.form: container.records for container in (JsonLines, JsonArray, JsonTexts)},
    **dict.fromkeys(("csv", "tsv"), Delimited.records),
    **dict.fromkeys(TABLE_FORMS, Table.records),
    _INSIDE: JsonArray.records,
}


class Field(Kind):
    """The texts under a field of records, or below a path; or those of several fields, put together by a template.

    `name` is the user's word for it. In a file that is one JSON object, a path into a list (``documents[].text``)
    makes every element of that list a record. Elsewhere a record is a line, an element of the array, or a row.
    """

    meaning = (
        "the text under that key of JSON (lines, an array or an object), or in that column of a table (CSV, TSV, "
        "Parquet, Arrow); a.b[].c is a path to it, [] a record that is a text itself"
    )
    forms = ("json-lines", "json-array", "json-object", "csv", "tsv", *TABLE_FORMS)

    def __init__(self, field: str, name: str | None = None) -> None:
        self.field = field
        self.name = field if name is None else name
        self._wanted: Wanted = parse_path(field)
        self._inside: Wanted | None = None  # what is wanted of the elements of a list, in a file that is one object
        self._keys: tuple[str, ...] = ()  # to that list
        self._set_inside()

    @classmethod
    def of_template(cls, template: str, name: str) -> Field:
        """Returns the kind that puts several fields together. RecipeError if the template cannot be understood."""
        made = cls(template, name)
        try:
            made._wanted = Template(template)
        except ValueError as error:
            raise RecipeError(f"--template {template}: {error}") from None
        made._set_inside()
        return made

    def _set_inside(self) -> None:
        splits = [split for path in self._paths if (split := split_at_list(path)) is not None]
        if len(splits) < len(self._paths) or any(keys != splits[0][0] for keys, _ in splits):
            return
        inner = [path for _, path in splits]
        self._keys = splits[0][0]
        self._inside = self._wanted.inside(inner) if isinstance(self._wanted, Template) else inner[0]

    @property
    def _paths(self) -> list[Path]:
        return self._wanted.paths if isinstance(self._wanted, Template) else [self._wanted]

    # --- cutting

    def reader(self, source: Source) -> BlockReader:
        """Returns the container that the source is, judged by its content."""
        form = source.form or look(source).form
        if form in TABLE_FORMS:
            return Table(form, self._paths)
        if form == "text" and source.suffix in (".csv", ".tsv"):
            form = source.suffix[1:]  # a table of one column
        if form in ("csv", "tsv"):
            with source.open() as stream:
                return Delimited(source.name, form, stream.read(HEAD_BYTES), self._paths)
        if form == "json-array":
            return JsonArray()
        if form == "json-object":
            return _ObjectReader(self, self._keys) if self._inside else JsonTexts()
        return JsonLines()

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of JSON lines; `reader` knows the other containers."""
        return JsonLines().read_blocks(name, stream, line, offset)

    # --- looking

    def check_opening(self, block: Block, fewest: int = LEAST) -> None:
        """Raises DataError if none of the first records has a text under the field, and says what they have."""
        lines: list[bytes] = []
        if block.form in ("", JsonLines.form):
            lines = first_lines(block.data)
        fields: Counter[str] = Counter()
        examples: dict[str, Any] = {}
        texts: dict[str, None] = {}
        looked_at = plain = 0
        for found in islice(self._records(block), RECORDS):
            if isinstance(found, Rejection):
                looked_at += found.reason != "empty"
                continue
            looked_at += 1
            if isinstance(find_text(self._wanted_of(block), found.value), Text):
                return
            plain += isinstance(found.value, str)
            if isinstance(found.value, dict):
                fields.update(found.value.keys())
                for key, value in found.value.items():
                    if examples.get(key) in (None, "", [], {}):
                        examples[key] = value
                if len(texts) < RECORDS:
                    texts.update(dict.fromkeys(text_paths(found.value)))
        if not looked_at or looked_at < (1 if block.form == JsonTexts.form else fewest):
            return
        head = f"{block.source}: no text under {self.field!r} in its first {counted(looked_at, 'record')}"
        if plain > looked_at / 2:
            raise DataError(f"{head}, which are texts themselves; say --documents {quoted(ITSELF)}")
        if not fields:
            say = f"one a line; for plain text say {LINES.name} or {PARAGRAPHS.name}" if lines else "but something else"
            raise DataError(f"{head}, which are not JSON objects, {say}")
        shown = [f"{key}: {describe(examples[key])}" for key, _ in fields.most_common(FIELDS_SHOWN)]
        raise DataError(f"{head}; their fields: {_printable('; '.join(shown))}{self._hint(list(texts), block)}")

    def _hint(self, texts: list[str], block: Block | None = None) -> str:
        prefix = f"{'.'.join(self._keys)}[]." if block is not None and block.form == _INSIDE else ""
        close = close_names(self.field.removeprefix(prefix), texts) or [
            path for likely in _LIKELY_FIELDS for path in texts if path.rsplit(".", 1)[-1].rstrip("[]") == likely
        ]
        return f"; did you mean --documents {quoted(prefix + close[0])}?" if close else ""

    def say_what_an_object_holds(self, name: str, head: bytes) -> DataError:
        """Returns the error for a file that is one JSON object without the list that is wanted."""
        value = sample_object(head)
        words = f"{name}: one JSON object without a list under {'.'.join(self._keys)!r}"
        if not isinstance(value, dict):
            return DataError(f"{words}; is it damaged?")
        shown = "; ".join(f"{key}: {describe(inner)}" for key, inner in list(value.items())[:FIELDS_SHOWN])
        return DataError(f"{words}; it holds {_printable(shown)}{self._hint(text_paths(value))}")

    # --- parsing

    def _records(self, block: Block) -> Records:
        return _RECORDS[block.form or JsonLines.form](block)

    def _wanted_of(self, block: Block) -> Wanted:
        return self._inside if block.form == _INSIDE and self._inside is not None else self._wanted

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every record, or why there is none.

        Reasons: ``empty`` (a blank line), ``bad_utf8``, ``bad_json``, ``bad_row``, ``missing_field``, ``null_field``,
        ``field_not_text``.
        """
        source, wanted = block.source, self._wanted_of(block)
        word = wanted.word if isinstance(wanted, Path) else ""
        for found in self._records(block):
            if not isinstance(found, Record):
                yield found
                continue
            value, line, offset = found
            if word and type(value) is dict and type(text := value.get(word)) is str:  # nearly always
                yield Document(text, source, line, offset)
                continue
            result = find_text(wanted, value)
            if isinstance(result, Text):
                yield Document(result.text, source, line, offset, (), result.lost)
            else:
                yield Rejection(result, source, line, offset)


class _ObjectReader(JsonArray):
    """The elements of a list in the one object that a file is."""

    form = _INSIDE

    def __init__(self, kind: Field, keys: tuple[str, ...]) -> None:
        super().__init__(keys)
        self._kind = kind

    def _cut(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        try:
            yield from super()._cut(name, stream, line, offset)
        except NoArrayError as error:
            raise self._kind.say_what_an_object_holds(name, error.beginning) from None


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
