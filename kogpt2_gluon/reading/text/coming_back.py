"""Counts what of a text does not come back from its tokens, and how many bits restore it.

A tokenizer that folds characters, joins spaces or has ``<unk>`` makes a text easier to predict, so bits per byte of the
raw text would be better the more it loses. Therefore what is lost is counted as a code that could be sent: after the
tokens of all documents comes a patch for each document whose text is not what its tokens are written as.

What the reader of that code can foresee costs nothing: it has the documents before, so it knows that this tokenizer
writes ㅋ as U+110F, and guesses so. A guess is a character for a character, by the majority of the times before. The
patches are then compressed, all as one.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Sequence
from typing import NamedTuple

REACH = 32  # characters within which two texts that differ are looked for to agree again
AGREE = 4  # characters that must be the same there
STRIDE = 64  # characters compared at a time
# The dictionary of xz would otherwise take hundreds of megabytes; patches are small.
FILTERS = ({"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20},)


class Edit(NamedTuple):
    """A step from one text to another: `kept` characters are copied, then `dropped` of them become `put`."""

    kept: int
    dropped: str
    put: str


def edits(start: str, goal: str) -> Iterator[Edit]:
    """Yields the steps that lead from `start` to `goal`; what comes after the last one is the same in both.

    They are not the fewest, but the time is linear in the texts, whatever they are.
    """
    here = there = kept = 0
    while True:
        same = _common(start, here, goal, there)
        here, there, kept = here + same, there + same, kept + same
        if here == len(start) and there == len(goal):
            return
        dropped, put = _agree_again(start, here, goal, there)
        yield Edit(kept, start[here : here + dropped], goal[there : there + put])
        here, there, kept = here + dropped, there + put, 0


def _common(start: str, here: int, goal: str, there: int) -> int:
    """Returns how many characters are the same from these two places on."""
    begin, most = here, min(len(start) - here, len(goal) - there)
    end = here + most
    while end - here >= STRIDE and start[here : here + STRIDE] == goal[there : there + STRIDE]:
        here, there = here + STRIDE, there + STRIDE
    while here < end and start[here] == goal[there]:
        here, there = here + 1, there + 1
    return here - begin


def _agree_again(start: str, here: int, goal: str, there: int) -> tuple[int, int]:
    """Returns how far on from here the two texts agree again, as near as possible, or REACH where they do not."""
    most, most_put = min(REACH, len(start) - here), min(REACH, len(goal) - there)
    for both in range(1, most + most_put + 1):
        for dropped in range(max(0, both - most_put), min(both, most) + 1):
            at, put_at = here + dropped, there + both - dropped
            if start[at : at + AGREE] == goal[put_at : put_at + AGREE]:
                return dropped, both - dropped
    return most, most_put


class Guesses:
    """Guesses what text a document has from how its tokens are written: each character as it mostly was before.

    The majority is counted Boyer and Moore's way, in the memory of one guess a character.
    """

    def __init__(self) -> None:
        self._becomes: dict[int, str] = {}  # by a character's number; one that is not in it is taken as it is
        self._votes: dict[str, int] = {}  # by how many times the guess was right more often than wrong

    def guess(self, written: str) -> str:
        """Returns the text that a document probably has."""
        return written.translate(self._becomes) if self._becomes else written

    def learn(self, written: str, steps: Sequence[Edit]) -> None:
        """Takes a document as it is written, and the steps from there to its text."""
        place = 0
        for kept, dropped, put in steps:
            self._confirm(written[place : place + kept])
            if len(dropped) == len(put):
                for one, other in zip(dropped, put):
                    self._vote(one, other)
            place += kept + len(dropped)
        self._confirm(written[place:])

    def _confirm(self, same: str) -> None:
        """Votes for characters that came back as they were, where there is another guess for them."""
        for sign in self._votes.keys() & set(same):
            for _ in range(same.count(sign)):
                self._vote(sign, sign)

    def _vote(self, written: str, was: str) -> None:
        number = ord(written)
        if self._becomes.get(number, written) == was:
            if number in self._becomes:
                self._votes[written] += 1
        elif number not in self._becomes:
            self._becomes[number], self._votes[written] = was, 1
        elif self._votes[written] > 1:
            self._votes[written] -= 1
        else:
            del self._becomes[number], self._votes[written]


class ComingBack:
    """Counts what does not come back, document by document.

    Attributes
    ----------
    documents : int
        Those whose text is not what their tokens are written as.
    lost_bytes : int
        Bytes of UTF-8, in the texts, that do not come back as they were.
    """

    def __init__(self) -> None:
        self.documents = self.lost_bytes = 0
        self._guesses = Guesses()
        self._since = 0  # documents since the last patch
        self._packed = 0  # bytes
        self._compressor: lzma.LZMACompressor | None = None

    def add(self, text: str, written: str) -> bytes:
        """Takes a document's text and what its tokens are written as; returns its patch, b"" if it needs none."""
        patch = b""
        if (guess := self._guesses.guess(written)) == text:
            self._since += 1
        else:
            patch = self._pack(list(edits(guess, text)))
        steps = [] if written == text else list(edits(written, text))
        self.documents += bool(steps)
        self.lost_bytes += sum(len(step.put.encode()) for step in steps)
        self._guesses.learn(written, steps)
        return patch

    def _pack(self, steps: Sequence[Edit]) -> bytes:
        """Returns a patch: documents since the last one, number of steps, and each step with its text in UTF-8."""
        if self._compressor is None:
            self._compressor = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=FILTERS)
        parts = [_number(self._since), _number(len(steps))]
        for kept, dropped, put in steps:
            parts += [_number(kept), _number(len(dropped)), _number(len(put)), put.encode()]
        patch = b"".join(parts)
        self._packed += len(self._compressor.compress(patch))
        self._since = 0
        return patch

    def bits(self) -> int:
        """Returns the compressed size of all patches; call it at the end."""
        if self._compressor is not None:
            self._packed += len(self._compressor.flush())
            self._compressor = None
        return 8 * self._packed


def _number(value: int) -> bytes:
    """Spells a number in as few bytes as it needs, seven bits in each."""
    spelt = bytearray()
    while value > 0x7F:
        spelt.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*spelt, value])
