"""The documents of a block of text as UTF-8, and how many were left out of it."""

from __future__ import annotations

from collections import Counter

from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.records import Block, Rejection


def read_texts(kind: Kind, block: Block) -> tuple[list[bytes], Counter[str]]:
    """Returns the texts of a block, in order, and the number of those left out by reason.

    Reasons are those of `Rejection`, for whole documents and for lines and pieces that others lost; ``empty`` (nothing
    but white space) and ``bad_unicode`` (half of a surrogate pair, which JSON can spell).
    """
    left_out: Counter[str] = Counter()
    texts: list[str] = []
    at_once = kind.texts_at_once(block)  # of lines, none of which is rejected: many times as fast
    if at_once is not None:
        texts = at_once
    else:
        for item in kind.parse_block(block):
            if isinstance(item, Rejection):
                left_out[item.reason] += 1
                continue
            left_out["bad_utf8"] += len(item.bad_utf8)
            left_out.update(dict(item.lost))
            texts.append(item.text)
    encoded: list[bytes] = []
    for text in texts:
        if not text.strip():
            left_out["empty"] += 1
            continue
        try:
            encoded.append(text.encode())
        except UnicodeEncodeError:
            left_out["bad_unicode"] += 1
    return encoded, left_out
