"""MinHash: exact similarity and signatures against references, and the curve of the bands."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning import minhash
from kogpt2_gluon.corpus.cleaning.minhash import choose_bands, collapse, jaccard, recall, shingle_set, signatures
from tests.corpus.cleaning.near_duplicate_helpers import documents, edit, true_jaccard

words = st.text(st.sampled_from("가나다 \n\t\0\ud800\U0001f600e"), max_size=60)


@given(words, words, st.integers(1, 7))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_jaccard_is_that_of_the_sets_of_strings(first: str, second: str, shingle: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "PIECE", 11)
        similarity = jaccard(shingle_set(first, shingle), shingle_set(second, shingle))
    assert similarity == true_jaccard(first, second, shingle)


@given(st.lists(words.filter(lambda text: len(collapse(text)) >= 7), min_size=1, max_size=12), st.integers(1, 7))
@settings(derandomize=True, max_examples=100, deadline=None)
def test_a_signature_is_the_smallest_of_all_shingles(texts: list[str], shingle: int) -> None:
    texts = [collapse(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "PIECE", 16)  # texts share a batch, and one text fills several
        found = signatures(texts, shingle, 16, seed=3)
    numbers = minhash.random_words(3, 32).tolist()
    for column, text in enumerate(texts):
        hashes = [value >> 32 for value in shingle_set(text, shingle).tolist()]
        for row in range(16):
            a, b = numbers[row] & 0xFFFFFFFF | 1, numbers[16 + row] & 0xFFFFFFFF
            assert found[row, column] == min((a * value + b) % 2**32 for value in hashes)


def test_signatures_estimate_similarity() -> None:
    rng = random.Random(5)
    errors = []
    for text, share in zip(documents(60), itertools.cycle((0.005, 0.02, 0.05, 0.1))):
        other = edit(text, share, rng)
        signature = signatures([collapse(text), collapse(other)], 5, 1000, seed=1)
        errors.append(np.mean(signature[0::1, 0] == signature[:, 1]) - true_jaccard(text, other))
    # The estimate's deviation is at most sqrt(0.25 / 1000) = 0.016.
    assert abs(np.mean(errors)) < 4 * 0.016 / math.sqrt(60)
    assert max(map(abs, errors)) < 5 * 0.016


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0])
def test_bands_find_nearly_all_at_the_threshold(threshold: float) -> None:
    bands, rows = choose_bands(threshold, 120)
    assert bands * rows <= 120
    assert recall(threshold, bands, rows) >= 0.99
    assert rows == 120 or recall(threshold, 120 // (rows + 1), rows + 1) < 0.99, "a steeper curve would have done"


def test_the_documented_curve() -> None:
    assert choose_bands(0.8, 120) == (20, 6)
    curve = [round(recall(similarity, 20, 6), 4) for similarity in (0.3, 0.5, 0.8, 0.85)]
    assert curve == [0.0145, 0.2702, 0.9977, 0.9999]
