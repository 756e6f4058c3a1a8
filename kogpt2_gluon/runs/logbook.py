"""The logbook of a run: all that was said in RUN_DIR/log.txt but for its figures, and the notes of those who run it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.runs.metrics import ENDED, printable
from kogpt2_gluon.storage.links import read_file

LOG_FILE = "log.txt"
LONGEST_NOTE = 4000  # characters
TIMED = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (.*)")
FIGURES = re.compile(r"step +(\d+)/\d+ \| +[\d.]+% \| (?:loss |held-out \||samples \|)")  # metrics.jsonl has them
KINDS = {  # the first that fits
    "end": re.compile(rf"\A{re.escape(ENDED)}"),
    "note": re.compile(r"\Anote by [^:\n]+: "),
    "start": re.compile(r"\A.*: [\d,]+ parameters; \d+ worker"),
    "warning": re.compile("WARNING"),
}


class Entry(NamedTuple):
    """An entry of a logbook.

    Attributes
    ----------
    time : str
        ``YYYY-MM-DD hh:mm:ss`` on the host that wrote it.
    kind : str
        ``start``, ``end``, ``warning``, ``note`` (of an operator) or ``event``.
    text : str
        One or more lines.
    step : int
        Of the last figures in the log before it; 0 if there are none.
    """

    time: str
    kind: str
    text: str
    step: int = 0


def add_note(run_dir: Path, text: str, by: str) -> None:
    """Adds an operator's note to the log of a run, also while it trains. RecipeError for a note without text.

    A colon ends the name `by` in the log, so one in it becomes a space.
    """
    words = " ".join(printable(text).split())
    by = " ".join(printable(by).replace(":", " ").split()) or "somebody"
    if not words:
        raise RecipeError("the note is empty")
    if len(words) > LONGEST_NOTE:
        raise RecipeError(f"the note has {len(words):,} characters; at most {LONGEST_NOTE:,} fit")
    path = run_dir / LOG_FILE
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} note by {by}: {words}\n".encode()
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND)  # one write at the end: a run that writes too stays whole
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); is {run_dir} the folder of a run?") from None
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":  # a killed run has left half a line
            line = b"\n" + line
        if os.write(file, line) != len(line):
            raise DataError(f"{path}: the note was cut off; the disk is full")
    finally:
        os.close(file)


def read_logbook(run_dir: Path) -> list[Entry]:
    """Returns the entries, the oldest first; none if there is no log."""
    try:
        lines = read_file(run_dir / LOG_FILE).decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    entries, step = [], 0
    for moment, text in _messages(lines):
        if figures := FIGURES.match(text):
            step = int(figures[1])
        else:
            entries.append(Entry(moment, _kind(text), text, step))
    return entries


def _messages(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (time, text) of each message; lines without a time belong to the message before."""
    found: list[tuple[str, str]] = []
    for line in lines:
        if timed := TIMED.fullmatch(line):
            found.append((timed[1], timed[2]))
        elif line and found:
            moment, text = found[-1]
            found[-1] = moment, f"{text}\n{line}"
    return found


def _kind(text: str) -> str:
    for kind, pattern in KINDS.items():
        if pattern.search(text):
            return kind
    return "event"
