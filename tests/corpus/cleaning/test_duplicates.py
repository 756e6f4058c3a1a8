"""Exact duplicates by hash: the same answer as a set in memory gives, however the items are cut into parts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning import duplicates
from kogpt2_gluon.corpus.cleaning.duplicates import find_seen_before, is_among, repeated_items, repeated_lines

# Few values, so that they repeat, on both sides of the borders of buckets; 0 is "no concern".
HASHES = [0, 1, 2, 2**62 - 1, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**63 + 5, 2**64 - 2, 2**64 - 1]
parts_of_hashes = st.lists(st.lists(st.sampled_from(HASHES), max_size=12), min_size=1, max_size=6)


def find(parts: list[list[int]], bucket_records: int) -> duplicates.SeenBefore:
    arrays = [np.array(part, np.uint64) for part in parts]
    with tempfile.TemporaryDirectory() as work, pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BUCKET_RECORDS", bucket_records)
        seen = find_seen_before(iter(arrays), len(arrays), sum(map(len, arrays)), Path(work))
        assert not list(Path(work).glob("hashes-*"))
        return seen  # its files are mapped: they outlive their names


@settings(deadline=None, derandomize=True, max_examples=200)
@given(parts_of_hashes, st.sampled_from([1, 3, 1000]))
def test_documents_are_dropped_as_a_set_would(parts: list[list[int]], bucket_records: int) -> None:
    seen_before, seen = find(parts, bucket_records), set[int]()
    for number, part in enumerate(parts):
        expected = []
        for item in part:
            expected.append(item in seen)
            seen.add(item)
        found = repeated_items(np.array(part, np.uint64), seen_before.of_part(number))
        concerned = np.array(part, np.uint64) != 0
        assert found[concerned].tolist() == np.array(expected, bool)[concerned].tolist()


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.lists(st.lists(st.sampled_from(HASHES), min_size=1, max_size=4), max_size=5), min_size=1, max_size=5)
)
def test_lines_are_dropped_if_an_earlier_document_has_them(parts: list[list[list[int]]]) -> None:
    """`parts` are lists of documents, and these of line hashes."""
    seen_before = find([[line for document in part for line in document] for part in parts], 2)
    first_document: dict[int, tuple[int, int]] = {}
    for number, part in enumerate(parts):
        expected = []
        for row, document in enumerate(part):
            for line in document:
                expected.append(line != 0 and first_document.setdefault(line, (number, row)) != (number, row))
        hashes = np.array([line for document in part for line in document], np.uint64)
        documents = np.repeat(np.arange(len(part)), [len(document) for document in part])
        assert repeated_lines(hashes, documents, seen_before.of_part(number)).tolist() == expected


def test_one_hash_in_every_part_does_not_fill_a_bucket(tmp_path: Path) -> None:
    """A popular text counts once a part: what lies on disk between the passes stays small."""
    sizes: list[int] = []

    def parts() -> object:
        for _ in range(50):
            yield np.full(10_000, 7, np.uint64)
            sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))

    seen = find_seen_before(parts(), 50, 500_000, tmp_path)
    assert max(sizes) <= 50 * 8
    assert [len(seen.of_part(number)) for number in range(50)] == [0] + [1] * 49


def test_is_among_nothing() -> None:
    assert is_among(np.array([1, 2], np.uint64), np.empty(0, np.uint64)).tolist() == [False, False]
    assert not len(is_among(np.empty(0, np.uint64), np.array([1], np.uint64)))
