"""Writes down which sequences each update of a training was made with, and compares the record of two trainings.

Every process that trains leaves one file, a "life": a line for each update with a hash of every sequence in it. A
disturbed run has many lives; what counts of each is what came before the place at which the next one went on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import xxhash


def record_training(folder: Path) -> None:
    """Makes this process write its life into `folder`, from now on."""
    from kogpt2_gluon.machine import job
    from kogpt2_gluon.training import batches as made

    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.monotonic_ns():020d}-{job.rank() or 0}-{os.getpid()}"
    file = os.open(folder / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    batches = made.device_batches

    def recorded(reader: Any, ctx: Any) -> Iterator[Any]:
        for tokens, on_device in batches(reader, ctx):
            update = reader.consumed // reader.sequences_per_update
            line = {"update": update, "ids": ids_of(tokens), "at": time.monotonic()}
            os.write(file, json.dumps(line).encode() + b"\n")
            yield tokens, on_device

    made.device_batches = recorded


def ids_of(tokens: Any) -> list[str]:
    """Returns a hash of each sequence of an update, (accumulate, batch_size, seq_length + 1)."""
    return [xxhash.xxh64_hexdigest(row.tobytes()) for row in tokens.reshape(-1, tokens.shape[-1])]


class Life(NamedTuple):
    """The sequences that one process trained on: {update: ids}, in order."""

    rank: int
    pid: int
    updates: dict[int, list[str]]
    times: list[float]  # monotonic, when each update's sequences were taken


def lives(folder: Path) -> list[Life]:
    """Reads all lives, the first one first."""
    found = []
    for file in sorted(folder.iterdir()):
        _, rank, pid = file.name.split("-")
        lines = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
        updates = {line["update"]: line["ids"] for line in lines}
        assert len(updates) == len(lines), f"{file}: an update twice in one life"
        found.append(Life(int(rank), int(pid), updates, [line["at"] for line in lines]))
    return found


def history(folder: Path) -> tuple[dict[tuple[int, int], list[str]], list[str]]:
    """Returns {(update, rank): ids} of what counts in the end, and what is wrong with it: updates left out."""
    counts: dict[tuple[int, int], list[str]] = {}
    faults = []
    for life in lives(folder):
        done = [update for update, rank in counts if rank == life.rank]
        first = min(life.updates, default=0)
        if first > max(done, default=0) + 1:
            faults.append(
                f"rank {life.rank}, process {life.pid}: went on with update {first} after {max(done, default=0)}"
            )
        if list(life.updates) != list(range(first, first + len(life.updates))):
            faults.append(f"rank {life.rank}, process {life.pid}: its updates are not one after another")
        if first:
            counts = {place: ids for place, ids in counts.items() if place[1] != life.rank or place[0] < first}
        counts.update({(update, life.rank): ids for update, ids in life.updates.items()})
    return counts, faults


def differences(disturbed: Path, straight: Path) -> list[str]:
    """Compares what counts of a disturbed run with an undisturbed one; returns lines on what is not the same."""
    (found, faults), (expected, _) = history(disturbed), history(straight)
    for place in sorted(expected.keys() - found.keys())[:3]:
        faults.append(f"update {place[0]}, rank {place[1]}: never trained")
    for place in sorted(found.keys() - expected.keys())[:3]:
        faults.append(f"update {place[0]}, rank {place[1]}: one too many")
    for place in sorted(expected.keys() & found.keys()):
        if expected[place] != found[place]:
            faults.append(f"update {place[0]}, rank {place[1]}: other sequences")
            break
    return faults


def in_order(folder: Path) -> list[str]:
    """Returns the ids of all sequences that count, update by update."""
    return [each for _, ids in sorted(history(folder)[0].items()) for each in ids]
