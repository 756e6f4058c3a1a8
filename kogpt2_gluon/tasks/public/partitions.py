"""A reader of files that hold all splits of a task, with the name of its split in each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kogpt2_gluon.tasks.task import Row
from kogpt2_gluon.wording import Say


@dataclass(frozen=True)
class PartitionedReader:
    """Reads a file of several splits; called, it yields the rows of all of them.

    `rows` yields the split and the row.
    """

    rows: Callable[[Path, Say], Iterator[tuple[str, Row]]]

    def __call__(self, path: Path, say: Say) -> Iterator[Row]:
        for _, row in self.rows(path, say):
            yield row

    def of(self, split: str) -> Callable[[Path, Say], Iterator[Row]]:
        """Returns the reader of one split."""

        def read(path: Path, say: Say) -> Iterator[Row]:
            for found, row in self.rows(path, say):
                if found == split:
                    yield row

        return read
