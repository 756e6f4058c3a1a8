"""The token ids of prompts and of the answers that follow them.

A prompt and each of its answers are encoded together, as one text, because that is how the network has met such texts;
the answer's ids are those after the prompt's own. Spaces at the end of a prompt count as the beginning of the answer,
for words are spelled with the space in front of them. lm-evaluation-harness does both in the same way (0.4.13,
TemplateLM._encode_pair), and gets the same ids wherever the border between prompt and answer is one between pieces.

Where a piece crosses that border, as in ``:긍`` of ``평가:긍정``, the harness cuts the ids by their number, so that
characters are lost, read twice, or none is left to score. Here all answers of such a prompt are scored from the last
border that is one between pieces in all of them, with the characters of the prompt that follow it: what is compared is
then the likelihood of the same prompt, completed in different ways.

``<s>`` is always in front, and once: in a text, ``<s>`` spelled out is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.shared_prefixes import Ids
from kogpt2_gluon.tokens.tokenizer import Tokenizer

TEXTS = 1024  # encoded at a time


class EncodedPrompt(NamedTuple):
    """The ids of a prompt and its answers.

    Attributes
    ----------
    context : (at least 1,) int32
        ``<s>`` and the prompt, up to where it is scored.
    answers : list of (at least 1,) int32
    is_crossed : bool
        True if a piece crosses the border, so that the answers' ids begin within the prompt.
    """

    context: Ids
    answers: list[Ids]
    is_crossed: bool


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[tuple[str, Sequence[str]]]) -> list[EncodedPrompt]:
    """Returns the ids of prompts, each (text, answers).

    DataError names a prompt and an answer that adds nothing to it, as " " does where spaces at the end are left out.
    """
    moved = [_move_spaces(prompt, answers) for prompt, answers in prompts]
    texts = [text for prompt, answers in moved for text in (prompt, *(prompt + answer for answer in answers))]
    ids: list[list[int]] = []
    for begin in range(0, len(texts), TEXTS):
        ids += tokenizer.encode_batch(texts[begin : begin + TEXTS])
    encoded, place = [], 0
    for prompt, answers in moved:
        end = place + 1 + len(answers)
        encoded.append(_split(tokenizer.bos_id, prompt, answers, ids[place:end]))
        place = end
    return encoded


def _move_spaces(prompt: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """Moves white space at the end of a prompt to the beginning of its answers."""
    bare = prompt.rstrip()
    return bare, [prompt[len(bare) :] + answer for answer in answers]


def _split(bos_id: int, prompt: str, answers: Sequence[str], ids: Sequence[list[int]]) -> EncodedPrompt:
    own, wholes = ids[0], ids[1:]
    border = min((_common(own, whole) for whole in wholes), default=len(own))
    for answer, whole in zip(answers, wholes):
        if len(whole) == border:
            raise DataError(
                f"the answer {answer!r} adds no token to its prompt, which ends in {prompt[-20:]!r}: name a word"
            )
    context = np.array([bos_id, *own[:border]], np.int32)
    return EncodedPrompt(context, [np.array(whole[border:], np.int32) for whole in wholes], border < len(own))


def _common(one: list[int], other: list[int]) -> int:
    """Returns how many ids two texts begin with in common."""
    return next((place for place, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
