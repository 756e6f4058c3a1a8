"""Korean-like documents, edited copies of them, and their similarity by the plainest code."""

from __future__ import annotations

import itertools
import random

from kogpt2_gluon.corpus.cleaning.near_duplicates import NearDuplicateOptions
from kogpt2_gluon.demo.sentences.sample_text import sample_documents

OPTIONS = NearDuplicateOptions(enabled=True)
SYLLABLES = [chr(code) for code in range(0xAC00, 0xAC00 + 11172, 28)]


def documents(count: int, sentences: int = 8, seed: int = 0) -> list[str]:
    """Different Korean documents of some 600 characters."""
    source = sample_documents(seed)
    return ["\n".join(itertools.islice(source, sentences)) for _ in range(count)]


def edit(text: str, share: float, rng: random.Random) -> str:
    """The text with this share of its characters changed, at random places."""
    letters = list(text)
    for place in rng.sample(range(len(letters)), round(share * len(letters))):
        letters[place] = rng.choice(SYLLABLES)
    return "".join(letters)


def true_jaccard(first: str, second: str, shingle: int = 5) -> float:
    a, b = (
        {text[i : i + shingle] for i in range(len(text) - shingle + 1)}
        for text in (" ".join(first.split()), " ".join(second.split()))
    )
    return len(a & b) / len(a | b) if a or b else 0.0
