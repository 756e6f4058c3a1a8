"""The text of tokens that come one by one, without ever showing a part of a character."""

from __future__ import annotations

from collections.abc import Sequence

from kogpt2_gluon.tokens.tokenizer import Tokenizer

UNFINISHED = "\ufffd"  # what the bytes of a character that is not whole are decoded to


class TextStream:
    """Decodes a text that grows token by token.

    Parameters
    ----------
    tokenizer : Tokenizer
    prompt : sequence of int
        The ids in front, without ``<s>``: the text of the first new tokens depends on them, such as the space between.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer, self._ids = tokenizer, list(prompt)
        self._shown = len(tokenizer.decode(self._ids))

    def push(self, token: int) -> str:
        """Adds a token; returns the text that is certain now and was not before, perhaps none."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        return "" if text.endswith(UNFINISHED) else self._show(text)

    def finish(self) -> str:
        """Returns what is left: the bytes of a character that never became whole."""
        return self._show(self._tokenizer.decode(self._ids))

    def _show(self, text: str) -> str:
        new, self._shown = text[self._shown :], len(text)
        return new
