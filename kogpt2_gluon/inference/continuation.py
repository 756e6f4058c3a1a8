"""A text that continues a prompt, with the probabilities of its tokens: the result of a search."""

from __future__ import annotations

from typing import NamedTuple

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.sampling import Choice

END, LENGTH = "stop", "length"  # why a text ended


class Continuation(NamedTuple):
    """A text that continues a prompt.

    Attributes
    ----------
    ids : list of int
        The new ids, without `</s>`.
    log_probability : float
        The sum of those of `choices`, by the network itself.
    score : float
        What the search compares texts by; the higher, the better.
    finish_reason : str
        ``stop`` at `</s>` or a stop string, ``length`` at max_new_tokens or the end of the positions.
    choices : list of Choice
        The chosen tokens, `</s>` included.
    """

    ids: list[int]
    log_probability: float
    score: float
    finish_reason: str
    choices: list[Choice]


def room_for(prompt_length: int, capacity: int, max_new_tokens: int) -> int:
    """Returns how many tokens can follow a prompt. RecipeError if it leaves no position free."""
    if not 0 < prompt_length < capacity:
        raise RecipeError(
            f"the prompt has {prompt_length:,} tokens with <s>; the network's {capacity:,} positions leave room for "
            f"{capacity - 1:,} and a new one"
        )
    return min(max_new_tokens, capacity - prompt_length)
