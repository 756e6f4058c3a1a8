"""Makes sure, before a run, that its data is there: all files, of the right size, and on Lustre with their data.

A released file is restored when it is first read, one after the other and with the whole job waiting. Here they are
asked for many at a time, by one process, before the job starts.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from kogpt2_gluon.data.corpus import SPLITS
from kogpt2_gluon.data.lustre import Lustre, find_mount, mount_advice, show
from kogpt2_gluon.data.shards import MANIFEST, TOKENIZER, Manifest
from kogpt2_gluon.errors import DataError

BATCH = 16  # files restored at once
ATTEMPTS = 2  # of a restore that ends without data
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two looks at what is under way
PATIENCE = 1800.0  # seconds without a byte restored before it is given up
SAY_EVERY = 30.0  # seconds between two lines that say how far it is
ASK_AT_ONCE = 256  # files in one question to lfs

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


class DataFile(NamedTuple):
    """A file that a run needs; `size` in bytes, as its manifest says or, without one, as it is."""

    path: Path
    size: int


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


def take_inventory(folder: Path) -> Inventory:
    """Lists a folder of shards, one with train/ and test/ below, a folder of other files, or one file.

    A set's files are those its manifest names; each that is missing or has another size is a fault. Without any set,
    all files below count but hidden ones. Raises DataError if there is nothing at all.
    """
    found = Inventory(folder)
    if folder.is_file():
        found.files.append(DataFile(folder.resolve(), folder.stat().st_size))
        return found
    places = [folder, *(folder / split for split in SPLITS)]
    found.sets = [place for place in places if (place / MANIFEST).is_file()]
    for place in found.sets:
        _list_set(place, found)
    for place in places:
        if place not in found.sets and place.is_dir() and any(place.glob("*.ktok")):
            found.faults.append(f"{show(place)}: shards without a manifest: `kogpt2 verify {show(place)} --repair`")
            found.files += _list_files(place)
    if not found.sets and not found.files:
        found.files = _list_files(folder)
    if not found.files and not found.faults:
        raise DataError(f"{show(folder)}: no files there")
    return found


def _list_set(place: Path, found: Inventory) -> None:
    try:
        manifest = Manifest.load(place)
    except DataError as error:
        found.faults.append(str(error))
        found.files += _list_files(place)
        return
    for shard in manifest.shards:
        _add_file(place / shard.name, shard.bytes, found)
    _add_file(place / TOKENIZER, None, found)
    _add_file(place / MANIFEST, None, found)


def _add_file(path: Path, size: Optional[int], found: Inventory) -> None:
    try:
        actual = path.stat().st_size
    except OSError as error:
        found.faults.append(f"{show(path)}: missing ({error.strerror}); the manifest beside it names it")
        return
    if size is not None and actual != size:
        found.faults.append(f"{show(path)}: {actual:,} bytes, its manifest says {size:,}")
    found.files.append(DataFile(path.resolve(), actual))


def _list_files(folder: Path) -> list[DataFile]:
    """All files below a folder, hidden ones and links to folders aside, in the order of their names."""
    files: list[DataFile] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                files.append(DataFile(path.resolve(), path.stat().st_size))
    return files


def stage(
    folder: Path,
    dry_run: bool = False,
    batch: int = BATCH,
    progress: Optional[Progress] = None,
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
            report.notes.append(f"only {_size(report.free_bytes)} free for {_size(report.released_bytes)} to restore")
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


def _describe(found: Inventory) -> tuple[Report, Optional[Lustre]]:
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
        report.notes.append(
            "on Lustre, but the tool lfs is not on the PATH: install the Lustre client; going on without"
        )
    return report, lustre


def _find_released(
    found: Inventory, report: Report, lustre: Optional[Lustre]
) -> tuple[list[DataFile], dict[Path, str]]:
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
                lost[each.path] = f"{show(each.path)}: {_LOST}"
            elif state.released:
                released.append(each)
    report.released_files, report.released_bytes = len(released), sum(each.size for each in released)
    return released, lost


_LOST = "its data is lost from the archive; write the file anew"


def _try_to_read(file: DataFile) -> Optional[str]:
    try:
        with file.path.open("rb", buffering=0) as stream:
            if file.size and len(stream.read(1)) != 1:
                return f"{show(file.path)}: ends before its first byte"
    except OSError as error:
        return f"{show(file.path)}: cannot be read: {error.strerror}"
    return None


class Restoring:
    """Brings released files back, `batch` at a time, and keeps account of it.

    Lustre does not say that a restore has failed: the file stays released, and no action goes on any more. Seen twice
    running, that is a failure; each file gets ATTEMPTS.
    """

    def __init__(
        self,
        lustre: Lustre,
        files: Sequence[DataFile],
        batch: int = BATCH,
        progress: Optional[Progress] = None,
        say: Say = lambda words: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert batch >= 1
        self._lustre, self._batch, self._progress, self._say = lustre, batch, progress, say
        self._sleep, self._clock = sleep, clock
        self._files = {each.path: each for each in files}
        self._waiting = deque(self._files)
        self._running: dict[Path, int] = {}  # -> looks in a row that found it idle
        self._attempts = dict.fromkeys(self._files, 0)
        self._moved: dict[Path, int] = {}  # bytes, of files under way
        self._done_files = self._done_bytes = 0
        self._failed: dict[Path, str] = {}

    def run(self) -> dict[Path, str]:
        """Returns the files that failed, each with a line that says why. DataError if nothing moves for PATIENCE seconds."""
        self._began = self._said = self._advanced = self._clock()
        wait, before = FIRST_WAIT, -1
        try:
            while self._waiting or self._running:
                self._request()
                self._look()
                now = self._clock()
                position = self._position()
                if position != before:
                    wait, before, self._advanced = FIRST_WAIT, position, now
                elif now - self._advanced > PATIENCE:
                    raise DataError(
                        f"{show(next(iter(self._running)))}: nothing was restored for {PATIENCE / 60:.0f} min, "
                        f"{len(self._running)} files are under way; look at the data repository's state, then run again"
                    )
                self._tell(now)
                if self._running:
                    self._sleep(wait)
                    wait = min(LONGEST_WAIT, wait * 1.5)
        except KeyboardInterrupt:
            self._say(f"interrupted; {self._state()}; the servers go on with {len(self._running)}: run it again later")
            raise
        return self._failed

    def _request(self) -> None:
        """Asks for as many files as may be under way."""
        asked = [self._waiting.popleft() for _ in range(min(self._batch - len(self._running), len(self._waiting)))]
        if not asked:
            return
        for path in asked:
            self._attempts[path] += 1
        self._running.update(dict.fromkeys(asked, 0))
        try:
            self._lustre.restore(asked)
        except DataError as error:
            if len(asked) == 1:
                self._end_attempt(asked[0], str(error))
                return
            for path in asked:  # one bad file has the whole request refused
                try:
                    self._lustre.restore([path])
                except DataError as its_error:
                    self._end_attempt(path, str(its_error))

    def _look(self) -> None:
        for path, state in self._lustre.states(list(self._running)).items() if self._running else ():
            if isinstance(state, DataError):
                self._end_attempt(path, str(state))
            elif not state.released:
                self._finish(path)
            elif state.lost:
                self._attempts[path] = ATTEMPTS
                self._end_attempt(path, f"{show(path)}: {_LOST}")
            else:
                self._look_at_action(path)

    def _look_at_action(self, path: Path) -> None:
        try:
            action = self._lustre.action(path)
        except DataError as error:
            self._end_attempt(path, str(error))
            return
        if action.name != "NOOP":
            self._running[path] = 0
            self._moved[path] = min(action.moved, self._files[path].size)
            return
        self._running[path] += 1
        if self._running[path] >= 2:  # once is no proof: it may have ended between the two questions
            self._end_attempt(path, f"{show(path)}: the restore ended without its data; see the data repository's log")

    def _finish(self, path: Path) -> None:
        del self._running[path]
        self._moved.pop(path, None)
        self._done_files += 1
        self._done_bytes += self._files[path].size

    def _end_attempt(self, path: Path, problem: str) -> None:
        del self._running[path]
        self._moved.pop(path, None)
        if self._attempts[path] < ATTEMPTS:
            self._waiting.append(path)
        else:
            self._failed[path] = problem

    def _position(self) -> int:
        """Grows with every byte and every file that is dealt with."""
        return self._done_bytes + sum(self._moved.values()) + self._done_files + sum(self._attempts.values())

    def _tell(self, now: float) -> None:
        if self._progress is not None:
            self._progress(self._done_bytes + sum(self._moved.values()), self._total())
        if now - self._said >= SAY_EVERY:
            self._said = now
            self._say(self._state())

    def _total(self) -> int:
        return sum(each.size for each in self._files.values())

    def _state(self) -> str:
        done, total = self._done_bytes + sum(self._moved.values()), self._total()
        seconds = (self._clock() - self._began) * (total - done) / done if done else None
        left = "" if seconds is None or done == total else f", about {max(1, round(seconds / 60))} min to go"
        return f"{self._done_files:,} of {len(self._files):,} files, {_size(done)} of {_size(total)}{left}"


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def report_lines(report: Report, staged: bool) -> list[str]:
    """A report for a person; the first line is the summary."""
    plain = [f"{report.folder}: {report.files:,} files, {_size(report.bytes)}, {_size(report.free_bytes)} free"]
    if report.sets:
        plain.append(f"  {'manifest whole' if not report.faults else 'faulty'}: {', '.join(report.sets)}")
    if report.on_lustre:
        plain.append(f"  released: {report.released_files:,} files, {_size(report.released_bytes)}")
    if staged and report.released_files:
        plain.append(f"  restored: {report.restored_files:,} files")
    plain += [f"  layout of {line}" for line in report.layout]
    if report.on_lustre:
        plain.append(f"  mounted with {','.join(report.mount_options)}")
    return plain + [f"  note: {line}" for line in report.notes] + [f"  fault: {line}" for line in report.faults]


def to_dict(report: Report) -> dict[str, Any]:
    """For JSON: every field of the report, and ``ok``."""
    return {**vars(report), "ok": not report.faults}
