"""Makes sure, before a run, that its data is there: all files, of the right size, and on Lustre with their data.

A released file is restored when it is first read, one after the other and with the whole job waiting. Here they are
asked for many at a time, by one process, before the job starts.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.folders import set_folders
from kogpt2_gluon.shards.format import MANIFEST, TOKENIZER, Manifest
from kogpt2_gluon.staging.restoring import BATCH, LOST, DataFile, Progress, Restoring, Say
from kogpt2_gluon.storage.lustre import Lustre, find_mount, mount_advice, show
from kogpt2_gluon.wording import gigabytes

ASK_AT_ONCE = 256  # files in one question to lfs


@dataclass
class Inventory:
    """What lies in a folder: the `sets` (folders with a manifest), the files, and what is wrong with them."""

    folder: Path
    sets: list[Path] = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return sum(each.size for each in self.files)


@dataclass
class Report:
    """What :func:`stage` or :func:`status` found in one folder, in files and bytes."""

    folder: str
    file_system: str = ""
    on_lustre: bool = False
    mount_options: list[str] = field(default_factory=list)
    free_bytes: int = 0
    sets: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    released_files: int = 0
    released_bytes: int = 0
    restored_files: int = 0
    layout: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def faulty_sets(self) -> list[str]:
        """Those of `sets` that have a fault."""
        return [each for each in self.sets if any(_owner(fault, self.sets) == each for fault in self.faults)]


def _owner(fault: str, sets: list[str]) -> str:
    """The set that a fault lies in, "" if in none: the innermost whose folder, as named or resolved, it begins with."""
    names = {name.rstrip("/") + "/": each for each in sets for name in (each, str(Path(each).resolve()))}
    if "." in sets:
        names[""] = "."
    return names[max(found, key=len)] if (found := [name for name in names if fault.startswith(name)]) else ""


def take_inventory(folder: Path) -> Inventory:
    """Lists a folder: sets of shards, itself or at any depth below, and other files. Or it lists one file.

    A set's files are those its manifest names; each that is missing or has another size is a fault. Outside of sets,
    all files count but hidden ones. Raises DataError if there is nothing at all.
    """
    found = Inventory(folder)
    if folder.is_file():
        found.files.append(DataFile(folder.resolve(), folder.stat().st_size))
        return found
    places = set_folders(folder)
    for place in places:
        if (place / MANIFEST).is_file():
            found.sets.append(place)
            _list_set(place, found)
        else:
            found.faults.append(f"{show(place)}: shards without a manifest: `kogpt2 verify {show(place)} --repair`")
            found.files += _list_files(place, leave=places)
    if folder not in places:
        found.files += _list_files(folder, leave=places)
    if not found.files and not found.faults:
        raise DataError(f"{show(folder)}: no files there")
    return found


def _list_set(place: Path, found: Inventory) -> None:
    try:
        manifest = Manifest.load(place)
    except DataError as error:
        found.faults.append(str(error))
        found.files += _list_files(place, leave=[])
        return
    for shard in manifest.shards:
        _add_file(place / shard.name, shard.bytes, found)
    _add_file(place / TOKENIZER, None, found)
    _add_file(place / MANIFEST, None, found)


def _add_file(path: Path, size: int | None, found: Inventory) -> None:
    try:
        actual = path.stat().st_size
    except OSError as error:
        found.faults.append(f"{show(path)}: missing ({error.strerror}); the manifest beside it names it")
        return
    if size is not None and actual != size:
        found.faults.append(f"{show(path)}: {actual:,} bytes, its manifest says {size:,}")
    found.files.append(DataFile(path.resolve(), actual))


def _list_files(folder: Path, leave: list[Path]) -> list[DataFile]:
    """All files below a folder, hidden ones, links to folders and folders to `leave` aside, in order of their names."""
    files: list[DataFile] = []

    def refuse(error: OSError) -> None:  # os.walk alone would pass the folder over
        raise DataError(f"{show(Path(error.filename))}: cannot be listed: {error.strerror}") from None

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and Path(place, each) not in leave)
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                files.append(DataFile(path.resolve(), path.stat().st_size))
    return files


def stage(
    folder: Path,
    dry_run: bool = False,
    batch: int = BATCH,
    progress: Progress | None = None,
    say: Say = lambda words: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Restores what is released in `folder`, then reads a byte of each file. What is wrong is in the report's `faults`.

    With `dry_run` nothing is restored or read. `progress` is told (bytes restored, of how many), `say` a line now and
    then. After an interruption the same call goes on: the servers finish what they were asked for.
    """
    found = take_inventory(folder)
    report, lustre = _describe(found)
    released, unreadable = _find_released(found, report, lustre)
    if released and not dry_run:
        assert lustre is not None
        if report.free_bytes < report.released_bytes:
            report.notes.append(
                f"only {gigabytes(report.free_bytes)} free for {gigabytes(report.released_bytes)} to restore"
            )
        failed = Restoring(lustre, released, batch, progress, say, sleep).run()
        report.restored_files = len(released) - len(failed)
        unreadable.update(failed)
    report.faults += unreadable.values()
    if not dry_run:  # a file that is released still would keep us waiting
        problems = [_try_to_read(each) for each in found.files if each.path not in unreadable]
        report.faults += [problem for problem in problems if problem]
    return report


def status(folder: Path) -> Report:
    """Sizes, manifest, and on Lustre layout, mount options and released files of a folder; changes nothing."""
    found = take_inventory(folder)
    report, lustre = _describe(found)
    report.faults += _find_released(found, report, lustre)[1].values()
    if lustre is not None:
        largest = max(found.files, key=lambda each: each.size, default=None)
        for path in [*(found.sets or [folder]), *([largest.path] if largest else [])]:
            try:
                stripes = lustre.layout(path)
                report.layout.append(f"{show(path)}: {', then '.join(map(str, stripes)) or 'the file system default'}")
            except DataError as error:
                report.notes.append(str(error))
    return report


def _describe(found: Inventory) -> tuple[Report, Lustre | None]:
    """What can be told of a folder without lfs; and lfs, if the folder is on Lustre and there is one."""
    report = Report(
        show(found.folder),
        sets=[show(each) for each in found.sets],
        files=len(found.files),
        bytes=found.num_bytes,
        faults=list(found.faults),
    )
    report.free_bytes = shutil.disk_usage(found.folder).free
    mount = find_mount(found.folder)
    if mount is not None:
        report.file_system, report.mount_options = mount.kind, list(mount.options)
    report.on_lustre = mount is not None and mount.kind == "lustre"
    if mount is None or not report.on_lustre:
        kind = f" ({mount.kind})" if mount else ""
        report.notes.append(f"not on Lustre{kind}: nothing to restore or to stripe")
        return report, None
    report.notes += mount_advice(mount)
    lustre = Lustre.find()
    if lustre is None:
        report.notes.append("on Lustre, but the tool lfs is not on the PATH: install the Lustre client")
    return report, lustre


def _find_released(found: Inventory, report: Report, lustre: Lustre | None) -> tuple[list[DataFile], dict[Path, str]]:
    """The files that are released, and what is wrong with those that cannot come back."""
    released: list[DataFile] = []
    lost: dict[Path, str] = {}
    if lustre is None:
        return released, lost
    for start in range(0, len(found.files), ASK_AT_ONCE):
        asked = found.files[start : start + ASK_AT_ONCE]
        states = lustre.states([each.path for each in asked])
        for each in asked:
            state = states[each.path]
            if isinstance(state, DataError):
                report.notes.append(str(state))
            elif state.lost:
                lost[each.path] = f"{show(each.path)}: {LOST}"
            elif state.released:
                released.append(each)
    report.released_files, report.released_bytes = len(released), sum(each.size for each in released)
    return released, lost


def _try_to_read(file: DataFile) -> str | None:
    try:
        with file.path.open("rb", buffering=0) as stream:
            if file.size and len(stream.read(1)) != 1:
                return f"{show(file.path)}: ends before its first byte"
    except OSError as error:
        return f"{show(file.path)}: cannot be read: {error.strerror}"
    return None


def report_lines(report: Report, staged: bool) -> list[str]:
    """A report for a person, but for its faults; the first line is the summary."""
    free = "" if report.file_system == "s3" else f", {gigabytes(report.free_bytes)} free"
    plain = [f"{report.folder}: {report.files:,} files, {gigabytes(report.bytes)}{free}"]
    faulty = report.faulty_sets
    if whole := [each for each in report.sets if each not in faulty]:
        plain.append(f"  manifest whole: {', '.join(whole)}")
    if faulty:
        plain.append(f"  faulty: {', '.join(faulty)}")
    if report.on_lustre:
        plain.append(f"  released: {report.released_files:,} files, {gigabytes(report.released_bytes)}")
    if staged and report.released_files:
        plain.append(f"  restored: {report.restored_files:,} files")
    plain += [f"  layout of {line}" for line in report.layout]
    if report.on_lustre:
        plain.append(f"  mounted with {','.join(report.mount_options)}")
    return plain + [f"  note: {line}" for line in report.notes]


def to_dict(report: Report) -> dict[str, Any]:
    """For JSON: every field of the report, ``faulty_sets`` and ``ok``."""
    return {**vars(report), "faulty_sets": report.faulty_sets, "ok": not report.faults}
