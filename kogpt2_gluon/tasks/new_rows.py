"""New texts for a fine-tuned network: a row a line, or JSON lines, from a file, a pipe or standard input.

They are read twice, first to find what is wrong with any of them, so that no answer is written before a bad line is
found. A pipe can be read once only: what comes from it is kept in a temporary file meanwhile. Memory is one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.read_again import readable_again
from kogpt2_gluon.tasks.line_file import JSON_SUFFIXES, LineFile
from kogpt2_gluon.tasks.loading import check_row
from kogpt2_gluon.tasks.public.json_records import object_of, text_of
from kogpt2_gluon.tasks.task import CLASSIFICATION, JOINT, Row, Task
from kogpt2_gluon.wording import counted

TEXT, JSON_LINES = "text", "json-lines"
FORMATS = (TEXT, JSON_LINES)
TABLE_SUFFIX = ".csv"  # its columns and its heading would be taken for texts
KEYS = ("text", "text_2")
TAB = "\t"


class NewRows(LineFile):
    """The rows of a file, without answers; they can be iterated over more than once.

    Parameters
    ----------
    path : Path
    task : Task
    form : str
        TEXT: a row a line, with a tab between the texts of a pair. JSON_LINES: an object a line, with `text` and, of a
        pair, `text_2`. "": JSON lines if the name says so or the first line is such an object, else text.
    name : str
        What messages call the file; "": its path.

    Yields ``(number, row)``, where the number is that of the line, from 1. A row has its texts, and stands for no
    answer although it has one, as a row must. DataError, with the line, for whatever is not a row of the task.
    """

    def __init__(self, path: Path, task: Task, form: str = "", name: str = "") -> None:
        super().__init__(path, name)
        self._task = task
        with self.named_errors():
            self.form = form or self._form()

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        with self.named_errors():
            for number, line in self.lines():
                where = f"{self.name}, line {number}"
                if self.form == TEXT:
                    texts = self._of_line(where, line)
                elif line.strip():
                    texts = self._of_object(where, object_of(where, line))
                else:
                    continue
                label = self._task.labels[0] if self._task.head in (CLASSIFICATION, JOINT) else ""
                row = Row(texts, label, value=self._task.value_range[0], where=where)
                check_row(self._task, row)
                yield number, row

    def _form(self) -> str:
        suffix = self.suffix()
        if suffix == TABLE_SUFFIX:
            raise DataError(
                f"{self.name}: a table by its name; give the texts alone, a row a line, or JSON lines (--format text "
                "takes each line as a text)"
            )
        return JSON_LINES if suffix in JSON_SUFFIXES or self._begins_with_json() else TEXT

    def _begins_with_json(self) -> bool:
        try:
            found = json.loads(self.first_line())  # one that is refused, as for a key twice, is no text either
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and KEYS[0] in found

    def _of_line(self, where: str, line: str) -> tuple[str, ...]:
        texts = tuple(line.split(TAB))
        if len(texts) == 1 + self._task.is_pair:
            return texts
        task = self._task.name
        found = f"{counted(len(texts), 'text')}, and {task} takes two, with a tab between them"
        if not self._task.is_pair:
            found = f"a tab, and {task} takes one text a line"
        raise DataError(f"{where}: {found}; JSON lines can have tabs in a text")

    def _of_object(self, where: str, record: dict[str, Any]) -> tuple[str, ...]:
        if not self._task.is_pair and KEYS[1] in record:
            raise DataError(f"{where}: {KEYS[1]}, and {self._task.name} takes one text")
        return tuple(text_of(where, record, key) for key in KEYS[: 1 + self._task.is_pair])


@contextmanager
def open_rows(path: Path, task: Task, form: str = "") -> Iterator[NewRows]:
    """Opens new rows; `path` is a file, a pipe, or "-" for standard input. DataError if there are none."""
    missing = f"{path}: no such file; to answer this text itself: echo TEXT | kogpt2 predict CHECKPOINT -"
    with readable_again(path, missing) as (file, name):
        yield NewRows(file, task, form, name)
