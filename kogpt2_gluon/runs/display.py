"""Prints the lines of a run that trains, above a live panel if the console is a terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from kogpt2_gluon.machine.console import forget, write_line
from kogpt2_gluon.wording import duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 48  # characters
MOST_KEPT = 4 * SPARK_WIDTH  # losses, of which several become one character


class Display:
    """Prints lines on the console; on a terminal, a panel below them shows how far the run is and how it does."""

    def __init__(self, console: Console | None, num_steps: int, step: int) -> None:
        self._live: Any = None
        self._num_steps, self._step = num_steps, step
        self._losses: list[float] = []
        self._figures, self._eta, self._sample = "starting", math.nan, ""
        self._stream: IO[str] = console.file if console is not None else sys.stdout
        # Without the caller's console, only a real terminal counts as one: rich also believes FORCE_COLOR.
        if not (console.is_terminal if console is not None else self._stream.isatty()):
            return
        from rich.live import Live

        # The interpreter belongs to the training loop, so the panel is drawn twice a second at most.
        self._live = Live(get_renderable=self._panel, console=console, refresh_per_second=2)
        self._live.start()

    def update(self, step: int, loss: float, figures: str, eta: float) -> None:
        """Shows how far the run is; `figures` are words on its speed, `eta` is in seconds."""
        if self._live is None:
            return
        self._step, self._figures, self._eta = step, figures, eta
        self._losses.append(loss)
        if len(self._losses) > MOST_KEPT:  # every second one of all goes, so that the curve stays whole
            self._losses = self._losses[1::2]

    def show_sample(self, text: str) -> None:
        """Shows the beginning of the newest sample."""
        self._sample = text

    def print(self, line: str) -> None:
        """Prints a line; nothing if the terminal has gone."""
        if self._live is None:
            write_line(self._stream, line)
            return
        try:
            self._live.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
        except OSError:  # the terminal has gone; log.txt has everything
            self.close()

    def close(self) -> None:
        """Ends the panel."""
        live, self._live = self._live, None
        try:
            if live is not None:
                live.stop()
        except OSError:
            forget(self._stream)

    def _panel(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        share = math.floor(10000 * self._step / max(self._num_steps, 1)) / 100  # rounded down: 100% is the end
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        where = f"{share:6.2f}%  step {self._step:,} of {self._num_steps:,}  eta {duration(self._eta):>6}"
        bar.add_row(ProgressBar(total=max(self._num_steps, 1), completed=self._step), Text(where))
        lines: list[RenderableType] = [bar]
        if self._losses:
            curve = Text(sparkline(self._losses, SPARK_WIDTH), style="cyan")
            lines.append(Text.assemble("loss ", curve, f" {self._losses[-1]:.4f}  {self._figures}"))
        else:
            lines.append(Text(self._figures))
        if self._sample:
            lines.append(Text(f"sample: {self._sample}", style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)


def sparkline(values: Sequence[float], width: int) -> str:
    """Returns values as a line of at most `width` blocks, from the lowest to the highest; gaps are spaces.

    Several values become one block of their mean.
    """
    per_block = max(1, math.ceil(len(values) / width))
    means = []
    for begin in range(0, len(values), per_block):
        known = [value for value in values[begin : begin + per_block] if math.isfinite(value)]
        means.append(sum(known) / len(known) if known else math.nan)
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return " " * len(means)
    low, high = min(finite), max(finite)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] if math.isfinite(mean) else " " for mean in means)
