"""Contrastive search: of the likeliest tokens, the one that repeats what the text has already the least.

A token v is worth (1 - a) p(v) - a max cos(h_v, h_j): its probability, and its likeness to the text so far (Su et al.,
2022, "A Contrastive Framework for Neural Text Generation", equation 5). h_v is the last layer's hidden state where v is
read, h_j those of all tokens of the text, prompt included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference import filters
from kogpt2_gluon.inference.continuation import END, LENGTH, Continuation, room_for
from kogpt2_gluon.inference.sampling import Choice, Restrictions, Sampling, choice_of
from kogpt2_gluon.model.slots import Run, Slots


def contrastive_search(
    slots: Slots,
    prompt: Sequence[int],
    eos_id: int,
    sampling: Sampling,
    penalty_alpha: float = 0.6,
    num_candidates: int = 4,
    *,
    vocab_size: int,
    left_out: Sequence[int] = (),
    is_end: Callable[[Sequence[int]], bool] | None = None,
    before_step: Callable[[], None] | None = None,
) -> list[Continuation]:
    """Returns a list of one text, which continues a prompt by contrastive search; its score is its log-probability.

    The probabilities are those after the settings that exclude and penalize tokens, as in transformers. Errors are
    those of :func:`~kogpt2_gluon.inference.beam_search.beam_search`.

    Parameters
    ----------
    slots : Slots
        At least `num_candidates`, all free; they are free again afterwards.
    prompt : sequence of int
        Ids, ``<s>`` included.
    eos_id : int
        The id that ends a text; none if it is negative.
    sampling : Sampling
        `max_new_tokens`, `repetition_penalty`, `no_repeat_ngram_size`, `bad_words`, `min_new_tokens` and
        `alternatives` count.
    penalty_alpha : float
        From 0, which is greedy, to 1; a in the formula.
    num_candidates : int
        How many of the likeliest tokens are compared, at least 2; `top_k` of the paper and of transformers.
    vocab_size, left_out, is_end, before_step
        As for beam search.
    """
    for name, value, good, admitted in (
        ("penalty_alpha", penalty_alpha, 0 <= penalty_alpha <= 1, "from 0 to 1"),
        ("num_candidates", num_candidates, num_candidates >= 2, "2 or more; temperature 0 is a search with one"),
    ):
        if not good:
            raise RecipeError(f"{name}={value!r}: it must be {admitted}")
    sampling.refuse_draws("contrastive search")
    length = room_for(len(prompt), slots.capacity, sampling.max_new_tokens)
    restrictions = Restrictions(sampling, len(prompt), eos_id, vocab_size, left_out)
    assert num_candidates <= slots.num_slots and slots.are_ready
    choices: list[Choice] = []
    reason = LENGTH
    try:
        text = _Text(slots, prompt, num_candidates, before_step or (lambda: None))
        while len(choices) < length:
            filters.check_logits(text.logits)
            scores = restrictions.apply(text.logits, text.ids)
            likeliest = filters.largest_first(scores, min(num_candidates, scores.size))
            likeliest = likeliest[scores[likeliest] > -np.inf]
            if not likeliest.size:
                raise restrictions.nothing_left()
            shares = np.exp(scores[likeliest] - filters.log_normalizer(scores))
            logits = text.logits
            token = text.go_on(likeliest, shares, penalty_alpha)
            choices.append(choice_of(logits, token, sampling.alternatives, filters.log_normalizer(logits)))
            new = text.ids[len(prompt) :]
            if token == eos_id or (is_end and len(new) >= sampling.min_new_tokens and is_end(new)):
                reason = END
                break
    finally:
        for slot in range(num_candidates):
            slots.clear(slot)
    ids = [choice.token for choice in choices]
    log_probability = sum(choice.log_probability for choice in choices)
    return [Continuation(ids[:-1] if ids[-1] == eos_id else ids, log_probability, log_probability, reason, choices)]


class _Text:
    """A text in as many slots as it has candidates for its next token.

    Attributes
    ----------
    ids : list of int
        Prompt and new tokens.
    logits : (V,) float32
        Of the token that follows.
    """

    def __init__(
        self, slots: Slots, prompt: Sequence[int], num_candidates: int, before_step: Callable[[], None]
    ) -> None:
        self._slots, self._num_candidates, self._before_step = slots, num_candidates, before_step
        self.ids = list(prompt)
        before_step()
        (hidden,) = slots.hidden([Run(0, self.ids)])
        self._directions = [_directions(hidden)]  # (tokens, C) each, of length 1
        self.logits = slots.logits(hidden[-1:])[0]
        slots.rearrange({slot: 0 for slot in range(1, num_candidates)})

    def go_on(self, tokens: NDArray[np.int64], shares: NDArray[np.float32], penalty_alpha: float) -> int:
        """Adds one of the candidates (K,) to the text, by their probabilities (K,); returns it."""
        self._before_step()
        hidden = self._slots.next_hidden([Run(slot, [int(token)]) for slot, token in enumerate(tokens)])  # (K, C)
        directions = _directions(hidden)
        likeness = (directions @ np.concatenate(self._directions).T).max(axis=1)
        best = int(((1 - penalty_alpha) * shares - penalty_alpha * likeness).argmax())
        self._slots.rearrange({slot: best for slot in range(self._num_candidates) if slot != best})
        self._directions.append(directions[best : best + 1])
        self.logits = self._slots.logits(hidden[best : best + 1])[0]
        self.ids.append(int(tokens[best]))
        return self.ids[-1]


def _directions(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns hidden states (K, C) divided by their lengths; one of length 0 is like no other."""
    lengths = np.linalg.norm(hidden, axis=1, keepdims=True)
    directions: NDArray[np.float32] = hidden / np.maximum(lengths, np.finfo(np.float32).tiny)
    return directions
