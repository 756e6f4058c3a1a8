"""Draws parallel coordinates as inline SVG: a vertical axis for each quantity, a line for each thing that was tried."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from kogpt2_gluon.pages.labels import elided
from kogpt2_gluon.pages.plot import rounded, short

SIDE, TOP, BOTTOM = 70, 44, 26
MOST_LABELS = 12  # values of an axis that are written


@dataclass
class Quantity:
    """An axis.

    Attributes
    ----------
    title : str
    values : sequence
        One for each line: numbers, or texts, which get places of their own; None where there is none.
    log : bool
        Of numbers above 0.
    """

    title: str
    values: Sequence[object]
    log: bool = False

    def places(self) -> list[float]:
        """Returns where each value is on the axis, from 0 at the bottom to 1; NaN where there is none."""
        if self.has_numbers:
            numbers = [float(value) if isinstance(value, (int, float)) else math.nan for value in self.values]
            if self.log:
                numbers = [math.log10(value) if value > 0 else math.nan for value in numbers]
            known = [value for value in numbers if math.isfinite(value)]
            low, high = min(known, default=0.0), max(known, default=1.0)
            return [(value - low) / (high - low) if high > low else 0.5 for value in numbers]
        texts = self._texts()
        return [
            texts.index(str(value)) / max(len(texts) - 1, 1) if value is not None else math.nan for value in self.values
        ]

    def labels(self) -> list[tuple[float, str]]:
        """Returns the places and words that are written at the axis."""
        if not self.has_numbers:
            texts = self._texts()
            every = math.ceil(len(texts) / MOST_LABELS)
            return [(n / max(len(texts) - 1, 1), text) for n, text in enumerate(texts) if n % every == 0]
        known = [float(v) for v in self.values if isinstance(v, (int, float)) and math.isfinite(v)]
        if not known:
            return []
        low, high = min(known), max(known)
        return [(0.0, short(low)), (1.0, short(high))] if high > low else [(0.5, short(low))]

    @property
    def has_numbers(self) -> bool:
        """True if the axis is one of numbers, not of texts."""
        return all(
            value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in self.values
        )

    def _texts(self) -> list[str]:
        return sorted({str(value) for value in self.values if value is not None})


def parallel_plot(
    quantities: Sequence[Quantity], strengths: Sequence[float], notes: Sequence[str], title: str, width: int = 1072
) -> str:
    """Draws one <svg>: a line across all axes for each thing; "" without axes or lines.

    `strengths` from 0 to 1 are the opacities, and 1 is drawn last, in the colour of what matters; `notes` are the
    tooltips. A line has a gap where a value is missing.
    """
    if len(quantities) < 2 or not strengths:
        return ""
    height = 340
    across = [SIDE + number * (width - 2 * SIDE) / (len(quantities) - 1) for number in range(len(quantities))]
    rows = [quantity.places() for quantity in quantities]
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">']
    for line in sorted(range(len(strengths)), key=lambda each: strengths[each]):
        points = [(x, _down(places[line], height)) for x, places in zip(across, rows)]
        path, pen_down = "", False
        for x, y in points:
            if math.isnan(y):
                pen_down = False
                continue
            path += f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}"
            pen_down = True
        style = "heldout solid" if strengths[line] >= 1 else "train"
        parts.append(
            f'<path class="{style}" opacity="{max(strengths[line], 0.08):.2f}" d="{path}">'
            f"<title>{html.escape(notes[line])}</title></path>"
        )
    for x, quantity in zip(across, quantities):
        parts += _axis(x, quantity, height)
    return "\n".join([*parts, "</svg>"])


def _axis(x: float, quantity: Quantity, height: int) -> list[str]:
    """Draws an axis with its title above, numbers at its ends, texts at its right."""
    parts = [
        f'<line class="frame" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        f'<text class="unit" text-anchor="middle" x="{x:.1f}" y="{TOP - 26}">{html.escape(quantity.title)}</text>'
    ]
    for place, text in quantity.labels():
        y, anchor, shift = _down(place, height) + 4, "start", 8
        if quantity.has_numbers:
            anchor, shift, y = "middle", 0, y + (12 if place == 0 else -12 if place == 1 else 0)
        shown = html.escape(elided(text, 24))
        parts.append(f'<text class="tick" text-anchor="{anchor}" x="{x + shift:.1f}" y="{y:.1f}">{shown}</text>')
    return parts


def bars(shares: Sequence[tuple[str, float]], title: str, width: int = 520) -> str:
    """Draws a horizontal bar for each name and share (0 to 1), with the share at its end; "" without any."""
    if not shares:
        return ""
    left, row, room = 210, 30, 60
    parts = [f'<svg viewBox="0 0 {width} {row * len(shares) + 8}" role="img" aria-label="{html.escape(title)}">']
    for number, (name, share) in enumerate(shares):
        y, length = 4 + number * row, max(share, 0.0) * (width - left - room)
        parts.append(
            f'<text class="tick" text-anchor="end" x="{left - 10}" y="{y + 18}">{html.escape(name)}</text>'
            f'<rect class="bar" x="{left}" y="{y + 4}" width="{length:.1f}" height="{row - 10}"/>'
            f'<text class="tick" x="{left + length + 8:.1f}" y="{y + 18}">{rounded(share)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _down(place: float, height: int) -> float:
    return height - BOTTOM - place * (height - TOP - BOTTOM)
