"""The text of a part in NumPy arrays: slices of it, chosen documents of it, and the part without some of its lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import xxhash

from kogpt2_gluon.corpus.cleaning.duplicates import Flags
from kogpt2_gluon.corpus.cleaning.parts import Integers, Part

Bytes = npt.NDArray[np.uint8]

SLICE_BYTES = 8 << 20  # of text worked on at a time; more if one document is larger
LINE_END = 10


def text_slices(part: Part, ends: Integers) -> Iterator[tuple[int, int, Bytes]]:
    """Yields (first document, the one after the last, their bytes) of a part; `ends` is its array of that name."""
    begin = offset = 0
    with (part.folder / "text").open("rb") as stream:
        while begin < part.documents:
            end = max(begin + 1, int(np.searchsorted(ends, offset + SLICE_BYTES, "right")))
            size = int(ends[end - 1]) - offset
            data = np.fromfile(stream, np.uint8, size)
            assert len(data) == size, part.folder
            yield begin, end, data
            begin, offset = end, offset + size


def choose_documents(data: Bytes, sizes: Integers, chosen: Flags) -> Bytes:
    """Returns the bytes of the chosen documents of those that are in `data` one after another."""
    if chosen.all():
        return data
    if 2 * int(chosen.sum()) > len(chosen):
        documents: Bytes = data[np.repeat(chosen, sizes)]
        return documents
    ends = np.cumsum(sizes)
    pieces = [data[ends[number] - sizes[number] : ends[number]] for number in np.flatnonzero(chosen).tolist()]
    return np.concatenate([*pieces, data[:0]])


def remove_lines(part: Part, removed: Flags, lead: int, folder: Path) -> Part:
    """Writes the part without some of its lines to a new folder; a document that loses all lines keeps `lead` bytes.

    `removed` is bool, shape (lines of the part,); `lead` is how many bytes each document has before its first line.
    """
    ends, lines, hashes = part.array("ends"), part.array("lines"), part.array("hashes")
    first_lines = np.concatenate([[0], np.cumsum(lines)])
    left = lines - np.diff(np.concatenate([[0], np.cumsum(removed)])[first_lines])
    sizes = np.empty(part.documents, np.int64)
    folder.mkdir()
    with (folder / "text").open("wb") as stream:
        for begin, end, data in text_slices(part, ends):
            starts = np.concatenate([[0], ends[begin : end - 1] - (ends[begin - 1] if begin else 0)])
            kept = ~_spans(data, starts, lead, removed[first_lines[begin] : first_lines[end]])
            sizes[begin:end] = np.add.reduceat(kept, starts, dtype=np.int64)
            data = data[kept]
            stream.write(data.data)
            stops = np.cumsum(sizes[begin:end])
            for number in np.flatnonzero((left != lines)[begin:end] & (left[begin:end] > 0)).tolist():
                text = data[stops[number] - sizes[begin + number] + lead : stops[number] - 1]
                hashes[begin + number] = xxhash.xxh3_64_intdigest(cast(bytes, text.data))
    for name, array in {"ends": np.cumsum(sizes), "lines": left, "hashes": hashes}.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return replace(part, folder=folder, lines=int(left.sum()))


def _spans(data: Bytes, starts: Integers, lead: int, removed: Flags) -> Flags:
    """Returns which bytes belong to removed lines: bool, as long as `data`. Documents begin at `starts`."""
    stops = np.flatnonzero(data == LINE_END) + 1
    if lead:
        stops = stops[~np.isin(stops, starts + lead, assume_unique=True)]
    assert len(stops) == len(removed)
    # A line begins where the one before it stops, or after the lead of its document.
    begins = np.concatenate([[0], stops[:-1]])
    begins[np.searchsorted(stops, starts, "right")] = starts + lead
    steps = np.zeros(len(data) + 1, np.int8)
    steps[begins[removed]] += 1
    steps[stops[removed]] -= 1
    return cast(Flags, np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_))
