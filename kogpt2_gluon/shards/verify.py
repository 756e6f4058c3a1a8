"""Checks every part of finished sets of shards, and lists all faults, each with its place.

A reader of a training run checks the chunks that it reads, and stops at the first fault. :func:`verify` reads
everything once, in bounded memory, with as many processes as are given, and goes on after a fault. See :mod:`.repair`
for what can be done about faults.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.process_pool import Run, start_processes
from kogpt2_gluon.shards.check import Fault, Index, Layout, check_chunks, check_index, without_path
from kogpt2_gluon.shards.file_pool import available_memory
from kogpt2_gluon.shards.folders import MANIFEST, SUFFIX, set_folders
from kogpt2_gluon.shards.format import READ_SIZE, UNFINISHED, Manifest, ShardInfo
from kogpt2_gluon.storage.links import read_file
from kogpt2_gluon.storage.tokenizer_file import tokenizer_in
from kogpt2_gluon.wording import counted, gigabytes

REPAIRED = "; repaired: "  # in the manifest's `source` of a set that lost shards: its documents may be cut there
LEFT_OVER = (UNFINISHED, ".partial")  # suffixes of files that an interrupted writer leaves
FEW_BYTES = 1 << 30  # so much is checked faster by one process than others can start


@dataclass
class SetReport:
    """The faults of one folder of shards, and counts of what was checked there, whole or not."""

    folder: str
    fingerprint: str = ""
    shards: int = 0
    chunks: int = 0
    tokens: int = 0
    documents: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    manifest: Manifest | None = None  # None also if it fails its own checks
    indexes: dict[str, Index] = field(default_factory=dict)  # by name, of every .ktok file there
    tokenizer_sha256: str = ""  # of the file next to the shards; "" if there is none

    def fault(self, name: str, message: str) -> None:
        self.faults.append(Fault(str(Path(self.folder) / name) if name else self.folder, message))

    def is_whole(self, name: str) -> bool:
        """Returns True if a shard, taken by itself, is what was written."""
        return bool(self.indexes[name].hash) and not self.indexes[name].faults


@dataclass
class VerifyReport:
    """The result of :func:`verify`: a report for each set."""

    folder: str
    sets: list[SetReport]
    seconds: float

    @property
    def faults(self) -> list[Fault]:
        return [fault for each in self.sets for fault in each.faults]

    @property
    def notes(self) -> list[str]:
        return [note for each in self.sets for note in each.notes]

    def to_dict(self) -> dict[str, Any]:
        """Returns for JSON: ``ok``, counts in all and by set, ``bytes``, ``seconds``, ``faults`` and ``notes``."""
        counts = ("shards", "chunks", "tokens", "documents", "bytes")
        return {
            "folder": self.folder,
            "ok": not self.faults,
            **{name: sum(getattr(each, name) for each in self.sets) for name in counts},
            "seconds": round(self.seconds, 3),
            "sets": [
                {name: getattr(each, name) for name in ("folder", "fingerprint", *counts)}
                | {"faults": len(each.faults)}
                for each in self.sets
            ],
            "faults": [asdict(fault) for fault in self.faults],
            "notes": self.notes,
        }

    def summary(self) -> str:
        """Returns counts, time and the number of faults in one line."""
        plain = self.to_dict()
        counts = ", ".join(counted(plain[f"{noun}s"], noun) for noun in ("shard", "chunk", "token", "document"))
        found = counted(len(self.faults), "fault") if self.faults else "no faults"
        return f"{self.folder}: {counts}, {gigabytes(plain['bytes'])} in {self.seconds:.1f} s: {found}"

    def lines(self) -> list[str]:
        """Returns every fault and note, then the summary, for a person."""
        return [*map(str, self.faults), *self.notes, self.summary()]


def find_sets(folder: Path) -> list[Path]:
    """Returns the sets in DIR: itself and those below it, at any depth. DataError if there is none."""
    found = set_folders(folder)
    if not found:
        where = "no shards there, nor below it" if folder.is_dir() else "no such folder, so no shards there"
        raise DataError(f"{folder}: {where}")
    return found


def verify(folder: Path, processes: int = 1, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Checks a folder of shards and all sets below it, such as DIR/train, DIR/test or DIR/news/train.

    Parameters
    ----------
    folder : Path
        DataError if there are no shards at all; every other fault is in the report.
    processes : int
        How many processes check at once; the report is the same for any number.
    progress : callable
        Called with (bytes done, bytes in all).
    """
    began = time.perf_counter()
    folders = find_sets(folder)
    total = sum(_size(path) for each in folders for path in each.glob(f"*{SUFFIX}"))
    drop = total > available_memory() // 2
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, total), total)

    with _checkers(processes if total > FEW_BYTES else 1) as run:
        sets = [verify_set(each, run, advance, drop) for each in folders]
    first = sets[0].manifest
    for other in sets[1:]:
        if first and other.manifest and other.manifest.tokenizer_sha256 != first.tokenizer_sha256:
            other.fault(MANIFEST, f"made with another tokenizer than {sets[0].folder}")
    return VerifyReport(str(folder), sets, time.perf_counter() - began)


def _size(path: Path) -> int:
    """Returns a file's size, or 0 for a link that leads nowhere: it becomes a fault later."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _checkers(processes: int) -> AbstractContextManager[Run]:
    return start_processes(processes, "checking") if processes > 1 else nullcontext(map)


def verify_set(folder: Path, run: Run, advance: Callable[[int], None], drop: bool) -> SetReport:
    """Checks one folder of shards. `run` maps a function over tasks, `advance` is called with bytes that are done."""
    report = SetReport(str(folder))
    stated = _check_manifest(folder, report)  # even one that fails its own checks says what to look for
    names = sorted(path.name for path in folder.glob(f"*{SUFFIX}"))
    known = {info.name: _layout(stated, info) for info in stated.shards} if stated else {}

    indexes = run(_check_index, [(folder / name, known.get(name), drop) for name in names])
    report.indexes = dict(zip(names, indexes))
    for index in report.indexes.values():
        report.bytes += index.size
        advance(max(0, index.size - (index.layout.ends_start if index.layout else 0)))
    tasks = [task for index in report.indexes.values() for task in index.ranges]
    for task, faults in zip(tasks, run(check_chunks, tasks)):
        report.indexes[task.path.name].faults += faults
        advance((task.last - task.first) * task.layout.chunk_bytes)
    report.faults += [fault for index in report.indexes.values() for fault in index.faults]

    layouts = [index.layout for index in report.indexes.values() if index.layout]
    report.shards, report.chunks = len(names), sum(layout.chunks for layout in layouts)
    report.tokens, report.documents = sum(each.tokens for each in layouts), sum(each.documents for each in layouts)
    _check_files(folder, stated, report)
    if stated:
        _compare_with_manifest(stated, report)
        _check_borders(stated, report)
    _check_tokenizer(folder, stated, report)
    return report


def _check_index(task: tuple[Path, Layout | None, bool]) -> Index:
    return check_index(*task)


def _layout(manifest: Manifest, info: ShardInfo) -> Layout:
    return Layout(
        manifest.dtype,
        manifest.chunk_bytes,
        info.tokens,
        info.documents,
        manifest.vocab_size,
        manifest.special_ids["bos"],
        manifest.special_ids["eos"],
        manifest.tokenizer_sha256,
        tuple(sorted(manifest.special_ids.items())),
    )


def _check_manifest(folder: Path, report: SetReport) -> Manifest | None:
    """Returns the manifest, even if it fails its own checks; None if it cannot be used. Its faults are reported."""
    try:
        manifest = report.manifest = Manifest.load(folder)
        report.fingerprint = manifest.fingerprint()
    except DataError as error:
        there = (folder / MANIFEST).exists()
        report.fault(MANIFEST, without_path(error, folder / MANIFEST) if there else "the manifest is missing")
        return _read_doubtful(folder)
    if sum(info.documents for info in manifest.shards) != manifest.documents:
        report.fault(MANIFEST, f"its {manifest.documents:,} documents are not those of its shards")
    return manifest


def _read_doubtful(folder: Path) -> Manifest | None:
    """Returns a manifest that fails its own checks but can be compared with the shards; None for any other."""
    try:
        plain = json.loads(read_file(folder / MANIFEST).decode())
        plain.pop("fingerprint", None)
        manifest = Manifest(**{**plain, "shards": [ShardInfo(**shard) for shard in plain["shards"]]})
        manifest.check(folder / MANIFEST)
        return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        return None


def _check_files(folder: Path, stated: Manifest | None, report: SetReport) -> None:
    """Reports files that are missing, that the manifest does not name, or that an interrupted writer left."""
    expected = {info.name for info in stated.shards} if stated else set(report.indexes)
    for name in sorted(expected - report.indexes.keys()):
        report.fault(name, "this shard is missing; the manifest names it")
    for name in sorted(report.indexes.keys() - expected):
        report.fault(name, "a shard that the manifest does not name")
    for path in sorted(folder.iterdir()):
        if path.name.endswith(LEFT_OVER):
            report.fault(path.name, "left over from a writer that was interrupted; remove it")


def _compare_with_manifest(manifest: Manifest, report: SetReport) -> None:
    names = {info.hash: info.name for info in manifest.shards}
    for info in manifest.shards:
        index = report.indexes.get(info.name)
        if index is None:
            continue
        if index.hash and index.hash != info.hash:
            other = names.get(index.hash)
            whose = f"it is {other}: their names were swapped" if other else "it is a shard of another set"
            report.fault(info.name, f"not the shard that the manifest means by this name; {whose}")
            continue
        if index.size != info.bytes:
            report.fault(info.name, f"{index.size:,} bytes, the manifest says {info.bytes:,}")
        expected = _layout(manifest, info)
        for name in ("dtype", "chunk_bytes", "tokens", "documents", "vocab_size", "tokenizer_sha256", "special_ids"):
            found = getattr(index.layout, name, None)
            if index.layout and found != getattr(expected, name):
                report.fault(info.name, f"its footer says {name}={found}, the manifest {getattr(expected, name)}")


def _check_borders(manifest: Manifest, report: SetReport) -> None:
    """Checks that documents run on from one shard to the next, so that one begins where and only where another ends.

    A repair after a loss may cut documents: in a repaired set such a place is a note, not a fault.
    """
    repaired = REPAIRED in manifest.source
    whole = [info.name for info in manifest.shards if info.name in report.indexes and report.is_whole(info.name)]
    if [info.hash for info in manifest.shards] != [report.indexes[name].hash for name in whole]:
        return  # the missing or damaged shards are reported already, and their borders would say nothing new
    closed, before = True, ""
    for name in whole:
        index = report.indexes[name]
        if index.opens is not None and index.opens != closed:
            state = "after a document that ends" if closed else "inside a document that begins"
            message = f"{'begins' if index.opens else 'does not begin'} with <s>, {state} in {before or 'no shard'}"
            _report_border(report, name, message, repaired)
        closed, before = index.closed, name
    if not closed:
        _report_border(report, before, "the set ends inside a document", repaired)


def _report_border(report: SetReport, name: str, message: str, repaired: bool) -> None:
    if repaired:
        report.notes.append(f"{Path(report.folder) / name}: {message} (this set was repaired after a loss)")
    else:
        report.fault(name, message)


def _check_tokenizer(folder: Path, stated: Manifest | None, report: SetReport) -> None:
    digest, path = hashlib.sha256(), tokenizer_in(folder)
    try:
        with path.open("rb") as file:
            while block := file.read(READ_SIZE):
                digest.update(block)
    except FileNotFoundError:
        report.fault(path.name, "the tokenizer is missing")
        return
    except OSError as error:
        report.fault(path.name, f"cannot be read: {error.strerror}")
        return
    report.tokenizer_sha256 = digest.hexdigest()
    expected = {stated.tokenizer_sha256} if stated else _tokenizers(report)
    if expected and report.tokenizer_sha256 not in expected:
        report.fault(
            path.name,
            f"not the tokenizer of these shards: SHA-256 {report.tokenizer_sha256[:16]}..., theirs "
            f"{min(expected)[:16]}...",
        )


def _tokenizers(report: SetReport) -> set[str]:
    return {index.layout.tokenizer_sha256 for index in report.indexes.values() if index.layout}
