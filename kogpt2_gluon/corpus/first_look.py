"""A look at the first records of a source: a wrong encoding or FIELD is told before hours of reading, not after them.

A few records that cannot be read are dropped and counted, as anywhere in a source. Only a source that begins with
hardly anything readable is refused.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator

from kogpt2_gluon.corpus.documents import BYTE_ORDER_MARK, FORMAT_SUFFIXES, Block
from kogpt2_gluon.errors import DataError

RECORDS = 1000  # that are looked at
LEAST = 10  # fewer prove nothing
FIELDS_SHOWN = 12
_HANGUL = re.compile("[가-힣]")
_NOT_ASCII = re.compile("[^\x00-\x7f]")


def check_opening(block: Block, documents: str) -> None:
    """Raises DataError if the first block of a source is not UTF-8, or has no text under the FIELD.

    `documents` is what it was for `read_blocks`; the readers of dumps look for themselves.
    """
    if documents in FORMAT_SUFFIXES or block.offset:
        return
    lines = list(_first_lines(block.data))
    _check_encoding(block, lines)
    if documents not in ("line", "blank-line"):
        _check_field(block.source, lines, documents.removeprefix("field:"))


def _first_lines(data: bytes) -> Iterator[bytes]:
    """Up to RECORDS lines that are not blank."""
    begin, count = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0, 0
    while begin < len(data) and count < RECORDS:
        end = data.find(b"\n", begin)
        end = len(data) if end < 0 else end
        line = data[begin:end].strip()
        if line:
            count += 1
            yield line
        begin = end + 1


def _check_encoding(block: Block, lines: list[bytes]) -> None:
    data = block.data[: 1 << 16]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data.count(0) > max(8, len(data) / 10):
        raise DataError(f"{block.source}: looks like UTF-16, not UTF-8: iconv -f utf-16 -t utf-8 OLD > NEW")
    bad = [line for line in lines if not _decodes(line, "utf-8")]
    if len(bad) < LEAST or len(bad) * 2 <= len(lines):
        return
    found = f"{block.source}: not UTF-8 in {len(bad):,} of its first {len(lines):,} lines"
    if _is_cp949(bad):
        raise DataError(f"{found}; looks like CP949: iconv -f cp949 -t utf-8 OLD > NEW")
    raise DataError(f"{found}; convert it first: iconv -f ITS_ENCODING -t utf-8 OLD > NEW")


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_cp949(lines: list[bytes]) -> bool:
    """Whether nearly all of the lines are strict CP949, and Hangul then: other encodings decode by chance."""
    texts = [line.decode("cp949") for line in lines if _decodes(line, "cp949")]
    text = "".join(texts)
    return len(texts) >= 0.9 * len(lines) and len(_HANGUL.findall(text)) > 0.5 * len(_NOT_ASCII.findall(text))


def _check_field(source: str, lines: list[bytes], field: str) -> None:
    """Refuses records none of which has text under the field; with fewer than LEAST, only what begins an array."""
    fields: Counter[str] = Counter()
    texts: set[str] = set()
    for line in lines:
        if line.startswith(b"["):  # no record, and perhaps an array of gigabytes in one line
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            if isinstance(record.get(field), str):
                return
            fields.update(record.keys())
            texts.update(name for name, value in record.items() if isinstance(value, str))
    if lines and lines[0].startswith(b"["):
        raise DataError(f"{source}: a JSON array, not JSON lines; make them: jq -c '.[]' OLD.json > NEW.jsonl")
    if len(lines) < LEAST:
        return
    head = f"{source}: no text under {field!r} in its first {len(lines):,} records"
    if not fields:
        raise DataError(f"{head}, which are no JSON objects, one a line")
    shown = ", ".join(name for name, _ in fields.most_common(FIELDS_SHOWN))
    close = difflib.get_close_matches(field, texts, 1) or sorted(texts & {"text", "content", "body"}, reverse=True)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise DataError(f"{head}; their fields: {shown}{hint}")
