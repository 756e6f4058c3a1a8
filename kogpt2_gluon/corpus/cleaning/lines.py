"""The lines of a batch of documents as one array of code points, which NumPy can count, cut and join at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.corpus.cleaning.characters import DIGIT, NEWLINE, SPACE, WORD

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
LINE_END = ord("\n")


class Lines:
    """Lines, each with its line end.

    `codes` is uint32 (characters,); `origin` is int64 (lines,): the number that the line had when the batch came in,
    ascending; `table` gives the class bits of a code point; `placeholders` are what masks write. Nothing here changes
    in place: each step makes new Lines.
    """

    def __init__(
        self,
        codes: NDArray[np.uint32],
        origin: Rows,
        table: NDArray[np.uint16],
        placeholders: tuple[str, ...] = (),
    ) -> None:
        self.codes, self.origin, self.table, self.placeholders = codes, origin, table, placeholders

    @classmethod
    def of_text(cls, text: str, table: NDArray[np.uint16], placeholders: tuple[str, ...] = ()) -> Lines:
        """Returns every line of `text`, which ends with a line end."""
        codes = _encode(text)
        return cls(codes, np.arange(np.count_nonzero(codes == LINE_END)), table, placeholders)

    def _with(self, codes: NDArray[np.uint32], origin: Rows) -> Lines:
        return Lines(codes, origin, self.table, self.placeholders)

    def __len__(self) -> int:
        return len(self.origin)

    @cached_property
    def classes(self) -> NDArray[np.uint16]:
        """Class bits of every character."""
        classes: NDArray[np.uint16] = self.table[self.codes]
        return classes

    @cached_property
    def ends(self) -> Rows:
        """Where the line end of each line is."""
        return np.flatnonzero(self.codes == LINE_END)

    @cached_property
    def starts(self) -> Rows:
        """Where each line begins."""
        starts = np.zeros_like(self.ends)
        starts[1:] = self.ends[:-1] + 1
        return starts

    @cached_property
    def lengths(self) -> Rows:
        """Characters of each line, without its end."""
        return self.ends - self.starts

    @cached_property
    def text(self) -> str:
        """All lines as one text: character i is code i."""
        return self.codes.tobytes().decode("utf-32-le", "surrogatepass")

    def line(self, row: int) -> str:
        """One line, without its end."""
        return self.text[self.starts[row] : self.ends[row]]

    @cached_property
    def bits(self) -> NDArray[np.uint16]:
        """All class bits that occur in each line."""
        if not len(self):
            return np.zeros(0, np.uint16)
        return np.bitwise_or.reduceat(self.classes, self.starts)

    def count(self, bits: int) -> Rows:
        """Returns how many characters of each line have one of the class bits."""
        return self.sums((self.classes & bits) != 0)

    @cached_property
    def masked(self) -> Flags:
        """Which characters belong to a placeholder: those say nothing about the text, so filters do not count them."""
        flags = np.zeros(len(self.codes), bool)
        for placeholder in self.placeholders:
            at = self.text.find(placeholder)
            while at >= 0:
                flags[at : at + len(placeholder)] = True
                at = self.text.find(placeholder, at + len(placeholder))
        return flags

    @cached_property
    def has_masked(self) -> Flags:
        """Which lines have a placeholder."""
        return self.sums(self.masked) > 0

    def count_unmasked(self, bits: int) -> Rows:
        """Returns `count` without the characters of placeholders."""
        return self.sums(((self.classes & bits) != 0) & ~self.masked)

    @cached_property
    def digits(self) -> Rows:
        """Digits of each line."""
        return self.count(DIGIT)

    def sums(self, flags: Flags) -> Rows:
        """Returns how many of the flags, one for each character, are set in each line."""
        return np.add.reduceat(flags, self.starts, dtype=np.int64) if len(self) else np.zeros(0, np.int64)

    def rows_of(self, positions: NDArray[np.int64]) -> Rows:
        """Returns the lines in which the characters at these positions are, each once, ascending."""
        return np.unique(np.searchsorted(self.ends, positions))

    def take(self, rows: Rows) -> Lines:
        """Returns some of the lines, in the order given."""
        lengths = self.lengths[rows] + 1
        offsets = np.cumsum(lengths) - lengths
        index = np.arange(int(lengths.sum())) + np.repeat(self.starts[rows] - offsets, lengths)
        return self._with(self.codes[index], self.origin[rows])

    def only(self, keep: Flags) -> Lines:
        """Returns the lines that are flagged."""
        if keep.all():
            return self
        steps = np.zeros(len(self.codes), np.int8)
        steps[self.starts] = np.diff(keep.astype(np.int8), prepend=np.int8(0))
        chars = np.cumsum(steps, dtype=np.int8).astype(bool)  # several times as fast as np.repeat
        return self._with(self.codes[chars], self.origin[keep])

    def replaced(self, rows: Sequence[int], texts: Sequence[str]) -> Lines:
        """Returns the lines with new texts, which have no line ends, in some rows (ascending)."""
        pieces, done = [], 0
        for row, text in zip(rows, texts):
            pieces += [self.text[done : self.starts[row]], text]
            done = self.ends[row]
        pieces.append(self.text[done:])
        return self._with(_encode("".join(pieces)), self.origin)

    def without(self, delete: Flags) -> Lines:
        """Returns the lines without the flagged characters, none of which is a line end."""
        return self._with(self.codes[~delete], self.origin)

    def spaced(self, delete: Flags) -> Lines:
        """Returns the lines without the flagged characters, but with a space where two words would meet."""
        edges = np.flatnonzero(delete[1:] != delete[:-1]) + 1
        first, after = edges[delete[edges]], edges[~delete[edges]]
        if delete[0]:  # the last character is a line end and stays
            after = after[1:]
        meet = ((self.classes[first - 1] & WORD) != 0) & ((self.classes[after] & WORD) != 0)
        codes, keep = self.codes.copy(), ~delete
        codes[first[meet]], keep[first[meet]] = ord(" "), True
        return self._with(codes[keep], self.origin).tidied()

    def tidied(self) -> Lines:
        """Returns the lines with one space for every run of spaces, and none at the ends of a line."""
        if not len(self):
            return self
        space = (self.classes & SPACE) != 0
        gap = (self.classes & (SPACE | NEWLINE)) != 0
        surplus = space.copy()
        surplus[1:] &= gap[:-1]  # the first character is treated as if a line end came before it
        lines = self.without(surplus) if surplus.any() else self
        trailing = lines.ends - 1
        trailing = trailing[(lines.lengths > 0) & (lines.codes[trailing] == ord(" "))]
        if not len(trailing):
            return lines
        delete = np.zeros(len(lines.codes), bool)
        delete[trailing] = True
        return lines.without(delete)


def merged(parts: Sequence[Lines]) -> Lines:
    """Returns the lines of all parts in the order of their origins."""
    codes, origin = ([getattr(part, name) for part in parts] for name in ("codes", "origin"))
    lines = Lines(np.concatenate(codes), np.concatenate(origin), parts[0].table, parts[0].placeholders)
    return lines.take(np.argsort(lines.origin, kind="stable"))


def _encode(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
