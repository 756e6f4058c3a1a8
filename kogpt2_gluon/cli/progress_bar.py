"""The progress bar of the verbs, on stderr, so that what a verb prints stays clean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


class ProgressBar:
    """A bar with MB/s and time to go on a terminal; one closing line elsewhere."""

    def __init__(self, title: str, bar: Any, task: Any):
        self._title, self._bar, self._task = title, bar, task
        self._began, self._done = time.perf_counter(), 0

    def show(self, done: int, total: int) -> None:
        """Bytes done so far, of how many."""
        self._done = done
        self._bar.update(self._task, completed=done, total=total)

    def say(self, words: str) -> None:
        """On a terminal, a line of its own: what happens now, where the bar does not show it."""
        if not self._bar.disable:
            self.log(words)

    def log(self, words: str) -> None:
        """A line of its own anywhere: in the log of a long job, where there is no bar, all there is to see."""
        self._bar.console.print(f"{self._title}: {words}", highlight=False, markup=False, soft_wrap=True)

    def close_plainly(self) -> None:
        megabytes = self._done / 1e6
        seconds = max(1e-9, time.perf_counter() - self._began)
        click.echo(f"{self._title}: {megabytes:.1f} MB in {seconds:.1f} s, {megabytes / seconds:.1f} MB/s", err=True)


@contextmanager
def progress_bar(title: str) -> Iterator[ProgressBar]:
    """A ProgressBar for the length of a block."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = ProgressBar(title, bar, bar.add_task(title, total=None))
        yield shown
    if not console.is_terminal:
        shown.close_plainly()
