"""Makes one HTML page about several runs: curves over tokens, time, operations and cost, and a table of differences.

The page needs nothing else, and no script: which axis is shown is a radio button's business, and CSS does the rest.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kogpt2_gluon.estimate import flops_per_token, gpu_named
from kogpt2_gluon.pages.page import PAGE, STYLE, figure, scrolling
from kogpt2_gluon.pages.plot import Array, Series, downsample, line_plot, rounded, short, smooth
from kogpt2_gluon.recipe import known_keys, value_of
from kogpt2_gluon.runs.metrics import printable
from kogpt2_gluon.runs.report_plots import column, number_in, smoothing_window
from kogpt2_gluon.runs.run_folder import RunFolder
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.wording import duration

COLOURS = 8  # that readers tell apart; later runs have them again, in another dash
STRIPS = 240  # of an axis, each with two points at most: 50 runs fit into a page of a few MB
OWN_STYLE = """
.axes { margin-top: 40px; } .axes > input { position: absolute; opacity: 0; }
.axes > label { display: inline-block; margin-right: 8px; padding: 6px 14px; border: 1px solid var(--edge);
  border-radius: 999px; cursor: pointer; font-size: 14px; }
.axes > input:checked + label { background: var(--ink); color: var(--paper); border-color: var(--ink); }
.axes > input:focus-visible + label { outline: 3px solid var(--train); outline-offset: 2px; }
.axes > .plots { display: none; }
path.run { stroke-width: 1.6; } path.run:hover { stroke-width: 4; } .plots figure { grid-column: 1 / -1; }
td.key { white-space: nowrap; } .swatch { display: inline-block; width: 18px; height: 0;
  margin-right: 8px; vertical-align: middle; border-top: 3px solid; }
"""
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


@dataclass(frozen=True)
class Axis:
    """A quantity that curves are drawn over: its name, its unit, and what a token or a second is worth in each run."""

    name: str
    unit: str
    factors: Sequence[float]  # what one token, or one second, is worth
    key: str  # of a record: "tokens" or "seconds"


def write_comparison(runs: Sequence[RunFolder], path: Path, dollars_per_hour: Sequence[float] | None = None) -> Path:
    """Writes the page of several runs; returns its path. `dollars_per_hour` is what each run's machines cost.

    Without it, runs on GPUs of a known kind have the public price of those.
    """
    write_file(path, render_comparison(runs, dollars_per_hour).encode("utf-8", "replace"))
    return path


def render_comparison(runs: Sequence[RunFolder], dollars_per_hour: Sequence[float] | None = None) -> str:
    """Returns the page as text."""
    names, prices = names_of(runs), list(dollars_per_hour or map(price_of, runs))
    measure = measure_of(runs)
    body = [
        f'<header><p class="eyebrow">Comparison</p><h1>{len(runs)} runs</h1><p class="meta">'
        f"written {time.strftime('%Y-%m-%d %H:%M')}</p></header>",
        _results(runs, names, prices, measure),
        _curves(runs, names, axes_of(runs, prices), measure),
        _differences(runs, names),
    ]
    return PAGE.format(title=f"{len(runs)} runs", style=STYLE + OWN_STYLE + _styles(len(runs)), body="\n".join(body))


def names_of(runs: Sequence[RunFolder]) -> list[str]:
    """Returns the shortest ends of the runs' paths that differ."""
    paths = [Path(run.place).parts if run.place.startswith("s3:") else run.path.resolve().parts for run in runs]
    for parts in range(1, max(map(len, paths), default=1) + 1):
        names = ["/".join(path[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [run.place for run in runs]


def measure_of(runs: Sequence[RunFolder]) -> str:
    """Returns the held-out figure that all runs have: bits per byte, a task's score, or the loss."""
    measures = {run.measure for run in runs if not math.isnan(run.final)}
    return measures.pop() if len(measures) == 1 else "loss"


def price_of(run: RunFolder) -> float:
    """Returns dollars an hour of a run's GPUs by estimate.py's price list; NaN if their kind or number is unknown."""
    host = run.environment.get("host")
    gpus = host.get("gpus") if isinstance(host, Mapping) else None
    name = str(gpus[0]) if isinstance(gpus, list) and gpus else ""
    device = gpu_named(name)
    return device.dollars_per_hour * run.workers if device and run.workers else math.nan


def axes_of(runs: Sequence[RunFolder], prices: Sequence[float]) -> list[Axis]:
    """Returns the axes for which every run has what they need."""
    flops = [flops_per_token(run.recipe.model, run.recipe.data.seq_length) for run in runs]
    axes = [
        Axis("tokens", "tokens", [1.0] * len(runs), "tokens"),
        Axis("time", "hours", [1 / 3600] * len(runs), "seconds"),
        Axis("operations", "floating-point operations", flops, "tokens"),
    ]
    if all(math.isfinite(price) for price in prices):
        axes.append(Axis("cost", "dollars", [price / 3600 for price in prices], "seconds"))
    return axes


def _results(runs: Sequence[RunFolder], names: Sequence[str], prices: Sequence[float], measure: str) -> str:
    titles = ("run", "state", "step", f"last {measure.replace('_', ' ')}", "best", "tokens", "time", "operations", "$")
    rows = []
    for number, (run, name, price) in enumerate(zip(runs, names, prices)):
        tokens = number_in(run.last.get("tokens"))
        flops = tokens * flops_per_token(run.recipe.model, run.recipe.data.seq_length)
        values = [number_in(line.get(measure)) for line in run.evaluations]
        known = [value for value in values if math.isfinite(value)]
        best = (max if measure not in ("bits_per_byte", "loss") else min)(known, default=math.nan)
        cells = [
            run.state,
            f"{run.step:,}",
            rounded(known[-1] if known else math.nan),
            rounded(best),
            short(tokens),
            duration(run.seconds),
            short(flops),
            rounded(run.seconds * price / 3600),
        ]
        swatch = f'<span class="swatch r{number}"></span>'
        rows.append(f"<tr><td>{swatch}{_safe(name)}</td>{''.join(f'<td>{_safe(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{_safe(title)}</th>" for title in titles)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<section><h2>Results</h2>{scrolling(table, 'Results')}</section>"


def _curves(runs: Sequence[RunFolder], names: Sequence[str], axes: Sequence[Axis], measure: str) -> str:
    """Returns both plots for each axis; a radio button chooses the axis."""
    buttons, panels = [], []
    for place, axis in enumerate(axes):
        checked = " checked" if place == 0 else ""
        button = f'<input type="radio" name="axis" id="axis-{place}"{checked}>'
        buttons.append(f'{button}<label for="axis-{place}">by {axis.name}</label>')
        held_out = _overlaid(runs, names, axis, "evaluation", measure, f"Held-out, by {axis.name}")
        training = _overlaid(runs, names, axis, "train", "loss", f"Training loss, by {axis.name}")
        panels.append(f'<div class="plots" id="panel-{place}">{held_out}{training}</div>')
    return f'<section class="axes">{"".join(buttons)}{"".join(panels)}</section>'


def _overlaid(runs: Sequence[RunFolder], names: Sequence[str], axis: Axis, kind: str, key: str, title: str) -> str:
    series, tails = [], []
    for number, (run, name, factor) in enumerate(zip(runs, names, axis.factors)):
        x, y = _curve(run, axis, factor, kind, key)
        if not np.isfinite(y).any():
            continue
        label = name if len(runs) <= COLOURS else ""
        series.append(Series(*downsample(x, y, STRIPS), f"run r{number}", label[:14], notes=[name]))
        tails.append(y[len(y) // 10 :])
    everything = np.concatenate(tails) if tails else np.empty(0)
    top = float(np.nanmax(everything)) if np.isfinite(everything).any() else None
    unit = key.replace("_", " ")
    svg = line_plot(series, title=title, unit=unit, width=1072, height=380, top=top, across_unit=axis.unit)
    return figure(title, svg, wide=True)


def _curve(run: RunFolder, axis: Axis, factor: float, kind: str, key: str) -> tuple[Array, Array]:
    """Returns x and y of a run's curve; evaluations have the tokens of the last record of training before them."""
    lines = [line for line in run.lines if line["kind"] == kind]
    steps, y = column(lines, key)
    train = [line for line in run.lines if line["kind"] == "train"]
    known_steps, worth = column(train, axis.key)
    if axis.key == "seconds":
        _, x = column(lines, "seconds")
    else:
        known = np.isfinite(worth)
        points = np.concatenate([[0.0], known_steps[known]]), np.concatenate([[0.0], worth[known]])
        x = np.interp(steps, *points)
    if kind == "train":
        y = smooth(y, smoothing_window(len(y)))
    placed = np.isfinite(x)
    x, y = x[placed], y[placed]
    order = np.argsort(x, kind="stable")
    return x[order] * factor, y[order]


def _differences(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    """Returns a table of the settings in which the runs differ, a column for each run."""
    settings = {key: [value_of(run.recipe, key) for run in runs] for key in known_keys() if key != "about"}
    differ = {key: values for key, values in settings.items() if any(value != values[0] for value in values)}
    differ.pop("tracking.run_dir", None)
    if not differ:
        return '<section><h2>Differences</h2><p class="nothing">the recipes are the same</p></section>'
    head = "".join(f"<th>{_safe(name)}</th>" for name in ("setting", *names))
    rows = "".join(
        f'<tr><td class="key">{_safe(key)}</td>{"".join(f"<td>{_safe(str(value))}</td>" for value in values)}</tr>'
        for key, values in differ.items()
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<section><h2>Differences</h2>{scrolling(table, 'Differences')}</section>"


def _styles(count: int) -> str:
    """Returns the colours and dashes of so many runs, and what the radio buttons show."""
    light, dark = [], []
    for number in range(count):
        colours = PALETTE[number % COLOURS]
        dash = DASHES[number // COLOURS % len(DASHES)]
        light.append(f".r{number} {{ stroke: {colours[0]}; border-color: {colours[0]}; }}")
        dark.append(f".r{number} {{ stroke: {colours[1]}; border-color: {colours[1]}; }}")
        light.append(f"svg .end.r{number} {{ fill: {colours[0]}; stroke: none; }}")
        dark.append(f"svg .end.r{number} {{ fill: {colours[1]}; }}")
        if dash:
            light.append(f"path.r{number} {{ stroke-dasharray: {dash}; }}")
    shown = [f"#axis-{place}:checked ~ #panel-{place} {{ display: grid; }}" for place in range(4)]
    return "\n".join([*light, *shown, "@media (prefers-color-scheme: dark) {", *dark, "}", ""])


def _safe(text: str) -> str:
    return html.escape(printable(text))
