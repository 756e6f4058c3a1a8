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
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.shared_prefixes import Ids
from kogpt2_gluon.shards.segments import can_cut, compile_segment
from kogpt2_gluon.storage.tokenizer_file import is_json
from kogpt2_gluon.tokens.tokenizer import Tokenizer, check_unicode

SEGMENT = compile_segment(64)  # bytes: prompts that begin alike have nearly all of their segments in common
TEXTS = 4096  # encoded at a time


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


class PromptEncoder:
    """Encodes prompts and their answers; what many prompts have in common is encoded once.

    Parameters
    ----------
    tokenizer : Tokenizer
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        content = tokenizer.stored.content
        self._can_cut = not is_json(content) and can_cut(content, tokenizer.path)

    def encode(self, prompts: Sequence[tuple[str, Sequence[str]]]) -> list[EncodedPrompt]:
        """Returns the ids of prompts, each (text, answers).

        DataError names a prompt and an answer that adds nothing to it, as " " does where spaces at the end are left
        out.
        """
        moved = [_move_spaces(prompt, answers) for prompt, answers in prompts]
        texts = [text for prompt, answers in moved for text in (prompt, *(prompt + answer for answer in answers))]
        ids = self.encode_texts(texts)
        encoded, place = [], 0
        for prompt, answers in moved:
            end = place + 1 + len(answers)
            encoded.append(self._split(prompt, answers, ids[place:end]))
            place = end
        return encoded

    def _split(self, prompt: str, answers: Sequence[str], ids: Sequence[Ids]) -> EncodedPrompt:
        own, wholes = ids[0], ids[1:]
        for answer, whole in zip(answers, wholes):
            if len(whole) <= len(own) and not self.tokenizer.encode(answer):
                raise DataError(
                    f"the answer {answer!r} adds no token to its prompt, which ends in {prompt[-20:]!r}: name a word"
                )
        # Unknown characters in a row are one <unk>, so a prompt and its answer can have the ids of the prompt alone.
        border = min((min(_common(own, whole), len(whole) - 1) for whole in wholes), default=len(own))
        context = np.concatenate([[self.tokenizer.bos_id], own[:border]]).astype(np.int32)
        return EncodedPrompt(context, [whole[border:] for whole in wholes], border < len(own))

    def encode_texts(self, texts: Sequence[str]) -> list[Ids]:
        """Returns the ids of texts, without ``<s>``."""
        if not self._can_cut:
            return [np.array(ids, np.int32) for ids in self._encode_batches(texts)]
        check_unicode(texts)
        numbers: dict[bytes, int] = {}  # of segments
        cut = [[numbers.setdefault(part, len(numbers)) for part in _segments(text)] for text in texts]
        pieces = [np.array(ids, np.int32) for ids in self._encode_batches([part.decode() for part in numbers])]
        return [_joined([pieces[number] for number in parts]) for parts in cut]

    def _encode_batches(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = []
        for begin in range(0, len(texts), TEXTS):
            ids += self.tokenizer.encode_batch(texts[begin : begin + TEXTS])
        return ids


def _segments(text: str) -> list[bytes]:
    """Cuts a text at single spaces, which the segments lack; each but the last has 64 bytes or more."""
    *parts, last = SEGMENT.findall(text.encode()) or [b""]
    return [*(part[:-1] for part in parts), last]


def _joined(pieces: Sequence[NDArray[np.int32]]) -> Ids:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _move_spaces(prompt: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """Moves white space at the end of a prompt to the beginning of its answers."""
    bare = prompt.rstrip()
    return bare, [prompt[len(bare) :] + answer for answer in answers]


def _common(one: Ids, other: Ids) -> int:
    """Returns how many ids two texts begin with in common."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if differ.size else length
