"""A linear model over character n-grams, weighted by TF-IDF: logistic regression for classes, ridge for numbers.

On 60,000 rebuilt rows of NSMC it gives 0.864. Features are hashed, so there are never more than FEATURES, whatever the
text; n-grams that share a number are not told apart (scikit-learn's HashingVectorizer). Of pairs it has the n-grams of
both texts, their differences, and how much the texts share. How strongly the models are held back (C, alpha) was chosen
on the development sets of Question Pair and KorSTS.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kogpt2_gluon.tasks.baselines import majority, words
from kogpt2_gluon.tasks.baselines.overlap import MOST_CHARACTERS, dice, ngrams_of
from kogpt2_gluon.tasks.metrics import Predictions, import_library
from kogpt2_gluon.tasks.task import JOINT, REGRESSION, TOKEN_LABELS, Row, Task
from kogpt2_gluon.wording import Say, silent

ABOUT = (
    "logistic regression or ridge over character 1- to 4-grams within words, weighted by TF-IDF; slots by tags of words"
)
FEATURES = 2**20
LENGTHS = (1, 4)  # of n-grams
LEAST_TEXTS = 2  # that have an n-gram, or it is left out
C, ALPHA = 4.0, 3.0
MOST_ITERATIONS = 100  # 5 to 20 are usual
# What memory depends on: a character costs up to 250 bytes, of pairs, so this is 1.5 GB. All of NSMC has fewer.
MOST_IN_ALL = 6_000_000
BATCH_ROWS = 5000  # whose classes are found at once

Matrix = Any  # of SciPy, sparse


def suits(task: Task) -> bool:
    """Returns True for classes and numbers."""
    return task.head != TOKEN_LABELS


def answer(task: Task, train: Sequence[Row], test: Sequence[Row], seed: int = 0, say: Say = silent) -> Predictions:
    """Returns what a linear model says that was fitted to the train rows.

    Of many rows it takes as many, drawn by `seed`, as have MOST_IN_ALL characters. Of a text it reads the first 1,000
    characters.
    """
    rows = _affordable(train, seed, say)
    answers = [row.value if task.head == REGRESSION else row.label for row in rows]
    if len(set(answers)) < 2:
        say("character n-grams: the train rows have one answer only, so it is the majority's")
        return majority.answer(task, train, test, seed, say)
    features = Features(task.is_pair)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _new_model(task).fit(features.fit(rows), answers)
    for each in caught:
        say(f"character n-grams: {str(each.message).strip().splitlines()[0]}")
    parts = [model.predict(features.of(test[begin : begin + BATCH_ROWS])) for begin in range(0, len(test), BATCH_ROWS)]
    found = np.concatenate(parts) if parts else np.zeros(0)
    if task.head == REGRESSION:
        return Predictions(values=np.clip(found, *task.value_range).tolist())
    spans = words.answer(task, train, test).spans if task.head == JOINT else []
    return Predictions([str(label) for label in found], [], spans)


def _new_model(task: Task) -> Any:
    models = import_library("sklearn.linear_model")
    if task.head == REGRESSION:
        return models.Ridge(alpha=ALPHA)
    # The default solver gives the same scores and takes 2 to 15 times as long: 38 s of CPU for 3i4K, this one 8 s.
    return models.LogisticRegression(C=C, max_iter=MOST_ITERATIONS, solver="newton-cg")


def _affordable(rows: Sequence[Row], seed: int, say: Say) -> Sequence[Row]:
    """Returns the rows that fit into memory: all, or some in the order of their file."""
    sizes = np.array([sum(min(len(text), MOST_CHARACTERS) + 2 for text in row.texts) for row in rows])
    if sizes.sum() <= MOST_IN_ALL:
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = np.sort(order[np.cumsum(sizes[order]) <= MOST_IN_ALL])
    say(f"character n-grams: fitted to {len(chosen):,} of {len(rows):,} train rows, to spare memory")
    return [rows[number] for number in chosen.tolist()]


class Features:
    """Turns rows into numbers, (rows, features) sparse; TF-IDF is learned from the rows of `fit`."""

    def __init__(self, is_pair: bool) -> None:
        text = import_library("sklearn.feature_extraction.text")
        self._sparse = import_library("scipy.sparse")
        self._is_pair = is_pair
        self._counts = text.HashingVectorizer(
            analyzer="char_wb", ngram_range=LENGTHS, n_features=FEATURES, alternate_sign=False, norm=None
        )
        self._weights = text.TfidfTransformer(sublinear_tf=True)
        self._columns = np.zeros(0, np.int64)  # the hashes that were there

    def fit(self, rows: Sequence[Row]) -> Matrix:
        """Learns which n-grams there are and how rare they are, and returns the features of the same rows."""
        counts = self._count(rows)
        texts_with = np.bincount(np.concatenate([each.indices for each in counts]), minlength=FEATURES)
        self._columns = np.flatnonzero(texts_with >= LEAST_TEXTS)
        counts = self._known(counts)
        self._weights.fit(self._sparse.vstack(counts))
        return self._combine(rows, counts)

    def of(self, rows: Sequence[Row]) -> Matrix:
        """Returns the features of rows."""
        return self._combine(rows, self._known(self._count(rows)))

    def _count(self, rows: Sequence[Row]) -> list[Matrix]:
        return [self._counts.transform(_plain(row.texts[k]) for row in rows) for k in range(1 + self._is_pair)]

    def _known(self, counts: list[Matrix]) -> list[Matrix]:
        return [each[:, self._columns] for each in counts]

    def _combine(self, rows: Sequence[Row], counts: list[Matrix]) -> Matrix:
        weighted = [self._weights.transform(each) for each in counts]
        if not self._is_pair:
            return weighted[0]
        first, second = weighted
        shared = self._sparse.csr_matrix([[*_shared(row)] for row in rows])
        cosines = self._sparse.csr_matrix(first.multiply(second).sum(axis=1))
        return self._sparse.hstack([first, second, abs(first - second), cosines, shared]).tocsr()


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text[:MOST_CHARACTERS]).split())


def _shared(row: Row) -> Iterator[float]:
    """Yields how much two texts share: characters, bigrams, trigrams; and how much longer the first one is."""
    first, second = row.texts
    for length in (1, 2, 3):
        yield dice(ngrams_of(first, length), ngrams_of(second, length))
    yield (len(first) - len(second)) / max(len(first), len(second), 1)
