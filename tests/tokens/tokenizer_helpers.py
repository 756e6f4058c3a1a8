"""Text for the tests of tokenizers: signs that are words of their own, and corpora of them."""

from __future__ import annotations

import random
from pathlib import Path

from kogpt2_gluon.corpus.cleaning import clean

SIGNS = [chr(0xAC00 + 7 * number) for number in range(300)]


def make_corpus(folder: Path, documents: list[str], test_share: float = 0.0) -> Path:
    source = folder / "source.txt"
    source.write_text("\n".join(documents), encoding="utf-8")
    clean([source], folder / "corpus", "line", test_share)
    return folder / "corpus"


def random_words(count: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices(SIGNS, k=draw.randint(1, 5))) for _ in range(count))
