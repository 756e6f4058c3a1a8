"""Repetition: runs of one character or of a short group, and documents that say the same thing again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.corpus.cleaning.characters import CAPITAL, DIGIT, NEWLINE, SPACE
from kogpt2_gluon.corpus.cleaning.lines import Flags, Lines, Rows

UInts = NDArray[np.uint64]
_FACTOR = 0x9E3779B97F4A7C15  # odd: multiplying by it loses nothing modulo 2**64
_MASK = (1 << 64) - 1


def cut_runs(lines: Lines, keep: int, group: int) -> tuple[Lines, Rows]:
    """Cuts runs of a group of 1 to `group` characters to `keep` times; returns the lines, and which of them changed.

    ㅋㅋㅋㅋㅋ -> ㅋㅋㅋ, 하하 하하 하하 하하 -> 하하 하하 하하 (with 3). Groups with a digit or a capital stay, so that
    numbers and patterns such as YYYY do.
    """
    changed: list[Rows] = []
    for period in range(1, group + 1):
        delete = _surplus(lines, period, keep)
        if delete is not None:
            changed.append(lines.rows_of(np.flatnonzero(delete)))
            lines = lines.without(delete)
    if not changed:
        return lines, np.zeros(0, np.int64)
    return lines.tidied(), np.unique(np.concatenate(changed))


def _surplus(lines: Lines, period: int, keep: int) -> Flags | None:
    """Returns flags of the characters after `keep` whole groups of `period` in a row; None if there are none."""
    codes = lines.codes
    if len(codes) <= period * keep:
        return None
    same = codes[period:] == codes[:-period]  # character i + period repeats character i
    same &= (lines.classes[period:] & (DIGIT | NEWLINE | CAPITAL)) == 0
    # A run of n equal groups gives (n - 1) * period in a row; most text has none that long.
    at = np.flatnonzero(same)
    if not len(at):
        return None
    breaks = np.flatnonzero(np.diff(at) != 1)
    first = at[np.concatenate([[0], breaks + 1])]
    last = at[np.concatenate([breaks, [len(at) - 1]])]
    groups = (last - first + 1) // period + 1
    long = groups > keep
    if not long.any():
        return None
    first, groups = first[long], groups[long]
    steps = np.zeros(len(codes) + 1, np.int8)
    steps[first + keep * period] = 1
    steps[first + groups * period] = -1
    flags: Flags = np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
    return flags


def repeats_before(lines: Lines, documents: Rows) -> Flags:
    """Returns which lines equal the one before them in their document; `documents` numbers the document of each."""
    repeated = np.zeros(len(lines), bool)
    if len(lines) < 2:
        return repeated
    starts, ends = lines.starts, lines.ends
    alike = (documents[1:] == documents[:-1]) & (lines.lengths[1:] == lines.lengths[:-1])
    alike &= lines.codes[starts[1:]] == lines.codes[starts[:-1]]
    alike &= lines.codes[ends[1:] - 1] == lines.codes[ends[:-1] - 1]
    for row in (np.flatnonzero(alike) + 1).tolist():
        repeated[row] = lines.line(row) == lines.line(row - 1)
    return repeated


def seen_before(keys: UInts, documents: Rows) -> Flags:
    """Returns which keys occurred earlier in their own document."""
    keys = _mix(keys ^ _mix(documents.astype(np.uint64)))
    order = np.argsort(keys, kind="stable")
    seen = np.zeros(len(keys), bool)
    seen[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return seen


def line_keys(lines: Lines) -> UInts:
    """Returns a 64-bit key of each line's text."""
    if not len(lines):
        return np.zeros(0, np.uint64)
    offsets: Rows = np.arange(len(lines.codes)) - np.repeat(lines.starts, lines.lengths + 1)
    weights = _powers(int(lines.lengths.max()) + 1)[offsets]
    sums: UInts = np.add.reduceat(_mix(lines.codes.astype(np.uint64)) * weights, lines.starts)
    return sums


def word_keys(lines: Lines) -> tuple[UInts, Rows]:
    """Returns a 64-bit key of each word (words are separated by spaces and line ends), and the line that it is in."""
    gap = (lines.classes & (SPACE | NEWLINE)) != 0
    begins = ~gap
    begins[1:] &= gap[:-1]
    starts = np.flatnonzero(begins)
    if not len(starts):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    lengths = np.diff(starts, append=len(gap))
    offsets: Rows = np.arange(starts[0], len(gap)) - np.repeat(starts, lengths)
    # After 64 characters the places repeat: such a word is an address or a wall of signs.
    values = _mix(lines.codes[starts[0] :].astype(np.uint64)) * _powers(64)[offsets & 63]
    values[gap[starts[0] :]] = 0
    return np.add.reduceat(values, starts - starts[0]), np.searchsorted(lines.ends, starts)


def repeated_words(lines: Lines, documents: Rows, size: int) -> tuple[Flags, Rows]:
    """Returns which words are in a run of `size` words that their document had before, and each word's document."""
    keys, rows = word_keys(lines)
    owner = documents[rows]
    covered = np.zeros(len(keys), bool)
    if len(keys) < size:
        return covered, owner
    runs = np.zeros(len(keys) - size + 1, np.uint64)
    for place, factor in enumerate(_powers(size).tolist()):
        runs += _mix(keys[place : place + len(runs)]) * np.uint64(factor)
    whole = owner[: len(runs)] == owner[size - 1 :]
    at = np.flatnonzero(whole)
    again = at[seen_before(runs[at], owner[at])]
    steps = np.zeros(len(keys) + 1, np.int32)
    np.add.at(steps, again, 1)
    np.add.at(steps, again + size, -1)
    return np.cumsum(steps[:-1]) > 0, owner


def _powers(count: int) -> UInts:
    powers = np.full(count, _FACTOR, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _mix(values: UInts) -> UInts:
    """Applies the last steps of splitmix64, which make neighbouring values different."""
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(31)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(29)
    return values
