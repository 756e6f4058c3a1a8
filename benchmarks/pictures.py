"""The colours of the benchmarks' plots, and dots in rows, which the package has no plot for."""

from __future__ import annotations

import html
from collections.abc import Mapping

from kogpt2_gluon.pages.plot import linear_axis, tick_texts

# CSS for `kogpt2_gluon.pages.standalone.standalone`.
COLOURS = (
    "svg{font:12px system-ui,sans-serif;fill:#333}.frame,.grid{stroke:#ddd;fill:none}"
    "path,polyline{fill:none;stroke-width:1.6}.c0{stroke:#333}.c1{stroke:#0072b2}.c2{stroke:#d55e00}.c3{stroke:#009e73}"
    ".flat{stroke:#999;stroke-dasharray:6 4}text.c0,text.c1,text.c2,text.c3,text.flat{stroke:none}"
    ".dot.c1{fill:#0072b2}.dot.c2{fill:#d55e00}.dot.c3{fill:#009e73}"
)


def dot_plot(rows: Mapping[str, Mapping[str, float]], *, title: str, unit: str, width: int = 640) -> str:
    """Draws a line for each row, with a dot for each of its values, as an inline <svg>.

    `rows` is {row: {series: value}}; a series has one colour (of at most three), and its name above its dot in the
    first row.
    """
    left, top, line = 150, 46, 34
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    values = [value for row in rows.values() for value in row.values()]
    axis, bottom = linear_axis(min(values), max(values), 8), top + line * len(rows)

    def across(value: float) -> float:
        return left + (value - axis.low) / (axis.high - axis.low) * (width - left - 20)

    parts = [f'<svg viewBox="0 0 {width} {bottom + 40}" role="img" aria-label="{html.escape(title)}">']
    for tick, text in zip(axis.ticks, tick_texts(axis)):
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 10}" y2="{bottom - 10}"/>')
        parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{bottom + 8}">{text}</text>')
    parts.append(f'<text class="unit" x="{left}" y="{bottom + 28}">{html.escape(unit)}</text>')
    for number, (row, dots) in enumerate(rows.items()):
        y = top + line * number + 6
        parts.append(f'<line class="frame" x1="{left}" x2="{width - 20}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="8" y="{y + 4}">{html.escape(row)}</text>')
        for name, value in dots.items():
            place, x = names.index(name), across(value)
            label = f"{value:.2f}" if number else f"{html.escape(name)} {value:.2f}"
            above = 9 if number else 9 + 14 * (place % 2)  # names are long: two rows of them
            style = f"c{1 + place % 3}"
            parts.append(f'<circle class="{style} dot" cx="{x:.1f}" cy="{y}" r="5"/>')
            parts.append(f'<text class="{style}" text-anchor="middle" x="{x:.1f}" y="{y - above}">{label}</text>')
    return "\n".join([*parts, "</svg>"])
