"""How the next token of a text is chosen from the network's logits. V is `vocab_size`, N the length of the text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference import filters
from kogpt2_gluon.wording import counted


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    What a setting does, and the order in which settings take effect, is as in transformers' `generate`:
    `repetition_penalty`, `no_repeat_ngram_size`, `bad_words`, `min_new_tokens`; then, unless `temperature` is 0, the
    temperature, `top_k`, `top_p`, `min_p` and `typical_p`, each over what the one before has left. RecipeError names a
    setting out of range.

    Parameters
    ----------
    max_new_tokens : int
        A text without `</s>` ends after so many new tokens.
    temperature : float
        Logits are divided by it; 0 is greedy.
    top_k : int
        Keep the k likeliest tokens, and those as likely as the last of them; 0 keeps all.
    top_p : float
        Keep the fewest likeliest tokens that have this probability together (Holtzman et al., 2020).
    repetition_penalty : float
        Divides the positive and multiplies the negative logits of tokens that the text, prompt included, has already
        (Keskar et al., 2019).
    seed : int
        The seed of the draws.
    allow_unknown : bool
        False: `<unk>` is never chosen. It replaces text that the tokenizer could not spell, so a reader only sees a
        placeholder (" ⁇ "). True: it is chosen like any other token. `<pad>`, which no document holds, never is.
    alternatives : int
        How many of the likeliest tokens a :class:`Choice` lists with their log-probabilities.
    stop : tuple of str
        A new text ends before the first of these that it has; the prompt is not searched.
    min_p : float
        Keep the tokens that have at least this share of the likeliest token's probability; 0 keeps all.
    typical_p : float
        Keep the fewest tokens with this probability together whose probabilities are the most typical (Meister et al.,
        2022).
    no_repeat_ngram_size : int
        No sequence of so many tokens comes twice, the prompt included; 0: any may.
    bad_words : tuple of tuples of int
        Sequences of ids that are never completed, not even where the prompt has their beginning; see
        :func:`~kogpt2_gluon.inference.bad_words.bad_word_ids`.
    min_new_tokens : int
        A text does not end before it has so many new tokens, neither by `</s>`, which is not chosen, nor by `stop`,
        which is looked for in the text from the last of them on.
    """

    max_new_tokens: int = 60
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    allow_unknown: bool = False
    alternatives: int = 0
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    typical_p: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        for name, (is_good, admitted) in _ADMITTED.items():
            value = getattr(self, name)
            if not is_good(value):
                raise RecipeError(f"{name}={value!r}: it must be {admitted}")
        if self.min_new_tokens > self.max_new_tokens:
            raise RecipeError(
                f"min_new_tokens={self.min_new_tokens}: it must be at most max_new_tokens={self.max_new_tokens}"
            )

    def refuse_draws(self, search: str) -> None:
        """RecipeError if a setting of drawing is set, for a `search` that draws nothing; temperature 0 is none."""
        for name in ("temperature", "top_k", "top_p", "min_p", "typical_p"):
            value = getattr(self, name)
            if value != getattr(Sampling, name) and (name, value) != ("temperature", 0):
                raise RecipeError(f"{name}={value!r}: {search} draws nothing, so it would be without effect")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(each, str) and each for each in value)


def _are_sequences(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(
        isinstance(each, (tuple, list)) and each and all(_is_whole(token, 0) for token in each) for each in value
    )


# Of each setting: the test of a value, and what is admitted, in words.
_ADMITTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (lambda value: _is_whole(value, 1), "a whole number, 1 or more"),
    "temperature": (lambda value: _is_number(value) and value >= 0, "a number, 0 or more"),
    "top_k": (lambda value: _is_whole(value, 0), "a whole number, 0 or more"),
    "top_p": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, up to 1"),
    "repetition_penalty": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "seed": (lambda value: _is_whole(value, 0), "a whole number, 0 or more"),
    "alternatives": (lambda value: _is_whole(value, 0), "a whole number, 0 or more"),
    "stop": (_are_texts, "texts of at least one character"),
    "min_p": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "typical_p": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, up to 1"),
    "no_repeat_ngram_size": (lambda value: _is_whole(value, 0), "a whole number, 0 or more"),
    "bad_words": (_are_sequences, "sequences of at least one id each"),
    "min_new_tokens": (lambda value: _is_whole(value, 0), "a whole number, 0 or more"),
}


class Choice(NamedTuple):
    """A chosen token.

    Attributes
    ----------
    token : int
    log_probability : float
        Of the token by the network itself, before any setting of :class:`Sampling`; natural logarithm.
    alternatives : list of (int, float)
        The likeliest tokens by the network itself and their log-probabilities, the likeliest first.
    """

    token: int
    log_probability: float
    alternatives: list[tuple[int, float]]


class Restrictions:
    """Excludes and penalizes tokens of one text, in whichever way they are chosen.

    RecipeError for a bad word with an id that the tokenizer lacks, or `</s>` as one.

    Parameters
    ----------
    sampling : Sampling
    prompt_length : int
    eos_id : int
        The id that ends a text; none if it is negative.
    vocab_size : int
        Ids from it on are never chosen, because a network may have more rows than its tokenizer has pieces.
    left_out : sequence of int
        Ids that are never chosen.
    """

    def __init__(
        self, sampling: Sampling, prompt_length: int, eos_id: int, vocab_size: int, left_out: Sequence[int] = ()
    ) -> None:
        self._sampling, self._eos_id = sampling, eos_id
        self._first_end = prompt_length + sampling.min_new_tokens
        self._vocab_size = vocab_size
        self._left_out = np.array([token for token in left_out if token < vocab_size], np.int64)
        for sequence in sampling.bad_words:
            if max(sequence) >= vocab_size:
                raise RecipeError(f"bad_words: {max(sequence)} is not one of the {vocab_size:,} ids of the tokenizer")
            if list(sequence) == [eos_id]:
                raise RecipeError(f"bad_words: {eos_id} is the id that ends a text; min_new_tokens makes texts longer")
        self._bad_words = filters.BadWords(sampling.bad_words)

    def apply(self, scores: filters.Row, ids: Sequence[int]) -> filters.Row:
        """Returns scores, logits or log-probabilities (V,), as the settings want it after a text (N,); -inf is never.

        The result has `vocab_size` scores; it can have none above -inf.
        """
        sampling = self._sampling
        scores = scores[: self._vocab_size].copy()
        if sampling.repetition_penalty != 1.0 or sampling.no_repeat_ngram_size:
            text = np.array(ids, np.int64)
            if sampling.repetition_penalty != 1.0:
                filters.penalize_repetition(scores, text, sampling.repetition_penalty)
            if sampling.no_repeat_ngram_size:
                repeating = filters.repeating_tokens(text, sampling.no_repeat_ngram_size)
                scores[repeating[repeating < scores.size]] = -np.inf
        if sampling.bad_words:
            scores[self._bad_words.completing_tokens(ids)] = -np.inf
        if len(ids) < self._first_end and 0 <= self._eos_id < scores.size:
            scores[self._eos_id] = -np.inf
        scores[self._left_out] = -np.inf
        return scores

    def nothing_left(self) -> RecipeError:
        """Returns the error for a text after which all tokens are excluded."""
        names = ("repetition_penalty", "no_repeat_ngram_size", "bad_words", "min_new_tokens")
        changed = [name for name in names if getattr(self._sampling, name) != getattr(Sampling, name)]
        return RecipeError(
            f"none of {counted(self._vocab_size, 'token')} may follow here by {', '.join(changed) or 'the tokenizer'}: "
            "exclude less, or write fewer new tokens"
        )


class Chooser:
    """Chooses the tokens of one text, one after another.

    Its draws depend on `sampling.seed` and `sample` alone, never on texts that are written at the same time.

    Parameters
    ----------
    sampling : Sampling
    prompt : sequence of int
        The text so far, ``<s>`` included.
    eos_id : int
        The id that ends a text.
    vocab_size : int
        Ids from it on are never chosen, because a network may have more rows than its tokenizer has pieces.
    left_out : sequence of int
        Ids that are never chosen.
    sample : int
        Of several continuations of one prompt, which; each has draws of its own.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        eos_id: int,
        vocab_size: int,
        left_out: Sequence[int] = (),
        sample: int = 0,
    ) -> None:
        self._sampling, self._ids = sampling, list(prompt)
        self._restrictions = Restrictions(sampling, len(self._ids), eos_id, vocab_size, left_out)
        # A generator takes longer to make than a greedy choice, which needs none.
        self._rng = np.random.default_rng([sampling.seed, sample]) if sampling.temperature else None

    def choose(self, logits: NDArray[np.float32]) -> Choice:
        """Chooses the next token by logits (V,), and remembers it as part of the text.

        DataError if the logits are not finite, RecipeError if the settings exclude every token.
        """
        token = self.next_id(logits)
        return choice_of(logits, token, self._sampling.alternatives, filters.log_normalizer(logits))

    def next_id(self, logits: NDArray[np.float32]) -> int:
        """Chooses the next token as :meth:`choose` does, without its log-probability, which takes as long."""
        token = draw(self._restricted(logits), self._sampling, self._rng)
        self._ids.append(token)
        return token

    def distribution(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns the probabilities (V,) that the next token is drawn by; the errors of :meth:`choose`."""
        scores = self._restricted(logits)
        probabilities = np.zeros(logits.size)
        if self._sampling.temperature == 0:
            probabilities[scores.argmax()] = 1.0
        else:
            ids, kept = candidates(scores, self._sampling)
            probabilities[ids] = kept
        return probabilities

    def _restricted(self, logits: filters.Row) -> filters.Row:
        filters.check_logits(logits)
        scores = self._restrictions.apply(logits, self._ids)
        if scores.max() == -np.inf:
            raise self._restrictions.nothing_left()
        return scores


def choice_of(logits: filters.Row, token: int, alternatives: int = 0, normalizer: float = 0.0) -> Choice:
    """Returns the :class:`Choice` of a token by a row (V,), with its likeliest `alternatives`.

    `normalizer` is subtracted from the row: 0 for log-probabilities, that of the logits for logits.
    """
    listed = filters.largest_first(logits, min(alternatives, logits.size)) if alternatives else ()
    likeliest = [(int(each), float(logits[each]) - normalizer) for each in listed]
    return Choice(token, float(logits[token]) - normalizer, likeliest)


def draw(scores: filters.Row, sampling: Sampling, rng: np.random.Generator | None) -> int:
    """Draws an id by scores (V,), one of which at least is above -inf; temperature 0 takes the largest, by no `rng`."""
    if sampling.temperature == 0:
        return int(scores.argmax())
    assert rng
    ids, probabilities = candidates(scores, sampling)
    up_to_here = np.cumsum(probabilities)
    up_to_here /= up_to_here[-1]
    return int(ids[np.searchsorted(up_to_here, rng.random(), side="right")])


def candidates(scores: filters.Row, sampling: Sampling) -> tuple[filters.Ids, NDArray[np.float64]]:
    """Returns the K ids that one is drawn from, the smallest first, and their probabilities (K,), some perhaps 0.

    The order of the ids does not depend on the scores, so that rounding of scores hardly changes what is drawn.
    """
    ids = filters.top_k(scores, sampling.top_k) if sampling.top_k else np.arange(scores.size)
    probabilities = scores[ids].astype(np.float64) if sampling.top_k else scores.astype(np.float64)
    # In place: a new array of all tokens costs more time than what is computed with it.
    probabilities -= scores.max()
    with np.errstate(over="ignore"):  # by a tiny temperature; the likeliest token stays at 0
        probabilities /= sampling.temperature
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum()
    for value, default, keep in (
        (sampling.top_p, 1, filters.top_p),
        (sampling.min_p, 0, filters.min_p),
        (sampling.typical_p, 1, filters.typical_p),
    ):
        if value != default:
            kept = np.sort(keep(probabilities, value))
            ids, probabilities = ids[kept], probabilities[kept]
            probabilities /= probabilities.sum()
    return ids, probabilities
