"""Draws the curves of several runs over each other: a figure for each quantity that compares, with a legend."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kogpt2_gluon.estimate import flops_per_token
from kogpt2_gluon.pages.plot import Array, Series, downsample, line_plot, rounded, smooth
from kogpt2_gluon.runs.comparability import held_out_of, is_on_record, kind_of, vocabularies_of
from kogpt2_gluon.runs.metrics import printable
from kogpt2_gluon.runs.names import short_names
from kogpt2_gluon.runs.report_plots import column, smoothing_window
from kogpt2_gluon.runs.run_folder import LOW_IS_BEST, RunFolder
from kogpt2_gluon.wording import OPERATIONS, counted

COLOURS = 8  # that readers tell apart; later runs have them again, in another dash
MOST_DATA = 8  # held-out data that have axes of their own
BEGINNING = 0.05  # of a run's steps, which the frame leaves out: the fall from the untrained network flattens the rest
TIMES = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
PALETTE = (  # Okabe and Ito's, which colour-blind readers tell apart: on light and on dark paper
    ("#0067a3", "#5bb8ee"),
    ("#bf4f00", "#f0a83c"),
    ("#00735a", "#3cc9a3"),
    ("#9c4f86", "#e59ccb"),
    ("#7a6a00", "#e8dc4a"),
    ("#4b5563", "#b6bec8"),
    ("#a3203a", "#ff8a9b"),
    ("#3f4fb5", "#a5b0ff"),
)
DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 5", "12 4", "4 2 1 2")
OWN_STYLE = """
.axes { margin-top: 40px; } .axes > input { position: absolute; opacity: 0; }
.axes > label { display: inline-block; margin: 0 8px 8px 0; padding: 6px 14px; border: 1px solid var(--edge);
  border-radius: 999px; cursor: pointer; font-size: 14px; }
.axes > input:checked + label { background: var(--ink); color: var(--paper); border-color: var(--ink); }
.axes > input:focus-visible + label { outline: 3px solid var(--train); outline-offset: 2px; }
.axes > .plots { display: none; margin-top: 28px; }
path.run { stroke-width: 1.6; } path.run:hover { stroke-width: 4; } .plots figure { grid-column: 1 / -1; }
.plots figcaption { font-size: 20px; letter-spacing: -0.01em; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 22px; margin: 0 0 12px; padding: 0; list-style: none;
  font-size: 13.5px; }
.legend li { overflow-wrap: anywhere; }
svg.swatch { display: inline-block; width: 28px; height: 8px; margin-right: 8px; vertical-align: middle; }
.swatch path { stroke-width: 3; } svg.narrow { display: none; }
@media (max-width: 760px) { .plots figcaption span { display: block; margin: 0; }
  svg.narrow { display: block; } svg.broad { display: none; } }
"""


@dataclass(frozen=True)
class Axis:
    """A quantity that curves are drawn over: its name, its unit, and what a token or a second is worth in each run."""

    name: str
    unit: str
    factors: Sequence[float]  # what one token, or one second, is worth
    key: str  # of a record: "tokens" or "seconds"


@dataclass(frozen=True)
class Curve:
    """The curve of a run: its values, and at each of them the steps, tokens and seconds so far."""

    run: int
    y: Array
    steps: Array
    tokens: Array
    seconds: Array


@dataclass(frozen=True)
class Figure:
    """Curves that share an axis, and what the axis shows."""

    title: str
    unit: str
    curves: Sequence[Curve]
    low_is_best: bool
    remark: str = ""


def axes_of(runs: Sequence[RunFolder], prices: Sequence[float]) -> list[Axis]:
    """Returns the axes for which every run has what they need, in units in which the longest run has few digits."""
    flops = [flops_per_token(run.recipe.model, run.recipe.data.seq_length) for run in runs]
    tokens = [run.last.get("tokens") for run in runs]
    most = max((each * many for each, many in zip(flops, tokens) if isinstance(many, (int, float))), default=0.0)
    factor, unit = next((pair for pair in OPERATIONS if most >= pair[0]), OPERATIONS[-1])
    longest = max((run.seconds for run in runs if math.isfinite(run.seconds)), default=0.0)
    second, of_time = next(pair for pair in TIMES if longest >= 2 * pair[0] or pair[0] == 1)
    axes = [
        Axis("tokens", "tokens", [1.0] * len(runs), "tokens"),
        Axis("time", of_time, [1 / second] * len(runs), "seconds"),
        Axis("operations", f"{unit}, floating-point operations", [each / factor for each in flops], "tokens"),
    ]
    if all(math.isfinite(price) for price in prices):
        axes.append(Axis("cost", "dollars", [price / 3600 for price in prices], "seconds"))
    return axes


def curves(runs: Sequence[RunFolder], names: Sequence[str], axes: Sequence[Axis]) -> str:
    """Returns all figures for each axis; a radio button chooses the axis, and CSS shows its figures."""
    figures = [*_held_out(runs), *_training(runs)]
    buttons, panels = [], []
    for place, axis in enumerate(axes):
        checked = " checked" if place == 0 else ""
        button = f'<input type="radio" name="axis" id="axis-{place}"{checked}>'
        buttons.append(f'{button}<label for="axis-{place}">by {axis.name}</label>')
        drawn = "".join(_drawn(each, names, axis) for each in figures)
        panels.append(f'<div class="plots" id="panel-{place}">{drawn}</div>')
    return f'<section class="axes">{"".join(buttons)}{"".join(panels)}</section>'


def swatch(number: int) -> str:
    """Returns a piece of a run's line, for a legend or a table."""
    line = f'<path class="run r{number}" d="M2 4H26"/>'
    return f'<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true">{line}</svg>'


def styles(count: int) -> str:
    """Returns the colours and dashes of so many runs, and what the radio buttons show."""
    light: list[str] = []
    dark: list[str] = []
    for number in range(count):
        colours = PALETTE[number % COLOURS]
        dash = DASHES[number // COLOURS % len(DASHES)]
        for sheet, colour in zip((light, dark), colours):
            sheet.append(f"path.r{number} {{ stroke: {colour}; }}")
            sheet.append(f"svg .end.r{number}, circle.r{number}.dot {{ fill: {colour}; }}")
        if dash:
            light.append(f"path.r{number} {{ stroke-dasharray: {dash}; }}")
    shown = [f"#axis-{place}:checked ~ #panel-{place} {{ display: grid; }}" for place in range(4)]
    return "\n".join([OWN_STYLE, *light, *shown, "@media (prefers-color-scheme: dark) {", *dark, "}", ""])


def _held_out(runs: Sequence[RunFolder]) -> Iterator[Figure]:
    """Yields a figure for each kind of held-out figure and each held-out data, so that curves of an axis compare.

    Runs whose data is not on record join those of the only data that is. Very many data share an axis.
    """
    kinds, held_out = [kind_of(run) for run in runs], held_out_of(runs)
    for kind in dict.fromkeys(kind for kind in kinds if kind.measure):
        members = [place for place, each in enumerate(kinds) if each == kind]
        data = list(dict.fromkeys(held_out[place] for place in members))
        known = [words for words in data if is_on_record(words)]
        unit, title = kind.measure.replace("_", " "), f"Held-out {kind.words}"
        if len(known) <= 1 or len(data) > MOST_DATA:
            remark = (
                "" if len(data) == 1 else "not the same held-out data" if known[1:] else "held-out data not on record"
            )
            groups = [(title, members, remark)]
        else:
            groups = [(f"{title}: {words}", [n for n in members if held_out[n] == words], "") for words in data]
        for words, group, remark in groups:
            drawn = [_curve(runs[place], place, "evaluation", kind.measure) for place in group]
            yield Figure(words, unit, drawn, kind.measure in LOW_IS_BEST, remark)


def _training(runs: Sequence[RunFolder]) -> Iterator[Figure]:
    """Yields a figure of the training loss for each unit that it has: per token of a vocabulary, or a task's own."""
    units = [(run.recipe.task.name, vocabulary) for run, vocabulary in zip(runs, vocabularies_of(runs))]
    different = list(dict.fromkeys(units))
    for task, vocabulary in different:
        members = [place for place, unit in enumerate(units) if unit == (task, vocabulary)]
        words = f" of {task}" if task else f", vocabulary of {vocabulary}" if len(different) > 1 else ""
        title = f"Training loss{words}"
        unit = "mean of the rows" if task else "nats per token"
        yield Figure(title, unit, [_curve(runs[place], place, "train", "loss") for place in members], True)


def _curve(run: RunFolder, number: int, kind: str, key: str) -> Curve:
    """Returns a run's curve; evaluations have the tokens of the last record of training before them."""
    lines = [line for line in run.lines if line["kind"] == kind]
    train = lines if kind == "train" else [line for line in run.lines if line["kind"] == "train"]
    steps, y = column(lines, key)
    known_steps, worth = column(train, "tokens")
    known = np.isfinite(worth)
    points = np.concatenate([[0.0], known_steps[known]]), np.concatenate([[0.0], worth[known]])
    if kind == "train":
        y = smooth(y, smoothing_window(len(y)))
    return Curve(number, y, steps, np.interp(steps, *points), column(lines, "seconds")[1])


def _drawn(figure: Figure, names: Sequence[str], axis: Axis) -> str:
    """Returns a figure over an axis, in a broad and in a narrow form: CSS shows the one that fits the window."""
    title = f"{figure.title}, by {axis.name}"
    drawn = [curve for curve in figure.curves if np.isfinite(curve.y).any()]
    shown = [names[curve.run] for curve in drawn]
    bottom, top = _frame(figure)
    remarks = [figure.remark, _outside(figure, bottom, top)]
    note = f" <span>{html.escape('; '.join(filter(None, remarks)))}</span>" if any(remarks) else ""
    caption = f"<figcaption>{html.escape(printable(title))}{note}</figcaption>"
    if not drawn:
        return f'<figure>{caption}<p class="nothing">no values</p></figure>'
    plots = []
    for style, width, height, strips, columns in (("broad", 1072, 380, 240, 20), ("narrow", 354, 320, 110, 11)):
        labels = short_names(shown, columns) if len(shown) <= COLOURS else [""] * len(shown)
        series = [
            Series(*_placed(curve, axis, strips), f"run r{curve.run}", printable(label), notes=[printable(name)])
            for curve, label, name in zip(drawn, labels, shown)
        ]
        plots.append(
            line_plot(
                series,
                title=title,
                unit=figure.unit,
                width=width,
                height=height,
                bottom=bottom,
                top=top,
                across_unit=axis.unit,
                style=style,
            )
        )
    items = "".join(f"<li>{swatch(curve.run)}{html.escape(printable(names[curve.run]))}</li>" for curve in drawn)
    legend = f'<ul class="legend">{items}</ul>'
    if len(drawn) > 2 * COLOURS:
        legend = f"<details><summary>{counted(len(drawn), 'run')}</summary>{legend}</details>"
    return f"<figure>{caption}{legend}{''.join(plots)}</figure>"


def _placed(curve: Curve, axis: Axis, strips: int) -> tuple[Array, Array]:
    """Returns the points of a curve over an axis, few enough for a plot, where the curve is known on it."""
    x = (curve.tokens if axis.key == "tokens" else curve.seconds) * axis.factors[curve.run]
    known = np.isfinite(x)
    x, y = x[known], curve.y[known]
    order = np.argsort(x, kind="stable")
    return downsample(x[order], y[order], strips)


def _frame(figure: Figure) -> tuple[float | None, float | None]:
    """Returns the bottom and the top of a figure's axis, which leaves out where the untrained networks begin.

    None for an end that needs no cut.
    """
    later = [_later(curve) for curve in figure.curves]
    rest = np.concatenate([y[np.isfinite(y)] for y in later] or [np.empty(0)])
    everything = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in figure.curves] or [np.empty(0)])
    if not rest.size or not everything.size:
        return None, None
    spread = float(rest.max() - rest.min())
    if figure.low_is_best and everything.max() > rest.max() + 0.2 * spread:
        return None, float(rest.max() + 0.05 * spread)
    if not figure.low_is_best and everything.min() < rest.min() - 0.2 * spread:
        return float(rest.min() - 0.05 * spread), None
    return None, None


def _later(curve: Curve) -> Array:
    """Returns the values after the beginning of a run, or all of them if there are none."""
    last = curve.steps[-1] if len(curve.steps) else 0.0
    later = curve.y[curve.steps > BEGINNING * last]
    return later if np.isfinite(later).any() else curve.y


def _outside(figure: Figure, bottom: float | None, top: float | None) -> str:
    """Returns a remark on the values that the frame leaves out; "" if it leaves out none."""
    everything = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in figure.curves] or [np.empty(0)])
    if top is not None:
        return f"above the frame: beginnings of up to {rounded(float(everything.max()))}"
    if bottom is not None:
        return f"below the frame: beginnings from {rounded(float(everything.min()))} on"
    return ""
