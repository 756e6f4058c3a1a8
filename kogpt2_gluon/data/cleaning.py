"""Cleaning: raw text sources -> a corpus folder of normalised, distinct documents in a train and a test split.

What is done to a line stands in `normalize_line`; to a document: empty lines and lines that repeat the one before
them go. A document goes if nothing is left of it, if it could not be read, or if an equal one came before. Every loss
is counted under its reason: read = kept + the sum of the reasons, for documents and for lines.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Callable, Optional, Sequence

import xxhash

from kogpt2_gluon.data.corpus import (
    CORPUS_FILE,
    SPLITS,
    CorpusWriter,
    Document,
    Rejection,
    check_documents,
    read_documents,
    stored_mode,
)
from kogpt2_gluon.data.files import list_sources, replace_folder
from kogpt2_gluon.errors import DataError, RecipeError

NORMALISATION = "NFC; white space collapsed; control, zero-width and other invisible characters removed"
BAD_UTF8_FILE = "bad_utf8.tsv"
PLACES_SHOWN = 5  # of the bad UTF-8 that a report quotes
HASH_RANGE = 1 << 64

# White space in the sense of str.isspace, but for the space; and blanks that Unicode calls letters or symbols: the
# Hangul fillers, with which Korean sites write "nothing", and the empty Braille cell.
_SPACES = "\t-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\u3164\uffa0\u2800"
_REMOVED = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # controls that are not white space
    "\xad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc"  # format characters
    "\ud800-\udfff"  # halves of a pair: not in UTF-8, but JSON escapes bring them
    "\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17))  # no characters
)
# In an emoji a joiner, a variation selector or a tag is part of the sign (a family, a red heart, the flag of Wales);
# anywhere else it is invisible litter.
_EMOJI = "\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff" + (
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_BASE = f"[{_EMOJI}\xa9\xae0-9#*]"  # what a variation selector can turn into an emoji
_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"
_JUNK = (
    f"[{_REMOVED}]"
    f"|(?<!{_BASE})[\ufe0e\ufe0f]"
    f"|(?<![{_EMOJI}])(?<![{_EMOJI}]\ufe0f)\u200d"
    f"|\u200d(?![{_EMOJI}])"
    "|[\U000e0001\U000e0020-\U000e007f]"
)
_FIND_SPACE = re.compile(f"[ {_SPACES}]+")
_FIND_JUNK = re.compile(f"({_FLAG})|{_JUNK}")
# One scan that passes nearly every line of ordinary text; what it finds may still turn out to be in order.
_SUSPECT = re.compile(f"[{_SPACES}{_REMOVED}\ufe0e\ufe0f\u200d\U000e0000-\U000e007f]|  |^ | $")

_is_normalized = unicodedata.is_normalized


def normalize_line(line: str) -> str:
    """The line as the corpus holds it; doing it twice changes nothing more.

    NFC, so that decomposed Hangul (macOS file names, some PDFs) becomes the same syllables as everyone's. Any run of
    white space, a tab and a no-break space included, is one space; none is left at the ends. Removed: control
    characters, zero-width and direction marks, soft hyphens, byte order marks, what is no character at all, and
    joiners, variation selectors and tags outside emoji. Compatibility forms (ａ, ㎏, ㈜), private-use characters and
    U+FFFD stay: folding them is the tokenizer's choice, and not every profile makes it.
    """
    if _SUSPECT.search(line) is None and _is_normalized("NFC", line):
        return line
    line = unicodedata.normalize("NFC", line)
    line = _FIND_JUNK.sub(r"\1", line)
    line = _FIND_SPACE.sub(" ", line).strip(" ")
    return unicodedata.normalize("NFC", line)  # what stood between two jamo may be gone


def split_of(document: bytes, test_share: float) -> str:
    """The split of a clean document (UTF-8): a pure function of its text, whatever else the corpus holds."""
    return _split(xxhash.xxh3_64_intdigest(document), test_share)


def _split(digest: int, test_share: float) -> str:
    return "test" if digest < test_share * HASH_RANGE else "train"


@dataclass
class Count:
    """How many were read, kept in each split, and dropped for which reason; `read` is the sum of the others."""

    read: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, count: int = 1) -> None:
        """Counts some that were read and are not kept."""
        if count:
            self.read += count
            self.dropped[reason] += count

    def keep(self, split: str, count: int = 1) -> None:
        """Counts some that were read and are kept."""
        self.read += count
        self.kept[split] += count

    def to_dict(self) -> dict[str, object]:
        """Plain data for `corpus.json`."""
        kept = {split: self.kept[split] for split in SPLITS}
        return {"read": self.read, "kept": kept, "dropped": dict(sorted(self.dropped.items()))}


@dataclass
class CleaningReport:
    """What a cleaning read, kept and dropped.

    Reasons: ``empty``, ``duplicate``, ``bad_utf8``; of lines also ``repeated`` (equal to the one before it in its
    document); of JSON records also ``bad_json``, ``missing_field``, ``field_not_text``. A record that could not be
    read counts as one line. `bytes_read` is on disk (compressed, if the file is); `bytes_kept` is UTF-8 without line
    ends.
    """

    documents: Count = field(default_factory=Count)
    lines: Count = field(default_factory=Count)
    bytes_read: int = 0
    bytes_kept: Counter[str] = field(default_factory=Counter)
    bad_utf8_places: list[tuple[str, int]] = field(default_factory=list)  # the first few (file, byte offset)
    bad_utf8: int = 0  # all of them

    def summary(self) -> str:
        """A table of a few lines for people."""
        rows = [("", "documents", "lines"), ("read", f"{self.documents.read:,}", f"{self.lines.read:,}")]
        for split in SPLITS:
            rows.append((f"kept: {split}", f"{self.documents.kept[split]:,}", f"{self.lines.kept[split]:,}"))
        for reason in sorted({*self.documents.dropped, *self.lines.dropped}):
            dropped = (self.documents.dropped[reason], self.lines.dropped[reason])
            rows.append((f"dropped: {reason}", f"{dropped[0]:,}", f"{dropped[1]:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{name:<{widths[0]}}  {docs:>{widths[1]}}  {lines:>{widths[2]}}" for name, docs, lines in rows]
        kept = sum(self.bytes_kept.values())
        lines.append(f"{self.bytes_read / 1e6:,.1f} MB read, {kept / 1e6:,.1f} MB kept")
        if not self.documents.kept["test"]:
            lines.append("no document fell to the test split: nothing to evaluate on; raise --test-share")
        if self.bad_utf8:
            first = ", ".join(f"{path} byte {offset}" for path, offset in self.bad_utf8_places)
            more = ", ..." if self.bad_utf8 > len(self.bad_utf8_places) else ""
            lines.append(f"not UTF-8 at {self.bad_utf8:,} places ({BAD_UTF8_FILE} lists them): {first}{more}")
        return "\n".join(lines)


def clean(
    sources: Sequence[Path],
    out: Path,
    documents: str,
    test_share: float = 0.01,
    progress: Optional[Callable[[int, int], None]] = None,
    overwrite: bool = False,
) -> CleaningReport:
    """Cleans text sources into the corpus folder `out`, which appears whole or not at all.

    `sources` are files or folders (plain, .gz, .xz, .zst), `documents` is ``line``, ``blank-line`` or a JSON field,
    about `test_share` of the documents become the test split, and `progress` is told (bytes read, bytes in all) on
    disk. A corpus in `out` is replaced only with `overwrite`, and nothing else ever is.

    Duplicates are found by the 64-bit hashes of all documents so far: 80 to 100 bytes of memory each in a Python set,
    2.5 GB for 25 million. The chance that any two different ones among that many are taken for equal is 2e-5.

    Raises RecipeError for a bad argument, DataError for sources that are missing, damaged, or leave no document.
    """
    if not 0 <= test_share < 1:
        raise RecipeError(f"--test-share {test_share:g}: give a share from 0 to below 1, such as 0.01")
    files = list_sources(sources)
    check_documents(files, documents)
    _check_out(out, files, overwrite)
    total = sum(file.stat().st_size for file in files)
    with replace_folder(out) as folder:
        cleaner = _Cleaner(folder, stored_mode(documents), test_share)
        try:
            for file in files:
                cleaner.read(file, documents, progress, total)
        finally:
            cleaner.close()
        report = cleaner.report
        if not sum(report.documents.kept.values()):
            dropped = report.documents.dropped
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
            hint = f"is --documents {documents} right?"
            if dropped and max(dropped, key=lambda reason: dropped[reason]) == "bad_utf8":
                hint = "the text is not UTF-8; if it is CP949 (EUC-KR): iconv -f cp949 -t utf-8 OLD > NEW"
            raise DataError(
                f"{', '.join(map(str, sources))}: no document is left of {report.documents.read:,} "
                f"({reasons or 'nothing to read'}); {hint}"
            )
        cleaner.writer.finish(
            {
                "normalisation": NORMALISATION,
                "test_share": test_share,
                "sources": [
                    {"path": str(file), "bytes": file.stat().st_size, "documents": documents} for file in files
                ],
                "counts": {"documents": report.documents.to_dict(), "lines": report.lines.to_dict()},
            }
        )
    return report


class _Cleaner:
    """The state of one cleaning: what was seen, counted and written."""

    def __init__(self, folder: Path, mode: str, test_share: float) -> None:
        self.report = CleaningReport()
        self.writer = CorpusWriter(folder, mode)
        self._test_share = test_share
        self._seen: set[int] = set()
        self._places_path = folder / BAD_UTF8_FILE
        self._places: Optional[BinaryIO] = None

    def read(self, path: Path, documents: str, progress: Optional[Callable[[int, int], None]], total: int) -> None:
        """Cleans one source file."""

        def on_read(count: int) -> None:
            self.report.bytes_read += count
            if progress is not None:
                progress(self.report.bytes_read, total)

        for item in read_documents(path, documents, on_read):
            if item.bad_utf8:
                self._note_bad_utf8(item)
            if isinstance(item, Rejection):
                self.report.documents.drop(item.reason)
                self.report.lines.drop(item.reason, max(1, len(item.bad_utf8)))
            else:
                self.report.lines.drop("bad_utf8", len(item.bad_utf8))
                self._add(item)

    def _add(self, document: Document) -> None:
        report = self.report
        lines = self._clean_lines(document.text)
        if not lines:
            report.documents.drop("empty")
            return
        data = "\n".join(lines).encode()
        digest = xxhash.xxh3_64_intdigest(data)
        if digest in self._seen:
            report.documents.drop("duplicate")
            report.lines.drop("duplicate", len(lines))
            return
        self._seen.add(digest)
        split = _split(digest, self._test_share)
        self.writer.add(split, data)
        report.documents.keep(split)
        report.lines.keep(split, len(lines))
        report.bytes_kept[split] += len(data) - len(lines) + 1

    def _clean_lines(self, text: str) -> list[str]:
        kept: list[str] = []
        for line in text.split("\n"):
            line = normalize_line(line)
            if not line:
                self.report.lines.drop("empty")
            elif kept and line == kept[-1]:
                self.report.lines.drop("repeated")
            else:
                kept.append(line)
        return kept

    def _note_bad_utf8(self, item: Document | Rejection) -> None:
        """Writes the places down as they come, so that memory stays bounded however bad a file is."""
        if self._places is None:
            self._places = self._places_path.open("wb")
        for offset in item.bad_utf8:
            self._places.write(os.fsencode(item.path) + b"\t%d\n" % offset)
            if len(self.report.bad_utf8_places) < PLACES_SHOWN:
                self.report.bad_utf8_places.append((str(item.path), offset))
        self.report.bad_utf8 += len(item.bad_utf8)

    def close(self) -> None:
        self.writer.close()
        if self._places is not None:
            self._places.close()


def _check_out(out: Path, files: list[Path], overwrite: bool) -> None:
    """Refuses to write over what is not ours to replace, or into what is being read."""
    inside = [file for file in files if out.resolve() in file.resolve().parents]
    if inside:
        raise RecipeError(f"--out {out}: it holds a source, {inside[0]}; choose a folder beside the sources")
    if not out.exists():
        return
    if not out.is_dir():
        raise RecipeError(f"--out {out}: exists and is not a folder")
    entries = sorted(entry.name for entry in out.iterdir())
    if not entries:
        return
    foreign = sorted(set(entries) - {*SPLITS, CORPUS_FILE, BAD_UTF8_FILE})
    if CORPUS_FILE not in entries or foreign:
        what = foreign[0] if foreign else f"no {CORPUS_FILE}"
        raise RecipeError(f"--out {out}: a folder that is not just a corpus ({what}); choose another, or empty it")
    if not overwrite:
        raise RecipeError(f"--out {out}: a finished corpus; say --overwrite to replace it, or choose another folder")
