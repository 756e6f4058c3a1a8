"""JSON that somebody downloaded: an array of objects in one file, or an object a line.

A key that an object has twice is refused: Python takes the last one, others the first, so which one counts is nobody's
choice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.text_lines import checked_source, read_lines, shown

MOST_BYTES = 256 << 20  # of an array, which is read as a whole; KLUE's largest has 11 MB
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: JSON can spell it, UTF-8 cannot


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where each object is, and the object; DataError, with the line, for a line that is not one."""
    for number, text in read_lines(path):
        if text.strip():
            where = f"{path}, line {number}"
            yield where, object_of(where, text)


def object_of(where: str, text: str) -> dict[str, Any]:
    """Returns the JSON object that a line is; DataError if it is not one."""
    return _as_object(where, _parsed(where, text))


def read_json_array(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields which row of the array each object is, from 1, and the object. DataError if it is not such an array."""
    for number, row in enumerate(_read_array(path), 1):
        where = f"{path}, row {number}"
        yield where, _as_object(where, row)


def read_json_arrays(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields which row of the array each array of objects is, from 1, and its objects. DataError if one is not."""
    for number, row in enumerate(_read_array(path), 1):
        where = f"{path}, row {number}"
        if not isinstance(row, list):
            raise DataError(f"{where}: a {_kind(row)}, where an array of objects is expected")
        yield where, [_as_object(where, each) for each in row]


def _read_array(path: Path) -> list[Any]:
    with checked_source(path).open() as stream:
        raw = stream.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise DataError(f"{path}: above {MOST_BYTES >> 20} MiB, which no array of a task's rows is")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8; it is damaged there") from None
    rows = _parsed(str(path), text)
    if not isinstance(rows, list):
        raise DataError(f"{path}: a {_kind(rows)}, where an array is expected")
    return rows


def text_of(where: str, record: dict[str, Any], key: str) -> str:
    """Returns a text of a record; DataError if there is none, or it cannot be written as UTF-8."""
    value = record.get(key)
    if not isinstance(value, str):
        found = "is missing" if key not in record else f"is a {_kind(value)}, where a text is expected"
        raise DataError(f"{where}: {key} {found}")
    check_text(where, value)
    return value


def check_text(where: str, text: str) -> None:
    """Raises DataError for a text with half of a surrogate pair or a zero byte."""
    if not text.isascii() and _HALF.search(text):
        raise DataError(f"{where}: half of a surrogate pair in {shown(text)}, which is not a character")
    if "\0" in text:
        raise DataError(f"{where}: a zero byte in {shown(text)}; it is damaged there")


def number_of(where: str, record: dict[str, Any], key: str) -> float:
    """Returns a number of a record; DataError if there is none."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        found = "is missing" if key not in record else f"is a {_kind(value)}, where a number is expected"
        raise DataError(f"{where}: {key} {found}")
    try:
        return float(value)
    except OverflowError:
        raise DataError(f"{where}: {key} is a number of too many digits") from None


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=partial(_with_each_key_once, where))
    except json.JSONDecodeError as error:
        line = "" if "\n" not in text else f", line {error.lineno}"
        raise DataError(f"{where}{line}: not JSON ({error.msg}): {shown(text[error.pos :], 40)}") from None
    except RecursionError:
        raise DataError(f"{where}: JSON that is nested too deeply") from None
    except ValueError as error:  # a number of too many digits, NaN
        raise DataError(f"{where}: not JSON ({str(error).split(';')[0]})") from None


def _with_each_key_once(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = Counter(key for key, _ in pairs)
        key = next(key for key, times in keys.items() if times > 1)
        one, other = [value for name, value in pairs if name == key][:2]
        values = shown(f"{json.dumps(one, ensure_ascii=False)}, {json.dumps(other, ensure_ascii=False)}")
        raise DataError(f"{where}: the key {shown(key)} twice in an object, with the values {values}")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not a number in JSON")


def _as_object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a {_kind(value)}, where an object is expected")
    return value


def _kind(value: Any) -> str:
    names = {dict: "JSON object", list: "JSON array", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")
