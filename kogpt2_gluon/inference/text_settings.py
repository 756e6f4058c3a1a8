"""All settings of a text, under the names that the options of `kogpt2 generate` and its files of prompts have."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.bad_words import bad_word_ids
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.tokens.tokenizer import Tokenizer

MOST_SAMPLES = 10_000
MOST_CANDIDATES = 256  # beams, or tokens that contrastive search compares; each has a cache of its own


@dataclass(frozen=True)
class TextSettings:
    """How the texts of a prompt are written.

    Parameters
    ----------
    sampling : Sampling
    num_samples : int
        How many texts. With beams: the best ones, at most `num_beams`.
    num_beams : int
        Above 1: beam search, which draws nothing.
    length_penalty : float
        With beams: above 0, longer texts score better.
    penalty_alpha : float
        Above 0: contrastive search with this weight of the penalty for likeness to the text so far.
    num_candidates : int
        Tokens that contrastive search compares.
    """

    sampling: Sampling
    num_samples: int = 1
    num_beams: int = 1
    length_penalty: float = 1.0
    penalty_alpha: float = 0.0
    num_candidates: int = 4

    def __post_init__(self) -> None:
        for name, least, most in (
            ("num_samples", 1, MOST_SAMPLES),
            ("num_beams", 1, MOST_CANDIDATES),
            ("num_candidates", 2, MOST_CANDIDATES),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise RecipeError(f"{name}={value!r}: it must be a whole number from {least} to {most:,}")
        for name in ("length_penalty", "penalty_alpha"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= 100:
                raise RecipeError(f"{name}={value!r}: it must be a number from -100 to 100")
        if not 0 <= self.penalty_alpha <= 1:
            raise RecipeError(f"penalty_alpha={self.penalty_alpha!r}: it must be from 0 to 1")
        self._check_search()

    @property
    def is_search(self) -> bool:
        """True for beam search and contrastive search: what they write is known at the end only."""
        return self.num_beams > 1 or self.penalty_alpha > 0

    def _check_search(self) -> None:
        if self.num_beams > 1 and self.penalty_alpha:
            raise RecipeError("num_beams and penalty_alpha: beam search or contrastive search, not both")
        if self.num_beams == 1 and self.length_penalty != 1:
            raise RecipeError(f"length_penalty={self.length_penalty}: without effect, unless num_beams is 2 or more")
        if self.num_candidates != TextSettings.num_candidates and not self.penalty_alpha:
            raise RecipeError(f"num_candidates={self.num_candidates}: without effect, unless penalty_alpha is above 0")
        if self.penalty_alpha and self.num_samples > 1:
            raise RecipeError(f"num_samples={self.num_samples}: contrastive search draws nothing, and has one text")
        if self.num_beams > 1 and self.num_samples > self.num_beams:
            raise RecipeError(f"num_samples={self.num_samples}: beam search has at most num_beams={self.num_beams}")
        if self.is_search:
            self.sampling.refuse_draws("beam search" if self.num_beams > 1 else "contrastive search")


OF_SAMPLING = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "min_new_tokens",
    "seed",
)
OF_SEARCH = ("num_samples", "num_beams", "length_penalty", "penalty_alpha", "num_candidates")
OTHER_NAMES = {"allow_unk": "allow_unknown", "logprobs": "alternatives"}  # of options, and what Sampling calls them
OF_WORDS = ("stop", "bad_words")
NAMES = (*OF_SAMPLING, *OTHER_NAMES, *OF_WORDS, *OF_SEARCH)


def text_settings(plain: Mapping[str, Any], tokenizer: Tokenizer | None) -> TextSettings:
    """Makes settings of plain values by their names, NAMES; those that are not there have their defaults.

    `stop` and `bad_words` are texts, one or several. RecipeError for an unknown name or a value out of range. Without a
    tokenizer there are no bad words: what is wrong with the other settings can be said before one is loaded.
    """
    for name in plain:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1, 0.5)
            raise RecipeError(f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    of_sampling = {name: plain[name] for name in OF_SAMPLING if name in plain}
    of_sampling |= {ours: plain[name] for name, ours in OTHER_NAMES.items() if plain.get(name) is not None}
    if not isinstance(of_sampling.get("allow_unknown", False), bool):
        raise RecipeError(f"allow_unk={plain['allow_unk']!r}: it must be true or false")
    words = bad_word_ids(tokenizer, _texts(plain, "bad_words")) if tokenizer else ()
    sampling = Sampling(**of_sampling, stop=_texts(plain, "stop"), bad_words=words)
    return TextSettings(sampling, **{name: plain[name] for name in OF_SEARCH if name in plain})


def _texts(plain: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = plain.get(name, ())
    texts: Sequence[Any] = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(each, str) for each in texts):
        raise RecipeError(f"{name}={value!r}: it must be a text or a list of texts")
    return tuple(texts)
