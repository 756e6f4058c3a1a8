"""The result of `kogpt2 files stage` and `status` for one folder or S3 prefix, as lines for a person or for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.wording import counted, gigabytes


@dataclass
class FolderReport:
    """The files of one folder or S3 prefix, where they are, and what is wrong with them."""

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

    def lines(self, staged: bool) -> list[str]:
        """Returns the report for a person, without its faults; the first line is the summary."""
        free = "" if self.file_system == "s3" else f", {gigabytes(self.free_bytes)} free"
        lines = [f"{self.folder}: {counted(self.files, 'file')}, {gigabytes(self.bytes)}{free}"]
        faulty = self.faulty_sets
        if whole := [each for each in self.sets if each not in faulty]:
            lines.append(f"  manifest whole: {', '.join(whole)}")
        if faulty:
            lines.append(f"  faulty: {', '.join(faulty)}")
        if self.on_lustre:
            lines.append(f"  released: {counted(self.released_files, 'file')}, {gigabytes(self.released_bytes)}")
        if staged and self.released_files:
            lines.append(f"  restored: {counted(self.restored_files, 'file')}")
        lines += [f"  layout of {line}" for line in self.layout]
        if self.on_lustre:
            lines.append(f"  mounted with {','.join(self.mount_options)}")
        return lines + [f"  note: {line}" for line in self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Returns every field for JSON, with ``faulty_sets`` and ``ok``."""
        return {**vars(self), "faulty_sets": self.faulty_sets, "ok": not self.faults}


def _owner(fault: str, sets: list[str]) -> str:
    """Returns the set that a fault lies in: the innermost whose folder, as named or resolved, it begins with; or ""."""
    names = {name.rstrip("/") + "/": each for each in sets for name in (each, str(Path(each).resolve()))}
    if "." in sets:
        names[""] = "."
    return names[max(found, key=len)] if (found := [name for name in names if fault.startswith(name)]) else ""


def all_lines(reports: Sequence[FolderReport], staged: bool) -> list[str]:
    """Returns the reports for a person, with their faults; a single fault is left to the error of :func:`check`."""
    alone = sum(len(report.faults) for report in reports) == 1
    lines = []
    for report in reports:
        lines += report.lines(staged)
        lines += [f"  fault: {fault}" for fault in ([] if alone else report.faults)]
    return lines


def check(reports: Sequence[FolderReport]) -> None:
    """Raises DataError if there is any fault."""
    faults = [fault for report in reports for fault in report.faults]
    if len(faults) > 1:
        raise DataError(f"{counted(len(faults), 'fault')}, listed above; `kogpt2 verify DIR` also compares hashes")
    if faults:
        raise DataError(faults[0])


def to_dict(reports: Sequence[FolderReport]) -> dict[str, Any]:
    """Returns all reports for JSON."""
    return {"ok": not any(report.faults for report in reports), "folders": [report.to_dict() for report in reports]}
