"""Tables as text: one row a line with a tab between columns, or CSV.

Public tables differ in how they write a quotation mark. KorSTS, KorNLI and PAWS-X write it as it is, so that a reader
of CSV loses rows (48 lines of KorSTS's train have an odd number of them); Question Pair and korean-hate-speech were
written by pandas, which puts such a text in quotes and doubles those inside. In a table with tabs a quotation mark is
therefore a character as any other, but for a field that only a writer of CSV can have made.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.text_lines import read_lines, shown
from kogpt2_gluon.wording import Say, counted

# Columns that only one public task has, to say whose file was given. The first that fits is named.
FILES_OF = (
    (("genre", "filename", "score", "sentence1", "sentence2"), "korsts"),
    (("sentence1", "sentence2", "gold_label"), "kornli"),
    (("id", "sentence1", "sentence2", "label"), "pawsx"),
    (("question1", "question2", "is_duplicate"), "question-pair"),
    (("contain_gender_bias", "bias", "hate"), "hate-speech"),
    (("title", "comment", "bias", "hate"), "hate-speech"),
    (("document", "label"), "nsmc"),
)
LONGEST_FIELD = 131_072  # characters; after a quotation mark that is never closed the whole file would be one field
_OF_CSV = (",", ";")  # delimiters of CSV, where quotation marks have a meaning


class Record(NamedTuple):
    """A row of a table: where it is, and the text of each column that was asked for."""

    where: str
    fields: dict[str, str]


def read_table(
    path: Path,
    say: Say,
    columns: Mapping[str, Sequence[str]],
    delimiter: str = "\t",
    names: Sequence[str] = (),
    numbered: bool = False,
) -> Iterator[Record]:
    """Yields the rows of a table, with the columns that are asked for.

    Parameters
    ----------
    columns : mapping
        The name that a column has in the records, and those that it may have in the file.
    delimiter : str
        One character. With a comma or semicolon the file is CSV: a field in quotes may hold them and line ends.
    names : sequence of str
        The columns of a file whose first line is a row already.
    numbered : bool
        True if the first line is a row and the columns have the names 1, 2, 3, ...

    DataError, with file and line, for a header without a column, for a row with more or fewer fields than the header,
    and for a quote that is never closed. Lines without text are left out, which is said.
    """
    is_csv = delimiter in _OF_CSV
    rows = _read_csv(path, delimiter) if is_csv else _split_lines(path, delimiter)
    layout = _Layout(path, delimiter, names)
    places: dict[str, int] = layout.find(columns) if names else {}
    blank = pending = quoted = 0
    for line, fields in rows:
        if not any(fields) and len(fields) <= 1:
            pending += 1
            continue
        blank, pending = blank + pending, 0
        if not layout.names:
            layout.names = [str(n) for n in range(1, len(fields) + 1)] if numbered else list(map(str.strip, fields))
            places = layout.find(columns)
            if not numbered:
                continue
        fields = layout.fit(line, fields)
        found = {}
        for name, place in places.items():
            text = fields[place]
            if not is_csv and text.startswith('"') and _is_of_csv(text):
                text, quoted = text[1:-1].replace('""', '"'), quoted + 1
            found[name] = text
        yield Record(f"{path}, line {line}", found)
    if blank:
        say(f"{path.name}: left out {counted(blank, 'line')} without text")
    if quoted:
        say(f"{path.name}: {counted(quoted, 'text')} in the quotes of CSV, which are taken off")
    if layout.beyond:
        say(f"{path.name}: {counted(layout.beyond, 'field')} in a column without a name, which no one asks for")


def _is_of_csv(text: str) -> bool:
    """Returns True for a text in quotes with quotes inside, each of them doubled."""
    inner = text[1:-1]
    return text.endswith('"') and '""' in inner and '"' not in inner.replace('""', "")


def _split_lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, text in read_lines(path):
        yield number, text.split(delimiter)


def _read_csv(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the line where each row of a CSV file begins, and its fields, which are no longer than LONGEST_FIELD."""
    reader = csv.reader((f"{text}\n" for _, text in read_lines(path)), delimiter=delimiter, strict=True)
    line = 1
    while True:
        csv.field_size_limit(LONGEST_FIELD)  # before each row: it is the process's, and readers of corpora raise it
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: not CSV ({error}); is a quotation mark not closed?") from None
        yield line, fields
        line = reader.line_num + 1


class _Layout:
    """The columns of a table, and whether a row fits them."""

    def __init__(self, path: Path, delimiter: str, names: Sequence[str]) -> None:
        self.names = list(names)
        self.beyond = 0  # texts in columns without a name
        self._path, self._delimiter = path, delimiter

    def find(self, columns: Mapping[str, Sequence[str]]) -> dict[str, int]:
        """Returns the place of each column that is asked for. DataError if one is missing, or there twice."""
        places, missing = {}, []
        for wanted, spellings in columns.items():
            found = [place for place, name in enumerate(self.names) if name in spellings]
            if len(found) > 1:
                raise DataError(f"{self._path}: has the column {self.names[found[0]]} twice")
            if found:
                places[wanted] = found[0]
            else:
                missing.append(spellings[0])
        if not missing:
            return places
        header = self._delimiter.join(self.names)
        if not places:
            kind = {"\t": "tabs", ",": "commas", ";": "semicolons"}.get(self._delimiter, shown(self._delimiter))
            raise DataError(
                f"{self._path}: its first line, {shown(header)}, has none of the columns {', '.join(missing)} "
                f"(separated by {kind}){self._whose()}; is it another file, or one without its header?"
            )
        noun = "column" if len(missing) == 1 else "columns"
        have = ", ".join(name for name in self.names if name)
        raise DataError(f"{self._path}: no {noun} {', '.join(missing)} (it has {shown(have, 200)}){self._whose()}")

    def _whose(self) -> str:
        for names, task in FILES_OF:
            if set(names) <= set(self.names):
                return f"; such columns are those of {task}"
        return ""

    def fit(self, line: int, fields: list[str]) -> list[str]:
        """Returns the fields of a row, one for each column. DataError if it has more or fewer.

        A row may end in empty fields, and with tabs in a field that a writer of CSV put in quotes for the tab inside.
        """
        width = len(self.names)
        if len(fields) > width and self._delimiter not in _OF_CSV:
            fields = self._in_quotes(fields) or fields
        if len(fields) < width or any(fields[width:]):
            raise DataError(
                f"{self._path}, line {line}: {counted(len(fields), 'field')}, where {width} are expected: "
                f"{shown(self._delimiter.join(fields))}"
            )
        self.beyond += sum(bool(text) and not name for name, text in zip(self.names, fields))
        return fields

    def _in_quotes(self, fields: list[str]) -> list[str]:
        """Returns the fields of a line as a reader of CSV sees them, if that fits the columns; else none."""
        try:
            found = next(csv.reader([self._delimiter.join(fields)], delimiter=self._delimiter, strict=True))
        except csv.Error:
            return []
        return found if len(found) == len(self.names) else []
