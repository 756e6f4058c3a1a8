"""Long texts are cut into segments that, encoded one by one, give the very ids of the whole text.

The work that a rare character causes, counting the bytes of an ``<unk>``, is then repeated for a segment and not for a
whole document; and SentencePiece's BPE, which keeps all pairs of a text in one queue, does not become slower.

A text is cut at a space between two plain characters. SentencePiece puts a space before each text, which restores the
space of the cut. No id changes if nothing in the tokenizer reaches across a space, which `can_cut` checks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.storage.tokenizer_file import is_json
from kogpt2_gluon.tokens.profiles import JAMO_PROFILE
from kogpt2_gluon.tokens.tokenizer import SPACE

SEGMENT_BYTES = (
    512  # the minimum: a shorter text is not cut, and a segment ends at the first possible place after so many
)
# SentencePiece's own rules: in none of them is a space next to ASCII or a character from U+A000 to U+CFFF (Hangul).
RULES = {"identity", "nmt_nfkc", JAMO_PROFILE, "nfkc", "nmt_nfkc_cf", "nfkc_cf"}


def compile_segment(size: int) -> re.Pattern[bytes]:
    """Returns a pattern for a segment of `size` bytes or more and its space, or the rest; it reads each byte once."""
    return re.compile(rb"(?s).{%d,}?(?:[!-~]|[\xea-\xec]..) (?=[!-~\xea-\xec])|.+" % size)


_SEGMENT = compile_segment(SEGMENT_BYTES)


def can_cut(model: bytes, path: Path | None = None) -> bool:
    """Returns True if a tokenizer gives the same ids segment by segment: a BPE with no space inside a piece.

    Of a tokenizer.json this is not known. The `tokenizers` library cuts most texts into words by itself.
    """
    if is_json(model):
        return False
    proto = model_proto(model, path)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    pieces = [piece.piece for piece in proto.pieces]
    return bool(
        trainer.model_type == trainer.BPE
        and not trainer.treat_whitespace_as_suffix
        and normalizer.name in RULES
        and normalizer.add_dummy_prefix
        and normalizer.escape_whitespaces
        and SPACE in pieces  # otherwise it is unknown, and forms one unknown piece with an unknown character before it
        and not any(SPACE in piece[1:] or " " in piece for piece in pieces)
    )


def cut_texts(texts: Sequence[bytes]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Returns the segments of all texts in order, and how many each text has: int64, shape (len(texts),), at least 1.

    Texts are UTF-8. A segment has SEGMENT_BYTES and a little more; the segments of a text, joined by spaces, are the
    text.
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
