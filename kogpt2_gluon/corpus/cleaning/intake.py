"""The fate of sources before any document is read: passed over, refused, damaged, recoded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.files import write_file

FAULTS_FILE = "damaged.json"
_SHOWN = 5  # damaged sources in the summary; corpus.json and the page name all


@dataclass
class Intake:
    """The sources of a cleaning that were not simply read.

    `passed_over` counts files by reason, as in `Choice`; `damaged` has the fault of each source that was skipped, or
    whose rest was; `notes` say which encodings were found.
    """

    passed_over: Counter[str] = field(default_factory=Counter)
    damaged: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Returns what people should know, a line each."""
        lines = list(self.notes)
        if self.passed_over:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.passed_over.items()))
            lines.append(f"files passed over: {counts}")
        if self.damaged:
            lines.append(f"sources skipped, or their rest, because they cannot be read: {len(self.damaged):,}")
            lines += [f"  {fault}" for fault in list(self.damaged.values())[:_SHOWN]]
            if len(self.damaged) > _SHOWN:
                lines.append(f"  and {len(self.damaged) - _SHOWN:,} more, which cleaning.html and corpus.json name")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for `corpus.json`: nothing for what did not happen."""
        found = {"passed_over": dict(sorted(self.passed_over.items())), "damaged": self.damaged}
        return {name: value for name, value in found.items() if value}


class Faults:
    """The sources in which reading stopped at damage, kept in the work folder, so that a resumed cleaning knows them.

    Without `skip` the first fault is raised instead. The fault of a source that was repaired since is forgotten.
    """

    def __init__(self, work: Path, sources: Sequence[Source], skip: bool) -> None:
        self._path, self._skip = work / FAULTS_FILE, skip
        self._rows = {source.name: source.to_row() for source in sources}
        saved = json.loads(self._path.read_bytes()) if self._path.is_file() else []
        self.by_name: dict[str, str] = {row[0]: fault for row, fault in saved if self._rows.get(row[0]) == row}
        if self.by_name and not skip:
            raise DataError(f"{next(iter(self.by_name.values()))} (--skip-damaged passed over it; say it again)")

    def add(self, name: str, fault: DataError) -> None:
        """Records a source's fault, or raises it."""
        if not self._skip:
            raise fault
        self.by_name[name] = str(fault)
        rows = [[self._rows[name], fault] for name, fault in self.by_name.items()]
        write_file(self._path, json.dumps(rows).encode())
