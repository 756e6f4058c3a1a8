"""The text of tokens that come one by one, as whole characters, and up to the first of some stop strings.

A whole character is a code point of Unicode; what is shown is never taken back. A combining sign is a character of its
own, since any letter may get one later. One thing waits for what follows: letters that are made to be parts of a
Korean syllable (U+1100 and on, as NFD writes them), until the syllable cannot go on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kogpt2_gluon.tokens.tokenizer import Tokenizer

# The beginning of a syllable: leading consonants, perhaps vowels. Old Korean has up to three of each.
UNFINISHED = re.compile(r"[\u1100-\u115f\ua960-\ua97c]{1,3}[\u1160-\u11a7\ud7b0-\ud7c6]{0,3}\Z")


class TextStream:
    """Decodes a text that grows token by token, with the same work for each of them.

    All that it returns, one after another, is what the tokenizer decodes from all ids, without the text of the prompt.

    Parameters
    ----------
    tokenizer : Tokenizer
    prompt : sequence of int
        The ids in front, without ``<s>``: the text of the first new tokens depends on them, such as the space between.
        If they end inside a character, it belongs to the new text.

    Attributes
    ----------
    prompt : str
        The text of the prompt's ids.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._decoder = tokenizer.incremental_decoder()
        self.prompt = "".join([self._decoder.push(token) for token in prompt])
        self._held = ""

    def push(self, token: int) -> str:
        """Adds a token; returns the text that is certain now and was not before, perhaps none."""
        text = self._held + self._decoder.push(token)
        unfinished = UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        self._held = text[end:]
        return text[:end]

    def finish(self) -> str:
        """Returns what is left: half of a syllable, and U+FFFD for the bytes of a character that is not whole."""
        text, self._held = self._held + self._decoder.finish(), ""
        return text


class StopStrings:
    """Finds the end of a text that comes in parts: the first stop string that is complete.

    What it finds does not depend on where the parts end. Of several that are complete with the same character, the
    longest counts. What could still become a stop string is held back.

    Parameters
    ----------
    strings : sequence of str
        None of them empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        assert all(strings)
        self._strings, self._longest = tuple(strings), max(map(len, strings), default=0)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Adds a part; returns what may be shown now. Nothing more is, once `found` is True."""
        if not self._strings or self.found:
            return "" if self.found else text
        text = self._held + text
        places = ((place + len(stop), -len(stop)) for stop in self._strings if (place := text.find(stop)) >= 0)
        first = min(places, default=None)
        if first:
            self.found, self._held = True, ""
            return text[: first[0] + first[1]]
        end = self._certain(text)
        self._held = text[end:]
        return text[:end]

    def finish(self) -> str:
        """Returns what was held back, since the text ended."""
        text, self._held = self._held, ""
        return text

    def _certain(self, text: str) -> int:
        """Returns the place from which on the text could be the beginning of a stop string."""
        for place in range(max(0, len(text) - self._longest + 1), len(text)):
            if any(stop.startswith(text[place:]) for stop in self._strings):
                return place
        return len(text)
