"""The tokenizer: a SentencePiece model, read from its file, that turns text to ids and back.

The tokenizers made here (:mod:`kogpt2_gluon.tokens.training`) have the ids ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2,
``<pad>`` 3, ``<unused0>`` 4, and so on. The ids of any other tokenizer, also of KoGPT-2's released one, are looked up
by name in its file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError

SPACE = "\u2581"  # how SentencePiece spells a space
NEWLINE = "\n"  # the piece of a line end, where a tokenizer has one (`--keep-newlines`)
UNUSED = re.compile(r"<unused(0|[1-9][0-9]*)>")


class Tokenizer:
    """A SentencePiece model that turns text to ids and back. :meth:`Tokenizer.load` reads one from its file."""

    def __init__(self, model: bytes, path: Path) -> None:
        if not model:
            raise DataError(f"{path}: is empty, not a SentencePiece model")
        self.path = path
        self.sha256 = hashlib.sha256(model).hexdigest()
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise DataError(f"{path}: is not a SentencePiece model, or is damaged") from None
        self.vocab_size: int = self._processor.get_piece_size()
        self.unk_id = self._special("<unk>")
        self.bos_id = self._special("<s>")
        self.eos_id = self._special("</s>")
        self.pad_id = self._special("<pad>")
        self.adds_space: bool = self._processor.normalize("a").startswith(SPACE)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Reads a `.model` file. DataError if it is missing, damaged, or lacks one of ``<unk> <s> </s> <pad>``."""
        try:
            model = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the tokenizer cannot be read: {error.strerror}") from None
        return cls(model, path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer.load, (self.path,)  # so that one can be passed to worker processes

    def _special(self, piece: str) -> int:
        token = self._find(piece)
        if token is None:
            raise DataError(f"{self.path}: this tokenizer lacks the piece {piece}, which documents need")
        return token

    def _find(self, piece: str) -> int | None:
        token: int = self._processor.piece_to_id(piece)  # the id of <unk> if there is no such piece
        return token if self._processor.id_to_piece(token) == piece else None

    @cached_property
    def pieces(self) -> list[str]:
        """The pieces of all ids, as the file spells them: a space is U+2581, a byte ``<0xEA>``."""
        return [self._processor.id_to_piece(token) for token in range(self.vocab_size)]

    @cached_property
    def unused(self) -> list[str]:
        """The pieces ``<unusedN>``, by their number: free for fine-tuning or a new name to give them a meaning."""
        numbers = sorted(int(match[1]) for match in map(UNUSED.fullmatch, self.pieces) if match)
        return [f"<unused{number}>" for number in numbers]

    @cached_property
    def keeps_newlines(self) -> bool:
        """True if there is a piece for a line end, so that a text's lines come back as lines under every profile."""
        return self._find(NEWLINE) is not None

    @cached_property
    def byte_ids(self) -> NDArray[np.bool_]:
        """True for each of the 256 ids (if any) that are single bytes of what the vocabulary lacks; (vocab_size,)."""
        return np.array([self._processor.is_byte(token) for token in range(self.vocab_size)], bool)

    def is_special(self, token: int) -> bool:
        """Returns True for an id that has no text of its own: ``<unk>``, ``<s>``, ``</s>``, ``<pad>``."""
        return bool(self._processor.is_control(token) or self._processor.is_unknown(token))

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without ``<s>`` or ``</s>``. DataError if it is not valid Unicode."""
        try:
            ids: list[int] = self._processor.encode(text, out_type=int)
        except (RuntimeError, TypeError, UnicodeEncodeError):
            _check_unicode([text])
            raise
        return ids

    def unknown_in(self, text: str) -> list[str]:
        """Returns the parts of a text, normalised, that become ``<unk>``: no piece spells them."""
        pieces = self._processor.encode(text, out_type=str)
        return [piece for piece, token in zip(pieces, self.encode(text)) if token == self.unk_id]

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """Returns the ids of each text. DataError if one is not valid Unicode (half of a surrogate pair)."""
        try:
            ids: list[list[int]] = self._processor.encode(list(texts), out_type=int, num_threads=num_threads)
        except (RuntimeError, TypeError, UnicodeEncodeError):
            _check_unicode(texts)
            raise
        return ids

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
        # `encode(..., out_type="numpy")` calls this too. An array object for each short text would cost as much as a
        # fifth of its encoding, so the buffers are joined before NumPy sees them.
        encode_buffers = getattr(getattr(self._processor, "_processor", None), "_EncodeAsBufferBatch", None)
        if encode_buffers is None:  # SentencePiece before 0.2.2
            rows = self._processor.encode(list(texts), out_type=int)
            lengths = np.fromiter(map(len, rows), np.int64, len(rows))
            return np.fromiter((token for row in rows for token in row), np.int32, int(lengths.sum())), lengths
        buffers = encode_buffers(list(texts), 1, None, False, -1, 0.0, False, False, False)
        lengths = np.fromiter((memoryview(buffer).nbytes for buffer in buffers), np.int64, len(buffers)) // 4
        return np.frombuffer(b"".join(buffers), np.int32), lengths

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; special pieces have none. DataError for an id outside the vocabulary."""
        plain = [int(token) for token in ids]
        for token in plain:
            if not 0 <= token < self.vocab_size:
                raise DataError(f"id {token} is not one of the {self.vocab_size} ids of tokenizer {self.path}")
        text: str = self._processor.decode(plain)
        return text

    def normalize(self, text: str) -> str:
        """Returns the text as the pieces spell it, but with plain spaces; `bits per byte` counts its bytes.

        It does not include the space that SentencePiece puts before the first word.
        """
        _check_unicode([text])
        spelt = self.spell(text.encode()).decode()
        return (spelt[1:] if self.adds_space else spelt).replace(SPACE, " ")

    def spell(self, text: bytes) -> bytes:
        """Returns the UTF-8 that is cut into pieces: normalised, a space as U+2581, perhaps with one more in front."""
        spelt: str | bytes = self._processor.normalize(text)
        return spelt.encode() if isinstance(spelt, str) else spelt


def _check_unicode(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"not valid Unicode: half of a surrogate pair, U+{ord(text[error.start]):04X}, at character "
                f"{error.start} of {text[:20]!r}"
            ) from None


def frame_documents(
    ids: NDArray[np.int32], lengths: NDArray[np.int64], bos_id: int, eos_id: int, dtype: Any = np.int32
) -> NDArray[Any]:
    """Returns ``<s> ids </s>`` for every document: `dtype`, shape (len(ids) + 2 * len(lengths),).

    `ids` (n,) are those of all documents, one after another, and `lengths` (documents,) says how many each has.
    """
    ends = np.cumsum(lengths + 2)
    tokens = np.empty(len(ids) + 2 * len(lengths), dtype)
    inside = np.ones(len(tokens), bool)
    for places, token in ((ends - lengths - 2, bos_id), (ends - 1, eos_id)):
        tokens[places] = token
        inside[places] = False
    tokens[inside] = ids
    return tokens
