"""The filters that drop lines, and those that drop documents: by counts of their characters, lines and words."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from kogpt2_gluon.corpus.cleaning.characters import EMOJI, HANGUL, PUNCTUATION, RARE_SYMBOL, SYMBOL, VISIBLE
from kogpt2_gluon.corpus.cleaning.lines import Flags, Lines, Rows
from kogpt2_gluon.corpus.cleaning.options import (
    Boilerplate,
    HangulShare,
    Length,
    NoHangul,
    RepeatedLines,
    RepeatedNgrams,
    ShortLine,
    SymbolRatio,
)
from kogpt2_gluon.corpus.cleaning.repetition import line_keys, repeated_words, repeats_before, seen_before

SIGNS = PUNCTUATION | SYMBOL | RARE_SYMBOL | EMOJI

# --- lines: which of them to drop; `owners` numbers each line's document


def _short_line(lines: Lines, owners: Rows, section: ShortLine) -> Flags:
    return lines.lengths < section.min_chars


def _no_hangul(lines: Lines, owners: Rows, section: NoHangul) -> Flags:
    return lines.count(HANGUL) < section.min_hangul


def _boilerplate(lines: Lines, owners: Rows, section: Boilerplate) -> Flags:
    drop = np.zeros(len(lines), bool)
    for phrase in section.phrases:
        # From the end of one hit's line on, so that a phrase repeated in a line costs nothing.
        at = lines.text.find(phrase)
        while at >= 0:
            row = int(np.searchsorted(lines.ends, at))
            drop[row] = lines.lengths[row] <= section.max_chars
            at = lines.text.find(phrase, int(lines.ends[row]))
    return drop


def _repeated(lines: Lines, owners: Rows, section: object) -> Flags:
    return repeats_before(lines, owners)


# --- documents: which of the documents 0 .. count - 1 to drop; `owners` numbers each line's, ascending


def _length(lines: Lines, owners: Rows, count: int, section: Length) -> Flags:
    chars = _totals(lines.lengths, owners, count)
    drop = chars < section.min_chars
    return drop | (chars > section.max_chars) if section.max_chars else drop


def _hangul_share(lines: Lines, owners: Rows, count: int, section: HangulShare) -> Flags:
    hangul, visible = (_totals(lines.count(bits), owners, count) for bits in (HANGUL, VISIBLE))
    return hangul < section.min_share * visible


def _symbol_ratio(lines: Lines, owners: Rows, count: int, section: SymbolRatio) -> Flags:
    signs, visible = (_totals(lines.count(bits), owners, count) for bits in (SIGNS, VISIBLE))
    return signs > section.max_share * visible


def _repeated_lines(lines: Lines, owners: Rows, count: int, section: RepeatedLines) -> Flags:
    total = np.bincount(owners, minlength=count)
    rows = np.flatnonzero((total >= section.min_lines)[owners])
    if not len(rows):
        return np.zeros(count, bool)
    some, owner = lines.take(rows), owners[rows]
    seen = seen_before(line_keys(some), owner)
    repeated = _totals(seen, owner, count)
    chars, all_chars = _totals(some.lengths * seen, owner, count), _totals(some.lengths, owner, count)
    return (repeated > section.max_lines * total) | (chars > section.max_chars * all_chars)


def _repeated_ngrams(lines: Lines, owners: Rows, count: int, section: RepeatedNgrams) -> Flags:
    # A document of that many words has at least as many characters and spaces between them.
    long = _totals(lines.lengths + 1, owners, count) >= 2 * section.min_words
    rows = np.flatnonzero(long[owners])
    if not len(rows):
        return np.zeros(count, bool)
    again, owner = repeated_words(lines.take(rows), owners[rows], section.words)
    words, repeated = np.bincount(owner, minlength=count), _totals(again, owner, count)
    return (words >= section.min_words) & (repeated > section.max_share * words)


def _totals(values: Any, owners: Rows, count: int) -> Rows:
    """Sums of whole numbers by document."""
    return np.bincount(owners, weights=values, minlength=count).astype(np.int64)


LineFilter = Callable[[Lines, Rows, Any], Flags]
DocumentFilter = Callable[[Lines, Rows, int, Any], Flags]
# In the order in which they run.
LINE_FILTERS: dict[str, LineFilter] = {
    "short_line": _short_line,
    "no_hangul": _no_hangul,
    "boilerplate": _boilerplate,
    "repeated": _repeated,
}
DOCUMENT_FILTERS: dict[str, DocumentFilter] = {
    "length": _length,
    "hangul_share": _hangul_share,
    "symbol_ratio": _symbol_ratio,
    "repeated_lines": _repeated_lines,
    "repeated_ngrams": _repeated_ngrams,
}
