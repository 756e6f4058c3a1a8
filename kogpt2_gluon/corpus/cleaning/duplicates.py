"""Exact duplicates by hash, in memory that does not grow with the corpus.

The corpus comes as parts, each with the hashes of its items (documents, or lines) in order. A hash is kept once: in
the first part that has it. Which parts have it is found bucket by bucket: hashes are spread over files by their high
bits, and each file, small enough to sort in memory, shows every hash with the parts it occurs in.

The chance that any two different texts among n are taken for equal is n * n / 2^65: 2e-5 for 25 million.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

BUCKET_RECORDS = 1 << 20  # in one bucket: 8 MB of hashes, about 50 MB while they are sorted
MOST_BUCKETS = 256  # open files; beyond 250 million records buckets grow instead


class SeenBefore:
    """The hashes that an earlier part of a corpus has too, for each of its parts."""

    def __init__(self, found: list[Hashes], counts: npt.NDArray[np.int64]) -> None:
        self._found = found  # of each bucket: hashes, part after part; memory-mapped
        self._ends = np.cumsum(counts, axis=0)  # (parts, buckets): where each part's end there

    def of_part(self, part: int) -> Hashes:
        """Returns the hashes of one part that an earlier part has: sorted, uint64, shape (n,)."""
        begins = self._ends[part - 1] if part else np.zeros_like(self._ends[0])
        pieces = [found[begin:end] for found, begin, end in zip(self._found, begins, self._ends[part])]
        return np.concatenate(pieces)


def find_seen_before(parts: Iterable[Hashes], num_parts: int, num_items: int, work: Path) -> SeenBefore:
    """Compares the hashes of all parts, reading each part once.

    `parts` gives the hashes of each part, uint64, shape (n_i,), in any order and with repeats; 0 stands for an item
    to ignore. `num_items` is about how many there are in all, and `work` an empty folder for the buckets.
    """
    bits = 0
    while 1 << bits < MOST_BUCKETS and BUCKET_RECORDS << bits < num_items:
        bits += 1
    buckets = 1 << bits
    borders = np.arange(1, buckets, dtype=np.uint64) << np.uint64(64 - bits)
    counts = np.zeros((num_parts, buckets), np.int64)
    with ExitStack() as stack:
        files = [stack.enter_context((work / f"hashes-{bucket:03d}").open("wb")) for bucket in range(buckets)]
        for part, hashes in enumerate(parts):
            unique = np.unique(hashes)
            unique = unique[np.searchsorted(unique, np.uint64(1)) :]
            edges = [0, *np.searchsorted(unique, borders), len(unique)]
            for bucket, (begin, end) in enumerate(zip(edges, edges[1:])):
                counts[part, bucket] = end - begin
                _write(files[bucket], unique[begin:end])
    found = np.zeros_like(counts)
    mapped = [_sort_bucket(work, bucket, counts[:, bucket], found[:, bucket]) for bucket in range(buckets)]
    return SeenBefore(mapped, found)


def _sort_bucket(work: Path, bucket: int, counts: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> Hashes:
    """Returns the bucket's hashes that an earlier part has too, part after part; `found` gets their number by part."""
    path = work / f"hashes-{bucket:03d}"
    hashes: Hashes = np.fromfile(path, np.uint64)
    path.unlink()
    parts = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    order = np.argsort(hashes, kind="stable")  # equal hashes stay in the order of their parts
    hashes, parts = hashes[order], parts[order]
    repeated = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
    hashes, parts = hashes[repeated], parts[repeated]
    found[:] = np.bincount(parts, minlength=len(counts))
    hashes = hashes[np.argsort(parts, kind="stable")]
    if not len(hashes):
        return hashes
    path = work / f"found-{bucket:03d}"
    with path.open("wb") as stream:
        _write(stream, hashes)
    mapped: Hashes = np.memmap(path, np.uint64, "r")
    return mapped


def _write(stream: BinaryIO, array: Hashes) -> None:
    stream.write(cast(bytes, np.ascontiguousarray(array).data))


def repeated_items(hashes: Hashes, seen_before: Hashes) -> Flags:
    """Returns which items of a part are not the first of their hash: bool, shape (n,). `seen_before` is sorted."""
    repeated = np.ones(len(hashes), np.bool_)
    repeated[np.unique(hashes, return_index=True)[1]] = False
    return repeated | is_among(hashes, seen_before)


def repeated_lines(hashes: Hashes, documents: npt.NDArray[np.int64], seen_before: Hashes) -> Flags:
    """Returns which lines of a part an earlier document has too: bool, shape (n,).

    `hashes` are the lines' (0: a line that always stays), `documents` the number of each line's document, ascending.
    """
    _, first, where = np.unique(hashes, return_index=True, return_inverse=True)
    repeated = (documents != documents[first][where]) | is_among(hashes, seen_before)
    return np.asarray(repeated & (hashes != 0))


def is_among(hashes: Hashes, among: Hashes) -> Flags:
    """Returns for each hash if it is one of the sorted `among`: bool, shape (n,)."""
    if not len(among):
        return np.zeros(len(hashes), np.bool_)
    places = np.searchsorted(among, hashes)
    places[places == len(among)] = 0
    return np.asarray(among[places] == hashes)
