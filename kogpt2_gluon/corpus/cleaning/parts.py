"""The work folder of a cleaning: a plan, and the parts that are done.

`OUT.work`, next to the future corpus, has ``plan.json`` (the sources, their kind, the filters) and ``part-00000``,
``part-00001``, ...: the clean documents of about 64 MB of text each, in the order of the sources. A part takes its name
only when all of it is on disk, and says where the next one begins, so a cleaning that was killed resumes after the last
finished part. Where one part ends and the next begins depends on the text alone, so a source that was repaired or
added costs only the parts from it on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.corpus.cleaning.report import PLACES_SHOWN, Row, Samples, Tally
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.storage.files import commit_folder
from kogpt2_gluon.storage.work_folder import Plan, Stage, other_plan, remove_result

PART_BYTES = 64 << 20  # of clean text; a part ends with the block that reaches this size
PART_DOCUMENTS = 1 << 18  # or this many documents, so that their hashes and keys stay small too
PART_LINES = 1 << 20
PLAN_FORMAT = "kogpt2-cleaning"

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class Cleaned(NamedTuple):
    """The result of cleaning one block.

    `data` holds the kept documents as the corpus stores them, one after another; `sizes` (int64) their bytes there,
    `hashes` (uint64) their texts' xxh3, `lines` (int64) how many each has: all of shape (documents,). `line_hashes`
    (uint64, shape (lines,), 0: too short) and `keys` (uint64, shape (documents, bands)) are None if their filter is
    off.
    `bad_utf8` has the byte offset of each bad place.
    """

    data: bytes
    sizes: Integers
    hashes: Hashes
    lines: Integers
    line_hashes: Hashes | None
    keys: Hashes | None
    tally: Tally
    samples: list[Row]
    bad_utf8: list[int]


class Place(NamedTuple):
    """A position in the sources, where reading resumes: number of a source, and the `start` for its `read_blocks`."""

    source: int
    line: int = 1
    offset: int = 0


@dataclass
class Part:
    """A finished part. `first` is the number of its first document among those of all parts."""

    folder: Path
    first: int
    documents: int
    lines: int
    next_place: Place
    runs: list[tuple[int, int]]  # (number of a source, documents in a row from it)
    tallies: dict[int, Tally]  # by number of the source
    bad_utf8: int
    bad_utf8_places: list[tuple[str, int]]

    @property
    def documents_slice(self) -> slice:
        """Its documents among those of all parts, as a slice of document numbers."""
        return slice(self.first, self.first + self.documents)

    def array(self, name: str) -> npt.NDArray[Any]:
        """Loads an array: ``ends`` of the documents in the text (int64), ``hashes`` (uint64), ``lines`` (int64), ..."""
        array: npt.NDArray[Any] = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return array

    def sources(self) -> Integers:
        """Returns the number of each document's source, int64, shape (documents,)."""
        numbers, counts = np.array(self.runs, np.int64).reshape(-1, 2).T
        return np.repeat(numbers, counts)

    def samples(self) -> list[Row]:
        """Reads samples of what filters dropped and changed; they are not kept in memory, since parts are many."""
        rows: list[Row] = json.loads((self.folder / "part.json").read_bytes())["samples"]
        return rows


class PartWriter:
    """Fills the folder of one part."""

    def __init__(self, work: Path, number: int, sources: Sequence[Source]) -> None:
        self._work, self._number, self._sources = work, number, sources
        self._partial = work / f".part-{number:05d}.partial"
        shutil.rmtree(self._partial, ignore_errors=True)  # left by a killed cleaning
        self._partial.mkdir()
        self._text = (self._partial / "text").open("wb")
        self._places = (self._partial / "bad_utf8").open("wb")
        self._arrays: dict[str, list[npt.NDArray[Any]]] = {}
        self._runs: list[list[int]] = []
        self._tallies: dict[int, Tally] = {}
        self._samples = Samples()
        self._documents = self._lines = self._bytes = self._bad_utf8 = 0
        self._first_places: list[tuple[str, int]] = []

    @property
    def is_full(self) -> bool:
        """True if the next block belongs to the next part."""
        return self._bytes >= PART_BYTES or self._documents >= PART_DOCUMENTS or self._lines >= PART_LINES

    def add(self, source: int, cleaned: Cleaned) -> None:
        """Appends a cleaned block of the source of that number."""
        self._text.write(cleaned.data)
        arrays = {"ends": self._bytes + np.cumsum(cleaned.sizes), "hashes": cleaned.hashes, "lines": cleaned.lines}
        if cleaned.line_hashes is not None:
            arrays["line_hashes"] = cleaned.line_hashes
        if cleaned.keys is not None:
            arrays["keys"] = cleaned.keys
        for name, array in arrays.items():
            self._arrays.setdefault(name, []).append(array)
        self._bytes += len(cleaned.data)
        self._documents += len(cleaned.sizes)
        self._lines += int(cleaned.lines.sum())
        if self._runs and self._runs[-1][0] == source:
            self._runs[-1][1] += len(cleaned.sizes)
        else:
            self._runs.append([source, len(cleaned.sizes)])
        self._tallies.setdefault(source, Tally()).add(cleaned.tally)
        for row in cleaned.samples:
            self._samples.add(row)
        name = self._sources[source].name
        for offset in cleaned.bad_utf8:
            self._places.write(os.fsencode(name) + b"\t%d\n" % offset)
        room = PLACES_SHOWN - len(self._first_places)
        self._first_places += [(name, offset) for offset in cleaned.bad_utf8[: max(0, room)]]
        self._bad_utf8 += len(cleaned.bad_utf8)

    def commit(self, next_place: Place) -> None:
        """Gives the part its name once it is on disk; the next one begins at `next_place`."""
        for name, arrays in self._arrays.items():
            np.save(self._partial / f"{name}.npy", np.concatenate(arrays), allow_pickle=False)
        about = {
            "documents": self._documents,
            "lines": self._lines,
            "next_place": next_place,
            "runs": self._runs,
            "tallies": {str(source): tally.to_dict() for source, tally in self._tallies.items()},
            "samples": self._samples.rows(),
            "bad_utf8": self._bad_utf8,
            "bad_utf8_places": self._first_places,
        }
        (self._partial / "part.json").write_bytes(json.dumps(about).encode())
        self._text.close()
        self._places.close()
        commit_folder(self._partial, part_folder(self._work, self._number))

    def abandon(self) -> None:
        """Removes a part that was not committed; after `commit` this does nothing."""
        self._text.close()
        self._places.close()
        shutil.rmtree(self._partial, ignore_errors=True)


def part_folder(work: Path, number: int) -> Path:
    """Returns the folder of the part of that number in a work folder."""
    return work / f"part-{number:05d}"


def read_parts(work: Path) -> list[Part]:
    """Returns the finished parts of a work folder, in order. DataError if one is damaged."""
    parts: list[Part] = []
    first = 0
    while (folder := part_folder(work, len(parts))).is_dir():
        path = folder / "part.json"
        try:
            about = json.loads(path.read_bytes())
            part = Part(
                folder,
                first,
                about["documents"],
                about["lines"],
                Place(*about["next_place"]),
                [(source, count) for source, count in about["runs"]],
                {int(source): Tally.from_dict(tally) for source, tally in about["tallies"].items()},
                about["bad_utf8"],
                [(name, offset) for name, offset in about["bad_utf8_places"]],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error}); say --restart to clean from the beginning") from None
        parts.append(part)
        first += part.documents
    return parts


def make_plan(sources: Sequence[Source], documents: str, options: dict[str, Any], release: str) -> Plan:
    """Returns everything that the parts depend on, as plain data."""
    return {
        "release": release,
        "documents": documents,
        "options": options,
        "sources": [source.to_row() for source in sources],
    }


def cleaning_stage(say: Callable[[str], None]) -> Stage:
    """Returns what the work folder of a cleaning needs to know; `say` gets a line if finished parts must go."""
    return Stage("clean", PLAN_FORMAT, has_parts, lambda work, old, new: _reconcile(work, old, new, say))


def has_parts(work: Path) -> bool:
    """Returns True if a work folder has a finished part."""
    return part_folder(work, 0).is_dir()


def _reconcile(work: Path, old: Plan, new: Plan, say: Callable[[str], None]) -> None:
    """Keeps the parts that are valid for the new plan: those before the first source that is another one now.

    A part depends on its own sources and on those before it, because it begins where the one before it ends. Parts are
    removed only for a file that was changed under its own name, such as one that was damaged and has been repaired.
    RecipeError if anything else changed that finished parts depend on.
    """
    try:
        before, now = old["sources"], new["sources"]
        same = next((n for n, (a, b) in enumerate(zip(before, now)) if a != b), min(len(before), len(now)))
        parts = read_parts(work)
        valid = sum(part.next_place <= Place(same) for part in parts)
        same_names = [name for name, *_ in before] == [name for name, *_ in now]
        changes = list(_changes(old, new))
        if changes or not (same_names or valid == len(parts)):
            raise other_plan(work, "cleaning", changes + list(_source_changes(before, now)))
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{work}: its plan is damaged ({error}); say --restart to start from the beginning") from None
    for part in reversed(parts[valid:]):  # the last one first, so that a kill leaves no gap
        remove_result(part.folder)
    changed = now[same][0] if same < len(now) else before[same][0]
    say(f"{changed}: not as it was when this cleaning began; {valid:,} of {len(parts):,} finished parts are kept")


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    if old["release"] != new["release"]:
        yield f"release {new['release']} (it was {old['release']})"
    if old["documents"] != new["documents"]:
        yield f"--documents {new['documents']} (it was {old['documents']})"
    before, now = dict(_leaves(old["options"])), dict(_leaves(new["options"]))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield f"the option {name}={now.get(name)} (it was {before.get(name)})"


def _source_changes(before: list[list[Any]], now: list[list[Any]]) -> Iterator[str]:
    was, is_now = ({name: tuple(rest) for name, *rest in sources} for sources in (before, now))
    for name in [*is_now, *(name for name in was if name not in is_now)]:
        if name not in was:
            yield f"the source {name} was named"
        elif name not in is_now:
            yield f"the source {name} was left out"
        elif was[name][:2] != is_now[name][:2]:
            yield f"the source {name} changed"
        elif was[name] != is_now[name]:
            yield f"the source {name} was read in another encoding"
    if (list(was) != list(is_now) and set(was) == set(is_now)) or len(before) != len(now):
        yield "the sources came in this order and number"


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every plain value in nested mappings."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, tree
