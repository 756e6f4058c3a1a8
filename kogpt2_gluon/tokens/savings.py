"""How many tokens does a text lose if tokens are named? By encoding its words, as they are now and with the names.

A named token is found before any other piece, wherever a word begins with it. So it also takes the beginning of words
that are fewer tokens without it, such as those of a longer piece: with ▁텐서 ("tensor") the piece ▁텐서플로
("TensorFlow") is no longer found. These words count against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.tokens.renaming import USER_DEFINED
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.stems import longest_beginning
from kogpt2_gluon.tokens.tokenizer import SPACE


class Savings:
    """The tokens that terms save in the words of a text.

    Parameters
    ----------
    tokenizer : SentencePieceTokenizer
    words : Mapping
        {what is between two spaces: times}; all words that begin with a term.
    """

    def __init__(self, tokenizer: SentencePieceTokenizer, words: Mapping[str, int]) -> None:
        self._tokenizer = tokenizer
        self._words = sorted(words)
        self._times = [words[word] for word in self._words]
        self._before = self._lengths(tokenizer)

    def of(self, terms: Sequence[str]) -> dict[str, int]:
        """Returns the tokens that each term saves, less than 0 for more tokens, if these terms are named.

        Each is named with the space before it. Of several terms with which a word begins, the longest one is found.
        """
        chosen, saved = set(terms), Counter(dict.fromkeys(terms, 0))
        less = self._before - self._lengths(self._with_names(terms)) if terms else self._before
        for word, times, difference in zip(self._words, self._times, less.tolist()):
            if term := longest_beginning(word, chosen):
                saved[term] += times * difference
        return dict(saved)

    def best(self, terms: Sequence[str], count: int) -> dict[str, int]:
        """Returns the terms that save most, at most `count`, and what each saves if these alone are named.

        All of them save something. Of terms that save the same the first one goes before.
        """
        left = list(terms)
        while True:
            saved = self.of(left)
            kept = [term for term in left if saved[term] > 0]
            if kept == left:
                chosen = sorted(kept, key=lambda term: -saved[term])[:count]
                saved = self.of(chosen)  # the words of a longer term that was not chosen are those of a shorter one
                if all(saved[term] > 0 for term in chosen):
                    return {term: saved[term] for term in sorted(chosen, key=lambda term: -saved[term])}
                kept = [term for term in left if saved.get(term, 1) > 0]
            left = kept

    def _lengths(self, tokenizer: SentencePieceTokenizer) -> NDArray[np.int64]:
        """The tokens of each word after another one, (words,)."""
        return tokenizer.encode_flat([f"a {word}".encode() for word in self._words])[1]

    def _with_names(self, terms: Sequence[str]) -> SentencePieceTokenizer:
        """The tokenizer with more pieces that are found as renamed ones are."""
        proto = model_proto(self._tokenizer.stored.content, self._tokenizer.path)
        for term in terms:
            proto.pieces.add(piece=SPACE + term, type=USER_DEFINED)
        return SentencePieceTokenizer(proto.SerializeToString(), self._tokenizer.path)
