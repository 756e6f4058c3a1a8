"""Normalisation of every line, whichever filters are on: one Unicode form, plain white space, nothing invisible."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata

NORMALISATION = "NFC; white space collapsed; control, zero-width and other invisible characters removed"
FORMS = ("NFC", "NFKC")
LONGEST_MARKS = 30  # combining marks in a row, as in Unicode's stream-safe text (UAX 15, section 13)

# White space in the sense of str.isspace, except the space; and blanks that Unicode calls letters or symbols: the
# Hangul fillers, with which Korean sites write "nothing", and the empty Braille cell.
_SPACES = "\t-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\u3164\uffa0\u2800"
_REMOVED = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # controls that are not white space
    "\xad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc"  # format characters
    "\ud800-\udfff"  # halves of a pair: not in UTF-8, but JSON escapes bring them
    "\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))  # not characters
)
# In an emoji a joiner, a variation selector or a tag is part of the sign (a family, a red heart, the flag of Wales);
# anywhere else it is invisible litter.
_EMOJI = "\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff" + (
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_BASE = f"[{_EMOJI}\xa9\xae0-9#*]"  # what a variation selector can turn into an emoji
_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"
# Each alternative begins with the sign itself and looks back from after it, so that a search runs from sign to sign.
_JUNK = (
    f"[{_REMOVED}]"
    f"|[\ufe0e\ufe0f](?<!{_BASE}[\ufe0e\ufe0f])"
    f"|\u200d(?:(?<![{_EMOJI}]\u200d)(?<![{_EMOJI}]\ufe0f\u200d)|(?![{_EMOJI}]))"
    "|[\U000e0001\U000e0020-\U000e007f]"
)
# Characters that make a line worth a closer look, whatever its Unicode form.
SUSPECT = f"[{_SPACES}{_REMOVED}\ufe0e\ufe0f\u200d\U000e0000-\U000e007f]"
_FIND_SPACE = re.compile(f"[ {_SPACES}]+")
_FIND_JUNK = re.compile(f"({_FLAG})|{_JUNK}")
# One scan that passes nearly every line of ordinary text; what it finds may still turn out to be in order.
_SUSPECT_LINE = re.compile(f"{SUSPECT}|  |^ | $")

# NFKC turns the jamo that people type one by one (ㅋㅋ, ㅠㅠ) into the parts of decomposed syllables, which then merge
# with each other. They stay as they are, alone or in a circle; their half-width forms become them.
KEPT_JAMO = "\u3131-\u318e\u3200-\u320d\u3260-\u326d"
_FIND_JAMO = re.compile(f"([{KEPT_JAMO}]+)")
_WIDE_JAMO = {
    half: int(unicodedata.decomposition(chr(half)).split()[1], 16)
    for half in range(0xFFA0, 0xFFDD)
    if unicodedata.decomposition(chr(half))
}
# All characters except those of blocks that most text consists of and that have no combining marks: only a long run of
# these may be marks. Testing for the set of the marks themselves is slow.
_MAYBE_MARKS = re.compile(
    f"[^\x00-\u02ff\u2000-\u20cf\u2100-\u2cee\u3000-\u3029\u3030-\u3098\u309b-\u9fff\uac00-\ud7ff\U0001f000-\U0001ffff]"
    f"{{{LONGEST_MARKS + 1}}}"
)
_is_normalized = unicodedata.is_normalized


def normalize_line(line: str, form: str = "NFC") -> str:
    """Returns the line as the corpus has it; a second call changes nothing.

    NFC, so that decomposed Hangul (macOS file names, some PDFs) becomes the same syllables as everyone's. Any run of
    white space, a tab and a no-break space included, is one space; none is left at the ends. Removed: control
    characters, zero-width and direction marks, soft hyphens, byte order marks, code points that are not characters, and
    joiners, variation selectors and tags outside emoji. Compatibility forms (ａ, ㎏, ㈜), private-use characters and
    U+FFFD stay: folding them is the tokenizer's choice, and not every profile makes it. With `form` ``NFKC`` they
    fold as well (a, kg, (주)), except for single jamo such as ㅋ, which stay. In a line of more than 512 characters
    a run of combining marks ends after 30: sorting a longer one takes time that grows as its square.
    """
    if form == "NFC" and len(line) <= 512 and _SUSPECT_LINE.search(line) is None and _is_normalized("NFC", line):
        return line
    line = _to_form(line, form)
    line = _FIND_JUNK.sub(r"\1", line)
    line = _FIND_SPACE.sub(" ", line).strip(" ")
    return _to_form(line, form)  # what was between two jamo may be gone


def _to_form(line: str, form: str) -> str:
    if len(line) > 512 and _MAYBE_MARKS.search(line):
        line = _long_marks().sub(r"\1", line)
    if form == "NFKC":
        parts = _FIND_JAMO.split(line.translate(_WIDE_JAMO))
        parts[::2] = [unicodedata.normalize("NFKC", part) for part in parts[::2]]
        line = "".join(parts)
    return unicodedata.normalize("NFC", line)


@functools.lru_cache(maxsize=1)
def _long_marks() -> re.Pattern[str]:
    marks = "".join(char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(char))
    return re.compile(f"([{marks}]{{{LONGEST_MARKS}}})[{marks}]+")
