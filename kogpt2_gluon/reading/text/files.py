"""The list of text files that the workers read: made by rank 0, the same on every worker, dealt out by bytes.

A list belongs to an epoch. Its files are checked again when a run resumes from a checkpoint, and each file once more
when it is opened, because a byte offset means nothing in a file that has changed.
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

GONE, CHANGED = 1, 2  # what can happen to a file of the list


@dataclass(frozen=True)
class TextFiles:
    """The files of one epoch, sorted by name; empty ones are left out."""

    sources: tuple[Source, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes on disk or in S3; those of a compressed file are its compressed ones."""
        return sum(source.size for source in self.sources)

    @property
    def count(self) -> str:
        """The number of files, in words."""
        return f"{len(self.sources)} text file" + "s" * (len(self.sources) != 1)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over names, sizes and marks (times of change, or ETags)."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.to_state()).encode())

    def to_state(self) -> list[list[Any]]:
        """Returns the list for JSON: [name, size, mark] of every file."""
        return [[source.name, source.size, source.mark] for source in self.sources]

    @classmethod
    def from_state(cls, state: list[list[Any]]) -> TextFiles:
        """Returns the list that `to_state` was called on."""
        return cls(tuple(Source(str(name), int(size), str(mark)) for name, size, mark in state))

    def deal(self, size: int) -> list[list[int]]:
        """Deals the files to `size` workers: returns each one's files as indices, about equal in bytes.

        The largest file left goes to the worker with the fewest bytes so far, so every worker computes the same.
        RecipeError if there are fewer files than workers.
        """
        if len(self.sources) < size:
            raise RecipeError(
                f"data.train: {size} workers cannot share {self.count}, each needs one or more; "
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
        """Raises DataError naming the first file of this list that is gone from `present`, or has changed there."""
        by_name = {source.name: source for source in present.sources}
        for source in self.sources:
            if by_name.get(source.name) != source:
                what = "has changed" if source.name in by_name else "is gone or empty"
                raise DataError(
                    f"{source.name}: {what} since epoch {epoch + 1} began, so the run cannot resume there; put the "
                    "file back as it was (with its time of change), or start a new run"
                )

    def compare(self, before: TextFiles) -> str:
        """Returns the differences from the list `before`, in words; "" if both are the same."""
        old = {source.name: source for source in before.sources}
        new = {source.name: source for source in self.sources}
        counts = {
            "added": len(new.keys() - old.keys()),
            "gone": len(old.keys() - new.keys()),
            "changed": sum(old[name] != new[name] for name in old.keys() & new.keys()),
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def list_text_files(folders: Sequence[str], documents: str, worker: Worker, look_inside: bool = True) -> TextFiles:
    """Lists the files below `folders` (or S3 prefixes) that can hold `documents`.

    Rank 0 looks, and every worker gets its list (a collective operation). All workers raise the fault that rank 0
    finds: DataError for a missing or empty folder, or for a file that cannot hold such documents, RecipeError for a
    folder whose documents are stored in another way. With `look_inside`, the first block of up to eight files is read
    as well, and one of them must hold such documents.
    """
    answer = worker.broadcast(_look(folders, documents, look_inside) if worker.rank == 0 else None)
    if "error" in answer:
        raise (RecipeError if answer["exit_code"] == RecipeError.exit_code else DataError)(answer["error"])
    return TextFiles.from_state(answer["files"])


def _look(folders: Sequence[str], documents: str, look_inside: bool) -> dict[str, Any]:
    try:
        kind = kind_of(documents)
        sources = {source.name: source for source in list_sources(folders) if source.size}
        if not sources:
            raise DataError(f"{', '.join(map(str, folders))}: only empty files, so no text to train on")
        check_corpora(sources.values(), kind)
        check_names(sources.values(), kind)
        if look_inside:
            check_openings(sources.values(), kind)
    except KoGPT2Error as error:
        return {"error": str(error).replace("--documents ", "data.documents="), "exit_code": error.exit_code}
    return {"files": TextFiles(tuple(sources[name] for name in sorted(sources))).to_state()}


def check_unchanged(source: Source) -> None:
    """Raises DataError if a file is no longer what the list says. An object in S3 is checked by its own stream."""
    if fault := _fault_of(source):
        raise change_error(source, fault)


def find_change(sources: Sequence[Source], folders: Sequence[str]) -> tuple[int, int]:
    """Returns (index, fault) for the first of `sources` that is GONE or CHANGED, or (-1, 0) if all are as they were.

    Objects in S3 are compared with new lists of those `folders` that are prefixes: one request for a thousand objects.
    """
    prefixes = [folder for folder in folders if is_s3_url(folder)]
    objects = {source.name: source for source in list_sources(prefixes)} if prefixes else {}
    for index, source in enumerate(sources):
        if source.path is not None:
            fault = _fault_of(source)
        else:
            fault = GONE if source.name not in objects else CHANGED * (objects[source.name] != source)
        if fault:
            return index, fault
    return -1, 0


def _fault_of(source: Source) -> int:
    """Returns GONE, CHANGED, or 0 if the file is as it was."""
    if source.path is None:
        return 0
    try:
        return CHANGED * (local_source(source.path) != source)
    except DataError:
        return GONE


def change_error(source: Source, fault: int) -> DataError:
    """Returns the error that ends a run whose file is GONE or CHANGED, so that its byte offsets mean nothing."""
    if fault == GONE:
        return DataError(
            f"{source.name}: gone or unreadable since this epoch began; put it back as it was (with its time of "
            "change) and resume from the last checkpoint"
        )
    return DataError(
        f"{source.name}: changed since this epoch began; put it back as it was (with its time of change) and resume "
        "from the last checkpoint; text in new files is read from the next epoch on (data.refresh=epoch)"
    )
