"""The encoding of a text file, judged from its bytes, and a stream that gives any text as UTF-8.

Korean files come as UTF-8, as CP949 (Windows; EUC-KR is a part of it) and as UTF-16, the last two often without any
mark. A text that is valid UTF-8 and has characters beyond ASCII is nearly certainly UTF-8. Bytes that are not are
compared with what CP949 and the two byte orders of UTF-16 would make of them: only the right one gives Hangul.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_ENOUGH = 4  # syllables of Hangul that no other encoding gives by chance
_HANGUL = re.compile("[가-힣ㄱ-ㆎ]")
_NOT_ASCII = re.compile("[^\x00-\x7f]")
_USUAL = re.compile("[\t\n\r\f -~가-힣ㄱ-ㆎ、-】！-～·…‘-”]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


class Judged(NamedTuple):
    """The encoding that the bytes of a file speak for.

    `encoding` is "" for bytes that are not a text. `rival` is another encoding that gives a text as well, or "".
    `is_sure` is False if all bytes are ASCII, which says nothing about the rest of the file.
    """

    encoding: str
    rival: str = ""
    is_sure: bool = True


def judge_encoding(sample: bytes) -> Judged:
    """Returns the encoding that the beginning of a file is in; `sample` may end amid a character."""
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return Judged(encoding)
    if b"\0" in sample:
        wide = _wide_encoding(sample)
        if wide:
            return Judged(wide)
    bad, good = _undecodable_lines(sample)
    if not bad:
        return _judge_utf8(sample, good)
    if _is_cp949(bad) and len(bad) > len(good):
        hangul = len(_HANGUL.findall(b"\n".join(bad).decode("cp949", "ignore")))
        return Judged("cp949", "" if hangul >= _ENOUGH else "utf-8")
    if good and len(good) >= len(bad):
        return Judged("utf-8")
    if wide := _wide_encoding(sample):
        return Judged(wide)
    controls = len(_CONTROL.findall(sample))
    return Judged("", is_sure=False) if controls > len(sample) // 200 else Judged("unknown", is_sure=False)


def _judge_utf8(sample: bytes, good: list[bytes]) -> Judged:
    """Judges a sample that is valid UTF-8, perhaps by chance: CP949 syllables can be pairs of Latin letters in it."""
    if not good:
        # A few control characters are dirt in a text; many of them are data.
        is_text = len(_CONTROL.findall(sample)) <= len(sample) // 20
        return Judged("utf-8" if is_text else "", is_sure=False)
    joined = b"\n".join(good)
    if not _HANGUL.search(joined.decode("utf-8", "ignore")) and len(joined) < 4096 and _is_cp949(good):
        return Judged("utf-8", "cp949", is_sure=False)
    return Judged("utf-8")


def _undecodable_lines(sample: bytes) -> tuple[list[bytes], list[bytes]]:
    """Returns (lines that are not UTF-8, lines that are and have characters beyond ASCII)."""
    bad: list[bytes] = []
    good: list[bytes] = []
    if sample.isascii():
        return bad, good
    lines = re.split(rb"[\r\n]+", sample)
    for number, line in enumerate(lines):
        if line.isascii():
            continue
        try:
            codecs.getincrementaldecoder("utf-8")().decode(line, final=number < len(lines) - 1)
        except UnicodeDecodeError:
            bad.append(line)
        else:
            good.append(line)
    return bad, good


def _is_cp949(lines: list[bytes]) -> bool:
    """Returns True if nearly all lines are strict CP949 and mostly Hangul then: other encodings decode by chance."""
    texts = []
    for line in lines:
        try:
            texts.append(codecs.getincrementaldecoder("cp949")().decode(line, final=False))
        except UnicodeDecodeError:
            continue
    text = "".join(texts)
    return len(texts) >= 0.9 * len(lines) and len(_HANGUL.findall(text)) > 0.5 * len(_NOT_ASCII.findall(text))


def _wide_encoding(sample: bytes) -> str:
    """Returns the encoding of two or four bytes a character that makes a usual text of the sample, or ""."""
    found = {}
    for encoding in _WIDE:
        size = 2 if "16" in encoding else 4
        text = sample[: len(sample) // size * size].decode(encoding, "replace")
        found[encoding] = len(_USUAL.findall(text)) / len(text) if text else 0.0
    best = max(found, key=lambda encoding: found[encoding])
    others = max(share for encoding, share in found.items() if encoding != best)
    return best if found[best] > 0.7 and others < 0.8 * found[best] else ""
