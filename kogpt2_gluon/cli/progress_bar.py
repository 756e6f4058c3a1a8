"""The progress bar of the verbs, on stderr, so that a verb's own output stays clean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from kogpt2_gluon.wording import gigabytes


class ProgressBar:
    """A bar with MB/s and time to go on a terminal; one closing line elsewhere."""

    def __init__(self, title: str, bar: Any, task: Any):
        self._title, self._bar, self._task = title, bar, task
        self._began, self._done = time.perf_counter(), 0

    def show(self, done: int, total: int) -> None:
        """Shows the bytes done so far, and how many there are in all."""
        self._done = done
        self._bar.update(self._task, completed=done, total=total)

    def say(self, line: str) -> None:
        """Prints a status line on a terminal only: there it says what the bar does not show."""
        if not self._bar.disable:
            self.log(line)

    def log(self, line: str) -> None:
        """Prints a status line anywhere, as into the log of a long job, where there is no bar."""
        self._bar.console.print(f"{self._title}: {line}", highlight=False, markup=False, soft_wrap=True)

    def close_plainly(self) -> None:
        """Prints the closing line of a bar that was not shown."""
        seconds = max(1e-9, time.perf_counter() - self._began)
        rate = gigabytes(self._done / seconds)
        click.echo(f"{self._title}: {gigabytes(self._done)} in {seconds:.1f} s, {rate}/s", err=True)


@contextmanager
def progress_bar(title: str) -> Iterator[ProgressBar]:
    """Yields a ProgressBar, which ends with the block."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = ProgressBar(title, bar, bar.add_task(title, total=None))
        yield shown
    if not console.is_terminal:
        shown.close_plainly()
