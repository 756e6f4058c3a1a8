"""From the parts of a cleaning to the corpus: duplicates are dropped, the rest is written, and everything is counted.

Equal documents are dropped first, then near duplicates of a document that stays, then lines that an earlier remaining
document has: in this order, whatever is removed as a duplicate of a text leaves that text in the corpus. Documents that
lost lines may now equal others, so equal ones are looked for once more. Every pass goes over the parts in order and has
one of them, or a bucket of hashes, in memory.
"""

from __future__ import annotations

import bisect
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import xxhash

from kogpt2_gluon.corpus.cleaning.duplicates import Flags, Hashes, find_seen_before, repeated_items, repeated_lines
from kogpt2_gluon.corpus.cleaning.near_duplicates import NearDuplicateOptions, drop_near_duplicates
from kogpt2_gluon.corpus.cleaning.part_text import choose_documents, remove_lines, text_slices
from kogpt2_gluon.corpus.cleaning.parts import Integers, Part
from kogpt2_gluon.corpus.cleaning.report import (
    BAD_UTF8_FILE,
    PLACES_SHOWN,
    SAMPLES_FILE,
    SAMPLES_PER_REASON,
    CleaningReport,
    Samples,
    SourceReport,
    sample_row,
)
from kogpt2_gluon.corpus.layout import Layout
from kogpt2_gluon.corpus.left_out import add_counts
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.corpus.store import CorpusWriter

HASH_RANGE = 1 << 64

Chosen = dict[int, tuple[int, int]]  # hash: (number of a part, of an item there)


def split_of(document: bytes, test_share: float) -> str:
    """Returns the split of a clean document (UTF-8): a pure function of its text, whatever else the corpus holds."""
    return "test" if xxhash.xxh3_64_intdigest(document) < test_border(test_share) else "train"


def test_border(test_share: float) -> int:
    """Returns the least hash of a document of the train split."""
    return math.ceil(test_share * HASH_RANGE)


class Assembly:
    """The documents of all parts, and which of them have been dropped; `report` counts them by source.

    `work` is an empty folder for temporary files; `layout` is how the parts' text is stored.
    """

    def __init__(self, parts: Sequence[Part], sources: Sequence[Source], layout: Layout, work: Path) -> None:
        assert parts
        self._parts, self._sources, self._work = list(parts), sources, work
        self._cleaned = tuple(parts)  # as they were before lines were removed
        self._load_ends = lru_cache(maxsize=4096)(_load_ends)  # mapped, so they take hardly any memory
        self._lead = len(layout.lead)
        self._firsts = [part.first for part in parts]
        self._total = parts[-1].first + parts[-1].documents
        self._dropped = _new_flags(work / "dropped", self._total)
        self.report = CleaningReport(sources=[SourceReport(source.name, source.size) for source in sources])
        self._samples = Samples()
        for part in parts:
            self._count_part(part)

    def _count_part(self, part: Part) -> None:
        """Adds the counts of the filters."""
        for number, tally in part.tallies.items():
            source = self.report.sources[number]
            for reason, count in tally.documents.items():
                source.documents.drop(reason, count)
            for reason, count in tally.lines.items():
                source.lines.drop(reason, count)
            source.changed.update(tally.changed)
            add_counts(source.left_out, tally.left_out)
        self.report.bad_utf8 += part.bad_utf8
        room = PLACES_SHOWN - len(self.report.bad_utf8_places)
        self.report.bad_utf8_places += part.bad_utf8_places[: max(0, room)]
        for row in part.samples():
            self._samples.add(row)

    def read(self, document: int) -> str:
        """Returns the text of a document by its number among all."""
        number = bisect.bisect_right(self._firsts, document) - 1
        return self._read(self._parts[number], document - self._firsts[number])

    def _read(self, part: Part, document: int) -> str:
        ends = self._load_ends(part.folder)
        begin = int(ends[document - 1]) if document else 0
        with (part.folder / "text").open("rb") as stream:
            stream.seek(begin + self._lead)
            return stream.read(int(ends[document]) - 1 - begin - self._lead).decode()

    # --- dropping

    def drop_duplicates(self) -> None:
        """Drops each document that equals an earlier one that is left."""
        chosen: Chosen = {}
        with _scratch(self._work / "documents") as folder:
            hashes_of_parts = (self._document_hashes(part) for part in self._parts)
            seen = find_seen_before(hashes_of_parts, len(self._parts), self._total, folder)
            for number, part in enumerate(self._parts):
                hashes, dropped = self._document_hashes(part), self._dropped[part.documents_slice]
                repeated = repeated_items(hashes, seen.of_part(number)) & ~dropped
                dropped |= repeated
                self._count("duplicate", part, repeated)
                _choose(chosen, number, hashes, repeated)
        for number, document in chosen.values():
            part = self._parts[number]
            source = self._source_of(part, document)
            self._samples.add(sample_row("duplicate", source, before=self._read(part, document)))

    def _document_hashes(self, part: Part) -> Hashes:
        """Returns the hashes of a part's documents, 0 for those dropped."""
        return np.where(self._dropped[part.documents_slice], np.uint64(0), part.array("hashes"))

    def drop_near_duplicates(self, options: NearDuplicateOptions) -> None:
        """Drops documents that are nearly the same as an earlier one that is left; the parts have their keys."""
        before = self._work / "dropped-before"
        shutil.copyfile(self._work / "dropped", before)
        keys = [part.folder / "keys.npy" for part in self._parts]
        found = drop_near_duplicates(keys, self._dropped, self.read, self._work, options)
        for part in self._parts:
            old = np.fromfile(before, np.bool_, part.documents, offset=part.first)
            self._count("near_duplicate", part, self._dropped[part.documents_slice] & ~old)
        before.unlink()
        for sample in found.samples:
            source, kept_in = (self._source_of_document(number) for number in (sample.document, sample.kept))
            row = sample_row("near_duplicate", source, before=sample.text, kept=sample.kept_text, kept_in=kept_in)
            self._samples.add({**row, "jaccard": sample.jaccard})

    def drop_duplicate_lines(self) -> None:
        """Removes lines that an earlier document has; the parts have the hashes of lines that are long enough."""
        chosen: Chosen = {}
        parts = self._cleaned
        with _scratch(self._work / "lines") as folder:
            hashes_of_parts = (self._line_hashes(part)[0] for part in parts)
            seen = find_seen_before(hashes_of_parts, len(parts), sum(part.lines for part in parts), folder)
            for number, part in enumerate(parts):
                hashes, documents = self._line_hashes(part)
                repeated = repeated_lines(hashes, documents, seen.of_part(number))
                if repeated.any():
                    _choose(chosen, number, hashes, repeated)
                    self._remove_lines(number, repeated)
        for number, line in chosen.values():
            part = parts[number]
            ends = np.cumsum(part.array("lines"))
            document = int(np.searchsorted(ends, line, "right"))
            text = self._read(part, document).split("\n")[line - int(ends[document])]
            self._samples.add(sample_row("duplicate_lines", self._source_of(part, document), before=text))
        if chosen:  # documents that lost lines may now equal others
            self.drop_duplicates()

    def _line_hashes(self, part: Part) -> tuple[Hashes, Integers]:
        """Returns (hashes of a part's lines, 0 for those that stay in any case; the number of each line's document)."""
        documents = np.repeat(np.arange(part.documents), part.array("lines"))
        gone = self._dropped[part.documents_slice][documents]
        return np.where(gone, np.uint64(0), part.array("line_hashes")), documents

    def _remove_lines(self, number: int, repeated: Flags) -> None:
        part = self._parts[number]
        edited = remove_lines(part, repeated, self._lead, self._work / f"edited-{number:05d}")
        left = edited.array("lines")
        self._dropped[part.documents_slice] |= left == 0
        self._count("duplicate_lines", part, left == 0, part.array("lines") - left)
        self._parts[number] = edited

    # --- writing

    def write(self, writer: CorpusWriter, test_sources: Sequence[bool] | None, test_share: float) -> None:
        """Writes the documents that are left, and counts them.

        The test split gets about `test_share` of them by hash, or those whose source belongs to it.
        """
        for part in self._parts:
            left = ~self._dropped[part.documents_slice]
            ends, lines = part.array("ends"), part.array("lines")
            if test_sources is None:
                is_test = part.array("hashes") < np.uint64(test_border(test_share))
            else:
                is_test = np.array(test_sources, np.bool_)[part.sources()]
            chosen = {"train": left & ~is_test, "test": left & is_test}
            sizes = np.diff(ends, prepend=0)
            for begin, end, data in text_slices(part, ends):
                for split, mask in chosen.items():
                    mask = mask[begin:end]
                    writer.add_stored(split, choose_documents(data, sizes[begin:end], mask), sizes[begin:end][mask])
            for split, mask in chosen.items():
                self.report.bytes_kept[split] += int((sizes - self._lead - lines)[mask].sum())
                for source, documents_of, lines_of in _by_source(part.sources(), mask, np.where(mask, lines, 0)):
                    self.report.sources[source].documents.keep(split, documents_of)
                    self.report.sources[source].lines.keep(split, lines_of)

    def finish(self, folder: Path) -> CleaningReport:
        """Writes the places of bad UTF-8 and the samples into the corpus folder, and adds up the report."""
        self.report.add_up()
        tallies = [tally for part in self._cleaned for tally in part.tallies.values()]
        documents = self._total + sum(sum(tally.documents.values()) for tally in tallies)
        lines = sum(part.lines for part in self._cleaned) + sum(sum(tally.lines.values()) for tally in tallies)
        assert (self.report.documents.read, self.report.lines.read) == (documents, lines), "the corpus does not add up"
        self.report.samples = self._samples.rows()
        if self.report.bad_utf8:
            with (folder / BAD_UTF8_FILE).open("wb") as out:
                for part in self._cleaned:
                    with (part.folder / "bad_utf8").open("rb") as places:
                        shutil.copyfileobj(places, out)
        if self.report.samples:
            rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.report.samples)
            # A lone surrogate, from a JSON escape or a file name that is not UTF-8, becomes an escape again.
            (folder / SAMPLES_FILE).write_bytes(rows.encode("utf-8", "backslashreplace"))
        return self.report

    # --- counting

    def _count(self, reason: str, part: Part, dropped: Flags, lines: Integers | None = None) -> None:
        """Counts dropped documents of a part under a reason, with all their lines or with `lines` of each document."""
        if lines is None:
            lines = np.where(dropped, part.array("lines"), 0)
        for number, documents_of, lines_of in _by_source(part.sources(), dropped, lines):
            self.report.sources[number].documents.drop(reason, documents_of)
            self.report.sources[number].lines.drop(reason, lines_of)

    def _source_of_document(self, document: int) -> str:
        number = bisect.bisect_right(self._firsts, document) - 1
        return self._source_of(self._parts[number], document - self._firsts[number])

    def _source_of(self, part: Part, document: int) -> str:
        for source, count in part.runs:
            if document < count:
                return self._sources[source].name
            document -= count
        raise AssertionError(document)


def _by_source(sources: Integers, documents: Flags, lines: Integers) -> Iterator[tuple[int, int, int]]:
    """Yields (source, how many of its documents are marked, the sum of its lines) for each source."""
    if not len(sources):
        return
    base = int(sources[0])  # ascending: documents come in the order of the sources
    counts = np.bincount(sources - base, documents).astype(np.int64).tolist()
    sums = np.bincount(sources - base, lines).astype(np.int64).tolist()
    for number, (count, total) in enumerate(zip(counts, sums), base):
        if count or total:
            yield number, count, total


def _choose(chosen: Chosen, number: int, hashes: Hashes, marked: Flags) -> None:
    """Keeps the marked items with the smallest hashes, the first for each hash."""
    rows = np.flatnonzero(marked)
    digests, first = np.unique(hashes[rows], return_index=True)
    for digest, row in zip(digests[:SAMPLES_PER_REASON].tolist(), rows[first].tolist()):
        chosen.setdefault(digest, (number, row))
    for digest in sorted(chosen)[SAMPLES_PER_REASON:]:
        del chosen[digest]


def _new_flags(path: Path, count: int) -> Flags:
    """Returns `count` flags, all False, that are mapped to a new file.

    Its room on the disk is taken at once: a write to a mapped file on a full disk would kill the process.
    """
    size = max(1, count)
    with path.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, size)
    flags: Flags = np.memmap(path, np.bool_, "r+", shape=(size,))[:count]
    return flags


def _load_ends(folder: Path) -> Integers:
    ends: Integers = np.load(folder / "ends.npy", mmap_mode="r", allow_pickle=False)
    return ends


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    yield folder
    # NFS does not remove a folder with a file that is still mapped; the folder around it is removed at the end.
    shutil.rmtree(folder, ignore_errors=True)
