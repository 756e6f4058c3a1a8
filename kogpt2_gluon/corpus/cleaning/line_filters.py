"""The filters that drop lines: each is a section of the options together with its rule.

None judges a line by what a mask wrote: `&tel-num&` is not Latin text, and a line is not short because its address is
masked.

A new one is a class here and its line in `CleaningOptions`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from kogpt2_gluon.corpus.cleaning.characters import HANGUL
from kogpt2_gluon.corpus.cleaning.lines import Flags, Lines, Rows
from kogpt2_gluon.corpus.cleaning.repetition import repeats_before
from kogpt2_gluon.options import option


class LineFilter(ABC):
    """A filter that drops lines."""

    enabled: bool

    @abstractmethod
    def drop(self, lines: Lines, owners: Rows) -> Flags:
        """Returns which lines to drop: bool, shape (lines,).

        `owners`, int64, of the same shape, numbers the document of each line.
        """


@dataclass
class ShortLine(LineFilter):
    """Lines of few characters are dropped: menus, page numbers."""

    enabled: bool = option(False, "drop short lines")
    min_chars: int = option(2, "characters that a line has at least", minimum=1)

    def drop(self, lines: Lines, owners: Rows) -> Flags:
        return (lines.lengths < self.min_chars) & ~lines.has_masked


@dataclass
class NoHangul(LineFilter):
    """Lines without Hangul are dropped: code, foreign text, rules drawn with signs."""

    enabled: bool = option(False, "drop lines without Hangul")
    min_hangul: int = option(1, "Hangul characters that a line has at least", minimum=1)

    def drop(self, lines: Lines, owners: Rows) -> Flags:
        return lines.count_unmasked(HANGUL) < self.min_hangul


@dataclass
class Boilerplate(LineFilter):
    """Short lines with a phrase that pages repeat are dropped."""

    enabled: bool = option(False, "drop such lines")
    max_chars: int = option(100, "longer lines stay: they say something else as well", minimum=1)
    phrases: list[str] = option(
        [
            "무단 전재",
            "무단전재",
            "재배포 금지",
            "재배포금지",
            "저작권자 ⓒ",
            "저작권자(c)",
            "저작권자©",
            "All rights reserved",
            "기사제보 및 보도자료",
            "본문 바로가기",
            "이 글 공유하기",
        ],
        "phrases around the text of a newspaper or a blog",
    )

    def drop(self, lines: Lines, owners: Rows) -> Flags:
        drop = np.zeros(len(lines), bool)
        for phrase in self.phrases:
            # The search goes on after the line of a hit, so that a phrase repeated in a line costs nothing.
            at = lines.text.find(phrase)
            while at >= 0:
                row = int(np.searchsorted(lines.ends, at))
                drop[row] = lines.lengths[row] <= self.max_chars
                at = lines.text.find(phrase, int(lines.ends[row]))
        return drop


@dataclass
class Repeated(LineFilter):
    """Lines equal to the one before them in their document are dropped."""

    enabled: bool = option(True, "drop such lines")

    def drop(self, lines: Lines, owners: Rows) -> Flags:
        return repeats_before(lines, owners)
