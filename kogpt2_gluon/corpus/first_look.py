"""The first look at a source: what its content is, judged before anything else is read, never by its name alone.

Magic numbers come first (tables, archives, documents of offices, images), then the encoding with its byte order, then
the shape of the text (JSON, tables, dumps). Compressed data is looked into. The suffix decides only where the content
says too little, as in a table of two lines.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import BinaryIO, Literal

from kogpt2_gluon.corpus.encodings import (
    AUTO,
    UNKNOWN,
    Judged,
    judge_byte_order,
    judge_encoding,
    share_of_usual,
)
from kogpt2_gluon.corpus.forms import MAGIC_NUMBERS, SENTENCEPIECE, TEXT_FORMS, ZIP_MEMBERS
from kogpt2_gluon.corpus.packing import packing_of
from kogpt2_gluon.corpus.records import BYTE_ORDER_MARK
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError

HEAD_BYTES = 1 << 16  # of the unpacked content; what is looked at first
MOST_BYTES = 1 << 20  # looked at where the first HEAD_BYTES say too little: one long line, or nothing but ASCII
PLACES = 16  # at which the rest of a large file is looked at, if it begins with ASCII alone
_ROWS = 200  # of a table
_RECORDS = 20  # lines of which most must be JSON objects
_SURE_ROWS = 5  # rows of one width that no prose has
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x80-\xff]")
_SPACE = b" \t\r\n\x0b\x0c"
_OBJECT = re.compile(rb'\{\s*(?:\}|"[^"\\]*(?:\\.[^"\\]*)*"\s*:)', re.DOTALL)
_ARRAY = re.compile(
    rb'\[\s*(?:\{\s*(?:\}|"[^"\\]*(?:\\.[^"\\]*)*"\s*:)|\[\s*["\[{\d\]-]'
    rb'|"[^"\\]*(?:\\.[^"\\]*)*"\s*(?:,|\]\s*\Z|\Z)|(?:-?\d[\d.eE+-]*|null|true|false)\s*,\s*[\d"\[{ntf-]|\]\s*\Z)',
    re.DOTALL,
)
_XML = re.compile(rb"<\?xml\b|<(?:mediawiki|rss|feed|root|corpus|TEI(?:\.2)?)\b")
_HTML = re.compile(rb"<!doctype\s+html|<html\b|<head\b|<body\b", re.IGNORECASE)
_Quoting = Literal[0, 1, 2, 3]  # as csv.QUOTE_MINIMAL and its like
_ONE_COLUMN = re.compile(r'"?\w[\w .-]{0,40}"?')  # the header of a table of one column
_TITLE = re.compile(rb"=[ \t]+(?![ \t]*=)[^\n]*?[^\s=][ \t]+=[ \t]*\r?\n")
_DOC = re.compile(rb"<doc\s+id=[\"']", re.IGNORECASE)


@dataclass(frozen=True)
class Look:
    """The result of a first look at a source.

    `form` is a name in `forms.FORMS`. `encoding` is that of a text, "" for anything else; `rival` another one in which
    it is a text as well, or "". `is_sure` is False if all that was seen is ASCII, or has a rival: then other files
    of the run decide. `line_end` is ``\\r`` in a file that has no other line ends.
    """

    form: str
    encoding: str = ""
    rival: str = ""
    is_sure: bool = False
    line_end: str = "\n"

    @property
    def is_text(self) -> bool:
        """True for text of any shape, False for binary data."""
        return self.form in TEXT_FORMS


def look(source: Source, encoding: str = AUTO) -> Look:
    """Looks at the beginning of a source, and further where it is ASCII alone.

    `encoding` is the user's word, for text. DataError if the source cannot be read, if its compressed data is damaged
    at the beginning, or if it is not a text in that encoding.
    """
    with source.open_stored() as stream:
        try:
            head = stream.read(HEAD_BYTES)
        except DataError:
            form = _binary_form(source.first_bytes(HEAD_BYTES))  # called .gz or so, and something else
            if form in ("", "packed-twice"):
                raise
            return Look(form)
        if not head:
            return Look("empty")
        if form := _binary_form(head):
            return Look(form)
        judged = judge_encoding(head)
        if judged.encoding and (head.isascii() or b"\n" not in head):
            head += stream.read(MOST_BYTES - len(head))
            judged = judge_encoding(head)
        if judged.encoding == "" and _is_shard(source, stream):
            return Look("shard")
        if encoding == AUTO and head.isascii() and judged.encoding:
            judged = _judge_further(source, stream, judged)
    if encoding != AUTO:
        judged = _as_told(source, head, encoding, judged)
    if judged.encoding in ("", UNKNOWN):
        return Look(judged.encoding or "binary")
    return _look_at_text(source, head, judged)


def _judge_further(source: Source, stream: BinaryIO, judged: Judged) -> Judged:
    """Looks at some places in the rest of a large file that begins with ASCII alone."""
    if not stream.seekable() or source.size <= MOST_BYTES:
        return judged
    for place in range(1, PLACES + 1):
        stream.seek(source.size * place // PLACES - HEAD_BYTES)
        piece = stream.read(HEAD_BYTES)
        whole_lines = piece[piece.find(b"\n") + 1 :]
        if not whole_lines.isascii():
            found = judge_encoding(whole_lines)
            return found if found.encoding else judged
    return judged


def _as_told(source: Source, head: bytes, encoding: str, judged: Judged) -> Judged:
    """Returns the user's encoding. DataError if the beginning is no usual text in it, and is one in another."""
    told = judge_byte_order(head, encoding)
    if told in ("utf-8", judged.encoding, judged.rival) or judged.encoding in ("", UNKNOWN):
        return Judged(told)
    as_told, as_judged = (share_of_usual(head.decode(each, "replace")) for each in (told, judged.encoding))
    if as_told < 0.5 or (judged.is_sure and as_told < 0.9 * as_judged):
        raise DataError(
            f"{source.name}: it looks like {judged.encoding}, and is not a text in {encoding}; say --encoding {AUTO}, "
            f"or name files of one encoding at a time"
        )
    return Judged(told)


def _look_at_text(source: Source, head: bytes, judged: Judged) -> Look:
    text = head if judged.encoding == "utf-8" else head.decode(judged.encoding, "replace").encode()
    text = text[len(BYTE_ORDER_MARK) :] if text.startswith(BYTE_ORDER_MARK) else text
    line_end = "\r" if b"\r" in text[:-1] and b"\n" not in text else "\n"
    if line_end == "\r":
        text = text.replace(b"\r", b"\n")
    whole = len(head) < HEAD_BYTES
    form = "empty" if whole and not text.strip(_SPACE) else _shape(text, whole, source.suffix)
    return Look(form, judged.encoding, judged.rival, judged.is_sure, line_end)


def _binary_form(head: bytes) -> str:
    """Returns the form that the magic numbers name, or ""."""
    if packing_of(head, ""):
        return "packed-twice"
    looks_like_data = _NOT_TEXT.search(head[:512]) is not None
    for where, magic, form in MAGIC_NUMBERS:
        if head.startswith(magic, where) and (looks_like_data or form == "pdf"):
            break
    else:
        if SENTENCEPIECE.match(head):
            return "model"
        return "tar" if _is_old_tar(head) else ""
    if form == "zip":
        return next((inner for member, inner in ZIP_MEMBERS if member in head), form)
    if form == "ole":
        return "hwp" if b"HWP Document File" in head or "FileHeader".encode("utf-16-le") in head else form
    return form


def _is_old_tar(head: bytes) -> bool:
    """Returns True for a tar archive without a magic number: its first header has a checksum."""
    digits = head[148:156].strip(b"\0 ")
    if len(head) < 512 or not re.fullmatch(rb"[0-7]{3,7}", digits):
        return False
    return sum(head[:148]) + sum(head[156:512]) + 8 * ord(" ") == int(digits, 8)


def _is_shard(source: Source, stream: BinaryIO) -> bool:
    if not stream.seekable():
        return False
    stream.seek(max(0, source.size - 8))
    return stream.read(8).startswith(b"KTOK")


def _shape(text: bytes, whole: bool, suffix: str) -> str:
    """Returns the form of a text by its beginning, in UTF-8; `whole` if that is all of it."""
    start = text.lstrip(_SPACE)
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "git-pointer"
    if start.startswith(b"{\\rtf"):
        return "rtf"
    if _OBJECT.match(start):
        return _object_or_lines(start, whole, suffix)
    if _ARRAY.match(start):
        return _array_or_lines(start)
    if _DOC.match(start):
        return "doc-files"
    if _XML.match(start):
        if b"<mediawiki" in start[:4096]:
            return "xml-dump"
        return "html" if _HTML.search(start[:512]) else "xml"
    if _HTML.match(start):
        return "html"
    if _are_records(start.split(b"\n")[: _RECORDS + 1], whole):
        return "json-lines"
    if _TITLE.match(start):
        return "wikitext"
    return _table(text, whole, suffix) or "text"


def _are_records(lines: list[bytes], whole: bool) -> bool:
    """Returns True if most of some lines are JSON objects, though perhaps not the first one."""
    lines = [line for line in (lines if whole else lines[:-1]) if line.strip()]
    records = sum(line.lstrip().startswith(b"{") and isinstance(_parsed(line), dict) for line in lines)
    return bool(lines) and 2 * records > len(lines)


def _object_or_lines(start: bytes, whole: bool, suffix: str) -> str:
    """Distinguishes JSON lines from one JSON object over many lines, or in one."""
    first, newline, rest = start.partition(b"\n")
    by_name = "json-lines" if suffix in (".jsonl", ".ndjson") else "json-object"
    if not newline and not whole:  # one line longer than all that was looked at
        return by_name
    record = _parsed(first)
    if not isinstance(record, dict):  # pretty-printed, or a damaged record
        return "json-lines" if _are_records(rest.split(b"\n")[:_RECORDS], whole) else "json-object"
    if rest.strip():
        return "json-lines"
    # One line alone: a record, or a file whose records are below a key.
    has_records = any(isinstance(value, list) and value and isinstance(value[0], dict) for value in record.values())
    return by_name if has_records else "json-lines"


def _array_or_lines(start: bytes) -> str:
    """Distinguishes a JSON array from JSON lines that are arrays, which no kind reads but which are not one array."""
    first, newline, rest = start.partition(b"\n")
    if newline and isinstance(_parsed(first), list) and _ARRAY.match(rest.lstrip(_SPACE)):
        return "json-lines"
    return "json-array"


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _table(text: bytes, whole: bool, suffix: str) -> str:
    """Returns "csv" or "tsv" if the lines are rows of one width below a header, or ""."""
    lines = text.decode("utf-8", "replace").split("\n", _ROWS + 1)[: _ROWS + 1]
    if not whole and lines:
        lines.pop()  # cut off
    spellings: list[tuple[str, str, _Quoting]] = [
        ("tsv", "\t", csv.QUOTE_NONE),
        ("tsv", "\t", csv.QUOTE_MINIMAL),
        ("csv", ",", csv.QUOTE_MINIMAL),
    ]
    if suffix == ".csv":
        spellings += [("csv", delimiter, csv.QUOTE_MINIMAL) for delimiter in (";", "|", "\t")]
    for form, delimiter, quoting in spellings:
        if not lines or not any(delimiter in line for line in lines[:_SURE_ROWS]):
            continue
        if form == "csv" and suffix != ".csv" and ", " in lines[0]:  # prose has a space after its commas
            continue
        rows = _rows(lines, delimiter, quoting)
        if rows and _is_table(rows, named=suffix == f".{form}"):
            return form
        if delimiter == "\t" and len(rows) >= _SURE_ROWS and _is_columns(rows):
            return form
    if suffix in (".csv", ".tsv") and len(lines) > 1 and _ONE_COLUMN.fullmatch(lines[0].strip()):
        return suffix[1:]
    return ""


def _rows(lines: list[str], delimiter: str, quoting: _Quoting) -> list[list[str]]:
    """Returns the rows up to the first that is none, perhaps because its quotes go on after the last line."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=delimiter != "\t"):
            if row:
                rows.append(row)
    except csv.Error:
        pass
    return rows


def _is_columns(rows: list[list[str]]) -> bool:
    """Returns True if most rows have as many cells, two or more of them with text: prose has no tabs inside."""
    widths = Counter(sum(1 for cell in row if cell.strip()) and len(row) for row in rows)
    width, count = widths.most_common(1)[0]
    filled = sum(len(row) == width and sum(bool(cell.strip()) for cell in row) > 1 for row in rows)
    return width > 1 and count >= 0.7 * len(rows) and filled >= 0.6 * len(rows)


def _is_table(rows: list[list[str]], named: bool) -> bool:
    """Returns True if rows are as wide as the first, which has short and different cells without a sentence's end.

    A file that is named as a table may have damaged rows near its beginning: half of those seen must be as wide.
    """
    header = [cell for cell in map(str.strip, rows[0]) if cell]  # pandas leaves that of its index empty
    if len(header) < 2 or (len(rows) < _SURE_ROWS and not named):
        return False
    as_wide = sum(len(row) == len(rows[0]) for row in rows)
    is_header = len(set(header)) == len(header) and all(
        len(cell) <= 40 and not cell.endswith((".", "?", "!", "다")) for cell in header
    )
    return as_wide >= (0.5 if named else 0.9) * len(rows) and is_header
