"""Follows the record of a run from another process, over a shared file system too: by looking, not by notices."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs.logbook import KINDS, LOG_FILE
from kogpt2_gluon.runs.metrics import ENDED

LOOK_SECONDS = 1.0
MOST = 1 << 20  # bytes that a look reads
SEARCHED = 100  # last lines among which one says whether the run has ended


class GrowingFile:
    """A text file that another process writes to, line by line.

    A run that goes on from an earlier checkpoint puts a new metrics.jsonl in the place of the old one. A file with
    another inode, or shorter than what was read, is read from its beginning.
    """

    def __init__(self, path: Path, last: int) -> None:
        self._path, self._place, self._rest, self._inode = path, 0, b"", -1
        self.first = self._skip_to_last(last)

    def _skip_to_last(self, count: int) -> list[str]:
        """Returns the last `count` lines of what is there."""
        lines: list[str] = []
        while new := self.new_lines():
            lines = (lines + new)[-count:] if count else []
        return lines

    def new_lines(self) -> list[str]:
        """Returns the whole lines that were added since the last look; none if there is no file."""
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._place:
                    self._place, self._rest, self._inode = 0, b"", facts.st_ino
                file.seek(self._place)
                data = file.read(MOST)
        except OSError:
            return []
        self._place += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]


def follow(run_dir: Path, name: str = LOG_FILE, last: int = 10) -> Iterator[str]:
    """Yields the last lines of a run's log.txt or metrics.jsonl, and then the new ones until the run has ended.

    Yields an empty text after each look, so that a caller can show the time. DataError if the folder has no log.
    """
    log = GrowingFile(run_dir / LOG_FILE, last)
    shown = log if name == LOG_FILE else GrowingFile(run_dir / name, last)
    if not (run_dir / LOG_FILE).is_file():
        raise DataError(f"{run_dir}: no {LOG_FILE} there; is this the folder of a run?")
    yield from shown.first
    ended = bool(how_it_ended(run_dir))
    while True:
        new = log.new_lines()
        ended = bool(_how(new)) if _said(new) else ended
        yield from new if shown is log else shown.new_lines()
        if ended:
            return
        yield ""
        time.sleep(LOOK_SECONDS)


def how_it_ended(run_dir: Path) -> str:
    """Returns how a run has ended, by its log.txt: ``done``, or why; "" if it has not, or goes on by itself."""
    return _how(GrowingFile(run_dir / LOG_FILE, SEARCHED).first)


def _how(lines: Sequence[str]) -> str:
    """Returns what the last of these lines says about the end that is not an operator's note."""
    text = (_said(lines) or [""])[-1]
    goes_on = not text.startswith(ENDED) or text.startswith((f"{ENDED}goes on", f"{ENDED}rolled back"))
    return "" if goes_on else text[len(ENDED) :]


def _said(lines: Sequence[str]) -> list[str]:
    """Returns what the run itself said, without the times."""
    return [line[20:] for line in lines if not KINDS["note"].match(line[20:])]
