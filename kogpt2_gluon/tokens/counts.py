"""Counts the bytes and words of texts, as their tokenizer normalises them.

For a SentencePiece model they are counted from token ids, so that few texts are normalised a second time. The pieces
of a text, put together, are the text as the tokenizer normalised it. So each id stands for a known number of bytes, and
the pieces' ends show where words end. ``<unk>`` stands for any characters that are not in the vocabulary: a document
that has it is spelled again to count its bytes, and a document in which even spaces are in doubt is normalised again.
The counts are the same either way.

With a tokenizer.json the text that comes back from the ids is counted; one that has an unknown token is encoded again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.tokenizer import SPACE, Tokenizer

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
SPACES = [sign for sign in map(chr, range(0x3001)) if sign.isspace()]  # all characters at which `str.split` cuts
WIDE_SPACE_BYTES = {sign.encode()[0] for sign in SPACES if ord(sign) >= 0x80}  # first bytes of U+00A0, U+3000, ...


class Counter(Protocol):
    """Counts the text of documents.

    Bytes are those of ``tokenizer.normalize(text).encode()``, words those of ``tokenizer.normalize(text).split()``.
    """

    def count(
        self, ids: NDArray[np.int32], lengths: NDArray[np.int64], texts: Sequence[bytes]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the number of bytes (documents,) and words (documents,) in each document.

        `ids` (n,) are those of all documents, one after another, `lengths` (documents,) says how many each has, and
        `texts` is the UTF-8 that was encoded.
        """


def counter_for(tokenizer: Tokenizer) -> Counter:
    """Returns the counter that suits a tokenizer."""
    return TokenCounter(tokenizer) if isinstance(tokenizer, SentencePieceTokenizer) else TextCounter(tokenizer)


class TextCounter:
    """Counts the texts that come back from the ids of a tokenizer.json."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def count(
        self, ids: NDArray[np.int32], lengths: NDArray[np.int64], texts: Sequence[bytes]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the number of bytes (documents,) and words (documents,) in each document."""
        text_bytes, words = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
        ends, unknown = np.cumsum(lengths), self._tokenizer.is_unknown(ids)
        for index, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist())):
            row = slice(end - length, end)
            again = unknown[row].any()
            text = self._tokenizer.normalize(texts[index].decode()) if again else self._tokenizer.decode(ids[row])
            text_bytes[index], words[index] = len(text.encode()), len(text.split())
        return text_bytes, words


class TokenCounter:
    """Counts what the ids of a SentencePiece model stand for."""

    def __init__(self, tokenizer: SentencePieceTokenizer) -> None:
        self._tokenizer = tokenizer
        size = tokenizer.vocab_size
        self._bytes = np.zeros(size, np.int32)
        self._words = np.ones(size, np.int32)  # in the piece alone; words that run on into the next are joined later
        self._begins_word = np.ones(size, bool)  # its first character is not a space
        self._ends_word = np.ones(size, bool)
        self._begins_with_space = np.zeros(size, bool)
        self._unknown = np.zeros(size, bool)
        self._doubtful = np.zeros(size, bool)
        for token, piece in enumerate(tokenizer.pieces):
            self._tabulate(token, piece)
        pieces = set(tokenizer.pieces)
        # Spaces that can be in an <unk>: `nmt_nfkc` leaves one of them, U+0085, as it is.
        self._hidden_spaces = [
            sign.encode()
            for sign in SPACES
            if sign != " " and sign not in pieces and sign in tokenizer.normalize(f"a{sign}a")
        ]

    def _tabulate(self, token: int, piece: str) -> None:
        if token == self._tokenizer.unk_id:
            self._unknown[token] = True  # some characters; the document is normalised again if one of them is a space
            return
        if self._tokenizer.is_special(token):
            self._doubtful[token] = True  # it is not made from text
            return
        if self._tokenizer.byte_ids[token]:
            match = BYTE_PIECE.fullmatch(piece)
            assert match, piece
            value = int(match[1], 16)
            self._doubtful[token] = value in WIDE_SPACE_BYTES
            text, self._bytes[token] = chr(value) if value < 0x80 else "x", 1  # "x": a part of a wide character
        else:
            text = piece.replace(SPACE, " ")
            self._bytes[token] = len(text.encode())
            self._begins_with_space[token] = piece.startswith(SPACE)
        self._words[token] = len(text.split())
        self._begins_word[token] = not text[0].isspace()
        self._ends_word[token] = not text[-1].isspace()

    def count(
        self, ids: NDArray[np.int32], lengths: NDArray[np.int64], texts: Sequence[bytes]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the number of bytes (documents,) and words (documents,) in each document."""
        text_bytes, words = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
        filled = np.flatnonzero(lengths)
        again = lengths == 0  # a text without ids may still have bytes
        unknown = np.zeros(len(lengths), bool)
        if len(filled):
            starts = (np.cumsum(lengths) - lengths)[filled]
            joined = np.zeros(len(ids), bool)
            joined[1:] = self._ends_word[ids[:-1]] & self._begins_word[ids[1:]]
            joined[starts] = False
            text_bytes[filled] = np.add.reduceat(self._bytes[ids], starts, dtype=np.int64)
            words[filled] = np.add.reduceat(self._words[ids] - joined, starts, dtype=np.int64)
            unknown[filled] = np.logical_or.reduceat(self._unknown[ids], starts)
            again[filled] = np.logical_or.reduceat(self._doubtful[ids], starts)
            if self._tokenizer.adds_space:  # the space before the first word is not part of the text
                text_bytes[filled] -= 1
                again[filled] |= ~self._begins_with_space[ids[starts]]
        for index in np.flatnonzero(unknown & ~again):
            spelt = self._tokenizer.spell(texts[index])
            again[index] = any(sign in spelt for sign in self._hidden_spaces)
            text_bytes[index] = len(spelt) - spelt.count(SPACE.encode()) * (len(SPACE.encode()) - 1)
            text_bytes[index] -= self._tokenizer.adds_space
        for index in np.flatnonzero(again):
            normalized = self._tokenizer.normalize(texts[index].decode())
            text_bytes[index], words[index] = len(normalized.encode()), len(normalized.split())
        return text_bytes, words
