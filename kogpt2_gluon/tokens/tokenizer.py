"""The tokenizer: it turns text to ids and back. A SentencePiece model or a tokenizer.json, read from its file.

The tokenizers made here (:mod:`kogpt2_gluon.tokens.training`) have the ids ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2,
``<pad>`` 3, ``<unused0>`` 4, and so on. The ids of any other tokenizer, also of KoGPT-2's released one, are looked up
by name in its file.

A document becomes ``<s> text </s>``. A tokenizer in which one token both begins and ends documents, such as GPT-2's
``<|endoftext|>``, has that token between documents once: a document becomes ``text </s>``, and the one before it begins
it. (With two in a row, a model would learn that half of all documents are empty.)
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.tokenizer_file import StoredTokenizer, is_json, read_limited
from kogpt2_gluon.tokens.incremental import IncrementalDecoder

SPACE = "\u2581"  # how SentencePiece spells a space
NEWLINE = "\n"  # the piece of a line end, where a tokenizer has one (`--keep-newlines`)
UNUSED = re.compile(r"<unused(0|[1-9][0-9]*)>")
UNKNOWN_TEXT = " \u2047 "  # what <unk> is printed as
NO_TOKEN = -1  # no id


class Tokenizer(ABC):
    """Turns text to ids and back. :meth:`Tokenizer.load` reads one from its file, of whichever kind it is.

    Attributes
    ----------
    path : Path
    stored : StoredTokenizer
        The file as shards and checkpoints store it; `sha256` is the hash of its content.
    vocab_size : int
        The highest id + 1.
    bos_id, eos_id : int
        Of the tokens that begin and end a document; they can be the same.
    unk_id, pad_id : int or None
        None where the tokenizer has no such token.
    adds_space : bool
        True if a space is put before the first word of a text.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    unk_id: int | None
    pad_id: int | None
    adds_space: bool

    def __init__(self, stored: StoredTokenizer, path: Path) -> None:
        self.path, self.stored = path, stored
        self.sha256 = hashlib.sha256(stored.content).hexdigest()

    @staticmethod
    def load(path: Path) -> Tokenizer:
        """Reads a tokenizer of either kind, which its content says. DataError if it is missing, damaged or unfit."""
        content = read_limited(path)
        if is_json(content):
            from kogpt2_gluon.tokens.json_tokenizer import JsonTokenizer  # `tokenizers` is loaded where it is needed

            return JsonTokenizer.read(content, path)
        from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(content, path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer.load, (self.path,)  # so that one can be passed to worker processes

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of the special tokens that there are, by ``unk``, ``bos``, ``eos`` and ``pad``."""
        ids = {"unk": self.unk_id, "bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id}
        return {name: token for name, token in ids.items() if token is not None}

    @property
    def unscored_id(self) -> int:
        """The id that evaluation leaves out; see :func:`unscored_id`."""
        return unscored_id(self.bos_id, self.eos_id)

    @cached_property
    @abstractmethod
    def pieces(self) -> list[str]:
        """The pieces of all ids, as the file spells them; "" for an id that no piece has."""

    @cached_property
    @abstractmethod
    def spellings(self) -> list[bytes]:
        """The UTF-8 that each id adds to a text: b"" for special ones, and perhaps only a part of a character."""

    @cached_property
    @abstractmethod
    def byte_ids(self) -> NDArray[np.bool_]:
        """True for each id that is a single byte of a character which the vocabulary lacks; (vocab_size,)."""

    @property
    @abstractmethod
    def keeps_newlines(self) -> bool:
        """True if there is a piece for a line end, so that a text's lines come back as lines."""

    @cached_property
    def unused(self) -> list[str]:
        """The pieces ``<unusedN>``, by their number: free for fine-tuning or a new name to give them a meaning."""
        numbers = sorted(int(match[1]) for match in map(UNUSED.fullmatch, self.pieces) if match)
        return [f"<unused{number}>" for number in numbers]

    @abstractmethod
    def is_special(self, token: int) -> bool:
        """Returns True for an id that has no text of its own: ``<unk>``, ``<s>``, ``</s>``, ``<pad>``."""

    @cached_property
    def controls(self) -> list[str]:
        """The names of the special ids. Written out in a text they are text, not these tokens."""
        return [piece for token, piece in enumerate(self.pieces) if self.is_special(token)]

    def is_unknown(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Returns which of `ids` are ``<unk>``: the same shape; all False for a tokenizer that spells every text."""
        unknown: NDArray[np.bool_] = ids == (NO_TOKEN if self.unk_id is None else self.unk_id)
        return unknown

    def never_written(self, allow_unknown: bool = False) -> list[int]:
        """Returns the ids that a text is never continued with: ``<pad>``, ids without a piece, and ``<unk>``."""
        left_out = [self.pad_id, None if allow_unknown else self.unk_id]
        empty = [token for token, piece in enumerate(self.pieces) if not piece]
        return [*(token for token in left_out if token is not None), *empty]

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without ``<s>`` or ``</s>``.

        DataError if one is not valid Unicode (half of a surrogate pair).
        """

    @abstractmethod
    def encode_flat(self, texts: Sequence[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Returns the ids of many texts in one array, and the number of ids of each: the fastest way to encode.

        Parameters
        ----------
        texts : sequence of bytes
            Valid UTF-8.

        Returns
        -------
        ids : (sum of lengths,) int32
        lengths : (len(texts),) int64
        """

    @abstractmethod
    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Returns the ids of each text, as `encode_batch` does, and the characters that each id stands for.

        Those are (first, last + 1) of the text as it is given, a space in front included. Several ids can share a
        character, and what normalisation put in has none: (n, n).
        """

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without ``<s>`` or ``</s>``. DataError if it is not valid Unicode."""
        return self.encode_batch([text])[0]

    def frame(self, ids: NDArray[np.int32], lengths: NDArray[np.int64], dtype: Any = np.int32) -> NDArray[Any]:
        """Returns the documents with these `ids` (n,) and `lengths` (documents,) as one array; `frame_documents`."""
        return frame_documents(ids, lengths, self.bos_id, self.eos_id, dtype)

    @abstractmethod
    def unknown_in(self, text: str) -> list[str]:
        """Returns the parts of a text that become ``<unk>``: no piece spells them."""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; special pieces have none. DataError for an id outside the vocabulary."""
        plain = [int(token) for token in ids]
        for token in plain:
            if not 0 <= token < self.vocab_size:
                raise DataError(f"id {token} is not one of the {self.vocab_size} ids of tokenizer {self.path}")
        return self._decode(plain)

    @abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abstractmethod
    def incremental_decoder(self) -> IncrementalDecoder:
        """Returns what decodes one text id by id; its parts together are what `decode` returns for all of them."""

    @abstractmethod
    def normalize(self, text: str) -> str:
        """Returns the text as the pieces spell it, but with plain spaces; `bits per byte` counts its bytes.

        It does not include a space that is put before the first word.
        """


def check_unicode(texts: Sequence[str]) -> None:
    """Raises DataError if a text is not valid Unicode."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"not valid Unicode: half of a surrogate pair, U+{ord(text[error.start]):04X}, at character "
                f"{error.start} of {text[:20]!r}"
            ) from None


def border_tokens(bos_id: int, eos_id: int) -> int:
    """Returns how many tokens a document has in addition to its text: 2, or 1 where one token begins and ends it."""
    return 1 if bos_id == eos_id else 2


def unscored_id(bos_id: int, eos_id: int) -> int:
    """Returns the id that evaluation leaves out: ``<s>``, which follows every ``</s>``; else NO_TOKEN, which none is.

    It also fills up a batch that is not full.
    """
    return NO_TOKEN if bos_id == eos_id else bos_id


def frame_documents(
    ids: NDArray[np.int32], lengths: NDArray[np.int64], bos_id: int, eos_id: int, dtype: Any = np.int32
) -> NDArray[Any]:
    """Returns ``<s> ids </s>`` for every document: `dtype`, shape (len(ids) + border_tokens * len(lengths),).

    `ids` (n,) are those of all documents, one after another, and `lengths` (documents,) says how many each has. If
    `bos_id` and `eos_id` are one token, a document is ``ids </s>``.
    """
    border = border_tokens(bos_id, eos_id)
    ends = np.cumsum(lengths + border)
    tokens = np.empty(len(ids) + border * len(lengths), dtype)
    inside = np.ones(len(tokens), bool)
    for places, token in ((ends - lengths - border, bos_id), (ends - 1, eos_id))[-border:]:
        tokens[places] = token
        inside[places] = False
    tokens[inside] = ids
    return tokens
