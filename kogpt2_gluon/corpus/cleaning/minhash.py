"""MinHash signatures of documents and the exact Jaccard similarity that they estimate, both on NumPy arrays.

A document is the set of its shingles: all runs of `shingle` characters of its text, white space collapsed to single
spaces. The Jaccard similarity of two documents is the size of the sets' intersection over that of their union. For a
random order of all shingles, two sets have the same smallest member with a probability equal to their similarity
(Broder, 1997), so a signature holds the smallest member under each of many orders. Cut into bands of rows, two
documents of similarity s agree on all rows of some band with probability ``1 - (1 - s**rows)**bands``: the S-curve.

Shingles are compared by 64-bit hashes of their code points: in a pair of documents with a million shingles each, two
different ones are taken for one with a probability below 1e-6, which would change the similarity by 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 16  # characters hashed at a time: the arrays of a piece stay in the processor's cache
AIM = 0.99  # recall for a pair exactly at the threshold

UInts = NDArray[np.uint64]


def recall(jaccard: float, bands: int, rows: int) -> float:
    """Returns the share of pairs of this similarity that agree on some band: the S-curve."""
    return 1.0 - float((1.0 - jaccard**rows) ** bands)


def choose_bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Returns (bands, rows a band): the steepest S-curve that still finds 99% of the pairs at the threshold itself.

    For a threshold of 0.8 and 120 permutations: 20 bands of 6 rows. Similarity 0.8 is then found with probability
    0.998, 0.85 with 0.9999, 0.9 and above with all but certainty; 0.5 becomes a pair to verify in 27% of cases, 0.3
    in 1.4%.
    """
    rows = max((r for r in range(1, permutations + 1) if recall(threshold, permutations // r, r) >= AIM), default=1)
    return permutations // rows, rows


def collapse(text: str) -> str:
    """Returns the text from which shingles are taken: every run of white space is one space, with none at the ends."""
    return " ".join(text.split())


def shingle_set(text: str, shingle: int) -> UInts:
    """Returns the hashes of a document's different shingles: uint64, ascending; empty if it is shorter than one."""
    text = collapse(text)
    if len(text) < shingle:
        return np.empty(0, np.uint64)
    hashes = np.concatenate([_hashes(piece, shingle) for piece in _pieces(text, shingle)])
    hashes.sort()
    first = np.ones(len(hashes), bool)
    np.not_equal(hashes[1:], hashes[:-1], out=first[1:])
    unique: UInts = hashes[first]
    return unique


def jaccard(first: UInts, second: UInts) -> float:
    """Returns the similarity of two sets as `shingle_set` returns them, from 0 to 1; for two empty ones 0."""
    small, large = (first, second) if len(first) < len(second) else (second, first)
    if not len(small):
        return 0.0
    places = np.searchsorted(large, small)
    places[places == len(large)] = 0
    common = int(np.count_nonzero(large[places] == small))
    return common / (len(first) + len(second) - common)


def signatures(texts: Sequence[str], shingle: int, permutations: int, seed: int) -> NDArray[np.uint32]:
    """Returns the MinHash signatures of collapsed texts: uint32, shape (permutations, len(texts)).

    The i-th order of shingles is that of ``(a_i * h + b_i) mod 2**32``, where h are the high halves of
    their hashes. Every text must have at least `shingle` characters. In addition to the result, memory is a few pieces.
    """
    numbers = random_words(seed, 2 * permutations).astype(np.uint32)
    multipliers, summands = numbers[:permutations] | np.uint32(1), numbers[permutations:]
    result = np.full((permutations, len(texts)), 0xFFFFFFFF, np.uint32)
    for owners, starts, hashes in _batches(texts, shingle):
        high = (hashes >> np.uint64(32)).astype(np.uint32)
        ordered = np.empty_like(high)
        smallest = np.empty((permutations, len(owners)), np.uint32)
        for i in range(permutations):
            np.multiply(high, multipliers[i], out=ordered)
            np.add(ordered, summands[i], out=ordered)
            np.minimum.reduceat(ordered, starts, out=smallest[i])
        span = slice(owners[0], owners[-1] + 1)  # texts follow each other, none is left out
        np.minimum(result[:, span], smallest, out=result[:, span])
    return result


def band_hashes(signature: NDArray[np.uint32], bands: int, rows: int, seed: int) -> UInts:
    """Returns keys for all bands of documents, uint64 (documents, bands), from signatures (permutations, documents).

    Equal keys mean equal rows of the same band, except by one chance in about 2**33; no key is 0.
    """
    factors = random_words(seed + 1, bands * rows).reshape(bands, rows) | np.uint64(1)
    keys = np.empty((signature.shape[1], bands), np.uint64)
    for band in range(bands):
        total = np.full(signature.shape[1], band + 1, np.uint64)
        for row in range(rows):
            total += signature[band * rows + row] * factors[band, row]
        keys[:, band] = _mix(total)
    return np.maximum(keys, np.uint64(1))


def random_words(seed: int, count: int) -> UInts:
    """Returns `count` uint64 numbers of SplitMix64, the same on every machine and with every release of NumPy."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mix(state + np.uint64(seed & 0xFFFFFFFFFFFFFFFF))


def _mix(words: UInts) -> UInts:
    """Applies the finalizer of SplitMix64: a permutation of 64-bit words after which every bit depends on all."""
    words = words ^ (words >> np.uint64(30))
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


@lru_cache(maxsize=8)
def _factors(shingle: int) -> UInts:
    return random_words(0, shingle) | np.uint64(1)


def _hashes(text: str, shingle: int) -> UInts:
    """Returns the hash of the shingle that begins at each place of a text: uint64, shape (len(text) - shingle + 1,)."""
    # surrogatepass: a lone surrogate, as from a JSON escape, is a code point like any other here
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    count = len(points) - shingle + 1
    factors = _factors(shingle)
    total = points[:count] * factors[0]
    for i in range(1, shingle):
        total += points[i : i + count] * factors[i]
    return _mix(total)


def _pieces(text: str, shingle: int) -> Iterator[str]:
    """Yields the text in pieces of PIECE shingles, which overlap so that each shingle is in one; none if too short."""
    for start in range(0, len(text) - shingle + 1, PIECE):
        yield text[start : start + PIECE + shingle - 1]


def _batches(texts: Sequence[str], shingle: int) -> Iterator[tuple[list[int], NDArray[np.int64], UInts]]:
    """Yields about PIECE shingles at a time: (numbers of their texts, where those of each begin, hashes)."""
    owners: list[int] = []
    batch: list[str] = []
    size = 0
    for number, text in enumerate(texts):
        assert len(text) >= shingle, (number, len(text))
        for piece in _pieces(text, shingle):
            if size and size + len(piece) > PIECE:
                yield _hash_batch(owners, batch, shingle)
                owners, batch, size = [], [], 0
            owners.append(number)
            batch.append(piece)
            size += len(piece)
    if batch:
        yield _hash_batch(owners, batch, shingle)


def _hash_batch(owners: list[int], batch: list[str], shingle: int) -> tuple[list[int], NDArray[np.int64], UInts]:
    """Hashes all pieces in one go, then removes the shingles that run from one piece into the next."""
    ends = np.cumsum([len(piece) for piece in batch])
    hashes = _hashes("".join(batch), shingle)
    if len(batch) > 1 and shingle > 1:
        inside = np.ones(len(hashes), bool)
        for back in range(1, shingle):
            inside[ends[:-1] - back] = False
        hashes = hashes[inside]
    starts = np.zeros(len(batch), np.int64)
    starts[1:] = ends[:-1] - np.arange(1, len(batch)) * (shingle - 1)
    return owners, starts, hashes
