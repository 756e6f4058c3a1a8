"""The filters that drop documents: each is a section of the options together with its rule.

None counts what a mask wrote: see `line_filters`.

A new one is a class here and its line in `CleaningOptions`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from kogpt2_gluon.corpus.cleaning.characters import EMOJI, HANGUL, PUNCTUATION, RARE_SYMBOL, SYMBOL, VISIBLE
from kogpt2_gluon.corpus.cleaning.lines import Flags, Lines, Rows
from kogpt2_gluon.corpus.cleaning.repetition import line_keys, repeated_words, seen_before
from kogpt2_gluon.options import option

SIGNS = PUNCTUATION | SYMBOL | RARE_SYMBOL | EMOJI


class DocumentFilter(ABC):
    """A filter that drops documents."""

    enabled: bool

    @abstractmethod
    def drop(self, lines: Lines, owners: Rows, count: int) -> Flags:
        """Returns which of the documents 0 .. count - 1 to drop: bool, shape (count,).

        `owners`, int64, shape (lines,), numbers each line's document, ascending.
        """


@dataclass
class Length(DocumentFilter):
    """Documents with too few or too many characters are dropped."""

    enabled: bool = option(False, "drop such documents")
    min_chars: int = option(10, "characters that a document has at least", minimum=0)
    max_chars: int = option(0, "characters that it has at most; 0: any number", minimum=0)

    def drop(self, lines: Lines, owners: Rows, count: int) -> Flags:
        chars = _totals(lines.lengths, owners, count)
        drop: Flags = (chars < self.min_chars) & (_totals(lines.has_masked, owners, count) == 0)
        if self.max_chars:
            drop |= chars - _totals(lines.sums(lines.masked), owners, count) > self.max_chars
        return drop


@dataclass
class HangulShare(DocumentFilter):
    """Documents with little Hangul are dropped."""

    enabled: bool = option(False, "drop such documents")
    min_share: float = option(0.3, "least share of Hangul in its visible characters", minimum=0.0, maximum=1.0)

    def drop(self, lines: Lines, owners: Rows, count: int) -> Flags:
        hangul, visible = (_totals(lines.count_unmasked(bits), owners, count) for bits in (HANGUL, VISIBLE))
        return hangul < self.min_share * visible


@dataclass
class SymbolRatio(DocumentFilter):
    """Documents made of signs are dropped."""

    enabled: bool = option(False, "drop such documents")
    max_share: float = option(
        0.5, "largest share of punctuation, symbols and emoji in its visible characters", minimum=0.0, maximum=1.0
    )

    def drop(self, lines: Lines, owners: Rows, count: int) -> Flags:
        signs, visible = (_totals(lines.count_unmasked(bits), owners, count) for bits in (SIGNS, VISIBLE))
        return signs > self.max_share * visible


@dataclass
class RepeatedLines(DocumentFilter):
    """Documents that repeat their own lines are dropped, after Gopher (Rae et al. 2021, table A1: 0.3 and 0.2).

    The limits here are wider: manuals in Korean repeat short headings (타입, 예시) and are worth keeping.
    """

    enabled: bool = option(False, "drop such documents")
    min_lines: int = option(10, "documents of fewer lines stay", minimum=2)
    max_lines: float = option(0.5, "largest share of lines that the document had before", minimum=0.0, maximum=1.0)
    max_chars: float = option(0.3, "largest share of characters in such lines", minimum=0.0, maximum=1.0)

    def drop(self, lines: Lines, owners: Rows, count: int) -> Flags:
        total = np.bincount(owners, minlength=count)
        rows = np.flatnonzero((total >= self.min_lines)[owners])
        if not len(rows):
            return np.zeros(count, bool)
        some, owner = lines.take(rows), owners[rows]
        seen = seen_before(line_keys(some), owner)
        repeated = _totals(seen, owner, count)
        chars, all_chars = _totals(some.lengths * seen, owner, count), _totals(some.lengths, owner, count)
        return (repeated > self.max_lines * total) | (chars > self.max_chars * all_chars)


@dataclass
class RepeatedNgrams(DocumentFilter):
    """Documents that repeat their own runs of words are dropped: Gopher's rule for one size of run."""

    enabled: bool = option(False, "drop such documents")
    words: int = option(6, "words (eojeol) of a run", minimum=2, maximum=64)
    min_words: int = option(50, "documents of fewer words stay", minimum=1)
    max_share: float = option(
        0.3, "largest share of words in runs that the document had before", minimum=0.0, maximum=1.0
    )

    def drop(self, lines: Lines, owners: Rows, count: int) -> Flags:
        # A document of that many words has at least as many characters and spaces between them.
        long = _totals(lines.lengths + 1, owners, count) >= 2 * self.min_words
        rows = np.flatnonzero(long[owners])
        if not len(rows):
            return np.zeros(count, bool)
        again, owner = repeated_words(lines.take(rows), owners[rows], self.words)
        words, repeated = np.bincount(owner, minlength=count), _totals(again, owner, count)
        return (words >= self.min_words) & (repeated > self.max_share * words)


def _totals(values: Any, owners: Rows, count: int) -> Rows:
    """Returns sums of whole numbers by document: int64, shape (count,)."""
    return np.bincount(owners, weights=values, minlength=count).astype(np.int64)
