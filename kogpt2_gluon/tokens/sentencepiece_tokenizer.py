"""A SentencePiece model as a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.storage.tokenizer_file import SENTENCEPIECE, StoredTokenizer
from kogpt2_gluon.tokens.incremental import IncrementalDecoder, LateDecoder, PieceDecoder
from kogpt2_gluon.tokens.tokenizer import NEWLINE, SPACE, Tokenizer, check_unicode


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model that turns text to ids and back.

    DataError if it is damaged, or lacks one of ``<unk> <s> </s> <pad>``.
    """

    unk_id: int

    def __init__(self, model: bytes, path: Path) -> None:
        if not model:
            raise DataError(f"{path}: is empty, neither a SentencePiece model nor a tokenizer.json")
        super().__init__(StoredTokenizer(SENTENCEPIECE, model), path)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            self.vocab_size: int = self._processor.get_piece_size()
            self._pieces: list[str] = self._processor.id_to_piece(list(range(self.vocab_size)))
            self.adds_space: bool = self._processor.normalize("a").startswith(SPACE)
        except (RuntimeError, UnicodeError):  # the library's messages and pieces can be no UTF-8
            raise DataError(f"{path}: is not a SentencePiece model nor a tokenizer.json, or is damaged") from None
        self.unk_id = self._special("<unk>")
        self.bos_id = self._special("<s>")
        self.eos_id = self._special("</s>")
        self.pad_id = self._special("<pad>")

    def _special(self, piece: str) -> int:
        token = self._find(piece)
        if token is None:
            raise DataError(f"{self.path}: this tokenizer lacks the piece {piece}, which documents need")
        return token

    def _find(self, piece: str) -> int | None:
        token: int = self._processor.piece_to_id(piece)  # the id of <unk> if there is no such piece
        return token if 0 <= token < self.vocab_size and self._pieces[token] == piece else None

    @cached_property
    def pieces(self) -> list[str]:
        """The pieces of all ids, as the file spells them: a space is U+2581, a byte ``<0xEA>``."""
        return self._pieces

    @cached_property
    def spellings(self) -> list[bytes]:
        """The UTF-8 that each id adds to a text."""
        texts = [b"" if self.is_special(token) else self._spelling(token) for token in range(self.vocab_size)]
        return texts

    def _spelling(self, token: int) -> bytes:
        piece = self.pieces[token]
        return bytes([int(piece[3:5], 16)]) if self.byte_ids[token] else piece.replace(SPACE, " ").encode()  # <0xEA>

    @cached_property
    def byte_ids(self) -> NDArray[np.bool_]:
        """True for each of the 256 ids (if any) that are single bytes of what the vocabulary lacks; (vocab_size,)."""
        return np.array([self._processor.is_byte(token) for token in range(self.vocab_size)], bool)

    @cached_property
    def keeps_newlines(self) -> bool:
        """True if there is a piece for a line end, so that a text's lines come back as lines under every profile."""
        return self._find(NEWLINE) is not None

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        processor = self._processor
        return frozenset(
            token for token in range(self.vocab_size) if processor.is_control(token) or processor.is_unknown(token)
        )

    def is_special(self, token: int) -> bool:
        """Returns True for an id that has no text of its own: ``<unk>``, ``<s>``, ``</s>``, ``<pad>``."""
        return token in self._special_ids

    def unknown_in(self, text: str) -> list[str]:
        """Returns the parts of a text, normalised, that become ``<unk>``: no piece spells them."""
        pieces = self._processor.encode(text, out_type=str)
        return [piece for piece, token in zip(pieces, self.encode(text)) if token == self.unk_id]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text. DataError if one is not valid Unicode (half of a surrogate pair)."""
        try:
            if len(texts) == 1:  # SentencePiece makes threads for each list, which takes 30 times as long as one prompt
                return [self._processor.encode(texts[0], out_type=int)]
            ids: list[list[int]] = self._processor.encode(list(texts), out_type=int, num_threads=1)
        except (RuntimeError, TypeError, UnicodeEncodeError):
            check_unicode(texts)
            raise
        return ids

    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Returns the ids of each text and the characters that each id stands for; see Tokenizer."""
        from sentencepiece import sentencepiece_pb2

        check_unicode(texts)
        encoded = []
        for text in texts:
            found = sentencepiece_pb2.SentencePieceText()  # type: ignore[attr-defined]  # protobuf makes it
            found.ParseFromString(self._processor.encode(text, out_type="serialized_proto"))
            # SentencePiece counts the bytes of UTF-8. A character begins at each byte that continues none.
            begins = np.frombuffer(text.encode(), np.uint8) & 0xC0 != 0x80
            characters = np.concatenate([[0], np.cumsum(begins)])
            places = [(int(characters[each.begin]), int(characters[each.end])) for each in found.pieces]
            encoded.append(([each.id for each in found.pieces], places))
        return encoded

    def encode_flat(self, texts: Sequence[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Returns the ids of many texts in one array, and the number of ids of each."""
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

    def _decode(self, ids: list[int]) -> str:
        text: str = self._processor.decode(ids)
        return text

    def incremental_decoder(self) -> IncrementalDecoder:
        """Returns what decodes one text id by id; it shows nothing before the end if the model has a denormalizer."""
        spaces = self._spaces_in_front
        if spaces is None:
            return LateDecoder(self._decode)
        return PieceDecoder(*self._written, *spaces, self.is_special)

    @cached_property
    def _spaces_in_front(self) -> tuple[bool, bool] | None:
        """Returns how a text is decoded: is a space in front left out, and of several pieces? None: denormalized."""
        proto = model_proto(self.stored.content, self.path)
        if proto.denormalizer_spec.precompiled_charsmap:
            return None
        removes_extra = bool(proto.normalizer_spec.remove_extra_whitespaces)
        return bool(proto.normalizer_spec.add_dummy_prefix) or removes_extra, removes_extra

    @cached_property
    def _written(self) -> tuple[list[str], list[bytes]]:
        """The text that each id writes, and the byte of each byte piece."""
        spellings, is_byte = self.spellings, self.byte_ids
        texts = ["" if byte else spelling.decode() for spelling, byte in zip(spellings, is_byte)]
        texts[self.unk_id] = self._decode([self.unk_id])
        return texts, [spelling if byte else b"" for spelling, byte in zip(spellings, is_byte)]

    def normalize(self, text: str) -> str:
        """Returns the text as the pieces spell it, but with plain spaces and without the space in front."""
        check_unicode([text])
        spelt = self.spell(text.encode()).decode()
        return (spelt[1:] if self.adds_space else spelt).replace(SPACE, " ")

    def spell(self, text: bytes) -> bytes:
        """Returns the UTF-8 that is cut into pieces: normalised, a space as U+2581, perhaps with one more in front."""
        try:
            spelt: str | bytes = self._processor.normalize(text)
        except UnicodeError:  # a damaged table makes such texts
            raise DataError(f"{self.path}: its normalisation makes what is not UTF-8; the file is damaged") from None
        return spelt.encode() if isinstance(spelt, str) else spelt
