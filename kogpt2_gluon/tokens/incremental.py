"""Decodes a text whose ids come one by one, with the same work for each of them.

What the parts make together is what the tokenizer decodes from all ids. A part never ends inside a character: bytes
wait until they are a whole one, or can no longer become one.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what is shown in the place of bytes that do not make a character


class IncrementalDecoder(ABC):
    """Decodes one text."""

    @abstractmethod
    def push(self, token: int) -> str:
        """Adds an id; returns the text that is certain now and was not before, perhaps none."""

    @abstractmethod
    def finish(self) -> str:
        """Returns what is left: the bytes of a character that never became whole, as U+FFFD."""


class SpellingDecoder(IncrementalDecoder):
    """Joins the bytes of ids, as tokenizer.json files are decoded.

    Parameters
    ----------
    spellings : sequence of bytes
        The UTF-8 of each id.
    removes_space : bool
        A space in front of the text is left out.
    """

    def __init__(self, spellings: Sequence[bytes], removes_space: bool) -> None:
        self._spellings, self._removes_space = spellings, removes_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        spelling = self._spellings[token]
        if self._removes_space and spelling:
            spelling, self._removes_space = spelling.removeprefix(b" "), False
        return self._decoder.decode(spelling)

    def finish(self) -> str:
        return self._decoder.decode(b"", True)


class PieceDecoder(IncrementalDecoder):
    """Decodes as SentencePiece does, where pieces are whole characters and only byte pieces are parts of one.

    Parameters
    ----------
    texts : sequence of str
        Of each id, with plain spaces; "" for control pieces.
    bytes_of : sequence of bytes
        The byte of each byte piece, b"" for all other ids.
    strips : bool
        A space is left out at the beginning.
    strips_all : bool
        With `strips`: one is left out of each piece until the text has begun.
    is_special : callable
        True for an id, ``<unk>`` or a control piece, of which no space is left out.
    """

    def __init__(
        self,
        texts: Sequence[str],
        bytes_of: Sequence[bytes],
        strips: bool,
        strips_all: bool,
        is_special: Callable[[int], bool],
    ) -> None:
        self._texts, self._bytes_of, self._is_special = texts, bytes_of, is_special
        self._strips_all = strips_all
        self._at_start, self._stripped_one, self._has_text = strips, False, False
        self._pending = b""

    def push(self, token: int) -> str:
        if byte := self._bytes_of[token]:
            self._pending += byte
            return self._shown(self._characters(is_end=False))
        before = self._shown(self._characters(is_end=True))  # only bytes side by side make a character
        if self._stripped_one or self._has_text:
            self._at_start = False
        text, self._stripped_one = self._texts[token], False
        if self._at_start and text.startswith(" ") and not self._is_special(token):
            text, self._stripped_one = text[1:], not self._strips_all
        return before + self._shown(text)

    def finish(self) -> str:
        return self._shown(self._characters(is_end=True))

    def _shown(self, text: str) -> str:
        self._has_text = self._has_text or bool(text)
        return text

    def _characters(self, is_end: bool) -> str:
        """Takes the pending bytes that are characters, and each byte that cannot belong to one as U+FFFD."""
        text = ""
        while self._pending:
            try:
                whole, used = codecs.utf_8_decode(self._pending, "strict", is_end)
            except UnicodeDecodeError as error:
                whole, used = self._pending[: error.start].decode() + REPLACEMENT, error.start + 1
            text, self._pending = text + whole, self._pending[used:]
            if not used:
                break
        return text


class LateDecoder(IncrementalDecoder):
    """Decodes at the end, for a tokenizer that changes the text as a whole: nothing is certain before.

    Parameters
    ----------
    decode : callable
        Takes all ids, returns the text.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode, self._ids = decode, list[int]()

    def push(self, token: int) -> str:
        self._ids.append(token)
        return ""

    def finish(self) -> str:
        text, self._ids = self._decode(self._ids), []
        return text
