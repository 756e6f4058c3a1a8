"""Fingerprints of data: of the files that its reader chooses, by their names and contents."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from kogpt2_gluon.corpus.sources import Choice, Source, choose_sources, local_source
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.format import MANIFEST, Manifest
from kogpt2_gluon.storage.s3_url import split_s3_url

READ_BYTES = 1 << 24
SLOW_BYTES = 64 << 20  # of files that are not read again as long as they are as they were
# A file that was changed so short a time ago can change again without another time of change.
FRESH_NS = 2_000_000_000

# {path: [marks of its files, their fingerprint]}: what is known of large data without reading it.
KnownData = dict[str, list[str]]


@dataclass(frozen=True)
class Data:
    """Data as a stage reads it.

    Attributes
    ----------
    path : str
        A file, a folder or a prefix of S3.
    as_shards : bool
        True if a folder with a manifest is one of shards.
    include, exclude : sequence of str
        Patterns of the files of text.
    named : tuple of Path
        Files below the folder that are read by their own names, be they hidden.
    """

    path: str
    as_shards: bool = True
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    named: tuple[Path, ...] = ()

    def check(self) -> None:
        """Raises DataError unless there is something to read."""
        if self._manifest() is None:
            self._chosen()

    def fingerprint(self, known: KnownData) -> str:
        """Returns a fingerprint: of shards that of their manifest, of objects in S3 of their names and ETags.

        That of large files is added to `known`, where it is found again as long as their sizes and times of change are
        the same. DataError if there is nothing to read, or it cannot be read.
        """
        if manifest := self._manifest():
            return manifest.fingerprint()
        choice = self._chosen()
        names = {source.name: self._below(source) for source in choice.sources}
        sources = sorted(choice.sources, key=lambda source: names[source.name].split("/"))
        marks = xxhash.xxh3_128()
        for source in sources:
            marks.update(f"{names[source.name]}\0{source.size}\0{_mark(source)}\0".encode("utf-8", "surrogateescape"))
        is_large = sum(source.size for source in sources if source.path) > SLOW_BYTES
        before = known.get(self.path)
        if is_large and before and before[0] == marks.hexdigest():
            return before[1]
        digest = xxhash.xxh3_128()
        for source in sources:
            digest.update(f"{names[source.name]}\0{source.size}\0".encode("utf-8", "surrogateescape"))
            _add_content(digest, source)
        for name, _ in choice.faults:
            digest.update(f"{name}\0unreadable\0".encode("utf-8", "surrogateescape"))
        known.pop(self.path, None)
        if is_large and not any(_is_fresh(source) for source in sources):
            known[self.path] = [marks.hexdigest(), digest.hexdigest()]
        return digest.hexdigest()

    def _manifest(self) -> Manifest | None:
        root = Path(self.path)
        return Manifest.load(root) if self.as_shards and (root / MANIFEST).is_file() else None

    def _chosen(self) -> Choice:
        try:
            choice = choose_sources([self.path], self.include, self.exclude)
        except DataError:
            if not (self.include or self.exclude):
                raise
            choose_sources([self.path])  # something is there; of several sets another one may have files that fit
            choice = Choice([], Counter(), [])
        there = {source.name for source in choice.sources}
        choice.sources += [local_source(path) for path in self.named if str(path) not in there]
        return choice

    def _below(self, source: Source) -> str:
        """The name of a source below the folder or prefix; "." if it is named itself."""
        if source.path:
            return source.path.relative_to(self.path).as_posix()
        prefix, key = (split_s3_url(each)[1] for each in (self.path, source.name))
        folder = prefix.rpartition("/")[0] if prefix.endswith("*") else prefix.rstrip("/")
        return key[len(folder) :].lstrip("/") or "."


def _mark(source: Source) -> str:
    """A text that changes when a source does, without a look at its content."""
    if source.path is None:
        return source.mark
    facts = source.path.stat()
    return f"{source.mark} {facts.st_ctime_ns} {facts.st_ino}"


def _is_fresh(source: Source) -> bool:
    return bool(source.path) and time.time_ns() - int(source.mark) < FRESH_NS


def _add_content(digest: xxhash.xxh3_128, source: Source) -> None:
    if source.path is None:
        digest.update(f"{source.mark}\0".encode())
        return
    try:
        with source.path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{source.path}: cannot be read: {error.strerror}") from None
