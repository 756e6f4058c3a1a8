"""The terms of a domain for the unused tokens of a tokenizer: which of them save the most tokens?

A term is the beginning of words of the domain, after a space, where :mod:`kogpt2_gluon.tokens.stems` finds that a stem
ends, and which the tokenizer cuts into several pieces. It is a term of the domain if it is more frequent there than in
a base corpus: by the log-likelihood ratio of two binomials (Dunning, 1993), and at least LEAST_RATIO times. Terms are
ordered by the tokens that they save, which :mod:`kogpt2_gluon.tokens.savings` finds by encoding the words.

Words with a digit, and addresses, paths and names in code (``tf.data``, ``a@b.org``, ``my_model``) have no terms, and
neither has what fewer than LEAST_DOCUMENTS documents have. Names of people are words: look through the list.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kogpt2_gluon.corpus.store import Corpus, open_train_splits
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.tokens.bounded_counts import MOST_WORDS, BoundedCounts
from kogpt2_gluon.tokens.renaming import possible_names
from kogpt2_gluon.tokens.savings import Savings
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.stems import SHORTEST, count_longest, find_stems, longest_beginning
from kogpt2_gluon.tokens.tokenizer import SPACE, Tokenizer

LEAST_COUNT = 20  # times that the domain has a term
LEAST_DOCUMENTS = 3  # that have one of its words; in a corpus of fewer documents, all of them
LEAST_RATIO = 2.0  # times as frequent as in the base
LEAST_LIKELIHOOD = 10.83  # of the ratio: chance gives less in 999 of 1,000 cases (chi square, one degree of freedom)
_LETTERS = re.compile(r"[^\W\d_\u1100-\u11ff\u3131-\u318e]+")  # no single letters of Hangul, as in ㅋㅋ
_NO_WORD = re.compile(r"\d|[@_]|://|\w[-./:\\=&#%+~?]+\w")

Show = Callable[[int, int], None]


@dataclass(frozen=True)
class Term:
    """A term of a domain.

    Attributes
    ----------
    text : str
    count : int
        Times in the domain, at the beginning of a word and without longer stems.
    per_million, base_per_million : float
        Times in a million words of the domain and of the base.
    likelihood : float
        Dunning's ratio, G squared.
    pieces : tuple of str
        What the tokenizer cuts it into.
    saved : int
        Tokens of the domain that the term saves if it and the other terms of the suggestion are one token each.
    """

    text: str
    count: int
    per_million: float
    base_per_million: float
    likelihood: float
    pieces: tuple[str, ...]
    saved: int = 0

    @property
    def piece(self) -> str:
        """The name for the token: with the space before it."""
        return SPACE + self.text


@dataclass(frozen=True)
class Suggestion:
    """Terms, the ones that save most first, and what they were found in.

    Attributes
    ----------
    terms : sequence of Term
    tokens : sequence of str
        The unused token for each term.
    words, base_words : int
        Words of both corpora.
    missed : int
        The most by which a word's count in the domain is too small, for want of memory.
    """

    terms: Sequence[Term]
    tokens: Sequence[str]
    words: int
    base_words: int
    missed: int


def suggest_terms(
    model: Path,
    domain: Path,
    base: Sequence[Path],
    count: int,
    least_count: int = LEAST_COUNT,
    show: Show | None = None,
    most_words: int = MOST_WORDS,
) -> Suggestion:
    """Finds terms of a domain for the unused tokens of a tokenizer, the same ones each time.

    Parameters
    ----------
    model : Path
        A SentencePiece model with unused tokens.
    domain, base : Path, sequence of Path
        Folders of `kogpt2 clean`, whose train splits are read in pieces: the domain's twice, the others once.
    count : int
        Terms at most.
    least_count : int
        Times that the domain has a term.
    show : callable
        Called with the bytes read so far, and all of them.
    most_words : int
        Different words that are counted at a time.

    Raises
    ------
    RecipeError
        There are fewer unused tokens than `count`, the tokenizer is a tokenizer.json, or a corpus is named twice.
    DataError
        A corpus is bad, or its train split is empty.
    """
    tokenizer = Tokenizer.load(model)
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise RecipeError(f"{model}: tokens can be renamed in a SentencePiece model, and this is a tokenizer.json")
    if count > len(tokenizer.unused):
        raise RecipeError(f"--count {count}: {model} has {len(tokenizer.unused)} unused tokens (left)")
    corpora = open_train_splits([domain, *base])
    progress = _Progress(show, sum(corpus.size("train") for corpus in (corpora[0], *corpora)))
    words, documents = BoundedCounts(most_words), 0
    for block in progress.blocks(corpora[0]):
        for document in block:
            words.add(letters_of(Counter(tokenizer.normalize(document.decode()).split())))
        documents += len(block)
    frequent = {word: times for word, times in words.counts.items() if word}
    stems = set(find_stems(frequent, least_count))
    stems = _in_enough(words.documents, stems, min(LEAST_DOCUMENTS, documents))
    candidates = {name[len(SPACE) :] for name in possible_names(tokenizer, (SPACE + text for text in stems))}
    near = {text for text in stems if longest_beginning(text, candidates)}  # a longer piece has its words for itself
    in_base, base_words = _count_in(corpora[1:], tokenizer, near, progress)
    in_domain = {text: times for text, times in count_longest(frequent, near).items() if times >= least_count}
    found = _terms(tokenizer, in_domain.keys() & candidates, (in_domain, words.total), (in_base, base_words))
    terms = {term.text: term for term in found}
    beginning = _words_with(corpora[0], tokenizer, set(terms), most_words, progress)
    ordered = sorted(terms, key=lambda text: (-terms[text].likelihood, text))
    best = Savings(tokenizer, beginning.counts).best(ordered, count)
    chosen = [replace(terms[text], saved=saved) for text, saved in best.items()]
    missed = max(words.missed, beginning.missed)
    return Suggestion(chosen, tokenizer.unused[: len(chosen)], words.total, base_words, missed)


def _terms(
    tokenizer: SentencePieceTokenizer,
    texts: Iterable[str],
    domain: tuple[Mapping[str, int], int],
    base: tuple[Mapping[str, int], int],
) -> Iterator[Term]:
    """Yields those of the texts that are cut into pieces and are frequent; of domain and base: counts, words in all."""
    (counts, words), (base_counts, base_words) = domain, base
    for text in texts:
        pieces, times, base_times = _pieces(tokenizer, text), counts[text], base_counts[text]
        likelihood = log_likelihood_ratio(times, words, base_times, base_words)
        rate, base_rate = times / words, base_times / base_words
        if len(pieces) > 1 and likelihood >= LEAST_LIKELIHOOD and rate >= LEAST_RATIO * base_rate:
            yield Term(text, times, rate * 1e6, base_rate * 1e6, likelihood, pieces)


def letters_of(words: Mapping[str, int]) -> Counter[str]:
    """Returns the letters that words begin with and how often, "" for words that have no terms."""
    found: Counter[str] = Counter()
    for word, times in words.items():
        letters = None if _NO_WORD.search(word) else _LETTERS.match(word)
        found[letters[0] if letters else ""] += times
    return found


def log_likelihood_ratio(count: int, words: int, base_count: int, base_words: int) -> float:
    """Returns how surprising it is that two texts have a word at these rates: G squared (Dunning, 1993).

    It is twice the logarithm of the ratio of likelihoods, that of two binomials with a rate each to that of one rate.
    """
    table = ((count, words - count), (base_count, base_words - base_count))
    total = words + base_words
    columns = [table[0][column] + table[1][column] for column in (0, 1)]
    ratio = 0.0
    for row, size in zip(table, (words, base_words)):
        for found, column in zip(row, columns):
            if found:
                ratio += found * math.log(found * total / (size * column))
    return 2 * ratio


def write_renamings(suggestion: Suggestion, out: Path) -> None:
    """Writes what `kogpt2 tokenizer rename --from` reads: ``<unusedN>=TERM``, one a line."""
    lines = [f"{token}={term.piece}\n" for token, term in zip(suggestion.tokens, suggestion.terms)]
    with full_disk_named(out.parent, lambda: "the list of terms needs room; make some"):
        write_file(out, "".join(lines).encode())


class _Progress:
    def __init__(self, show: Show | None, total: int) -> None:
        self._show, self._total, self._done = show, total, 0

    def blocks(self, corpus: Corpus) -> Iterator[list[bytes]]:
        """Yields the documents of each block of the train split, and shows how far this is."""
        for block in corpus.blocks("train"):
            yield block.documents()
            self._done += len(block.data)
            if self._show:
                self._show(self._done, self._total)


def _count_in(
    corpora: Sequence[Corpus], tokenizer: SentencePieceTokenizer, terms: set[str], progress: _Progress
) -> tuple[Counter[str], int]:
    """Returns how often each term is met in corpora, and how many words these have."""
    begins = {text[:SHORTEST] for text in terms}  # few words begin so: the others need no closer look
    found: Counter[str] = Counter()
    total = 0
    for corpus in corpora:
        for documents in progress.blocks(corpus):
            words = tokenizer.normalize(b"\n".join(documents).decode()).split()
            total += len(words)
            near = Counter(word for word in words if word[:SHORTEST] in begins)
            found.update(count_longest(letters_of(near), terms))
    return found, total


def _words_with(
    corpus: Corpus, tokenizer: SentencePieceTokenizer, terms: set[str], most: int, progress: _Progress
) -> BoundedCounts:
    """Returns how often each word that begins with a term is met, from one space to the next."""
    found = BoundedCounts(most)
    for documents in progress.blocks(corpus):
        for document in documents:
            words = tokenizer.normalize(document.decode()).split(" ")
            after_space = words if tokenizer.adds_space else words[1:]
            found.add(Counter(word for word in after_space if longest_beginning(word, terms)))
    return found


def _in_enough(documents: Mapping[str, int], terms: set[str], least: int) -> set[str]:
    """Returns the terms that at least `least` documents have, all of them in the same word."""
    found: set[str] = set()
    for word, times in documents.items():
        if times >= least:
            found.update(word[:size] for size in range(SHORTEST, len(word) + 1))
    return terms & found


def _pieces(tokenizer: SentencePieceTokenizer, term: str) -> tuple[str, ...]:
    """Returns the pieces of a term after a space."""
    before = len(tokenizer.encode("a"))
    return tuple(tokenizer.pieces[token] for token in tokenizer.encode(f"a {term}")[before:])
