"""The plots of a run, for its page and for files of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kogpt2_gluon.pages.plot import Array, Series, line_plot, rounded, smooth
from kogpt2_gluon.runs.logbook import Entry

LANGUAGE_MODEL = "nats per token"  # the loss of one
BOOKKEEPING = ("kind", "step", "time", "seconds")  # fields of a record that are not results
NAN = float("nan")
GOES_ON = re.compile(r"^going on from (?:.*/step-(\d+)$)?", re.MULTILINE)  # training/setup.py says it at a start


@dataclass
class Drawn:
    """A plot: its title, the SVG ("" if there was no value), remarks for its caption, and whether it is a wide one."""

    title: str
    svg: str
    remarks: list[str] = field(default_factory=list)
    wide: bool = False


@dataclass(frozen=True)
class SmallPlot:
    """A plot of one field of the records of training."""

    key: str
    title: str
    unit: str
    log: bool = False
    from_zero: bool = False
    smoothed: bool = False
    scale: float = 1.0
    always: bool = True  # False: only if a record has the field


SMALL_PLOTS = (
    SmallPlot("learning_rate", "Learning rate", "per update", from_zero=True),
    SmallPlot("grad_norm", "Gradient norm", "before clipping, log scale", log=True, smoothed=True),
    SmallPlot("tokens_per_second", "Speed", "tokens per second, all workers", from_zero=True, smoothed=True),
    SmallPlot("memory_mb", "Memory", "MB, first worker", from_zero=True),
    SmallPlot("utilisation", "Utilisation", "% of the peak", from_zero=True, smoothed=True, scale=100, always=False),
    SmallPlot("data_wait", "Waiting for data", "% of the time", from_zero=True, scale=100, always=False),
    SmallPlot(
        "communication", "Sums over the workers", "% of a step, not hidden", from_zero=True, scale=100, always=False
    ),
    SmallPlot("loss_scale", "Loss scale", "float16, log scale", log=True, always=False),
)


def plots_of(
    train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], unit: str, logbook: Sequence[Entry]
) -> list[Drawn]:
    """Returns the plots of a run: the loss, what the optimizer and the machine did, and the scores of a task.

    `train` and `evaluations` are records of metrics.jsonl, `unit` that of the loss. The logbook's starts are marked
    where the speed is shown.
    """
    drawn = [_loss_plot(train, evaluations, unit)]
    restarts = _restarts(logbook)
    for small in SMALL_PLOTS:
        steps, values = column(train, small.key)
        if not small.always and not np.isfinite(values).any():
            continue
        values = values * small.scale
        lines = [Series(steps, values, "train", "last")]
        if small.smoothed:  # on a logarithmic axis the mean is the geometric one
            window = smoothing_window(len(values))
            logs = np.log(np.where(values > 0, values, NAN)) if small.log else values
            mean = np.exp(smooth(logs, window)) if small.log else smooth(logs, window)
            lines = [Series(steps, values, "raw"), Series(steps, mean, "train", "mean")]
        events = restarts if small.key == "tokens_per_second" else []
        svg = line_plot(
            lines, title=small.title, unit=small.unit, log=small.log, from_zero=small.from_zero, events=events
        )
        drawn.append(Drawn(small.title, svg, [f"{len(events)} restarts"] if events else []))
    for key, title, _ in scores_of(evaluations, unit) if unit != LANGUAGE_MODEL else ():
        steps, values = column(evaluations, key)
        line = Series(steps, values, "heldout", "last", marks=True)
        drawn.append(Drawn(title, line_plot([line], title=title, unit="of the dev rows")))
    return drawn


def _loss_plot(train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], unit: str) -> Drawn:
    steps, loss = column(train, "loss")
    eval_steps, eval_loss = column(evaluations, "loss")
    smoothed = smooth(loss, smoothing_window(len(train)))
    top = _loss_ceiling(steps, smoothed, eval_steps, eval_loss)
    remarks = [f"{count:,} not finite" for count in [int((~np.isfinite(loss)).sum())] if count]
    highest = float(np.max(loss, initial=-math.inf, where=np.isfinite(loss)))
    if top is not None and highest > top:
        at = int(steps[int(np.nanargmax(np.where(np.isfinite(loss), loss, -math.inf)))])
        remarks.append(f"above the frame: up to {rounded(highest)} at step {at:,}")
    notes = [_tooltip(line) for line in evaluations]
    series = [
        Series(steps, loss, "raw"),
        Series(steps, smoothed, "train", "training"),
        Series(eval_steps, eval_loss, "heldout", "held-out", marks=True, notes=notes),
    ]
    return Drawn("Loss", line_plot(series, title="Loss", unit=unit, width=1072, height=380, top=top), remarks, True)


def scores_of(evaluations: Sequence[Mapping[str, Any]], unit: str) -> list[tuple[str, str, Callable[..., Any]]]:
    """Returns the name, the title and the better end of the two scores that a reader looks for first."""
    if unit == LANGUAGE_MODEL:
        return [("perplexity", "Held-out perplexity", np.argmin), ("bits_per_byte", "Bits per byte", np.argmin)]
    names = [name for name in (evaluations[-1] if evaluations else ()) if name not in (*BOOKKEEPING, "loss")]
    return [(name, f"Held-out {name.replace('_', ' ')}", np.argmax) for name in names[:2]]


def column(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[Array, Array]:
    """Returns steps and the values of one key, both float64 and sorted by step; NaN if a line has no finite number."""
    steps = np.array([line["step"] for line in lines], dtype=np.float64)
    values = np.array([number_in(line.get(key)) for line in lines], dtype=np.float64)
    order = np.argsort(steps, kind="stable")
    return steps[order], values[order]


def number_in(value: Any) -> float:
    """Returns a value of a record as a number; NaN if it is not a finite one."""
    try:
        number = float(value) if isinstance(value, (int, float)) else NAN
    except OverflowError:
        return NAN
    return number if math.isfinite(number) else NAN


def smoothing_window(points: int) -> int:
    """Returns how many log lines the smoothed curves average: 4% of the run, at least 3."""
    return max(points // 25, 3)


def _loss_ceiling(steps: Array, smoothed: Array, eval_steps: Array, eval_loss: Array) -> float | None:
    """Returns where to cut the loss axis, so that the fall in the first 5% of steps does not flatten the rest."""
    if len(steps) < 50:
        return None
    begin = steps[-1] * 0.05
    rest = np.concatenate([smoothed[steps > begin], eval_loss[eval_steps > begin]])
    rest = rest[np.isfinite(rest)]
    everything = smoothed[np.isfinite(smoothed)]
    if not rest.size or everything.max() <= rest.max() + 0.2 * (rest.max() - rest.min()):
        return None
    return float(rest.max() + 0.05 * (rest.max() - rest.min()))


def _restarts(logbook: Sequence[Entry]) -> list[tuple[float, str]]:
    """Returns the steps from which the run went on, with words.

    The log names the checkpoint of each start; if its folder has a name of its own, the last figures before count. The
    times of the log are those of the host that trained, so they place nothing.
    """
    places = []
    for entry in logbook:
        if entry.kind == "start" and (found := GOES_ON.search(entry.text)):
            step = int(found[1]) if found[1] else entry.step
            places.append((float(step), f"started again {entry.time}"))
    return places


def _tooltip(line: Mapping[str, Any]) -> str:
    """Returns the tooltip of an evaluation's mark."""
    parts = [f"{name.replace('_', ' ')} {rounded(number_in(line[name]))}" for name in line if name not in BOOKKEEPING]
    return f"step {line['step']:,}: {', '.join(parts)}"
