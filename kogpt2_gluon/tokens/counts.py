"""Bytes and words of a text, counted from its token ids: few texts need be normalised a second time for it.

The pieces of a text, put together, are the text as the tokenizer normalised it, so that each id stands for a known
number of bytes, and words can be told from where pieces begin and end. ``<unk>`` stands for any characters that are not
in the vocabulary: for the bytes of a document that has it, and for everything where even spaces are in doubt, the text
is normalised after all. The counts are the same either way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.tokens.tokenizer import SPACE, Tokenizer

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
SPACES = [sign for sign in map(chr, range(0x3001)) if sign.isspace()]  # all that `str.split` parts words at
WIDE_SPACE_BYTES = {sign.encode()[0] for sign in SPACES if ord(sign) >= 0x80}  # such as U+00A0 and U+3000 begin with


class TokenCounter:
    """Counts what a tokenizer's ids stand for.

    Bytes are those of ``tokenizer.normalize(text).encode()``, words those of ``tokenizer.normalize(text).split()``.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        size = tokenizer.vocab_size
        self._bytes = np.zeros(size, np.int32)
        self._words = np.ones(size, np.int32)  # in the piece alone; words that run on into the next are joined later
        self._begins_word = np.ones(size, bool)  # its first character is no space
        self._ends_word = np.ones(size, bool)
        self._begins_with_space = np.zeros(size, bool)
        self._unknown = np.zeros(size, bool)
        self._doubtful = np.zeros(size, bool)
        for token, piece in enumerate(tokenizer.pieces):
            self._tabulate(token, piece)
        pieces = set(tokenizer.pieces)
        # Spaces that <unk> may stand for: `nmt_nfkc` leaves one, U+0085, as it is.
        self._hidden_spaces = [
            sign.encode()
            for sign in SPACES
            if sign != " " and sign not in pieces and sign in tokenizer.normalize(f"a{sign}a")
        ]

    def _tabulate(self, token: int, piece: str) -> None:
        if token == self._tokenizer.unk_id:
            self._unknown[token] = True  # some characters, none of them a space (or the document is looked at again)
            return
        if self._tokenizer.is_special(token):
            self._doubtful[token] = True  # no text has it
            return
        if self._tokenizer.byte_ids[token]:
            match = BYTE_PIECE.fullmatch(piece)
            assert match, piece
            value = int(match[1], 16)
            self._doubtful[token] = value in WIDE_SPACE_BYTES
            text, self._bytes[token] = chr(value) if value < 0x80 else "x", 1  # or part of a sign that is no space
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
        """Bytes (documents,) and words (documents,) of each document.

        `ids` (n,) are the documents' one after another, `lengths` (documents,) how many each has, and `texts` the
        UTF-8 that was encoded.
        """
        text_bytes, words = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
        filled = np.flatnonzero(lengths)
        again = lengths == 0  # nothing says that a text without ids has no bytes
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
            if self._tokenizer.adds_space:  # the space before the first word is no part of the text
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
