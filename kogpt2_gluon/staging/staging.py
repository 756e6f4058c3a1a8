"""Makes sure, before a run, that its data is there: all files, of the right size, and on Lustre with their data.

Lustre restores a released file when it is first read: one file after the other, while the whole job waits. Here one
process asks for many at a time, before the job starts.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.folders import MANIFEST, set_folders
from kogpt2_gluon.shards.format import Manifest
from kogpt2_gluon.staging.report import FolderReport
from kogpt2_gluon.staging.restoring import BATCH, LOST, DataFile, Progress, Restoring
from kogpt2_gluon.storage.lustre import Lustre, find_mount, mount_advice, show
from kogpt2_gluon.storage.tokenizer_file import tokenizer_in
from kogpt2_gluon.wording import Say, gigabytes

ASK_AT_ONCE = 256  # files in one question to lfs


@dataclass
class Inventory:
    """The content of a folder: its `sets` (folders with a manifest), its files, and what is wrong with them."""

    folder: Path
    sets: list[Path] = field(default_factory=list)
    files: list[DataFile] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        return sum(each.size for each in self.files)


def take_inventory(folder: Path) -> Inventory:
    """Lists the sets of shards in a folder and below it, and the other files there. `folder` may also be one file.

    A set's files are those that its manifest names; each that is missing or has another size is a fault. Outside of
    sets all files count except hidden ones. Raises DataError if there is nothing at all.
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
            found.faults.append(f"{show(place)}: shards without a manifest; run: kogpt2 verify {show(place)} --repair")
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
    _add_file(tokenizer_in(place), None, found)
    _add_file(place / MANIFEST, None, found)


def _add_file(path: Path, size: int | None, found: Inventory) -> None:
    try:
        actual = path.stat().st_size
    except OSError as error:
        found.faults.append(f"{show(path)}: missing ({error.strerror}); its manifest names it")
        return
    if size is not None and actual != size:
        found.faults.append(f"{show(path)}: {actual:,} bytes, its manifest says {size:,}")
    found.files.append(DataFile(path.resolve(), actual))


def _list_files(folder: Path, leave: list[Path]) -> list[DataFile]:
    """Lists all files below a folder in order of name, except hidden ones and those in folders to `leave` out."""
    files: list[DataFile] = []

    def refuse(error: OSError) -> None:  # os.walk alone would skip the folder
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
) -> FolderReport:
    """Restores the released files in `folder`, then reads a byte of each file. Faults are in the report.

    With `dry_run` nothing is restored or read. `progress` is called with (bytes restored, bytes to restore), `say` with
    a status line now and then. After an interruption the same call goes on: the servers finish what they were asked
    for.
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
    if not dry_run:  # reading a file that is still released would wait for its data
        problems = [_try_to_read(each) for each in found.files if each.path not in unreadable]
        report.faults += [problem for problem in problems if problem]
    return report


def status(folder: Path) -> FolderReport:
    """Reports sizes and manifests of a folder, and on Lustre its layout, mount options and released files."""
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


def _describe(found: Inventory) -> tuple[FolderReport, Lustre | None]:
    """Returns the part of the report that needs no lfs; and lfs, if the folder is on Lustre and there is one."""
    report = FolderReport(
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


def _find_released(
    found: Inventory, report: FolderReport, lustre: Lustre | None
) -> tuple[list[DataFile], dict[Path, str]]:
    """Returns the released files, and what is wrong with those that cannot come back; counts go into the report."""
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
    """Returns what is wrong with a file whose first byte cannot be read; None if it can."""
    try:
        with file.path.open("rb", buffering=0) as stream:
            if file.size and len(stream.read(1)) != 1:
                return f"{show(file.path)}: ends before its first byte"
    except OSError as error:
        return f"{show(file.path)}: cannot be read: {error.strerror}"
    return None
