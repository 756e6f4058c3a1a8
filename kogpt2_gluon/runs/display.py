"""Prints the lines of a run that trains, with live progress on a terminal."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

from kogpt2_gluon.machine.console import forget, write_line
from kogpt2_gluon.wording import duration

if TYPE_CHECKING:
    from rich.console import Console


class Display:
    """Prints lines on the console, above a live progress bar if it is a terminal."""

    def __init__(self, console: Console | None, num_steps: int, step: int) -> None:
        self._progress: Any = None
        self._stream: IO[str] = console.file if console is not None else sys.stdout
        # Without the caller's console, only a real terminal counts as one: rich also believes FORCE_COLOR.
        if not (console.is_terminal if console is not None else self._stream.isatty()):
            return
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:6.2f}%  {task.description}"),
            console=console,
            expand=True,
            refresh_per_second=2,  # the interpreter belongs to the training loop
        )
        self._task = self._progress.add_task("starting", total=num_steps, completed=step)
        self._progress.start()

    def update(self, step: int, loss: float, tokens_per_second: float, eta: float) -> None:
        """Shows how far the run is; `eta` in seconds."""
        if self._progress is not None:
            figures = f"loss {loss:.4f}  {tokens_per_second:,.0f} tok/s  eta {duration(eta):>6}"
            self._progress.update(self._task, completed=step, description=figures)

    def print(self, line: str) -> None:
        """Prints a line; nothing if the terminal has gone."""
        if self._progress is None:
            write_line(self._stream, line)
            return
        try:
            self._progress.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
        except OSError:  # the terminal has gone; log.txt has everything
            self.close()

    def close(self) -> None:
        """Ends the progress bar."""
        progress, self._progress = self._progress, None
        try:
            if progress is not None:
                progress.stop()
        except OSError:
            forget(self._stream)
