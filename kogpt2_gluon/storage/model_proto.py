"""The content of a SentencePiece model, which is a message of Protocol Buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError

LONGEST_PIECE = 1024  # characters; pieces are cut at each of them, and SentencePiece's own limit is 16


def model_proto(content: bytes, path: Path | None = None) -> Any:
    """Returns the ModelProto of a SentencePiece model. DataError, naming `path`, if it is none, or has bad UTF-8.

    SentencePiece itself reads some files that the Protocol Buffers of Python do not.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from sentencepiece import sentencepiece_model_pb2  # not needed in every process that has a tokenizer

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at run time
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise _damaged(path) from None
    texts = [proto.normalizer_spec.name, *proto.trainer_spec.user_defined_symbols]
    if not all(isinstance(text, str) for text in (*texts, *(piece.piece for piece in proto.pieces))):
        raise _damaged(path)  # a text that is not UTF-8 is given as bytes
    longest = max((len(piece.piece) for piece in proto.pieces), default=0)
    if longest > LONGEST_PIECE:
        raise DataError(f"{path or 'tokenizer'}: has a piece of {longest:,} characters; the most are {LONGEST_PIECE:,}")
    return proto


def _damaged(path: Path | None) -> DataError:
    return DataError(f"{path or 'tokenizer'}: is not a SentencePiece model, or is damaged")
