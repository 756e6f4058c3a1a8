"""The list of text files that workers read: made by rank 0, the same on every worker, dealt out by bytes.

A list belongs to an epoch. What is in it is checked again when a run goes on from a checkpoint, and each file once
more when it is opened: a byte offset means nothing in a file that has changed.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from kogpt2_gluon.corpus.documents import check_names, check_openings
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.sources import Source, is_s3_url, list_sources, local_source
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.checks import check_corpora

GONE, CHANGED = 1, 2  # what can befall a file of the list


@dataclass(frozen=True)
class TextFiles:
    """The files of one epoch, sorted by name; empty ones are left out."""

    sources: tuple[Source, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes as stored (compressed, where a file is)."""
        return sum(source.size for source in self.sources)

    @property
    def count(self) -> str:
        """How many they are, in words."""
        return f"{len(self.sources)} text file" + "s" * (len(self.sources) != 1)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over names, sizes and marks (times of change, or ETags)."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.to_state()).encode())

    def to_state(self) -> list[list[Any]]:
        """The list as JSON has it: [name, size, mark] of every file."""
        return [[source.name, source.size, source.mark] for source in self.sources]

    @classmethod
    def from_state(cls, state: list[list[Any]]) -> TextFiles:
        """The list that `to_state` made."""
        return cls(tuple(Source(str(name), int(size), str(mark)) for name, size, mark in state))

    def deal(self, size: int) -> list[list[int]]:
        """Which files each of `size` workers reads, as indices: about equal bytes each, the same on every worker.

        The largest file left goes to the worker with the fewest bytes so far. RecipeError if there are too few files.
        """
        if len(self.sources) < size:
            raise RecipeError(
                f"data.train: {size} workers cannot share {self.count}, of which each reads its own; "
                f"cut them (split -n l/{-(-size // max(1, len(self.sources)))} FILE PREFIX for files of lines), run "
                f"fewer workers, or shard the text (`kogpt2 shard`)"
            )
        shares: list[list[int]] = [[] for _ in range(size)]
        loads = [(0, rank) for rank in range(size)]
        for index in sorted(range(len(self.sources)), key=lambda index: (-self.sources[index].size, index)):
            load, rank = heapq.heappop(loads)
            shares[rank].append(index)
            heapq.heappush(loads, (load + self.sources[index].size, rank))
        return [sorted(share) for share in shares]

    def check_kept(self, present: TextFiles, epoch: int) -> None:
        """DataError naming the first file of this list that is gone from `present`, or changed there."""
        by_name = {source.name: source for source in present.sources}
        for source in self.sources:
            if by_name.get(source.name) != source:
                what = "has changed" if source.name in by_name else "is gone or empty"
                raise DataError(
                    f"{source.name}: {what} since epoch {epoch + 1} began reading it, so the run cannot go on from "
                    "there; put the file back as it was (with its time of change), or start a new run"
                )

    def compare(self, before: TextFiles) -> str:
        """What a list read again has that `before` had not, in words; "" if they are the same."""
        old = {source.name: source for source in before.sources}
        new = {source.name: source for source in self.sources}
        counts = {
            "added": len(new.keys() - old.keys()),
            "gone": len(old.keys() - new.keys()),
            "changed": sum(old[name] != new[name] for name in old.keys() & new.keys()),
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def list_text_files(folders: Sequence[str], documents: str, worker: Worker) -> TextFiles:
    """The files below `folders`, or an S3 prefix, that can hold `documents`: rank 0 looks, every worker gets its list.

    A fault that rank 0 finds is raised by all workers alike: DataError for a missing or empty folder or a file that
    cannot hold such documents.
    """
    answer = worker.broadcast(_look(folders, documents) if worker.rank == 0 else None)
    if "error" in answer:
        raise (RecipeError if answer["exit_code"] == RecipeError.exit_code else DataError)(answer["error"])
    return TextFiles.from_state(answer["files"])


def _look(folders: Sequence[str], documents: str) -> dict[str, Any]:
    try:
        kind = kind_of(documents)
        sources = {source.name: source for source in list_sources(folders) if source.size}
        if not sources:
            raise DataError(f"{', '.join(map(str, folders))}: only empty files, so no text to train on")
        check_corpora(sources.values(), kind)
        check_names(sources.values(), kind)
        check_openings(sources.values(), kind)
    except KoGPT2Error as error:
        return {"error": str(error).replace("--documents ", "data.documents="), "exit_code": error.exit_code}
    return {"files": TextFiles(tuple(sources[name] for name in sorted(sources))).to_state()}


def check_unchanged(source: Source) -> None:
    """DataError if a file is no longer what the list says. An object of S3 is checked by its own stream."""
    if fault := _fault_of(source):
        raise change_error(source, fault)


def find_change(sources: Sequence[Source], folders: Sequence[str]) -> tuple[int, int]:
    """(place, fault) of the first of `sources` that is gone or changed, (-1, 0) if none is.

    Objects of S3 are compared with new lists of those of `folders` that are prefixes: a request a thousand objects.
    """
    prefixes = [folder for folder in folders if is_s3_url(folder)]
    objects = {source.name: source for source in list_sources(prefixes)} if prefixes else {}
    for place, source in enumerate(sources):
        if source.path is not None:
            fault = _fault_of(source)
        else:
            fault = GONE if source.name not in objects else CHANGED * (objects[source.name] != source)
        if fault:
            return place, fault
    return -1, 0


def _fault_of(source: Source) -> int:
    """GONE, CHANGED or 0."""
    if source.path is None:
        return 0
    try:
        return CHANGED * (local_source(source.path) != source)
    except DataError:
        return GONE


def change_error(source: Source, fault: int) -> DataError:
    """What ends a run whose file is GONE or CHANGED: its byte offsets mean nothing any more."""
    if fault == GONE:
        return DataError(
            f"{source.name}: no such file, or unreadable, though it was there when this epoch began; put it back as it "
            "was (with its time of change), then go on from the last checkpoint"
        )
    return DataError(
        f"{source.name}: changed since this epoch began; put it back as it was (with its time of change), then go on "
        "from the last checkpoint, and add text as new files, which the next epoch reads (data.refresh=epoch)"
    )
