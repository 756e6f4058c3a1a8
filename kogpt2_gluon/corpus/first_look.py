"""The first look at a source: what its content is, judged before anything else is read, never by its name alone.

Magic numbers come first (tables, archives, documents of offices, images), then the encoding with its byte order, then
the shape of the text (JSON, tables, dumps). Compressed data is looked into. The suffix decides only where the content
says too little, as in a table of two lines.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from typing import BinaryIO

from kogpt2_gluon.corpus.encodings import judge_encoding
from kogpt2_gluon.corpus.forms import MAGIC_NUMBERS, SENTENCEPIECE, TEXT_FORMS, ZIP_MEMBERS
from kogpt2_gluon.corpus.records import BYTE_ORDER_MARK
from kogpt2_gluon.corpus.sources import Source

HEAD_BYTES = 1 << 16  # of the unpacked content; what is looked at first
MOST_BYTES = 1 << 20  # looked at where the first HEAD_BYTES say too little: one long line, or nothing but ASCII
_ROWS = 200  # of a table
_SURE_ROWS = 5  # rows of one width that no prose has
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x80-\xff]")
_SPACE = b" \t\r\n\x0b\x0c"
_OBJECT = re.compile(rb'\{\s*(?:\}|"(?:[^"\\]|\\.)*"\s*:)', re.DOTALL)
_ARRAY = re.compile(
    rb'\[\s*(?:\{\s*(?:\}|"(?:[^"\\]|\\.)*"\s*:)|\[\s*["\[{\d\]-]'
    rb'|"(?:[^"\\]|\\.)*"\s*(?:,|\]\s*\Z|\Z)|(?:-?\d[\d.eE+-]*|null|true|false)\s*,\s*[\d"\[{ntf-]|\]\s*\Z)',
    re.DOTALL,
)
_XML = re.compile(rb"<\?xml\b|<(?:mediawiki|rss|feed|root|corpus|TEI(?:\.2)?)\b")
_HTML = re.compile(rb"<!doctype\s+html|<html\b|<head\b|<body\b", re.IGNORECASE)
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


def look(source: Source) -> Look:
    """Looks at the beginning of a source. DataError if it cannot be read, or its compressed data is damaged there."""
    with source.open() as stream:
        head = stream.read(HEAD_BYTES)
        if not head:
            return Look("empty")
        form = _binary_form(head)
        if form:
            return Look(form)
        judged = judge_encoding(head)
        if (judged.encoding and not judged.is_sure) or b"\n" not in head:
            head += stream.read(MOST_BYTES - len(head))
            judged = judge_encoding(head)
        if not judged.encoding or judged.encoding == "unknown":
            return Look("shard" if _is_shard(source, stream) else judged.encoding or "binary")
    text = head
    if judged.encoding != "utf-8":
        text = head.decode(judged.encoding, "replace").encode()
    text = text[len(BYTE_ORDER_MARK) :] if text.startswith(BYTE_ORDER_MARK) else text
    line_end = "\r" if b"\r" in text[:-1] and b"\n" not in text else "\n"
    if line_end == "\r":
        text = text.replace(b"\r", b"\n")
    whole = len(head) < HEAD_BYTES
    return Look(_shape(text, whole, source.suffix), judged.encoding, judged.rival, judged.is_sure, line_end)


def _binary_form(head: bytes) -> str:
    """Returns the form that the magic numbers name, or ""."""
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
        return _array_or_lines(start, whole)
    if _DOC.match(start):
        return "doc-files"
    if _XML.match(start):
        if b"<mediawiki" in start[:4096]:
            return "xml-dump"
        return "html" if _HTML.search(start[:512]) else "xml"
    if _HTML.match(start):
        return "html"
    return _table(text, whole, suffix) or "text"


def _object_or_lines(start: bytes, whole: bool, suffix: str) -> str:
    """Distinguishes JSON lines from one JSON object over many lines, or in one."""
    first, newline, rest = start.partition(b"\n")
    if not newline and not whole:  # one line longer than all that was looked at
        return "json-lines" if suffix in (".jsonl", ".ndjson") else "json-object"
    record = _parsed(first)
    if not isinstance(record, dict):
        # A record that is damaged, followed by whole ones, is still a line.
        following = [line for line in rest.split(b"\n")[:20] if line.strip()]
        is_lines = any(isinstance(_parsed(line), dict) for line in following[:-1])
        return "json-lines" if is_lines else "json-object"
    if rest.strip() or suffix in (".jsonl", ".ndjson"):
        return "json-lines"
    # One line alone: a record, or a file whose records are below a key.
    has_records = any(isinstance(value, list) and value and isinstance(value[0], dict) for value in record.values())
    return "json-object" if has_records else "json-lines"


def _array_or_lines(start: bytes, whole: bool) -> str:
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
    lines = text.decode("utf-8", "replace").splitlines()[: _ROWS + 1]
    if not whole and lines:
        lines.pop()  # cut off
    for form, delimiter in (("tsv", "\t"), ("csv", ",")):
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter, strict=form == "csv") if row]
        except csv.Error:
            continue
        named = suffix == f".{form}"
        if rows and _is_table(rows, 1 if named else _SURE_ROWS):
            return form
    return ""


def _is_table(rows: list[list[str]], fewest: int) -> bool:
    """Returns True if rows are as wide as the first, which has short and different cells without a sentence's end."""
    header = [cell.strip() for cell in rows[0]]
    if len(header) < 2 or len(rows) < fewest:
        return False
    as_wide = sum(len(row) == len(header) for row in rows)
    is_header = (
        all(header)
        and len(set(header)) == len(header)
        and all(len(cell) <= 40 and not cell.endswith((".", "?", "!", "다")) for cell in header)
    )
    return as_wide >= 0.9 * len(rows) and is_header
