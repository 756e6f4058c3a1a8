"""Classes of characters: one table of bits by code point, with which NumPy classifies a whole batch at a time."""

from __future__ import annotations

import functools
import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.corpus.cleaning.normalize import KEPT_JAMO, SUSPECT

HANGUL = 1  # syllables, and jamo of every kind
LATIN = 2
DIGIT = 4  # 0-9 and their full-width forms
HANJA = 8
KANA = 16
LETTER = 32  # other scripts, and combining marks
PUNCTUATION = 64
# ASCII's, those of KS X 1001, which Korean text had before Unicode (★ ♥ → ㎏ ①), and all raised and lowered digits, of
# which it has a few (H₂O, but not C₆H₁₂O₆).
SYMBOL = 128
RARE_SYMBOL = 256  # all other symbols
EMOJI = 512  # pictures outside KS X 1001, with what joins and colours them
SPACE = 1024  # U+0020 alone; lines are normalised first
NEWLINE = 2048
SUSPICIOUS = 4096  # normalize_line may have something to do
SELECTED = 8192  # left to the table's user
CAPITAL = 16384  # A-Z, besides LATIN
VISIBLE = HANGUL | LATIN | DIGIT | HANJA | KANA | LETTER | PUNCTUATION | SYMBOL | RARE_SYMBOL | EMOJI
WORD = HANGUL | LATIN | DIGIT

# The classes that the filter `characters` can keep.
NAMES = {
    "hangul": HANGUL,
    "latin": LATIN,
    "digit": DIGIT,
    "hanja": HANJA,
    "kana": KANA,
    "letter": LETTER,
    "punctuation": PUNCTUATION,
    "symbol": SYMBOL,
    "rare_symbol": RARE_SYMBOL,
    "emoji": EMOJI,
}
CODE_POINTS = 0x110000
RAISED_AND_LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎"

HANJA_RANGES = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HANGUL_RANGES = "\u1100-\u11ff\u3131-\u318e\u3200-\u321e\u3260-\u327e\ua960-\ua97c\uac00-\ud7ff\uffa0-\uffdc"
_LATIN_RANGES = (
    "A-Za-z\xaa\xba\xc0-\xd6\xd8-\xf6\xf8-\u024f\u1e00-\u1eff\u2c60-\u2c7f\ua722-\ua7ff\uff21-\uff3a\uff41-\uff5a"
)
_KANA_RANGES = "\u3041-\u3096\u3099-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"
# Pictures, characters that change the sign next to them, parts of flags. KS X 1001's ★ ☆ ♥ ♡ ♠ ♣ ♨ ☎ are symbols.
_EMOJI_RANGES = "\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55"
_EMOJI_RANGES += "\u200d\u20e3\ufe0e\ufe0f\U0001f000-\U0001f0ff\U0001f10d-\U0001faff\U000e0020-\U000e007f"


@functools.lru_cache(maxsize=2)
def class_table(form: str = "NFC") -> NDArray[np.uint16]:
    """Returns the bits of every code point, uint16, shape (1114112,), with SUSPICIOUS for normalisation to `form`.

    The array is shared and read-only: copy it to set SELECTED.
    """
    table = np.zeros(CODE_POINTS, np.uint16)
    _by_category(table)
    everything = np.arange(CODE_POINTS, dtype=np.uint32).tobytes().decode("utf-32-le", "surrogatepass")
    for ranges, bit in (
        (HANJA_RANGES, HANJA),
        (_KANA_RANGES, KANA),
        (_LATIN_RANGES, LATIN),
        (_HANGUL_RANGES, HANGUL),
        ("0-9\uff10-\uff19", DIGIT),
        (" ", SPACE),
        ("\n", NEWLINE),
    ):
        for found in re.finditer(f"[{ranges}]+", everything):
            table[found.start() : found.end()] = bit
    for found in re.finditer(f"[{_EMOJI_RANGES}]+", everything):
        _mark_emoji(table, found.start(), found.end())
    for found in re.finditer(f"{SUSPECT}+", everything):
        table[found.start() : found.end()] |= SUSPICIOUS
    _mark_unstable(table, form)
    table[ord("A") : ord("Z") + 1] |= CAPITAL
    table[ord("\n")] = NEWLINE
    table.flags.writeable = False
    return table


def _in_ks_x_1001(char: str) -> bool:
    try:
        return len(char.encode("euc_kr")) == 2
    except UnicodeEncodeError:
        return False


def _by_category(table: NDArray[np.uint16]) -> None:
    """Marks letters, punctuation and symbols in the planes that have any."""
    for code in (*range(0x20, 0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0xFFF0), *range(0x10000, 0x20000)):
        char = chr(code)
        category = unicodedata.category(char)
        if category[0] in "LM" or category == "Nd":
            table[code] = LETTER
        elif category[0] == "P":
            table[code] = PUNCTUATION
        elif category[0] in "SN":
            common = code < 0x80 or char in RAISED_AND_LOWERED or _in_ks_x_1001(char)
            table[code] = SYMBOL if common else RARE_SYMBOL


def _mark_emoji(table: NDArray[np.uint16], start: int, end: int) -> None:
    for code in range(start, end):
        if not _in_ks_x_1001(chr(code)):
            table[code] = EMOJI


def _mark_unstable(table: NDArray[np.uint16], form: str) -> None:
    """Sets SUSPICIOUS on every character that is not its own normal form, or can merge with the one before it."""
    kept = re.compile(f"[{KEPT_JAMO}]")
    # Left out: hanja, Hangul syllables, surrogates and private use, which are stable or suspect already.
    for code in (*range(0x80, 0x3400), *range(0xA000, 0xAC00), *range(0xD7B0, 0xD800), *range(0xF900, 0x20000)):
        char = chr(code)
        decomposed = unicodedata.decomposition(char)
        unstable = bool(unicodedata.combining(char)) or not unicodedata.is_normalized("NFC", char)
        if form == "NFKC" and not kept.match(char):
            unstable |= not unicodedata.is_normalized("NFKC", char)
        if unstable:
            table[code] |= SUSPICIOUS
        if " " in decomposed and not decomposed.startswith("<"):
            table[int(decomposed.split()[-1], 16)] |= SUSPICIOUS  # as the second part of a pair
    table[0x1161:0x1176] |= SUSPICIOUS  # vowels and final consonants of decomposed syllables
    table[0x11A8:0x11C3] |= SUSPICIOUS
    table[0x2F800:0x2FA20] |= SUSPICIOUS  # compatibility hanja
