"""Long texts in segments that are encoded one by one to the very ids of the whole.

What is done again for a rare character, counting the bytes of an ``<unk>``, is then done for a segment and not for a
whole document; and SentencePiece's BPE, which keeps all pairs of a text in one queue, is no slower for it.

A text is cut at a space between two plain characters. SentencePiece puts a space before each text, so that the space of
the cut comes back. No id changes where the tokenizer looks at nothing across a space, which `can_cut` makes sure of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.tokens.tokenizer import SPACE

SEGMENT_BYTES = 512  # the least: a shorter text is not cut, and a segment ends at the first place after so many
# The rules that SentencePiece brings: none has a space beside ASCII or a character from U+A000 to U+CFFF (Hangul).
RULES = {"identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"}


def compile_segment(size: int) -> re.Pattern[bytes]:
    """Finds a segment of at least `size` bytes and the space after it, or what is left: each byte is searched once."""
    return re.compile(rb"(?s).{%d,}?(?:[!-~]|[\xea-\xec]..) (?=[!-~\xea-\xec])|.+" % size)


_SEGMENT = compile_segment(SEGMENT_BYTES)


def can_cut(model: bytes) -> bool:
    """Whether a SentencePiece model gives the ids of a text segment by segment: BPE, whose pieces span no space."""
    from sentencepiece import sentencepiece_model_pb2  # not in every process that cuts

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at run time
    proto.ParseFromString(model)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    pieces = [piece.piece for piece in proto.pieces]
    return bool(
        trainer.model_type == trainer.BPE
        and not trainer.treat_whitespace_as_suffix
        and normalizer.name in RULES
        and normalizer.add_dummy_prefix
        and normalizer.escape_whitespaces
        and SPACE in pieces  # else unknown, and one with an unknown character before it
        and not any(SPACE in piece[1:] or " " in piece for piece in pieces)
    )


def cut_texts(texts: Sequence[bytes]) -> tuple[list[bytes], NDArray[np.int64]]:
    """All texts' segments, one text's after another's, and how many each text has: (len(texts),), at least 1.

    Texts are UTF-8. A segment has SEGMENT_BYTES and a little more; those of a text, joined by spaces, are the text.
    """
    counts = np.ones(len(texts), np.int64)
    segments: list[bytes] = []
    done = 0
    for index in [index for index, text in enumerate(texts) if len(text) > SEGMENT_BYTES]:
        *parts, last = _SEGMENT.findall(texts[index])
        segments += texts[done:index]
        segments += [part[:-1] for part in parts]
        segments.append(last)
        counts[index] = len(parts) + 1
        done = index + 1
    segments += texts[done:]
    return segments, counts
