"""The encoding of a text file, judged from its bytes, and a stream that gives any text as UTF-8.

Korean files come as UTF-8, as CP949 (Windows; EUC-KR is a part of it) and as UTF-16, the last two often without any
mark. A text that is valid UTF-8 and has characters beyond ASCII is nearly certainly UTF-8. Bytes that are not are
compared with what CP949 and the two byte orders of UTF-16 would make of them: only the right one gives Hangul.
"""

from __future__ import annotations

import codecs
import functools
import io
import re
from typing import Any, BinaryIO, NamedTuple

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\x1b$)C", "iso2022_kr"),  # of old mail
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# The words for `--encoding`, besides AUTO; they are those of Python's codecs.
ENCODINGS = ("utf-8", "cp949", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "johab")
AUTO = "auto"
UNKNOWN = "unknown"
_RECODED_SIZE = 1 << 18  # bytes of the source recoded at a time
_NO_CHARACTER = "kogpt2-no-character"  # the name of `_mark_byte` among Python's error handlers
_SHORT = 4096  # bytes; a longer text is not valid UTF-8 by chance
_LOOKED_AT = 200  # lines of a file that is not UTF-8
_LEAST = 10  # lines; fewer that are not UTF-8 are damage, and are counted where they are read
_SYLLABLE = re.compile("[가-힣ㅋㅎㅠㅜ]")  # with laughter and tears
# Some of the most frequent syllables: about half of a text. Of Chinese that is read as CP949 they are some percent.
_FREQUENT = re.compile(
    "[이다는에을가의고하지한나도로서아은인를기사자리시그어대일라해들부정보있수게상여과전주원장구성제스국만]"
)
_MANY = 100  # syllables, among which the frequent ones must be
_NOT_ASCII = re.compile("[^\x00-\x7f]+")
_SPACES = re.compile("[ \t\r\n]")
_CONTROLS = bytes([*range(0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F])


class Judged(NamedTuple):
    """The encoding that the bytes of a file speak for.

    `encoding` is "" for bytes that are not a text, and UNKNOWN for a text in an encoding that is not known here.
    `rival` is another one in which the bytes are a text as well, or "". `is_sure` is False then, and if all bytes are
    ASCII: they say nothing about the rest of the file.
    """

    encoding: str
    rival: str = ""
    is_sure: bool = True


def judge_encoding(sample: bytes) -> Judged:
    """Returns the encoding that the beginning of a file is in; `sample` may end amid a character."""
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return Judged(encoding)
    if b"\0" in sample and (wide := _wide_encoding(sample)):
        return Judged(wide)
    if _is_data(sample):
        return Judged("", is_sure=False)
    if sample.isascii():
        return Judged("utf-8", is_sure=False)
    if _is_utf8(sample):
        return _judge_utf8(sample)
    lines = [line for line in re.split(rb"[\r\n]+", sample) if line.strip()]
    beyond_ascii = [line for line in lines if not line.isascii()]
    # Of many lines, some from everywhere.
    beyond_ascii = beyond_ascii[:: -(-len(beyond_ascii) // _LOOKED_AT)]
    bad = [line for line in beyond_ascii if not _is_utf8(line)]
    good = len(beyond_ascii) - len(bad)
    for encoding in ("cp949", "johab"):
        if len(bad) > good and _is_hangul(bad, encoding):
            return Judged(encoding)
    valid, invalid = _utf8_counts(sample)
    if valid >= 4 * invalid or good >= len(bad):
        return Judged("utf-8")
    few_are_bad = len(bad) < _LEAST or (len(bad) < 2 * _LEAST and 2 * len(bad) <= len(lines))
    return Judged("utf-8" if few_are_bad else UNKNOWN, is_sure=False)


def _judge_utf8(sample: bytes) -> Judged:
    """Judges a sample that is valid UTF-8, perhaps by chance: CP949 syllables can be Latin letters in it."""
    text = sample.decode("utf-8", "ignore")
    by_chance = len(sample) < _SHORT and not _SYLLABLE.search(text) and _is_hangul(sample.splitlines(), "cp949")
    if by_chance:
        return Judged("utf-8", "cp949", is_sure=False)
    return Judged("utf-8")


def _is_data(sample: bytes) -> bool:
    """Returns True if the bytes are not a text in any encoding: a few control characters are dirt, many are data."""
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return controls > len(sample) // 20 or sample.count(0) > max(1, len(sample) // 100)


@functools.cache
def _syllables() -> str:
    """Returns the 2,350 syllables of KS X 1001. Nearly all that is written uses them; the other 8,822 suggest data."""
    pairs = (bytes((lead, trail)) for lead in range(0xB0, 0xC9) for trail in range(0xA1, 0xFF))
    return b"".join(pairs).decode("euc_kr")


@functools.cache
def _common() -> re.Pattern[str]:
    return re.compile(f"[{_syllables()}ㅋㅎㅠㅜ]+")


@functools.cache
def _usual() -> re.Pattern[str]:
    return re.compile(f"[\t\n\r\f -~{_syllables()}ㄱ-ㆎ、-】！-～·…‘-”]+")


def _count(pattern: re.Pattern[str], text: str) -> int:
    """Returns how many characters are in the runs that a pattern finds."""
    return sum(map(len, pattern.findall(text)))


def share_of_usual(text: str) -> float:
    """Returns the share of characters that Korean text usually has: common syllables, ASCII, punctuation."""
    return _count(_usual(), text) / len(text) if text else 1.0


def judge_byte_order(sample: bytes, encoding: str) -> str:
    """Returns which utf-16 (or utf-32) a sample is in, for `encoding` ``utf-16`` or ``utf-32``; others as they are."""
    if encoding not in ("utf-16", "utf-32"):
        return encoding
    judged = judge_encoding(sample).encoding
    return judged if judged.startswith(encoding) else f"{encoding}-le"


def _utf8_counts(sample: bytes) -> tuple[int, int]:
    """Returns how many characters beyond ASCII are valid UTF-8 in a sample, and how many places are not."""
    text = sample.decode("utf-8", "replace")
    invalid = text.count("\ufffd")
    return len(text) - len(text.encode("ascii", "ignore")) - invalid, invalid


def _is_utf8(line: bytes) -> bool:
    try:
        codecs.utf_8_decode(line)  # the last one may be cut off
    except UnicodeDecodeError:
        return False
    return True


def _is_hangul(lines: list[bytes], encoding: str) -> bool:
    """Returns True if nearly all lines are strict `encoding` and mostly Hangul then: others decode by chance."""
    texts = []
    decoder = codecs.getincrementaldecoder(encoding)
    for line in lines:
        try:
            texts.append(decoder().decode(line))  # as above
        except UnicodeDecodeError:
            continue
    text = "".join(texts)
    hangul, common = len(_SYLLABLE.findall(text)), _count(_common(), text)
    is_usual = common >= 0.9 * hangul and hangul > 0.5 * _count(_NOT_ASCII, text)
    is_usual = is_usual and (hangul < _MANY or len(_FREQUENT.findall(text)) > 0.15 * hangul)
    return bool(lines) and len(texts) >= 0.9 * len(lines) and is_usual


def _wide_encoding(sample: bytes) -> str:
    """Returns the encoding of two or four bytes a character in which a sample is a text, or "".

    That is a text as it is usual in Korean, or else one in another language: printable, with spaces or line ends.
    """
    texts = {}
    for encoding in _WIDE:
        size = 2 if "16" in encoding else 4
        texts[encoding] = sample[: len(sample) // size * size].decode(encoding, "replace")
    usual = {encoding: share_of_usual(text) if text else 0.0 for encoding, text in texts.items()}
    best = max(usual, key=lambda encoding: usual[encoding])
    if usual[best] > 0.7 and all(share < 0.8 * usual[best] for encoding, share in usual.items() if encoding != best):
        return best
    foreign = [encoding for encoding, text in texts.items() if _is_printable(text)]
    return foreign[0] if len(foreign) == 1 else ""


def _is_printable(text: str) -> bool:
    spaces = len(_SPACES.findall(text))
    return spaces > len(text) // 100 and sum(map(str.isprintable, text)) + spaces >= 0.98 * len(text)


def _mark_byte(error: UnicodeError) -> tuple[str, int]:
    """Replaces bytes that are not a character in the source's encoding by one byte that is never UTF-8."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error(_NO_CHARACTER, _mark_byte)


class Recoded(io.RawIOBase):
    """A text stream in any encoding as UTF-8, with ``\\n`` for each line end if `line_end` is ``\\r``.

    Bytes that are not a character become the byte 0xFF, so that their line counts as not decodable, just as in a file
    of UTF-8. Memory is a piece of _RECODED_SIZE.
    """

    def __init__(self, stream: BinaryIO, encoding: str, line_end: str = "\n") -> None:
        self._stream = stream
        decoder: Any = codecs.getincrementaldecoder(encoding)(_NO_CHARACTER)
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True) if line_end == "\r" else decoder
        self._plain = memoryview(b"")  # recoded, not yet asked for
        self._at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain and not self._at_end:
            data = self._stream.read(_RECODED_SIZE)
            self._at_end = not data
            text: str = self._decoder.decode(data, self._at_end)
            self._plain = memoryview(text.encode("utf-8", "surrogateescape"))
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
