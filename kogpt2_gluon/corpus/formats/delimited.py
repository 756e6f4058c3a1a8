"""Tables in text: CSV and TSV, with a header that names the columns.

How a file is quoted is judged by its beginning, as its delimiter is: CSV is quoted as RFC 4180 says, or with ``\\"`` as
Spark writes it; in a TSV quotes usually mean nothing (NSMC, KorSTS), and read as quotes they would swallow rows in
silence. A quote that opens and is never closed as it should be costs its own line, which is counted, and no more.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.formats.containers import Container, Records
from kogpt2_gluon.corpus.formats.json_array import Record
from kogpt2_gluon.corpus.formats.paths import Path, close_names, quoted
from kogpt2_gluon.corpus.formats.text import read_cut_blocks
from kogpt2_gluon.corpus.records import BYTE_ORDER_MARK, Block, Rejection
from kogpt2_gluon.errors import DataError

HEAD_BYTES = 1 << 20  # of a source, by which its dialect is judged
QUOTINGS = ("standard", "backslash", "none")
LONGEST_QUOTED = 16 << 20  # bytes; a quote that is open for longer is a stray one
COLUMNS_SHOWN = 20
_BACKSLASHED = re.compile(r'\\(["\\])')
_ONE_COLUMN = re.compile(r"#([1-9]\d*)")


class Dialect(NamedTuple):
    """How a file spells its rows. `quoting` is ``standard``, ``backslash`` (``\\"`` is a quote too) or ``none``."""

    delimiter: str
    quoting: str


class Split(NamedTuple):
    """One record in bytes: [begin, end) without its line end; `is_whole` is False if its quotes do not fit."""

    begin: int
    end: int
    next: int
    is_whole: bool


def split_records(data: bytes, dialect: Dialect, is_last: bool = True) -> Iterator[Split]:
    """Yields the records of bytes that begin with one, as Python's csv module would find them in its strict mode.

    A record whose quotes do not fit ends with its first line. Without `is_last` the last records may be missing.
    """
    begin = 0
    while begin < len(data):
        end = _line_end(data, begin)
        whole = True
        if dialect.quoting != "none" and data.find(b'"', begin, end) >= 0:
            found = _end_of_quoted_record(data, begin, dialect, is_last)
            if found is None:
                return
            whole = found >= 0
            end = found if whole else end
        if end == len(data) and not is_last:
            return
        yield Split(begin, end, end + 1, whole)
        begin = end + 1


def _line_end(data: bytes, position: int) -> int:
    end = data.find(b"\n", position)
    return len(data) if end < 0 else end


def _end_of_quoted_record(data: bytes, begin: int, dialect: Dialect, is_last: bool) -> int | None:
    """Returns where a record ends; -1 if its quotes do not fit, None if that cannot be known yet."""
    delimiter = dialect.delimiter.encode()
    position = begin
    line_end = _line_end(data, position)
    while True:
        quote = data.find(b'"', position, line_end)
        if quote < 0:
            return line_end if is_last or line_end < len(data) else None
        if quote > begin and data[quote - 1 : quote] != delimiter:  # amid a field it is a sign like any other
            position = quote + 1
            continue
        close = _closing_quote(data, quote + 1, dialect.quoting == "backslash")
        if close < 0 or (close + 1 == len(data) and not is_last):
            return -1 if is_last or len(data) - quote > LONGEST_QUOTED else None
        if close - quote > LONGEST_QUOTED or data[close + 1 : close + 2] not in (delimiter, b"\n", b"\r", b""):
            return -1
        position = close + 1
        if position > line_end:  # it was inside the quotes
            line_end = _line_end(data, position)


def _closing_quote(data: bytes, position: int, backslash: bool) -> int:
    """Returns where the quote is that closes a field which begins at `position`; -1 if there is none."""
    begin = position
    while True:
        quote = data.find(b'"', position)
        if quote < 0:
            return -1
        if backslash:
            before = quote
            while before > begin and data[before - 1] == ord("\\"):
                before -= 1
            if (quote - before) % 2:
                position = quote + 1
                continue
        if data[quote + 1 : quote + 2] != b'"':
            return quote
        position = quote + 2


def _fields(text: str, dialect: Dialect) -> list[str]:
    """Returns the fields of one whole record. csv.Error if it is none."""
    if dialect.quoting == "none":
        return text.rstrip("\r").split(dialect.delimiter)
    if dialect.quoting == "backslash":
        text = _unescaped(text, dialect.delimiter)
    for row in csv.reader(_lines(text), delimiter=dialect.delimiter, strict=True):
        return row
    return []


def _lines(text: str) -> Iterator[str]:
    return iter(io.StringIO(text, newline="\n"))


def _unescaped(text: str, delimiter: str) -> str:
    """Spells quotes inside quotes as RFC 4180 does; no line end changes."""

    def spell(field: re.Match[str]) -> str:
        return _BACKSLASHED.sub(lambda found: '""' if found[1] == '"' else "\\", field.group())

    between = rf"{re.escape(delimiter)}\n"
    quoted = rf'(?<![^{between}])"[^"\\]*(?:(?:\\.|"")[^"\\]*)*"(?=[{between}\r]|\Z)'
    return re.sub(quoted, spell, text, flags=re.DOTALL)


def judge_dialect(head: bytes, form: str, is_whole: bool) -> Dialect:
    """Returns how a file is spelled, judged by its beginning; `form` is ``csv`` or ``tsv``."""
    head = head[len(BYTE_ORDER_MARK) :] if head.startswith(BYTE_ORDER_MARK) else head
    csv.field_size_limit(records.LARGEST_DOCUMENT)
    if form == "tsv":
        standard, none = (_Judged(head, Dialect("\t", quoting), is_whole) for quoting in ("standard", "none"))
        is_quoted = standard.needed and not standard.broken and standard.regular >= none.regular
        return standard.dialect if is_quoted else none.dialect
    judged: list[_Judged] = []
    for delimiter in (",", ";", "|", "\t"):
        standard, *others = (_Judged(head, Dialect(delimiter, quoting), is_whole) for quoting in QUOTINGS)
        judged.append(standard)
        if standard.regular == 1.0:
            break
        # Quotes that fit nowhere mean nothing; where some fit, the others are stray.
        judged += others if standard.broken > standard.needed else others[:1]
    # max takes the first of equals: the usual spelling, unless another fits better.
    return max(judged, key=lambda one: one.regular).dialect


class _Judged:
    """How well a dialect fits the beginning of a file.

    `regular` is the share of rows as wide as the first, `columns` its width. `broken` counts records whose quotes do
    not fit, `needed` those with a delimiter, a line end or a quote inside quotes, and a header that is all in quotes.
    """

    def __init__(self, head: bytes, dialect: Dialect, is_whole: bool) -> None:
        self.dialect = dialect
        self.broken = self.needed = 0
        widths: list[int] = []
        for record in itertools.islice(split_records(head, dialect, is_whole), 2000):
            line = head[record.begin : record.end].decode("utf-8", "replace")
            self.broken += not record.is_whole
            if not line.strip():
                continue
            try:
                fields = _fields(line, dialect) if record.is_whole else []
            except csv.Error:
                fields = []
            if not widths:
                self.needed += all(re.fullmatch('".*"', cell) for cell in line.rstrip("\r").split(dialect.delimiter))
            widths.append(len(fields))
            doubled = sum(field.count('""') for field in fields) < line.count('""')
            self.needed += doubled or any(dialect.delimiter in field or "\n" in field for field in fields)
        self.columns = widths[0] if widths else 0
        self.regular = sum(width == self.columns for width in widths) / len(widths) if self.columns > 1 else 0.0


class Delimited(Container):
    """A table in text.

    Parameters
    ----------
    name : str
        The source, for messages.
    form : str
        ``csv`` or ``tsv``.
    beginning : bytes
        Up to HEAD_BYTES of the source.
    paths : list of Path
        The columns that are wanted; ``#2`` is the second one of a table without a header.

    Raises DataError for a column that the table does not have.
    """

    def __init__(self, name: str, form: str, beginning: bytes, paths: list[Path]) -> None:
        self.form = form
        is_whole = len(beginning) < HEAD_BYTES
        self._dialect = judge_dialect(beginning, form, is_whole)
        header: list[str] = []
        start = len(BYTE_ORDER_MARK) if beginning.startswith(BYTE_ORDER_MARK) else 0
        for record in split_records(beginning[start:], self._dialect, is_whole):
            text = beginning[start:][record.begin : record.end].decode("utf-8", "replace")
            if text.strip():
                try:
                    header = [cell.strip() for cell in _fields(text, self._dialect)]
                except csv.Error as error:
                    raise DataError(f"{name}: a table whose header cannot be read ({error})") from None
                break
        numbers = [_ONE_COLUMN.fullmatch(path.word) for path in paths]
        has_header = not all(numbers)
        places = {}
        for path, number in zip(paths, numbers):
            if number is None or has_header:
                column = path.column(header)
                places[column] = self._place(name, column, header)
                continue
            places[path.word] = int(number[1]) - 1
            if places[path.word] >= len(header):
                raise DataError(f"{name}: a table of {len(header)} columns, without column {path.word}")
        about = {"dialect": self._dialect, "width": len(header), "header": has_header, "places": places}
        self._head = json.dumps(about).encode()

    def _place(self, name: str, column: str, header: list[str]) -> int:
        if header.count(column) == 1:
            return header.index(column)
        if column in header:
            raise DataError(f"{name}: more than one column is called {column!r}; rename the others")
        shown = ", ".join(header[:COLUMNS_SHOWN]) + (", ..." if len(header) > COLUMNS_SHOWN else "")
        close = close_names(column, header)
        hint = f"; did you mean --documents {quoted(close[0])}?" if close else "; without a header say '#1'"
        raise DataError(f"{name}: a table without a column {column!r}; its columns: {shown}{hint}")

    def _cut(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        def last_end(data: bytearray, is_last: bool) -> int:
            if self._dialect.quoting == "none":
                return len(data) if is_last else data.rfind(b"\n") + 1
            end = 0
            for record in split_records(bytes(data), self._dialect, is_last):
                end = record.next
            return min(end, len(data))

        for block in read_cut_blocks(name, stream, line, offset, last_end, "end of a row"):
            yield block._replace(head=self._head)

    @staticmethod
    def records(block: Block) -> Records:
        """Yields the rows, each as a mapping of the columns that are wanted.

        Reasons: ``empty`` (a blank line), ``bad_utf8``, ``bad_row`` (more or fewer columns than the header, or quotes
        that do not fit).
        """
        about = json.loads(block.head)
        table = _Table(block, Dialect(*about["dialect"]), about["width"], about["places"])
        rows = iter(table)
        if not block.offset and about["header"]:
            for found in rows:
                if not isinstance(found, Rejection) or found.reason != "empty":
                    break
                yield found
        yield from rows


class _Table:
    """The rows of a block."""

    def __init__(self, block: Block, dialect: Dialect, width: int, places: dict[str, int]) -> None:
        self._source, self._dialect, self._width, self._places = block.source, dialect, width, places
        data, self._offset, self._line = block.data, block.offset, block.line
        if not block.offset and data.startswith(BYTE_ORDER_MARK):
            self._offset = len(BYTE_ORDER_MARK)
            data = data[self._offset :]
        self._data = data
        csv.field_size_limit(records.LARGEST_DOCUMENT)

    def __iter__(self) -> Records:
        try:
            text = self._data.decode()
            rows = self._whole(text)
        except (UnicodeDecodeError, csv.Error):
            return self._one_by_one()
        return iter(rows)

    def _whole(self, text: str) -> list[Record | Rejection]:
        """Returns all rows at once. csv.Error if the quotes of one do not fit."""
        import numpy as np

        line_ends = np.flatnonzero(np.frombuffer(self._data, np.uint8) == ord("\n"))
        starts = [self._offset, *(line_ends + self._offset + 1).tolist()]
        made: list[Record | Rejection] = []
        if self._dialect.quoting == "none":
            lines = text.split("\n")
            if not lines[-1]:
                lines.pop()
            delimiter = self._dialect.delimiter
            for number, line in enumerate(lines):
                fields = line.rstrip("\r").split(delimiter) if line.strip() else []
                made.append(self._row(fields, self._line + number, starts[number]))
            return made
        if self._dialect.quoting == "backslash":
            text = _unescaped(text, self._dialect.delimiter)
        reader = csv.reader(_lines(text), delimiter=self._dialect.delimiter, strict=True)
        before = 0
        for fields in reader:
            made.append(self._row(fields, self._line + before, starts[before]))
            before = reader.line_num
        return made

    def _one_by_one(self) -> Records:
        """Yields rows where some cannot be read."""
        line, counted = self._line, 0
        for record in split_records(self._data, self._dialect):
            line += self._data.count(b"\n", counted, record.begin)
            counted, offset = record.begin, self._offset + record.begin
            try:
                text = self._data[record.begin : record.end].decode()
                if not record.is_whole:
                    raise csv.Error
                fields = _fields(text, self._dialect) if text.strip() else []
            except UnicodeDecodeError as error:
                yield Rejection("bad_utf8", self._source, line, offset, (offset + error.start,))
            except csv.Error:
                yield Rejection("bad_row", self._source, line, offset)
            else:
                yield self._row(fields, line, offset)

    def _row(self, fields: list[str], line: int, offset: int) -> Record | Rejection:
        if len(fields) != self._width:
            if not fields or (len(fields) == 1 and not fields[0].strip()):
                return Rejection("empty", self._source, line, offset)
            if len(fields) < self._width or any(fields[self._width :]):  # empty ones at the end are tolerated
                return Rejection("bad_row", self._source, line, offset)
        return Record({column: fields[place] for column, place in self._places.items()}, line, offset)
