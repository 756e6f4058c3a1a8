"""Beam search: the likeliest whole texts that continue a prompt, not the likeliest next tokens.

Each step keeps the `num_beams` likeliest beginnings of texts. A beginning that ends is a finished text, with its
log-probability divided by its length to the power of `length_penalty` as its score; the best `num_beams` finished texts
are kept. Ids and scores are those of transformers' `generate(num_beams=...)` (5.23).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference import filters
from kogpt2_gluon.inference.continuation import END, LENGTH, Continuation, room_for
from kogpt2_gluon.inference.sampling import Choice, Restrictions, Sampling, choice_of
from kogpt2_gluon.model.slots import Run, Slots

LARGEST_LENGTH_PENALTY = 100.0  # a length to this power is still a float


class _Beam(NamedTuple):
    """The beginning of a text.

    Attributes
    ----------
    total : float
        The sum of its tokens' log-probabilities after the settings that exclude and penalize tokens.
    choices : tuple of Choice
        Its new tokens.
    slot : int
        Where its tokens are, but for the last.
    """

    total: float
    choices: tuple[Choice, ...]
    slot: int

    @property
    def ids(self) -> list[int]:
        """Its new tokens."""
        return [choice.token for choice in self.choices]


def beam_search(
    slots: Slots,
    prompt: Sequence[int],
    eos_id: int,
    sampling: Sampling,
    num_beams: int = 4,
    num_return: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    *,
    vocab_size: int,
    left_out: Sequence[int] = (),
    is_end: Callable[[Sequence[int]], bool] | None = None,
    before_step: Callable[[], None] | None = None,
) -> list[Continuation]:
    """Returns the best `num_return` texts that continue a prompt, the best first; fewer if there are no more.

    RecipeError for a setting out of range, one of drawing, which would be without effect, or settings that exclude
    every token; DataError for logits that are not finite.

    Parameters
    ----------
    slots : Slots
        At least `num_beams`, all free; they are free again afterwards.
    prompt : sequence of int
        Ids, ``<s>`` included.
    eos_id : int
        The id that ends a text; none if it is negative.
    sampling : Sampling
        `max_new_tokens`, `repetition_penalty`, `no_repeat_ngram_size`, `bad_words`, `min_new_tokens` and
        `alternatives` count. The penalty changes log-probabilities, not logits.
    num_beams : int
        At least 2.
    num_return : int
        At most `num_beams`.
    length_penalty : float
        Above 0, longer texts score better; below 0, shorter ones; at 0 a score is the sum of log-probabilities.
    early_stopping : bool or str
        When to stop once there are `num_beams` finished texts. True: at once. False: when the best beginning, if it
        ended now, would be worse than all of them. "never": when no text that it could become would be better.
    vocab_size : int
        Ids from it on are never chosen, because a network may have more rows than its tokenizer has pieces.
    left_out : sequence of int
        Ids that are never chosen.
    is_end : callable or None
        Is given new ids, and returns True if a text ends with them, as by a stop string; from `min_new_tokens` on.
    before_step : callable or None
        Is called before each pass through the network; what it raises ends the search.
    """
    _check(num_beams, num_return, length_penalty, early_stopping)
    sampling.refuse_draws("beam search")
    length = room_for(len(prompt), slots.capacity, sampling.max_new_tokens)
    restrictions = Restrictions(sampling, len(prompt), eos_id, vocab_size, left_out)
    finished = _Finished(num_beams, length_penalty, early_stopping, length)
    beams = [_Beam(0.0, (), 0)]

    def reason_to_end(beam: _Beam) -> str | None:
        if beam.choices[-1].token == eos_id:
            return END
        if is_end and len(beam.choices) >= sampling.min_new_tokens and is_end(beam.ids):
            return END
        return LENGTH if len(beam.choices) == length else None

    assert num_beams <= slots.num_slots and slots.are_ready
    try:
        for step in range(1, length + 1):
            if before_step:
                before_step()
            longer = _longer(slots, prompt, beams, restrictions, 2 * num_beams, sampling.alternatives)
            reasons = [reason_to_end(beam) for beam in longer]
            # Those beyond the first `num_beams` are there to go on in the place of beams that end.
            for beam, reason in zip(longer[:num_beams], reasons):
                if reason:
                    finished.add(beam, reason)
            beams = [beam for beam, reason in zip(longer, reasons) if not reason][:num_beams]
            if not beams or finished.are_best(beams[0], step):
                break
            beams = _placed(slots, beams, num_beams)
    finally:
        for slot in range(num_beams):
            slots.clear(slot)
    if not finished.texts:
        raise restrictions.nothing_left()
    return [_continuation(*text, eos_id) for text in finished.texts[:num_return]]


def _check(num_beams: int, num_return: int, length_penalty: float, early_stopping: bool | str) -> None:
    for name, value, good, admitted in (
        ("num_beams", num_beams, num_beams >= 2, "2 or more; temperature 0 is a search with one"),
        ("num_return", num_return, 1 <= num_return <= num_beams, f"from 1 to num_beams={num_beams}"),
        (
            "length_penalty",
            length_penalty,
            abs(length_penalty) <= LARGEST_LENGTH_PENALTY,
            f"from -{LARGEST_LENGTH_PENALTY:g} to {LARGEST_LENGTH_PENALTY:g}",
        ),
        ("early_stopping", early_stopping, early_stopping in (True, False, "never"), 'true, false or "never"'),
    ):
        if not good:
            raise RecipeError(f"{name}={value!r}: it must be {admitted}")


def _longer(
    slots: Slots, prompt: Sequence[int], beams: Sequence[_Beam], restrictions: Restrictions, count: int, listed: int
) -> list[_Beam]:
    """Reads the last token of each beam, or the prompt; returns the `count` likeliest that are a token longer."""
    logits = slots.next_logits([Run(beam.slot, [beam.choices[-1].token] if beam.choices else prompt) for beam in beams])
    rows, found = [], []
    for number, (row, beam) in enumerate(zip(logits, beams)):
        filters.check_logits(row)
        rows.append(row - filters.log_normalizer(row))
        scores = restrictions.apply(rows[-1], [*prompt, *beam.ids])
        for token in filters.largest_first(scores, min(count, scores.size)):
            found.append((beam.total + float(scores[token]), number, int(token)))
    found.sort(key=lambda each: -each[0])
    return [
        _Beam(total, (*beams[number].choices, choice_of(rows[number], token, listed)), beams[number].slot)
        for total, number, token in found[:count]
        if total > -np.inf
    ]


def _placed(slots: Slots, beams: Sequence[_Beam], num_beams: int) -> list[_Beam]:
    """Gives each beam a slot of its own; the first of those that continue one text stays in its slot."""
    free = [slot for slot in range(num_beams) if slot not in {beam.slot for beam in beams}]
    taken: set[int] = set()
    sources, placed = {}, []
    for beam in beams:
        slot = beam.slot
        if slot in taken:
            slot = free.pop()
            sources[slot] = beam.slot
        taken.add(slot)
        placed.append(beam._replace(slot=slot))
    slots.rearrange(sources)
    return placed


class _Finished:
    """The best `num_beams` texts that have ended, as (score, beam, reason), the best first."""

    def __init__(self, num_beams: int, length_penalty: float, early_stopping: bool | str, longest: int) -> None:
        self.texts: list[tuple[float, _Beam, str]] = []
        self._num_beams, self._length_penalty = num_beams, length_penalty
        self._early_stopping, self._longest = early_stopping, longest

    def add(self, beam: _Beam, reason: str) -> None:
        """Adds a text, unless there are enough that are as good."""
        self.texts.append((self._score(beam.total, len(beam.choices)), beam, reason))
        self.texts.sort(key=lambda text: -text[0])  # of equal ones, those that were there stay in front
        del self.texts[self._num_beams :]

    def are_best(self, beam: _Beam, step: int) -> bool:
        """Returns True if there are enough, and `early_stopping` takes none that goes on from a beam for better."""
        if len(self.texts) < self._num_beams:
            return False
        if self._early_stopping is True:
            return True
        # Log-probabilities only fall. Divided by more tokens they can rise, which only "never" takes into account.
        length = self._longest if self._early_stopping == "never" and self._length_penalty > 0 else step
        return self._score(beam.total, length) <= self.texts[-1][0]

    def _score(self, total: float, length: int) -> float:
        return total / float(length) ** self._length_penalty


def _continuation(score: float, beam: _Beam, reason: str, eos_id: int) -> Continuation:
    log_probability = sum(choice.log_probability for choice in beam.choices)
    ids = beam.ids[:-1] if beam.ids[-1] == eos_id else beam.ids
    return Continuation(ids, log_probability, score, reason, list(beam.choices))
