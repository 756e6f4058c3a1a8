"""Draws line plots as inline SVG with NumPy alone: without a script, a font or another file.

Colours and fonts come from the page: a plot only names CSS classes (``frame grid tick unit`` and those of its series).
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.pages.labels import NAME_COLUMN, Label, elided, place

Array = npt.NDArray[np.float64]

LEFT, RIGHT, TOP, BOTTOM = 58, 66, 24, 40  # around the frame: tick labels, end labels, unit of y, unit of x
MOST_RIGHT = 0.25  # of the width, for long end labels
MOST_MARKS = 1000  # points of a series that are ringed
SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@dataclass
class Series:
    """A line, or `marks`, over steps.

    `x` float64 ascending, shape (n,); `y` float64, shape (n,), NaN where there is no value (the line breaks there).
    `style` is a CSS class; `label`, if any, is written where the line ends, with its last value; `notes` are the marks'
    tooltips. `unit` is that of the value at the end, where the axis alone does not say it.
    """

    x: Array
    y: Array
    style: str
    label: str = ""
    marks: bool = False
    notes: Sequence[str] = ()
    unit: str = ""


@dataclass
class Axis:
    """A scale that maps values to 0..1, and its ticks."""

    low: float
    high: float
    ticks: list[float]
    log: bool = False

    def place(self, values: Array) -> Array:
        """Returns the position of each value on the axis: 0 at `low`, 1 at `high`."""
        if self.log:
            values, low, high = np.log10(values), math.log10(self.low), math.log10(self.high)
        else:
            low, high = self.low, self.high
        return np.asarray((values - low) / (high - low), dtype=np.float64)


def line_plot(
    series: Sequence[Series],
    *,
    title: str,
    unit: str,
    width: int = 520,
    height: int = 230,
    log: bool = False,
    from_zero: bool = False,
    top: float | None = None,
    bottom: float | None = None,
    across_unit: str = "step",
    events: Sequence[tuple[float, str]] = (),
    ticks: Sequence[float] = (),
    style: str = "",
) -> str:
    """Draws the series over steps as one <svg>; "" if there is no finite value at all.

    `top` and `bottom` cut the y axis there (values beyond leave the frame); `from_zero` makes it start at 0.
    `across_unit` is the unit of x where it is not steps. `events` are places on x that are marked, with their tooltips;
    `ticks` are places that get a short line at the upper edge. `style` is a CSS class of the whole; two plots of one
    page have different titles or styles.
    """
    series = [_finite(one, log) for one in series]
    values = np.concatenate([one.y[np.isfinite(one.y)] for one in series] or [np.empty(0)])
    if not values.size:
        return ""
    steps = np.concatenate([one.x for one in series])
    are_steps = across_unit == "step"
    end = max(float(steps.max()), 1.0 if are_steps else 1e-12)
    across = linear_axis(0.0, end, width // 90, whole=are_steps)
    across.high = end  # the run's end is the frame's end
    across.ticks = [tick for tick in across.ticks if tick <= across.high]
    high = min(float(values.max()), top) if top is not None else float(values.max())
    low = min(0.0, float(values.min())) if from_zero else min(float(values.min()), high)
    low = min(max(low, bottom), high) if bottom is not None else low
    up = log_axis(low, high) if log else linear_axis(low, high, height // 45)
    frame = _Frame(width, height, across, up, _room_for(series, width))
    name = "-".join("".join(letter if letter.isalnum() else "-" for letter in part) for part in ("frame", style, title))
    kind = f' class="{style}"' if style else ""
    parts = [
        f'<svg{kind} viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">',
        f'<clipPath id="{name}"><rect x="{LEFT}" y="{TOP - 2}" width="{frame.inner_width + 4}" '
        f'height="{frame.inner_height + 3}"/></clipPath>',
        *frame.draw(unit, across_unit),
        *frame.draw_events(events),
        frame.draw_ticks(ticks),
        f'<g clip-path="url(#{name})">',
        *(frame.draw_line(one) for one in series if not one.marks),
        "</g>",
        *(frame.draw_marks(one) for one in series if one.marks),
        *frame.draw_labels(series),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def linear_axis(low: float, high: float, count: int, whole: bool = False) -> Axis:
    """Returns an axis over [low, high], widened to about `count` round ticks (1, 2 or 5 times a power of ten)."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):  # a constant: give it some room
        room = 0.1 * abs(high) or 1.0
        low, high = (0.0 if low >= 0 and room > low else low - room), high + room
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [index * step for index in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], ticks)


def log_axis(low: float, high: float) -> Axis:
    """Returns a logarithmic axis over positive [low, high], with ticks at decades, or at 1-2-5 if it spans few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1)
    every = max(math.ceil(len(decades) / 6), 1)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [factor * 10.0**power for power in decades if power % every == 0 for factor in factors]
    low = max((tick for tick in ticks if tick <= low), default=low)
    high = min((tick for tick in ticks if tick >= high), default=high)
    if low >= high:
        low, high = low / 2, high * 2
    return Axis(low, high, [tick for tick in ticks if low <= tick <= high], log=True)


def downsample(x: Array, y: Array, columns: int) -> tuple[Array, Array]:
    """Keeps at most two points for each of `columns` strips of x: the smallest and the largest y, in their order.

    The plot of that many pixels looks the same: a spike of one step stays. A strip without any finite value stays as
    one NaN.
    """
    if len(x) <= 2 * columns:
        return x, y
    edges = np.searchsorted(x, np.linspace(x[0], x[-1], columns + 1)[1:-1])
    strips = np.searchsorted(edges, np.arange(len(x)), side="right")
    order = np.lexsort((y, strips))  # by strip, and by value in each: the smallest first, NaN last
    begins = np.flatnonzero(np.diff(strips, prepend=-1))
    known = np.add.reduceat(~np.isnan(y), begins, dtype=np.int64)
    keep = np.unique(np.concatenate([order[begins], order[begins + np.maximum(known - 1, 0)]]))
    return x[keep], y[keep]


def smooth(y: Array, window: int) -> Array:
    """Returns the mean of the `window` values around each, without NaN; NaN where y is NaN.

    At the beginning the window shrinks on both sides alike, so that a steep fall is not bent. At the end, where the
    curve is flat and people read its last value, only the missing half of the window is left out.
    """
    known, index = np.isfinite(y), np.arange(len(y))
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    before = np.minimum(window // 2, index)
    after = np.minimum(before, len(y) - 1 - index)
    begin, end = index - before, index + after + 1
    mean = (sums[end] - sums[begin]) / np.maximum(counts[end] - counts[begin], 1)
    return np.where(known, mean, np.nan)


def short(value: float, digits: int = 3) -> str:
    """Writes a number for reading: 124M, 12.3k, 3.41, 1e-4; "–" if it is not finite."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    for factor, suffix in SUFFIXES:
        if size >= factor * (1 - 0.5 * 10**-digits):
            return f"{float(f'{value / factor:.{digits}g}'):g}{suffix}"
    if size == 0 or size >= 0.001:
        return f"{value:.{digits}g}" if size < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def rounded(value: float) -> str:
    """Writes a result with four significant digits (3.900, 73,130, 1.234M); "–" if it is not finite."""
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:#.4g}" if 0.001 <= abs(value) < 1000 else short(value, 4)


def with_unit(value: float, unit: str) -> str:
    """Writes a result with its unit: 0.05%, 41.7%, 558 MiB; as `rounded` does where the unit is ""."""
    if unit == "%":
        return f"{value:.2f}%" if abs(value) < 10 else f"{value:.1f}%"
    return f"{value:,.0f}{unit}" if unit else rounded(value)


class _Frame:
    """The rectangle of a plot, which draws axes and series in SVG coordinates."""

    def __init__(self, width: int, height: int, across: Axis, up: Axis, room: int) -> None:
        self.across, self.up, self.width, self.room = across, up, width, room
        self.inner_width, self.inner_height = width - LEFT - room, height - TOP - BOTTOM
        self.right, self.bottom = width - room, height - BOTTOM

    def points(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Returns SVG coordinates; NaN stays NaN."""
        return LEFT + self.across.place(x) * self.inner_width, self.bottom - self.up.place(y) * self.inner_height

    def draw(self, unit: str, across_unit: str) -> list[str]:
        """Draws the axes with their ticks and units."""
        parts = []
        for tick, text in zip(self.up.ticks, tick_texts(self.up)):
            y = self.points(np.zeros(1), np.array([tick]))[1][0]
            style = "frame" if y >= self.bottom - 0.5 else "grid"
            parts.append(f'<line class="{style}" x1="{LEFT}" x2="{self.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{text}</text>')
        for tick, text in zip(self.across.ticks, tick_texts(self.across)):
            x = LEFT + tick / self.across.high * self.inner_width
            parts.append(
                f'<line class="frame" x1="{x:.1f}" x2="{x:.1f}" y1="{self.bottom}" y2="{self.bottom + 4}"/>'
                f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{self.bottom + 18}">{text}</text>'
            )
        parts.append(f'<text class="unit" x="{LEFT}" y="12">{html.escape(unit)}</text>')
        middle = (LEFT + self.right) / 2
        parts.append(
            f'<text class="unit" text-anchor="middle" x="{middle:.1f}" y="{self.bottom + 35}">'
            f"{html.escape(across_unit)}</text>"
        )
        return parts

    def draw_events(self, events: Sequence[tuple[float, str]]) -> list[str]:
        """Draws a vertical line at each event, with its tooltip."""
        return [
            f'<line class="event" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{self.bottom}">'
            f"<title>{html.escape(note)}</title></line>"
            for x, note in ((LEFT + place / self.across.high * self.inner_width, note) for place, note in events)
        ]

    def draw_ticks(self, places: Sequence[float]) -> str:
        """Draws a short line at the upper edge for each place, one at most in each unit of the width."""
        inside = [place for place in places if 0 <= place <= self.across.high]
        columns = sorted({round(LEFT + place / self.across.high * self.inner_width) for place in inside})
        drawn = "".join(f"M{x} {TOP}v8" for x in columns)
        return f'<path class="spike" d="{drawn}"/>' if drawn else ""

    def draw_line(self, one: Series) -> str:
        """Draws one path, broken where values are missing; a value between two gaps becomes a dot.

        Its tooltip, if it has one, is the first of its notes.
        """
        x, y = self.points(*downsample(one.x, one.y, self.inner_width))
        y = np.clip(y, -1e4, 1e4)  # far above a cut axis: outside the frame in any case
        path, alone, pen_down = [], [], False
        for index, (px, py) in enumerate(zip(x, y)):
            if math.isnan(py):
                pen_down = False
                continue
            path.append(f"{'L' if pen_down else 'M'}{px:.1f} {py:.1f}")
            if not pen_down and (index + 1 == len(y) or math.isnan(y[index + 1])):
                alone.append(f'<circle class="{one.style} dot" cx="{px:.1f}" cy="{py:.1f}" r="2.5"/>')
            pen_down = True
        end = f"><title>{html.escape(one.notes[0])}</title></path>" if one.notes else "/>"
        return f'<path class="{one.style}" d="{"".join(path)}"{end}' + "".join(alone)

    def draw_marks(self, one: Series) -> str:
        """Draws a thin line through ringed points, each with its tooltip; of very many points, the line alone."""
        seen = np.isfinite(one.y) & (one.y <= self.up.high) & (one.y >= self.up.low)
        if seen.sum() > MOST_MARKS:
            return self.draw_line(Series(one.x, one.y, f"{one.style} thread"))
        notes = [note for note, shown in zip(one.notes or [""] * len(one.y), seen) if shown]
        x, y = self.points(one.x[seen], one.y[seen])
        radius = 4 if len(x) <= 60 else 2.5
        path = "".join(f"{'L' if index else 'M'}{px:.1f} {py:.1f}" for index, (px, py) in enumerate(zip(x, y)))
        dots = "".join(
            f'<circle class="{one.style} mark" cx="{px:.1f}" cy="{py:.1f}" r="{radius}">'
            + (f"<title>{html.escape(note)}</title>" if note else "")
            + "</circle>"
            for px, py, note in zip(x, y, notes)
        )
        return f'<path class="{one.style} thread" d="{path}"/>{dots}'

    def draw_labels(self, series: Sequence[Series]) -> list[str]:
        """Writes the last value and the name of each labelled series where it ends, with a dot if that is early."""
        labels, parts = [], []
        columns = max(int((self.room - 8) / NAME_COLUMN), 3)
        for number, one in enumerate(series):
            known = np.flatnonzero(np.isfinite(one.y))
            if not one.label or not known.size:
                continue
            last = slice(known[-1], known[-1] + 1)
            x, y = (float(place[0]) for place in self.points(one.x[last], one.y[last]))
            shown = float(np.clip(y, TOP, self.bottom - 12))
            value = with_unit(float(one.y[last][0]), one.unit)
            labels.append(Label(x, shown, value, elided(one.label, columns), number))
            if not one.marks and x < self.right - 8 and y == np.clip(y, TOP - 2, self.bottom):
                parts.append(f'<circle class="{one.style} dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        for label in place(labels, LEFT, self.right, self.width, self.bottom - 12):
            at, style = f"{label.x:.1f}".removesuffix(".0"), series[label.number].style
            parts.append(
                f'<text class="end {style}" x="{at}" y="{label.y + 1:.1f}">{label.value}</text>'
                f'<text class="end name" x="{at}" y="{label.y + 14:.1f}">{html.escape(label.name)}</text>'
            )
        return parts


def tick_texts(axis: Axis) -> list[str]:
    """Writes the ticks of an axis; those of a linear one have the same suffix and number of decimals."""
    largest = max(abs(tick) for tick in axis.ticks)
    if axis.log or len(axis.ticks) < 2:
        return [short(tick) for tick in axis.ticks]
    step = axis.ticks[1] - axis.ticks[0]
    if largest < 0.01:
        return ["0" if abs(tick) < step / 2 else short(tick) for tick in axis.ticks]
    suffixes = SUFFIXES if largest >= 10_000 else ()
    factor, suffix = next(((factor, suffix) for factor, suffix in suffixes if largest >= factor), (1.0, ""))
    decimals = max(0, -math.floor(math.log10(step / factor) + 1e-9))
    return ["0" if abs(tick) < step / 2 else f"{tick / factor:,.{decimals}f}{suffix}" for tick in axis.ticks]


def _room_for(series: Sequence[Series], width: int) -> int:
    """Returns the room right of the frame that the labels need."""
    widest = max((Label(0, 0, "", one.label, 0).width for one in series), default=0.0)
    return int(min(max(RIGHT, widest + 10), max(RIGHT, MOST_RIGHT * width)))


def _finite(one: Series, log: bool) -> Series:
    """Returns the series with NaN for values that cannot be drawn: infinite, absurdly large, or <= 0 on a log axis."""
    y = np.where(np.abs(one.y) < 1e100, one.y, np.nan)
    return Series(one.x, np.where(y > 0, y, np.nan) if log else y, one.style, one.label, one.marks, one.notes, one.unit)
