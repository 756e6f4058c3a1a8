"""Rows of a test set that were trained on, rows that are there twice, and rows that contradict one another.

Two texts are the same if they are equal after NFC, without invisible signs (such as U+200B and U+FEFF), and with runs
of white space as one space. A pair is the same also if its texts are swapped, which is counted on its own, since for
some tasks (does one follow from the other?) the order matters. Rows are compared by hashes of 64 bits, so a million
rows need some 60 MB; that two different ones among them have the same hash has a chance of one in millions.

What is found is reported by places, never by texts: some data sets consist of abuse.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.tasks.metrics import Predictions, evaluate_predictions
from kogpt2_gluon.tasks.task import Row, Task
from kogpt2_gluon.wording import Say, silent

EXAMPLES = 3
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]")

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Finding:
    """Something that was counted in a split.

    Attributes
    ----------
    split, other : str
        The split whose rows are counted, and the one that they were compared with; "" for the split itself.
    kind : str
        One of KINDS.
    rows, of : int
        How many rows, of how many.
    examples : tuple of str
        Places of some, without folders: "FILE, line 3 = FILE, line 7".
    """

    split: str
    other: str
    kind: str
    rows: int
    of: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        shown = f" ({'; '.join(self.examples)})" if self.examples else ""
        share = f" ({self.rows / self.of:.2%})" if self.rows else ""
        return f"{self.split}: {self.rows:,} of {self.of:,} rows{share} {KINDS[self.kind].format(self.other)}{shown}"


KINDS = {
    "exact": "are in {}, sign by sign",
    "normalized": "are in {} but for white space or the way in which letters are encoded",
    "swapped": "are in {} with their texts swapped",
    "other answer": "are in {} with another answer only",
    "one text": "have one of their texts in {}, not both in one row",
    "duplicate": "repeat an earlier row",
    "swapped duplicate": "repeat an earlier row with their texts swapped",
    "contradiction": "have the texts of another row and another answer",
}
_LEAKS = ("exact", "normalized", "swapped")


@dataclass(frozen=True)
class Leakage:
    """The findings in the splits of a task, and the rows that are clean.

    Attributes
    ----------
    findings : tuple of Finding
        All kinds, also those of which there are none.
    clean : mapping
        Of each split but train: the numbers of the rows that are not in train.
    """

    findings: tuple[Finding, ...]
    clean: Mapping[str, tuple[int, ...]]

    def lines(self) -> list[str]:
        """Returns a line for each kind of which there is a row, and one for each split that has no row of train."""
        found = [str(each) for each in self.findings if each.rows]
        leaked = {each.split for each in self.findings if each.rows and each.other == "train" and each.kind in _LEAKS}
        return found + [f"{split}: no row is in train" for split in self.clean if split not in leaked]


def check_splits(task: Task, splits: Mapping[str, Sequence[Row]]) -> Leakage:
    """Compares the rows of a task's splits (train, dev and test, as far as they are there) with one another.

    A split is searched in the splits before it: dev in train, test in train and dev.
    """
    hashed = {name: _hash_rows(task, rows) for name, rows in splits.items()}
    findings: list[Finding] = []
    clean: dict[str, tuple[int, ...]] = {}
    for number, (name, rows) in enumerate(splits.items()):
        findings += _within(name, rows, hashed[name], task.is_pair)
        for other in list(splits)[:number]:
            leaks = _Leaks(rows, hashed[name], splits[other], hashed[other])
            findings += leaks.findings(name, other, task.is_pair)
            if other == "train":
                clean[name] = tuple(np.flatnonzero(~leaks.all).tolist())
    return Leakage(tuple(findings), clean)


def evaluate_clean(
    task: Task, rows: Sequence[Row], predicted: Predictions, clean: Sequence[int], say: Say = silent
) -> dict[str, float]:
    """Returns the scores of the rows with the numbers `clean` alone; NaN if there are none."""
    return evaluate_predictions(task, [rows[number] for number in clean], predicted.at(clean), say)


def normalize(text: str) -> str:
    """Returns a text as it is compared: NFC, without invisible signs, its white space as single spaces."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", text)).split())


class _Hashed(NamedTuple):
    """The hashes of N rows: of the texts as they are, normalised, and normalised and swapped; of the answers; and of
    each normalised text, (N, texts)."""

    exact: Hashes
    normalized: Hashes
    swapped: Hashes
    answers: Hashes
    texts: Hashes


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def _hash_rows(task: Task, rows: Sequence[Row]) -> _Hashed:
    count = 1 + task.is_pair
    exact, texts = np.empty((2, len(rows), count), np.uint64)
    for number, row in enumerate(rows):
        exact[number] = [_hash(text) for text in row.texts]
        texts[number] = [_hash(normalize(text)) for text in row.texts]
    answers = (_hash(repr((row.label, row.value, row.spans))) for row in rows)
    return _Hashed(
        _joined(*exact.T),
        _joined(*texts.T),
        _joined(*texts.T[::-1]),
        np.fromiter(answers, np.uint64, len(rows)),
        texts,
    )


def _joined(first: Hashes, *others: Hashes) -> Hashes:
    """Returns a hash of several hashes in their order, row by row."""
    for other in others:
        # A product with an odd constant is one to one, and the shift brings its high bits, which hash best, down.
        mixed = (first ^ (first >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + other
        first = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return first


def _within(name: str, rows: Sequence[Row], hashed: _Hashed, is_pair: bool) -> Iterator[Finding]:
    """Yields what is there twice in a split."""
    same, first = _repeated(hashed.normalized)
    yield Finding(name, "", "duplicate", int(same.sum()), len(rows), _examples(rows, same, rows, first))
    if is_pair:
        either = np.minimum(hashed.normalized, hashed.swapped)
        any_order, first = _repeated(either)
        swapped = any_order & ~same
        yield Finding(
            name, "", "swapped duplicate", int(swapped.sum()), len(rows), _examples(rows, swapped, rows, first)
        )
    groups, group = np.unique(hashed.normalized, return_inverse=True)
    pairs = np.unique(np.stack([group.astype(np.uint64), hashed.answers]), axis=1)
    answers = np.bincount(pairs[0].astype(np.int64), minlength=len(groups))
    contradicted = answers[group] > 1
    _, first = _repeated(hashed.normalized)
    later = contradicted & (hashed.answers != hashed.answers[first])
    yield Finding(name, "", "contradiction", int(contradicted.sum()), len(rows), _examples(rows, later, rows, first))


def _repeated(hashes: Hashes) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Returns which rows repeat an earlier one, and the first row that each is the same as, itself perhaps."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    firsts = first[group].astype(np.int64)
    return firsts < np.arange(len(hashes)), firsts


def _examples(
    rows: Sequence[Row], chosen: NDArray[np.bool_], others: Sequence[Row], partners: NDArray[np.int64]
) -> tuple[str, ...]:
    """Returns the places of the first chosen rows and their partners."""
    numbers = np.flatnonzero(chosen)[:EXAMPLES].tolist()
    pairs = ((rows[number].where, others[partners[number]].where) for number in numbers)
    return tuple(" = ".join(where.rpartition("/")[2] for where in pair) for pair in pairs)


class _Leaks:
    """Which rows of a split are in another one; (rows,) each, and no row is in two of the first three."""

    def __init__(self, rows: Sequence[Row], hashed: _Hashed, others: Sequence[Row], other: _Hashed) -> None:
        self._rows, self._hashed, self._others, self._other = rows, hashed, others, other
        self.exact = np.isin(hashed.exact, other.exact)
        self.normalized = np.isin(hashed.normalized, other.normalized) & ~self.exact
        self.swapped = np.isin(hashed.swapped, other.normalized) & ~self.exact & ~self.normalized
        self.all = self.exact | self.normalized | self.swapped
        # The texts as the other split has them, by which a row's partner is found.
        self._there = np.where(self.swapped, hashed.swapped, hashed.normalized)

    def findings(self, name: str, other: str, is_pair: bool) -> Iterator[Finding]:
        """Yields what was found of each kind."""
        answered = np.isin(
            _joined(self._there, self._hashed.answers), _joined(self._other.normalized, self._other.answers)
        )
        kinds = {"exact": self.exact, "normalized": self.normalized, "other answer": self.all & ~answered}
        partners = _partners(self._there, self._other.normalized)
        if is_pair:
            kinds["swapped"] = self.swapped
        for kind, chosen in kinds.items():
            yield self._finding(name, other, kind, chosen, partners)
        if is_pair:
            seen = np.isin(self._hashed.texts, self._other.texts)
            texts = np.where(seen[:, 0], self._hashed.texts[:, 0], self._hashed.texts[:, 1])
            partners = _partners(texts, self._other.texts.ravel()) // 2
            yield self._finding(name, other, "one text", seen.any(axis=1) & ~self.all, partners)

    def _finding(
        self, name: str, other: str, kind: str, chosen: NDArray[np.bool_], partners: NDArray[np.int64]
    ) -> Finding:
        examples = _examples(self._rows, chosen, self._others, partners)
        return Finding(name, other, kind, int(chosen.sum()), len(self._rows), examples)


def _partners(hashes: Hashes, others: Hashes) -> NDArray[np.int64]:
    """Returns the first place of each hash among the others; a place without meaning if it is not there."""
    unique, first = np.unique(others, return_index=True)
    if not len(unique):
        return np.zeros(len(hashes), np.int64)
    places: NDArray[np.int64] = first[np.minimum(np.searchsorted(unique, hashes), len(unique) - 1)]
    return places
