"""The list of text files that the workers read: made by rank 0, the same on every worker, dealt out by bytes.

A list belongs to an epoch. Its files are checked again when a run resumes from a checkpoint, and each file once more
when it is opened, because a byte offset means nothing in a file that has changed.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import xxhash

from kogpt2_gluon.corpus.admission import admit
from kogpt2_gluon.corpus.documents import check_openings
from kogpt2_gluon.corpus.encodings import AUTO
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.sources import Source, choose_sources, list_sources, local_source
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.checks import check_corpora
from kogpt2_gluon.recipe_sections import DataRecipe
from kogpt2_gluon.storage.s3_url import is_s3_url

_OPTION = re.compile(r"--(documents|encoding) ")
_PATTERN = re.compile(r"--(include|exclude) ('[^']*')")
GONE, CHANGED = 1, 2  # what can happen to a file of the list


@dataclass(frozen=True)
class TextChoice:
    """Which text is read, and as what: keys of a recipe's `data`.

    folders : files, folders or S3 prefixes. skip : leave out files that cannot be read, instead of refusing to start.
    """

    folders: tuple[str, ...]
    documents: str
    encoding: str = AUTO
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    skip: bool = False

    @classmethod
    def of_recipe(cls, data: DataRecipe) -> TextChoice:
        """Returns the choice of a recipe's `data`."""
        patterns = tuple(data.include), tuple(data.exclude)
        return cls(tuple(data.train_sets), data.documents, data.encoding, *patterns, data.corrupt == "skip")


@dataclass(frozen=True)
class TextFiles:
    """The files of one epoch, sorted by name; those without text are left out.

    `remarks` say in words which files were left out, and what was decided about the others.
    """

    sources: tuple[Source, ...]
    remarks: tuple[str, ...] = field(default=(), compare=False)

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
        """Returns the list for JSON: [name, size, mark] of every file, and its encoding if it is not UTF-8."""
        return [source.to_row() for source in self.sources]

    @classmethod
    def from_state(cls, state: list[list[Any]]) -> TextFiles:
        """Returns the list that `to_state` was called on."""
        return cls(tuple(map(Source.from_row, state)))

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


def list_text_files(
    choice: TextChoice, worker: Worker, before: TextFiles | None = None, is_resumed: bool = False
) -> TextFiles:
    """Lists the files of a choice that can hold its documents.

    Rank 0 looks at every file, and every worker gets its list (a collective operation). All workers raise the fault
    that rank 0 finds: DataError for a missing or empty folder, or for a file that cannot hold such documents,
    RecipeError for a folder whose documents are stored in another way. One of the first files must begin with such
    documents.

    With `before`, the list of the epoch before, only new files are looked at. Those that cannot be read are left out,
    with a remark: a file that someone adds does not end a run of days. A resumed run looks at none: it has read them
    before, and knows their encodings.
    """
    answer = worker.broadcast(_list(choice, before, is_resumed) if worker.rank == 0 else None)
    if "error" in answer:
        raise (RecipeError if answer["exit_code"] == RecipeError.exit_code else DataError)(answer["error"])
    return replace(TextFiles.from_state(answer["files"]), remarks=tuple(answer["remarks"]))


def _list(choice: TextChoice, before: TextFiles | None, is_resumed: bool) -> dict[str, Any]:
    try:
        files = _chosen(choice) if is_resumed else _looked_at(choice, before)
    except KoGPT2Error as error:
        return {"error": in_recipe_words(str(error)), "exit_code": error.exit_code}
    return {"files": files.to_state(), "remarks": list(files.remarks)}


def in_recipe_words(message: str) -> str:
    """Returns a message about options of `kogpt2 clean` with the keys of a recipe instead."""
    message = message.replace("--skip-damaged", "data.corrupt=skip")
    return _OPTION.sub(r"data.\1=", _PATTERN.sub(r"data.\1=[\2]", message))


def _chosen(choice: TextChoice) -> TextFiles:
    """Returns all files of a choice, whatever they hold; DataError if there is none."""
    found = choose_sources(choice.folders, choice.include, choice.exclude)
    if found.faults and not choice.skip:
        raise found.faults[0][1]
    sources = {source.name: source for source in found.sources if source.size}
    if not sources:
        raise DataError(f"{', '.join(choice.folders)}: only empty files, so no text to train on")
    remarks = tuple(f"{count:,} files passed over: {reason}" for reason, count in sorted(found.passed_over.items()))
    return TextFiles(tuple(sources[name] for name in sorted(sources)), remarks)


def _looked_at(choice: TextChoice, before: TextFiles | None) -> TextFiles:
    """Returns the files of a choice that can be read, with their encodings."""
    kind, present = kind_of(choice.documents), _chosen(choice)
    check_corpora(present.sources, kind)
    known = {source.name: source for source in before.sources} if before else {}
    kept = [known[source.name] for source in present.sources if known.get(source.name) == source]
    new = [source for source in present.sources if known.get(source.name) != source]
    admission = admit(new, kind, choice.encoding, kept)
    if before is None and not choice.skip:
        admission.check()
    admitted = [source for source in admission.sources if source.name not in admission.blank]
    sources = sorted([*kept, *admitted], key=lambda source: source.name)
    if not sources:
        admission.check()
        raise DataError(f"{', '.join(choice.folders)}: only empty files, so no text to train on")
    if before is None:
        check_openings(sources, kind)
    remarks = [*present.remarks, *admission.notes]
    if admission.blank:
        remarks.append(f"{len(admission.blank):,} files passed over: white space alone")
    remarks += [in_recipe_words(f"left out: {fault}") for _, fault in admission.refused]
    return TextFiles(tuple(sources), tuple(remarks))


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
