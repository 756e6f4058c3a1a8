"""The table of character classes: what it says of known characters, and of those that need no normalising."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.corpus.cleaning.characters import (
    CODE_POINTS,
    EMOJI,
    HANGUL,
    HANJA,
    RARE_SYMBOL,
    SUSPICIOUS,
    SYMBOL,
    class_table,
)
from kogpt2_gluon.corpus.cleaning.normalize import normalize_line


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_unsuspicious_characters_never_need_normalising(form: str) -> None:
    """Every one of them, alone and after what it could melt into; the filters look at the others only."""
    table = class_table(form)
    calm = np.flatnonzero((table & SUSPICIOUS) == 0)
    calm = calm[(calm != ord(" ")) & (calm != ord("\n"))]
    assert len(calm) > 1_000_000
    calm = np.concatenate([calm[calm < 0x20000], calm[calm >= 0x20000][::97]])  # hanja, then next to nothing
    for before in ("", "가", "\u1100", "a", "="):
        for start in range(0, len(calm), 50_000):
            line = " ".join(before + char for char in map(chr, calm[start : start + 50_000].tolist()))
            assert normalize_line(line, form) == line


def test_classes() -> None:
    table = class_table()
    assert len(table) == CODE_POINTS
    for chars, bit in (
        ("가힣ㅋㅠ\u1100", HANGUL),
        ("漢字〇", HANJA),
        ("★♥☎→①㎏＋", SYMBOL),
        ("👍😀✅🇰", EMOJI),
        ("⟶⅋", RARE_SYMBOL),
    ):
        for char in chars:
            assert table[ord(char)] & bit, char
