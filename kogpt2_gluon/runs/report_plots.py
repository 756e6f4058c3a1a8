"""The plots of a run, for its page and for files of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kogpt2_gluon.pages.plot import Array, Series, line_plot, linear_axis, rounded, smooth
from kogpt2_gluon.runs.logbook import Entry
from kogpt2_gluon.runs.metrics import SEQUENCES
from kogpt2_gluon.runs.report_health import LARGEST, Spike, health_of
from kogpt2_gluon.runs.report_parts import mapping_in
from kogpt2_gluon.wording import counted

LANGUAGE_MODEL = "nats per token"  # the loss of one
BOOKKEEPING = ("kind", "step", "time", "seconds", *SEQUENCES)  # fields of a record that are not results
NAN = float("nan")
GOES_ON = re.compile(r"^going on from (?:.*/step-(\d+)$)?", re.MULTILINE)  # training/setup.py says it at a start
# Sizes on a page, and those for a phone, whose window is 390 wide. Both of the wide plot have the same ticks of y.
WIDE: dict[str, Any] = {"width": 1072, "height": 380}
WIDE_NARROW: dict[str, Any] = {"width": 354, "height": 360}
SMALL: dict[str, Any] = {"width": 520, "height": 230}
SMALL_NARROW: dict[str, Any] = {"width": 354, "height": 230}


@dataclass
class Drawn:
    """A plot on a page.

    Attributes
    ----------
    title : str
    svg : str
        "" if there was no value.
    remarks : list of str
        For its caption.
    wide : bool
    narrow : str
        The same as drawn for a phone.
    about : str
        Words on what is shown, for those who see such a plot for the first time.
    """

    title: str
    svg: str
    remarks: list[str] = field(default_factory=list)
    wide: bool = False
    narrow: str = ""
    about: str = ""


@dataclass(frozen=True)
class SmallPlot:
    """A plot of one field of the records of training; `end` is the unit of the value at its end."""

    key: str
    title: str
    unit: str
    about: str
    log: bool = False
    from_zero: bool = False
    smoothed: bool = False
    scale: float = 1.0
    always: bool = True  # False: only if a record has the field
    end: str = ""


SMALL_PLOTS = (
    SmallPlot("learning_rate", "Learning rate", "per update", "The size of the optimizer's steps.", from_zero=True),
    SmallPlot(
        *("grad_norm", "Gradient norm", "before clipping, log scale"),
        "The length of the gradient of an update, over all parameters.",
        log=True,
        smoothed=True,
    ),
    SmallPlot(
        *("tokens_per_second", "Speed", "tokens per second, all workers"),
        "Tokens trained on in a second, between two records.",
        from_zero=True,
        smoothed=True,
        end="/s",
    ),
    SmallPlot(
        *("memory_mb", "Memory", "MiB"),
        "Memory of the first worker's process; on a GPU, all that is in use on its device.",
        from_zero=True,
        end=" MiB",
    ),
    SmallPlot(
        *("utilisation", "Utilisation", "% of the peak"),
        "The network's own operations in a second, of the most that this machine was measured to make in matrix "
        "products of such a network (of a GPU: of its data sheet's). An estimate: it is above 100% where the "
        "measurement was made next to other work.",
        from_zero=True,
        smoothed=True,
        scale=100,
        always=False,
        end="%",
    ),
    SmallPlot(
        *("data_wait", "Waiting for data", "% of the time"),
        "Time in which the first worker waited for its next batch.",
        from_zero=True,
        scale=100,
        always=False,
        end="%",
    ),
    SmallPlot(
        *("communication", "Sums over the workers", "% of a step, not hidden"),
        "Time that the mean of the gradients takes where nothing hides it; waiting for the slowest worker included.",
        from_zero=True,
        scale=100,
        always=False,
        end="%",
    ),
    SmallPlot(
        *("loss_scale", "Loss scale", "float16, log scale"),
        "The loss is multiplied by it, so that small gradients are not 0 in float16; an overflow halves it.",
        log=True,
        always=False,
    ),
)


def plots_of(
    train: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    recipe: Mapping[str, Any],
    logbook: Sequence[Entry],
) -> list[Drawn]:
    """Returns the plots of a run: the loss, what the optimizer and the machine did, and the scores of a task.

    `train` and `evaluations` are records of metrics.jsonl, `recipe` is the run's as plain data. The logbook's restarts
    are marked where the speed is shown, and its spikes where the gradient norm is.
    """
    unit = unit_of_loss(recipe)
    drawn = [_loss_plot(train, evaluations, unit, recipe)]
    health = health_of(logbook)
    restarts = _places_of(health.restarts)
    for small in SMALL_PLOTS:
        steps, values = column(train, small.key)
        if not small.always and not np.isfinite(values).any():
            continue
        values, about = values * small.scale, [small.about]
        lines = [Series(steps, values, "train", "last", unit=small.end)]
        if small.smoothed:  # on a logarithmic axis the mean is the geometric one
            window = smoothing_window(len(values))
            logs = np.log(np.where(values > 0, values, NAN)) if small.log else values
            mean = np.exp(smooth(logs, window)) if small.log else smooth(logs, window)
            lines = [Series(steps, values, "raw"), Series(steps, mean, "train", "smoothed", unit=small.end)]
        marks: dict[str, Any] = {}
        remarks = []
        if small.key == "tokens_per_second" and restarts:
            marks["events"] = restarts
            remarks.append(counted(len(restarts), "restart"))
        if small.key == "grad_norm":
            marks["ticks"] = [float(spike.step) for spike in health.spikes]
            remarks += [counted(len(health.spikes), "spike")] if health.spikes else []
            about += _about_norm(recipe, health.spikes)
        plot = _drawn(
            small.title, lines, " ".join(about), unit=small.unit, log=small.log, from_zero=small.from_zero, **marks
        )
        plot.remarks += remarks
        drawn.append(plot)
    for key, title, _ in scores_of(evaluations, unit) if unit != LANGUAGE_MODEL else ():
        line = Series(*column(evaluations, key), "heldout", "last", marks=True)
        drawn.append(_drawn(title, [line], "Measured on rows that are not trained on.", unit="of the held-out rows"))
    return drawn


def unit_of_loss(recipe: Mapping[str, Any]) -> str:
    """Returns the unit of the training loss of a recipe, as plain data."""
    return "mean of the rows" if mapping_in(recipe, "task").get("name") else LANGUAGE_MODEL


def _drawn(title: str, series: Sequence[Series], about: str, wide: bool = False, **options: Any) -> Drawn:
    """Draws a plot twice: for a page, and for a phone without its tooltips, which a finger cannot reach."""
    svg = line_plot(series, title=title, **(WIDE if wide else SMALL), **options)
    plain = [Series(one.x, one.y, one.style, one.label, one.marks, unit=one.unit) for one in series]
    narrow = line_plot(plain, title=title, style="narrow", **(WIDE_NARROW if wide else SMALL_NARROW), **options)
    return Drawn(title, svg, wide=wide, narrow=narrow, about=about)


def _loss_plot(
    train: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    unit: str,
    recipe: Mapping[str, Any],
) -> Drawn:
    evaluations = sorted(evaluations, key=lambda line: line["step"])
    steps, loss = column(train, "loss")
    eval_steps, eval_loss = column(evaluations, "loss")
    smoothed = smooth(loss, smoothing_window(len(train)))
    top = _loss_ceiling(steps, smoothed, eval_steps, eval_loss)
    series = [Series(steps, loss, "raw"), Series(steps, smoothed, "train", "training")]
    whole = np.array([is_over_all(line, recipe) for line in evaluations], dtype=bool)
    notes = np.array([_tooltip(line, recipe) for line in evaluations], dtype=object)
    kinds = {"heldout": ~whole, "heldout whole": whole} if 0 < whole.sum() < len(whole) else {"heldout": whole | True}
    for number, (style, chosen) in enumerate(kinds.items(), 1):
        label = "held-out" if number == len(kinds) else ""
        series.append(
            Series(eval_steps[chosen], eval_loss[chosen], style, label, marks=True, notes=list(notes[chosen]))
        )
    plot = _drawn("Loss", series, _about_loss(len(train), kinds, unit), wide=True, unit=unit, top=top)
    plot.remarks += [f"{count:,} not finite" for count in [int((~np.isfinite(loss)).sum())] if count]
    if top is not None:
        finite = [values[np.isfinite(values)] for values in (loss, smoothed, eval_loss)]
        top = linear_axis(min(top, *(values.min() for values in finite if values.size)), top, WIDE["height"] // 45).high
        above = _above(top, "training", "records", steps, loss)
        above += _above(top, "held-out", "evaluations", eval_steps, eval_loss)
        plot.remarks += [f"above the frame: {'; '.join(above)}"] if above else []
    return plot


def _above(top: float, name: str, noun: str, steps: Array, values: Array) -> list[str]:
    """Says how many values of a curve are above the frame, and where the highest is; nothing if there is none."""
    above = np.flatnonzero(np.where(np.isfinite(values), values, -math.inf) > top)
    if not above.size:
        return []
    highest = above[int(np.argmax(values[above]))]
    place = f"up to {rounded(values[highest])} at step {int(steps[highest]):,}"
    return [f"{name}, {len(above):,} of {len(values):,} {noun}, {place}"]


def _about_loss(points: int, kinds: Mapping[str, Any], unit: str) -> str:
    """Explains the curves, whose kinds the other plots have too."""
    parts = [
        "Thin line: each record of training, of one update's batch.",
        f"Thick line: the mean of up to {smoothing_window(points):,} records around each, so that at the right end it "
        f"is that of the last {lately(points):,}.",
    ]
    if len(kinds) > 1:
        parts.append("Empty rings: held-out loss over a part of the set; the full ones: over all of it.")
    else:
        parts.append("Rings: held-out data, which is not trained on.")
    if unit == LANGUAGE_MODEL:
        parts.append("A nat is the natural logarithm's unit: a loss of 0 would be a certain guess of each next token.")
    return " ".join(parts)


def _about_norm(recipe: Mapping[str, Any], spikes: Sequence[Spike]) -> list[str]:
    norm = mapping_in(recipe, "training").get("clip_norm")
    clipped = isinstance(norm, (int, float)) and 0 < norm < LARGEST
    parts = [f"One above training.clip_norm={norm:g} is scaled down to it."] if clipped else []
    return [*parts, "Lines at the upper edge: spikes, which the logbook lists."] if spikes else parts


def is_over_all(line: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Returns True if an evaluation was over the whole held-out set, False if it was over evaluation.max_sequences.

    Records of older runs do not say it. There the last step has the whole set, as the training loop has it.
    """
    count, everything = (line.get(name) for name in SEQUENCES)
    if isinstance(count, int) and isinstance(everything, int):
        return count >= everything
    most, planned = mapping_in(recipe, "evaluation").get("max_sequences"), mapping_in(recipe, "training")
    last = planned.get("num_steps")
    return not most or not isinstance(last, int) or bool(line["step"] >= last)


def measured_over(line: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """Returns the number of sequences that an evaluation was over, in words."""
    count, rules = line.get(SEQUENCES[0]), mapping_in(recipe, "evaluation")
    if is_over_all(line, recipe):
        return f"all {count:,}" if isinstance(count, int) else "all"
    if isinstance(count, int):
        return f"{count:,}"
    most = rules.get("max_sequences")  # at the end of an epoch the stop rule takes the whole set
    return f"{most:,}" if isinstance(most, int) and not rules.get("stop_improvement") else "not on record"


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


def lately(points: int) -> int:
    """Returns how many log lines the last value of a smoothed curve is the mean of."""
    return min(smoothing_window(points) // 2 + 1, points)


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


def _places_of(restarts: Sequence[Entry]) -> list[tuple[float, str]]:
    """Returns the steps from which the run went on, with words.

    The log names the checkpoint of each start; if its folder has a name of its own, the last figures before count. The
    times of the log are those of the host that trained, so they place nothing.
    """
    places = []
    for entry in restarts:
        found = GOES_ON.search(entry.text)
        step = int(found[1]) if found and found[1] else entry.step
        places.append((float(step), f"started again {entry.time}"))
    return places


def _tooltip(line: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """Returns the tooltip of an evaluation's mark."""
    parts = [f"{name.replace('_', ' ')} {rounded(number_in(line[name]))}" for name in line if name not in BOOKKEEPING]
    over = f", over {measured_over(line, recipe)} sequences" if not is_over_all(line, recipe) else ""
    return f"step {line['step']:,}: {', '.join(parts)}{over}"
