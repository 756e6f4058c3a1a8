"""Texts of which each line has a piece, a character or a word, and its label; an empty line ends a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.spans import spans_of_labels
from kogpt2_gluon.tasks.public.text_lines import read_lines, shown
from kogpt2_gluon.tasks.task import Row
from kogpt2_gluon.wording import counted

LONGEST_TEXT = 1 << 20  # pieces; in a longer one the empty lines are missing


def read_labelled(
    path: Path, say: Callable[[str], None], delimiter: str = "\t", gap: str = "", remark: str = ""
) -> Iterator[Row]:
    """Yields the texts of a file with their spans.

    Pieces are characters without a `gap` between them, or else words. Lines that begin with `remark` are not read: a
    piece is followed by the delimiter. DataError, which names the line, for a line that has no piece and label.
    """
    without_begin = without_text = 0
    for where, pieces, labels in _texts(path, delimiter, gap, remark):
        text = gap.join(pieces)
        if not text.strip():
            without_text += 1
            continue
        found = spans_of_labels(where, pieces, labels, gap)
        without_begin += found.without_begin
        yield Row((text,), spans=found.spans, where=where)
    if without_begin:
        say(f"{path.name}: {counted(without_begin, 'label')} I- where a span begins, which are taken as B-")
    if without_text:
        say(f"{path.name}: left out {counted(without_text, 'text')} of white space alone")


def _texts(path: Path, delimiter: str, gap: str, remark: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields where each text begins, its pieces, and their labels."""
    where = ""
    pieces: list[str] = []
    labels: list[str] = []
    for number, line in read_lines(path):
        if remark and line.startswith(remark):
            continue
        if not line.strip(delimiter):
            if pieces:
                yield where, pieces, labels
            pieces, labels = [], []
            continue
        piece, found, label = line.rpartition(delimiter)
        is_piece = " " not in piece if gap else sum(map(str.isalnum, piece)) <= 1
        if not found or not piece or not is_piece:
            what = "a word" if gap else "a character"
            raise DataError(
                f"{path}, line {number}: {shown(line)}, where {what}, {shown(delimiter)} and its label are expected; "
                "is it another task's file?"
            )
        where = where if pieces else f"{path}, line {number}"
        if len(pieces) >= LONGEST_TEXT:
            raise DataError(f"{where}: a text of more than {LONGEST_TEXT:,} lines; is the empty line after it missing?")
        pieces.append(piece)
        labels.append(label)
    if pieces:
        yield where, pieces, labels
