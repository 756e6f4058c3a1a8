"""A SentencePiece BPE model as the vocabulary of a GGUF file, of the kind that llama.cpp calls SPM.

llama.cpp then joins pieces as SentencePiece does, highest score first, leftmost first, and puts the space in front of a
text. It has no normalisation and no unknown token: a character without a piece becomes one token for each of its
bytes, and a vocabulary without such tokens makes it fail. So they are added where the model has none. Its other kind,
BPE, would leave such a character out, but has no space in front of a text: the first word would get other ids.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from kogpt2_gluon.convert.tokenizer_json import BYTE, CONTROL, UNKNOWN, USER_DEFINED, SentencePieceBPE
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.tokenizer_file import is_json, read_limited

BYTES = [f"<0x{number:02X}>" for number in range(256)]  # as SentencePiece and llama.cpp name them


class GgufVocabulary(NamedTuple):
    """The tokens of a file; its types are numbered as SentencePiece numbers them.

    Attributes
    ----------
    tokens : list of str
        Those of the model in the order of their ids, then the added bytes.
    scores : list of float
    types : list of int
    pieces : int
        Tokens of the model.
    read_as : int
        The token whose row of the embedding the added bytes have when they are read: the unknown one.
    rated_as : int
        The token whose row of the output they have: one that training never has, so that none is generated.
    symbols : list of str
        User-defined pieces, which llama.cpp finds in a text before all else.
    spelled : list of str
        Special tokens that a text can spell in llama.cpp, which joins pieces to them.
    space_in_front : bool
    """

    tokens: list[str]
    scores: list[float]
    types: list[int]
    pieces: int
    read_as: int
    rated_as: int
    symbols: list[str]
    spelled: list[str]
    space_in_front: bool

    @property
    def added(self) -> int:
        return len(self.tokens) - self.pieces


def gguf_vocabulary(path: Path) -> GgufVocabulary:
    """Reads a SentencePiece model. RecipeError for a tokenizer.json, DataError for what cannot be converted."""
    if is_json(read_limited(path)):
        raise RecipeError(
            f"--to gguf takes a SentencePiece tokenizer, and {path} is none; "
            "llama.cpp's own convert_hf_to_gguf.py takes the tokenizer.json files that it knows"
        )
    model = SentencePieceBPE(path)
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.proto.pieces]
    byte_fallback = bool(model.of_type(BYTE))
    added = [] if byte_fallback else [(name, 0.0, BYTE) for name in BYTES if name not in model.ids]
    tokens, scores, types = map(list, zip(*pieces, *added))
    return GgufVocabulary(
        tokens,
        scores,
        types,
        pieces=len(pieces),
        read_as=model.ids[model.unk],
        rated_as=model.ids[_never_in_a_text(model)],
        symbols=model.of_type(USER_DEFINED),
        spelled=[piece for piece in model.of_type(UNKNOWN, CONTROL) if _is_sum_of_two(piece, model.scores)],
        space_in_front=model.proto.normalizer_spec.add_dummy_prefix,
    )


def _never_in_a_text(model: SentencePieceBPE) -> str:
    """Returns the padding, else a symbol that may be unused, else the unknown token."""
    spare = [piece for piece in model.of_type(CONTROL) if piece not in (model.bos, model.eos)]
    return str((spare + model.of_type(USER_DEFINED) + model.of_type(UNKNOWN))[0])


def _is_sum_of_two(token: str, pieces: Collection[str]) -> bool:
    return any(token[:at] in pieces and token[at:] in pieces for at in range(1, len(token)))
