"""Counts of many different words in bounded memory.

If there are more words than a limit, the smallest counts go: the same number is subtracted from every count and those
at zero are forgotten (Misra and Gries, 1982; in batches, Agarwal et al., 2012). Each count is then too small by at most
the sum of what was subtracted, and a word that is not there was met no more often than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

MOST_WORDS = 1_000_000  # some 150 MB


class BoundedCounts:
    """Counts words and the documents that have them.

    Attributes
    ----------
    counts : Counter
        {word: times met}, each at most `missed` too small.
    documents : Counter
        {word: documents that have it}; of a word that was forgotten in between, those since then.
    missed : int
        The most by which a count is too small; 0 as long as nothing was forgotten.
    total : int
        Words met, with those forgotten.
    """

    def __init__(self, most: int = MOST_WORDS) -> None:
        assert most > 1
        self._most = most
        self.counts: Counter[str] = Counter()
        self.documents: Counter[str] = Counter()
        self.missed = self.total = 0

    def add(self, found: Mapping[str, int]) -> None:
        """Adds the words of one document, {word: times}."""
        self.counts.update(found)
        self.documents.update(found.keys())
        self.total += sum(found.values())
        if len(self.counts) > self._most:
            self._forget()

    def _forget(self) -> None:
        """Subtracts so much that at most half of the limit is left."""
        less = sorted(self.counts.values(), reverse=True)[self._most // 2]
        self.counts = Counter({word: count - less for word, count in self.counts.items() if count > less})
        self.documents = Counter({word: self.documents[word] for word in self.counts})
        self.missed += less
