"""Lines of a text file that somebody downloaded: what is wrong with it is said before a row is made of it.

Only a line feed ends a line: PAWS-X has U+001C inside a sentence, which ``str.splitlines`` takes for an end.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path

from kogpt2_gluon.corpus.first_look import look
from kogpt2_gluon.corpus.forms import BINARY_FORMS, FORMS
from kogpt2_gluon.corpus.sources import Source, local_source
from kogpt2_gluon.errors import DataError

LONGEST_LINE = 1 << 20  # bytes; a longer one is no row of text, and is not read into memory
BYTE_ORDER_MARK = "\ufeff"
_NOT_A_TABLE = ("html", "git-pointer", "rtf")  # texts of which no task's file is made
_WAY_OUT = {
    "html": "it is a web page, perhaps of an error; fetch the file itself (on GitHub: its Raw button)",
    "git-pointer": "fetch the file itself: git lfs pull",
}


def checked_source(path: Path) -> Source:
    """Returns the file as a source of UTF-8 text. DataError if it is not one, with what it is and the way out."""
    source = local_source(path)
    if path.is_dir():
        raise DataError(f"{path}: a folder, where a file is expected")
    seen = look(source)
    if seen.form == "empty":
        raise DataError(f"{path}: is empty")
    if seen.form in BINARY_FORMS or seen.form in _NOT_A_TABLE:
        way = _WAY_OUT.get(seen.form, "a text in UTF-8 is expected")
        raise DataError(f"{path}: {FORMS[seen.form].what}; {way}")
    if seen.encoding != "utf-8":
        raise DataError(f"{path}: is {seen.encoding.upper()}, not UTF-8; first: {_recode(path, seen.encoding)}")
    return dataclasses.replace(source, line_end=seen.line_end)


def _recode(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t utf-8 {shlex.quote(str(path))} > NEW"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number of each line, from 1, and its text without its end (LF, CRLF or CR) and byte-order mark.

    DataError, which names the line, if it is not UTF-8 (half of a surrogate pair is not), has a zero byte, or is
    longer than LONGEST_LINE; and for what is not a text at all. Memory is one line.
    """
    with checked_source(path).open() as stream:
        number = 0
        while raw := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(raw) > LONGEST_LINE:
                raise DataError(f"{path}, line {number}: above {LONGEST_LINE >> 20} MiB, so it is not a row of text")
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                bad = raw[error.start : error.start + 3].hex(" ")
                raise DataError(f"{path}, line {number}: not UTF-8 (bytes {bad}); it is damaged there") from None
            if "\0" in text:
                raise DataError(f"{path}, line {number}: has a zero byte; it is damaged there")
            text = text[:-1] if text.endswith("\n") else text
            text = text[:-1] if text.endswith("\r") else text
            yield number, text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


def shown(text: str, most: int = 60) -> str:
    """Returns the beginning of a text for a message, quoted."""
    return repr(text if len(text) <= most else f"{text[:most]}...")
