"""How the next token of a text is chosen from the network's logits. V is `vocab_size`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import RecipeError

BLOCK = 64  # logits whose maximum _at_least looks at


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Parameters
    ----------
    max_new_tokens : int
        A text without `</s>` ends after so many new tokens.
    temperature : float
        Logits are divided by it; 0 is greedy.
    top_k : int
        Keep the k likeliest tokens; 0 keeps all.
    top_p : float
        Keep the fewest likeliest tokens that have this probability together (Holtzman et al., 2020).
    repetition_penalty : float
        Divides the positive and multiplies the negative logits of tokens that the text has already (Keskar et al.,
        2019).
    seed : int
        The seed of the draws.
    allow_unknown : bool
        False: `<unk>` is never chosen. It replaces text that the tokenizer could not spell, so a reader only sees a
        placeholder (" ⁇ "). True: it is chosen like any other token. `<pad>`, which no document holds, never is.
    alternatives : int
        How many of the likeliest tokens a :class:`Choice` lists with their log-probabilities.
    stop : tuple of str
        A new text ends before the first of these that it has; the prompt is not searched.
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

    def __post_init__(self) -> None:
        for name, good, admitted in (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, up to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
            ("seed", self.seed >= 0, "0 or more"),
            ("alternatives", self.alternatives >= 0, "0 or more"),
            ("stop", all(self.stop), "texts of at least one character"),
        ):
            if not good:
                raise RecipeError(f"{name}={getattr(self, name)}: it must be {admitted}")


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


class Chooser:
    """Chooses the tokens of one text, one after another.

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
        self._sampling, self._ids, self._eos_id = sampling, list(prompt), eos_id
        self._vocab_size, self._left_out = vocab_size, list(left_out)
        self._rng = np.random.default_rng([sampling.seed, sample])

    def choose(self, logits: NDArray[np.float32]) -> Choice:
        """Chooses the next token by logits (V,), and remembers it as part of the text."""
        own = logits[: self._vocab_size].astype(np.float64)
        own -= own.max()
        log_probabilities = own - np.log(np.exp(own).sum())
        admitted = logits[: self._vocab_size].copy()
        admitted[self._left_out] = -np.inf
        token = next_token(admitted, self._ids, self._sampling, self._rng)
        self._ids.append(token)
        listed = np.argsort(-log_probabilities, kind="stable")[: self._sampling.alternatives]
        alternatives = [(int(each), float(log_probabilities[each])) for each in listed]
        return Choice(token, float(log_probabilities[token]), alternatives)


def next_token(logits: np.ndarray, seen: Sequence[int], sampling: Sampling, rng: np.random.Generator) -> int:
    """Draws an id from `logits` (vocab_size,) after the penalty, temperature, top-k and top-p, in this order."""
    logits = logits.astype(np.float64)
    if sampling.repetition_penalty != 1.0 and seen:
        ids = np.unique(np.asarray(seen))
        logits[ids] = np.where(
            logits[ids] > 0, logits[ids] / sampling.repetition_penalty, logits[ids] * sampling.repetition_penalty
        )
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = logits / sampling.temperature
    order = _candidates(logits, sampling)
    probabilities = np.exp(logits[order] - logits.max())
    probabilities /= probabilities.sum()
    if sampling.top_p < 1:
        # The token that crosses top_p is kept, so at least one remains.
        keep = 1 + int(np.searchsorted(np.cumsum(probabilities), sampling.top_p))
        order, probabilities = order[:keep], probabilities[:keep] / probabilities[:keep].sum()
    return int(rng.choice(order, p=probabilities))


def _candidates(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The ids to draw from. Where order counts, the likeliest come first, and of two equal ones the smaller id."""
    if 0 < sampling.top_k < logits.size:
        likely = _at_least(logits, sampling.top_k)
        chosen = likely[np.argpartition(-logits[likely], sampling.top_k - 1)[: sampling.top_k]]
        return chosen[np.lexsort((chosen, -logits[chosen]))]
    if sampling.top_k or sampling.top_p < 1:
        return np.argsort(-logits, kind="stable")
    return np.arange(logits.size)


def _at_least(logits: np.ndarray, count: int) -> np.ndarray:
    """A few ids that include the `count` likeliest ones; found by the largest logit of every 64."""
    blocks = logits.size // BLOCK
    if blocks < 2 * count:
        return np.arange(logits.size)
    largest = logits[: blocks * BLOCK].reshape(blocks, BLOCK).max(axis=1)
    # `count` blocks have a logit as large as this, so the likeliest are not smaller. A NaN, if there is one, is kept.
    return np.flatnonzero(~(logits < np.partition(largest, blocks - count)[blocks - count]))
