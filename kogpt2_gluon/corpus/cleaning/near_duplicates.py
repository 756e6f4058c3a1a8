"""Near duplicates: documents that share most of their shingles with an earlier one that is kept.

The method is MinHash LSH (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3):

1. `band_keys` signs documents, in any number of processes.
2. (key, document) records are spread over bucket files by the key; each bucket is sorted in memory. Documents with an
   equal key form a group. Each member is paired with the FIRST first of its group and the LAST before it, so a group
   of any size gives at most FIRST + LAST pairs a member; up to FIRST + LAST + 1 members that is every pair.
3. The pairs are spread over files by their later document and decided in the documents' order. An earlier document
   that was itself dropped is replaced by the kept one it was dropped for. A document is compared with up to COMPARISONS
   kept ones, beginning with those with which it shares most bands, by the exact similarity of the two texts, and it is
   dropped only if that is at least the threshold. So each dropped document has a verified, kept partner: with
   A ~ B ~ C, C is dropped only if it resembles A, and a common header drops nothing.

The result is a function of the keys and texts alone, not of how the work is cut. Memory is that of one bucket
(`BUCKET` records and their sorting: some 40 MB), the CACHE of shingles, and about 30 bytes a character of the two
longest documents compared. The scratch folder needs ``16 * bands`` bytes a signed document, 8 a document, and 8 a pair.
"""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.corpus.cleaning.minhash import (
    UInts,
    band_hashes,
    choose_bands,
    collapse,
    jaccard,
    shingle_set,
    signatures,
)
from kogpt2_gluon.options import option

FIRST = LAST = 4  # members of a group that a later one is paired with: its first, and those right before
COMPARISONS = 16  # kept documents that one document is compared with, at most
BUCKET = 1 << 18  # records sorted in memory at a time
BLOCK = 1 << 14  # documents decided at a time; at most 1 << 16, as a pair holds its later one as a 16-bit number
CACHE = 64 << 20  # bytes of shingles kept for the next comparison
ENTRY = 300  # bytes that a set takes in addition to its shingles
SAMPLES = 20  # pairs shown in the report
EXCERPT = 200  # characters shown of each
SEED = 20200212  # for the orders of shingles; keys of one corpus must come from one seed

EARLIER = np.uint64((1 << 48) - 1)  # the bits of a pair that hold its earlier document
NPY: Any = np.lib.format  # which has no types
Records = NDArray[np.void]
RECORD = np.dtype([("key", "<u8"), ("document", "<u8")])


@dataclass
class NearDuplicateOptions:
    """Documents whose shingles are nearly the same as those of an earlier document are dropped."""

    enabled: bool = option(False, "drop documents that are nearly the same as an earlier one")
    threshold: float = option(0.8, "least Jaccard similarity of the shingle sets", minimum=0.3, maximum=1.0)
    shingle: int = option(5, "characters a shingle, white space collapsed", minimum=1, maximum=64)
    min_chars: int = option(50, "shorter documents are skipped", minimum=1)
    permutations: int = option(120, "length of a MinHash signature", minimum=16, maximum=4096)

    @property
    def bands(self) -> int:
        """The number of keys of a document."""
        return choose_bands(self.threshold, self.permutations)[0]


@dataclass
class NearDuplicate:
    """A dropped document, the kept one it is nearly the same as, and the beginnings of both."""

    document: int
    kept: int
    jaccard: float
    text: str
    kept_text: str


@dataclass
class NearDuplicateReport:
    """Counts of what was found, in documents unless stated otherwise."""

    documents: int = 0  # all of them, dropped before or not
    signed: int = 0  # long enough, and not dropped before
    pairs: int = 0  # different (later, earlier) pairs with a band in common
    compared: int = 0  # pairs whose exact similarity was computed
    cut: int = 0  # kept documents that had more than COMPARISONS candidates
    dropped: int = 0
    bands: int = 0
    rows: int = 0
    samples: list[NearDuplicate] = field(default_factory=list)  # spread over the corpus, the same for every run

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain data for JSON."""
        return asdict(self)


def band_keys(texts: Sequence[str], options: NearDuplicateOptions) -> UInts:
    """Returns the LSH keys of documents: uint64 (len(texts), options.bands); zeros for one too short to be signed."""
    bands, rows = choose_bands(options.threshold, options.permutations)
    collapsed = [collapse(text) for text in texts]
    shortest = max(options.min_chars, options.shingle)
    chosen = [number for number, text in enumerate(collapsed) if len(text) >= shortest]
    keys = np.zeros((len(texts), bands), np.uint64)
    signature = signatures([collapsed[number] for number in chosen], options.shingle, bands * rows, SEED)
    keys[chosen] = band_hashes(signature, bands, rows, SEED)
    return keys


def drop_near_duplicates(
    key_files: Sequence[Path],
    dropped: NDArray[np.bool_],
    read_document: Callable[[int], str],
    work: Path,
    options: NearDuplicateOptions,
    progress: Callable[[int, int], None] | None = None,
) -> NearDuplicateReport:
    """Marks every document that is nearly the same as an earlier, kept one.

    Parameters
    ----------
    key_files : sequence of Path
        ``.npy`` files of `band_keys`, which together have a row for each document, in order.
    dropped : bool (documents,), writable
        Documents that are marked already are ignored; near duplicates are marked as they are found, so after an
        interruption it must be made again.
    read_document : callable
        Returns the text of a document by its number, as it was signed. Called for candidates only.
    work : Path
        A folder in which one for scratch files is made, and removed at the end.
    progress : callable
        Called with (steps done, all steps), two steps a document.
    """
    bands, rows = choose_bands(options.threshold, options.permutations)
    report = NearDuplicateReport(documents=len(dropped), bands=bands, rows=rows)
    scratch = work / "near-duplicates"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)

    def report_steps(steps: int) -> None:
        if progress is not None:
            progress(steps, 2 * len(dropped))

    try:
        buckets = _Buckets(scratch, "keys", 1 + len(dropped) * bands // BUCKET, RECORD)
        done = 0
        for keys in _read_keys(key_files, bands):
            report.signed += _spread_keys(keys, dropped[done : done + len(keys)], done, buckets)
            done += len(keys)
            report_steps(done)
        assert done == len(dropped), "key files and documents differ in number"
        pairs = _Buckets(scratch, "pairs", 1 + len(dropped) // BLOCK, np.dtype(np.uint64))
        for bucket in range(buckets.count):
            for later, earlier in _pairs(buckets.pop(bucket)):
                # later's number in its block, then earlier, in one word that sorts by both
                packed = (later % np.uint64(BLOCK)) << np.uint64(48) | earlier
                pairs.add(later // np.uint64(BLOCK), packed)
        with _Decisions(scratch / "kept", dropped, read_document, options, report) as decisions:
            for block in range(pairs.count):
                decisions.decide(block * BLOCK, np.concatenate([*pairs.pop(block), np.empty(0, np.uint64)]))
                report_steps(len(dropped) + min((block + 1) * BLOCK, len(dropped)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return report


class _Buckets:
    """Records spread over files by a number, each file in the order in which its records were added."""

    def __init__(self, folder: Path, name: str, count: int, dtype: np.dtype[Any]) -> None:
        self.count, self._folder, self._name, self._dtype = count, folder, name, dtype
        self._waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._size = 0

    def add(self, numbers: NDArray[Any], records: NDArray[Any]) -> None:
        """Appends each record to the file of its number, which is below `count`."""
        # A short unsigned type is sorted in linear time.
        self._waiting.append((numbers.astype(np.min_scalar_type(self.count)), records))
        self._size += len(records)
        if self._size >= BUCKET:
            self._write()

    def _write(self) -> None:
        if not self._size:
            return
        numbers = np.concatenate([pair[0] for pair in self._waiting])
        records = np.concatenate([pair[1] for pair in self._waiting])
        self._waiting, self._size = [], 0
        records = records[np.argsort(numbers, kind="stable")]
        ends = np.cumsum(np.bincount(numbers, minlength=self.count))
        for number in np.unique(numbers).tolist():
            begin = ends[number - 1] if number else 0
            with self._path(number).open("ab") as stream:
                stream.write(records[begin : ends[number]].tobytes())

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:06d}"

    def pop(self, number: int) -> Iterator[NDArray[Any]]:
        """Yields the records of a number in pieces of up to ``2 * BUCKET``, then removes its file."""
        self._write()
        path = self._path(number)
        if not path.exists():
            return
        with path.open("rb") as stream:
            piece = np.fromfile(stream, self._dtype, 2 * BUCKET)
            while len(piece):
                yield piece
                piece = np.fromfile(stream, self._dtype, 2 * BUCKET)
        path.unlink()


def _read_keys(key_files: Sequence[Path], bands: int) -> Iterator[UInts]:
    """Yields the keys of as many documents as fill a bucket, at a time."""
    for path in key_files:
        with path.open("rb") as stream:  # not mapped: mapped pages would count as this process's memory
            assert NPY.read_magic(stream) == (1, 0), path
            shape, fortran, dtype = NPY.read_array_header_1_0(stream)
            assert shape[1:] == (bands,) and not fortran and dtype == np.uint64, (path, shape, dtype)
            left = shape[0]
            while left:
                rows = min(left, max(1, BUCKET // bands))
                yield np.fromfile(stream, dtype, rows * bands).reshape(rows, bands)
                left -= rows


def _spread_keys(keys: UInts, dropped: NDArray[np.bool_], first: int, buckets: _Buckets) -> int:
    """Puts the keys of signed documents from `first` on that are not dropped into buckets; returns how many."""
    chosen = np.flatnonzero((keys[:, 0] != 0) & ~dropped)
    records = np.empty((len(chosen), keys.shape[1]), RECORD)
    records["key"] = keys[chosen]
    records["document"] = (chosen + first)[:, None]
    flat = records.ravel()
    # Keys are uniform: their high half, as a fraction of 2**32, distributes them evenly.
    buckets.add((flat["key"] >> np.uint64(32)) * np.uint64(buckets.count) >> np.uint64(32), flat)
    return len(chosen)


def _pairs(pieces: Iterator[Records]) -> Iterator[tuple[UInts, UInts]]:
    """Yields (later, earlier) arrays of documents with an equal key, by the rule of FIRST and LAST.

    A bucket that is larger than a piece, as when a million documents share one header, is taken piece by piece: those
    members of every group are carried on that later documents are paired with.
    """
    carried: Records = np.empty(0, RECORD)
    for piece in pieces:  # none is empty
        records = np.concatenate([carried, piece])
        order = np.argsort(records["key"], kind="stable")
        new = order >= len(carried)
        key, document = records["key"][order], records["document"][order]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        sizes = np.diff(starts, append=len(key))
        begin = np.repeat(starts, sizes)
        place = np.arange(len(key)) - begin  # in its group
        for back in range(1, LAST + 1):
            rows = np.flatnonzero(new & (place >= back))
            yield document[rows], document[rows - back]
        for front in range(FIRST):
            rows = np.flatnonzero(new & (place > front + LAST))
            yield document[rows], document[begin[rows] + front]
        stays = (place < FIRST) | (place >= np.repeat(sizes, sizes) - LAST)
        carried = records[order[stays]]


class _Shingles:
    """The shingle sets of documents; those used last are kept, up to CACHE bytes."""

    def __init__(self, read_document: Callable[[int], str], shingle: int) -> None:
        self._read, self._shingle = read_document, shingle
        self._cache: OrderedDict[int, UInts] = OrderedDict()
        self._size = 0

    def __getitem__(self, document: int) -> UInts:
        shingles = self._cache.get(document)
        if shingles is not None:
            self._cache.move_to_end(document)
            return shingles
        shingles = shingle_set(self._read(document), self._shingle)
        self._cache[document] = shingles
        self._size += shingles.nbytes + ENTRY
        while self._size > CACHE and len(self._cache) > 1:
            self._size -= self._cache.popitem(last=False)[1].nbytes + ENTRY
        return shingles

    def forget(self, document: int) -> None:
        """Frees the set of a dropped document: no other is compared with it any more."""
        shingles = self._cache.pop(document, None)
        if shingles is not None:
            self._size -= shingles.nbytes + ENTRY


class _Decisions:
    """Decides document after document; a file records for which kept document each dropped one was dropped."""

    def __init__(
        self,
        path: Path,
        dropped: NDArray[np.bool_],
        read_document: Callable[[int], str],
        options: NearDuplicateOptions,
        report: NearDuplicateReport,
    ) -> None:
        self._dropped, self._read, self._threshold, self._report = dropped, read_document, options.threshold, report
        self._shingles = _Shingles(read_document, options.shingle)
        # Read and written in place, not mapped: mapped pages would count as this process's memory.
        self._kept = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.truncate(self._kept, 8 * len(dropped))  # zeros, which take no space before they are written

    def __enter__(self) -> _Decisions:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._kept)

    def decide(self, base: int, packed: UInts) -> None:
        """Decides the documents of the block that begins with `base`, from its packed pairs in any order."""
        packed.sort()
        if not len(packed):
            return
        firsts = np.flatnonzero(np.concatenate([[True], packed[1:] != packed[:-1]]))
        shared = np.diff(firsts, append=len(packed))  # bands that a pair has in common
        packed = packed[firsts]
        self._report.pairs += len(packed)
        later, earlier = (packed >> np.uint64(48)).astype(np.int64), (packed & EARLIER).astype(np.int64)
        ends = np.flatnonzero(np.diff(later, append=-1)) + 1
        begin = 0
        for end in ends.tolist():
            self._decide(base + int(later[begin]), earlier[begin:end].tolist(), shared[begin:end].tolist())
            begin = end

    def _decide(self, document: int, earlier: list[int], shared: list[int]) -> None:
        weights: dict[int, int] = {}
        for candidate, bands in zip(earlier, shared):
            kept = self._kept_for(candidate)
            weights[kept] = weights.get(kept, 0) + bands
        weights.pop(document, None)  # two of its own bands with one key, by chance
        # Most bands in common first; among equals the first of the corpus.
        candidates = sorted(weights, key=lambda kept: (-weights[kept], kept))
        for kept in candidates[:COMPARISONS]:
            self._report.compared += 1
            similarity = self._similarity(document, kept)
            if similarity >= self._threshold:
                os.pwrite(self._kept, (kept + 1).to_bytes(8, "little"), 8 * document)
                self._dropped[document] = True
                self._shingles.forget(document)
                self._report.dropped += 1
                self._sample(document, kept, similarity)
                return
        self._report.cut += len(candidates) > COMPARISONS

    def _kept_for(self, document: int) -> int:
        """Returns the kept document for which `document` was dropped, or itself; the file has 1 + that number, or 0."""
        kept = int.from_bytes(os.pread(self._kept, 8, 8 * document), "little") - 1
        return document if kept < 0 else kept

    def _similarity(self, document: int, kept: int) -> float:
        first, second = self._shingles[document], self._shingles[kept]
        sizes = sorted((len(first), len(second)))
        if sizes[0] < self._threshold * sizes[1]:  # the union is at least the larger set
            return 0.0
        return jaccard(first, second)

    def _sample(self, document: int, kept: int, similarity: float) -> None:
        """Keeps SAMPLES pairs: those whose number, scattered by a multiplication, is smallest."""
        samples = self._report.samples
        if len(samples) == SAMPLES and _scatter(document) > _scatter(samples[-1].document):
            return
        text, kept_text = self._read(document)[:EXCERPT], self._read(kept)[:EXCERPT]
        samples.append(NearDuplicate(document, kept, round(similarity, 4), text, kept_text))
        samples.sort(key=lambda sample: _scatter(sample.document))
        del samples[SAMPLES:]


def _scatter(number: int) -> int:
    return number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
