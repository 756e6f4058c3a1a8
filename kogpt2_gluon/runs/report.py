"""Makes one HTML page about a run: figures, plots, recipe, machine and samples, in a file that needs nothing else."""

from __future__ import annotations

import html
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kogpt2_gluon.pages.page import PAGE, STYLE
from kogpt2_gluon.pages.plot import Array, Series, line_plot, rounded, short, smooth
from kogpt2_gluon.runs.logbook import Entry, read_logbook
from kogpt2_gluon.runs.metrics import CHANGE, printable, read_metrics
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.storage.links import read_file
from kogpt2_gluon.user_files import load_yaml
from kogpt2_gluon.wording import duration

SAMPLE_CHARACTERS = 20_000  # that the page shows of the samples file
TABLE_ROWS = 40
LOGBOOK_ROWS = 400
LANGUAGE_MODEL = "nats per token"  # the loss of one
BOOKKEEPING = ("kind", "step", "time", "seconds")  # fields of a record that are not results
NAN = float("nan")


def write_report(run_dir: Path) -> Path:
    """Writes RUN_DIR/report.html from metrics.jsonl, recipe.yaml, env.json and samples/; returns its path.

    Only metrics.jsonl must be there. The page is one self-contained file without scripts. Raises DataError if
    metrics.jsonl is missing or damaged.
    """
    run_dir = Path(run_dir)
    path = run_dir / "report.html"
    write_file(path, render_report(run_dir).encode("utf-8", "replace"))
    return path


def render_report(run_dir: Path) -> str:
    """Returns the page as text."""
    lines = read_metrics(run_dir)
    train = [line for line in lines if line["kind"] == "train"]
    held_out = sorted({line["step"]: line for line in lines if line["kind"] == "evaluation"}.items())
    evaluations = [line for _, line in held_out]
    recipe_text, environment_text = _read_text(run_dir / "recipe.yaml"), _read_text(run_dir / "env.json")
    recipe = _parse_mapping(recipe_text, load_yaml)
    environment = _parse_mapping(environment_text, json.loads)
    name, unit = str(recipe.get("name") or run_dir.resolve().name), _unit_of_loss(recipe)
    body = [
        _header(name, run_dir, recipe, environment, lines),
        _headline(train, evaluations, unit),
        _plots(train, evaluations, unit),
        _samples(run_dir),
        _evaluation_table(evaluations),
        _changes([line for line in lines if line["kind"] == CHANGE]),
        _logbook(read_logbook(run_dir)),
        _section("Recipe", f"<pre>{_safe(recipe_text)}</pre>" if recipe_text else _placeholder("no recipe.yaml here")),
        _section("Environment", _facts(environment) if environment else _placeholder("no env.json here")),
    ]
    title = f"{_safe(name)}: training report"
    return PAGE.format(title=title, style=STYLE, body="\n".join(part for part in body if part))


def _header(
    name: str,
    run_dir: Path,
    recipe: Mapping[str, Any],
    environment: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
) -> str:
    facts = [_progress(recipe, lines), f"run folder {run_dir.resolve().name}"]
    revision = environment.get("revision")
    if isinstance(revision, dict):
        facts.append(f"revision {str(revision.get('commit'))[:10]}{' (modified)' if revision.get('modified') else ''}")
    facts.append(f"written {time.strftime('%Y-%m-%d %H:%M')}")
    about = str(recipe.get("about") or "").strip()
    return (
        f'<header><p class="eyebrow">Training report</p><h1>{_safe(name)}</h1>'
        f'<p class="meta">{" &middot; ".join(_safe(fact) for fact in facts)}</p>'
        + (f'<p class="about">{_safe(about)}</p>' if about else "")
        + "</header>"
    )


def _progress(recipe: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """Says how far the run is."""
    if not lines:
        return "nothing recorded yet"
    step = max(line["step"] for line in lines)
    training = recipe.get("training")
    planned = training.get("num_steps") if isinstance(training, dict) else None
    if not isinstance(planned, int) or planned < 1:
        return f"step {step:,}"
    return f"step {step:,} of {planned:,} ({math.floor(1000 * step / planned) / 10:.1f}%)"


def _unit_of_loss(recipe: Mapping[str, Any]) -> str:
    task = recipe.get("task")
    return "mean of the rows" if isinstance(task, dict) and task.get("name") else LANGUAGE_MODEL


def _scores(evaluations: Sequence[Mapping[str, Any]], unit: str) -> list[tuple[str, str, Callable[..., Any]]]:
    """Returns the name, the title and the better end of the two scores that a reader looks for first."""
    if unit == LANGUAGE_MODEL:
        return [("perplexity", "Held-out perplexity", np.argmin), ("bits_per_byte", "Bits per byte", np.argmin)]
    names = [name for name in (evaluations[-1] if evaluations else ()) if name not in (*BOOKKEEPING, "loss")]
    return [(name, f"Held-out {name.replace('_', ' ')}", np.argmax) for name in names[:2]]


def _headline(train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], unit: str) -> str:
    """Returns the five figures that a reader looks for first."""
    cards = []
    for key, label, better in _scores(evaluations, unit):
        steps, values = _column(evaluations, key)
        known = np.flatnonzero(np.isfinite(values))
        if not known.size:
            cards.append(_card(label, "–", "not evaluated"))
            continue
        best = known[better(values[known])]
        where = "the best so far" if best == known[-1] else f"best {rounded(values[best])} at step {int(steps[best]):,}"
        if known[0] != known[-1]:
            where += f", first {rounded(values[known[0]])}"
        cards.append(_card(label, rounded(values[known[-1]]), where))
    loss = _column(train, "loss")[1]
    last_loss = smooth(loss, _window(len(loss)))
    last_loss = last_loss[np.isfinite(last_loss)]
    cards.append(_card("Training loss", rounded(_last_of(last_loss)), f"{unit}, lately"))
    epoch = _last_of(_column(train, "epoch")[1])
    passes = f"{epoch:.2f} passes over the data" if math.isfinite(epoch) else ""
    cards.append(_card("Tokens seen", short(_last_of(_column(train, "tokens")[1])), passes))
    rate = _column(train, "tokens_per_second")[1]
    rate = rate[np.isfinite(rate)]
    speed = f"{np.median(rate):,.0f} tokens/s (median)" if rate.size else ""
    seconds = _column([*train, *evaluations], "seconds")[1]
    seconds = seconds[np.isfinite(seconds)]
    spent = duration(float(seconds.max())) if seconds.size else "–"
    cards.append(_card("Time", spent, speed))
    return f'<section class="cards">{"".join(cards)}</section>'


def _plots(train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], unit: str) -> str:
    steps, loss = _column(train, "loss")
    eval_steps, eval_loss = _column(evaluations, "loss")
    notes = [_note(line) for line in evaluations]
    window = _window(len(train))
    smoothed = smooth(loss, window)
    top = _loss_ceiling(steps, smoothed, eval_steps, eval_loss)
    remarks = [f"{count:,} not finite" for count in [int((~np.isfinite(loss)).sum())] if count]
    highest = float(np.max(loss, initial=-math.inf, where=np.isfinite(loss)))
    if top is not None and highest > top:
        at = int(steps[int(np.nanargmax(np.where(np.isfinite(loss), loss, -math.inf)))])
        remarks.append(f"above the frame: up to {rounded(highest)} at step {at:,}")
    series = [
        Series(steps, loss, "raw"),
        Series(steps, smoothed, "train", "training"),
        Series(eval_steps, eval_loss, "heldout", "held-out", marks=True, notes=notes),
    ]
    title = "Loss"
    main = line_plot(series, title=title, unit=unit, width=1072, height=380, top=top)
    figures = [_figure(title, main, remarks, "wide")]
    for key, title, of_values, options in SMALL_PLOTS:
        steps, values = _column(train, key)
        lines = [Series(steps, values, "train", "last")]
        if key == "grad_norm":  # on a logarithmic axis the mean is the geometric one
            logs = np.log(np.where(values > 0, values, NAN))
            lines = [Series(steps, values, "raw"), Series(steps, np.exp(smooth(logs, window)), "train", "mean")]
        elif key == "tokens_per_second":
            lines = [Series(steps, values, "raw"), Series(steps, smooth(values, window), "train", "mean")]
        figures.append(_figure(title, line_plot(lines, title=title, unit=of_values, **options), [], ""))
    for key, title, _ in _scores(evaluations, unit) if unit != LANGUAGE_MODEL else ():
        steps, values = _column(evaluations, key)
        line = Series(steps, values, "heldout", "last", marks=True)
        figures.append(_figure(title, line_plot([line], title=title, unit="of the dev rows"), [], ""))
    return f'<section class="plots">{"".join(figures)}</section>'


SMALL_PLOTS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("learning_rate", "Learning rate", "per update", {"from_zero": True}),
    ("grad_norm", "Gradient norm", "before clipping, log scale", {"log": True}),
    ("tokens_per_second", "Speed", "tokens per second, all workers", {"from_zero": True}),
    ("memory_mb", "Memory", "MB, first worker", {"from_zero": True}),
)


def _figure(title: str, svg: str, remarks: Sequence[str], style: str) -> str:
    note = f" <span>{_safe('; '.join(remarks))}</span>" if remarks else ""
    drawn = svg or _placeholder("no values")
    return f'<figure class="{style}"><figcaption>{_safe(title)}{note}</figcaption>{drawn}</figure>'


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


def _samples(run_dir: Path) -> str:
    """Shows the newest file of samples/: prompts, and the model's continuations."""
    files = sorted((run_dir / "samples").glob("step-*.txt"))
    if not files:
        return ""
    prompts: list[tuple[str, list[str]]] = []
    for line in _read_text(files[-1])[:SAMPLE_CHARACTERS].splitlines()[1:]:
        if line.startswith("> "):
            prompts.append((line[2:], []))
        elif prompts:
            prompts[-1][1].append(line)
    step = files[-1].stem.replace("step-", "").lstrip("0") or "0"
    items = "".join(f"<dt>{_safe(prompt)}</dt><dd>{_safe(chr(10).join(text).strip())}</dd>" for prompt, text in prompts)
    return _section(f"Samples at step {step}", f'<dl class="samples" lang="ko">{items}</dl>')


def _evaluation_table(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the last evaluations, one row each."""
    rows = evaluations[-TABLE_ROWS:]
    names = [name for name in dict.fromkeys(name for line in rows for name in line) if name not in BOOKKEEPING]
    if not names:
        return ""
    head = "".join(f"<th>{_safe(name.replace('_', ' '))}</th>" for name in ["step", *names])
    body = "".join(
        f"<tr><td>{line['step']:,}</td>"
        + "".join(f"<td>{rounded(_number(line.get(name)))}</td>" for name in names)
        + "</tr>"
        for line in rows
    )
    left_out = len(evaluations) - len(rows)
    note = f'<p class="meta">The last {len(rows)} of {len(evaluations)}.</p>' if left_out else ""
    return _section("Held-out evaluations", f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}")


def _changes(changes: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the settings that changed on purpose, at a resume or by `kogpt2 set`, one row each."""
    if not changes:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("step", "setting", "before", "from there on", "by"))
    rows = [
        [f"{line['step']:,}", *(_value(line.get(name)) for name in ("key", "from", "to")), str(line.get("by", ""))]
        for line in changes
    ]
    body = "".join(f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return _section(
        "Settings changed on the way", f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _logbook(entries: Sequence[Entry]) -> str:
    """Returns a table of all that was said but for figures, and of the operators' notes, one row each."""
    if not entries:
        return ""
    rows = "".join(
        f'<tr class="{entry.kind}"><td>{_safe(entry.time)}</td><td>{_safe(entry.kind)}</td>'
        f"<td>{_safe(entry.text)}</td></tr>"
        for entry in entries[-LOGBOOK_ROWS:]
    )
    left_out = len(entries) - LOGBOOK_ROWS
    note = f'<p class="meta">The last {LOGBOOK_ROWS} of {len(entries):,}; log.txt has all.</p>' if left_out > 0 else ""
    return _section("Logbook", f'<table class="logbook"><tbody>{rows}</tbody></table>{note}')


def _facts(environment: Mapping[str, Any]) -> str:
    """Returns the environment as lists of names and values, one for each group."""
    loose = {key: value for key, value in environment.items() if not isinstance(value, dict)}
    groups = [("run", loose), *((key, value) for key, value in environment.items() if isinstance(value, dict))]
    parts = []
    for title, group in groups:
        rows = "".join(f"<dt>{_safe(str(key))}</dt><dd>{_safe(_value(value))}</dd>" for key, value in group.items())
        if rows:
            parts.append(f'<div><h3>{_safe(title)}</h3><dl class="facts">{rows}</dl></div>')
    return f'<div class="groups">{"".join(parts)}</div>'


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "–" if value is None else f"{value:,}" if type(value) is int else str(value)


def _card(label: str, value: str, remark: str) -> str:
    return f"<div><h2>{_safe(label)}</h2><p>{_safe(value)}</p><small>{_safe(remark)}</small></div>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_safe(title)}</h2>{content}</section>"


def _placeholder(text: str) -> str:
    return f'<p class="nothing">{_safe(text)}</p>'


def _note(line: Mapping[str, Any]) -> str:
    """Returns the tooltip of an evaluation's mark."""
    parts = [f"{name.replace('_', ' ')} {rounded(_number(line[name]))}" for name in line if name not in BOOKKEEPING]
    return f"step {line['step']:,}: {', '.join(parts)}"


def _column(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[Array, Array]:
    """Returns steps and the values of one key, both float64 and sorted by step; NaN if a line has no finite number."""
    steps = np.array([line["step"] for line in lines], dtype=np.float64)
    values = np.array([_number(line.get(key)) for line in lines], dtype=np.float64)
    order = np.argsort(steps, kind="stable")
    return steps[order], values[order]


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, (int, float)) else NAN
    except OverflowError:
        return NAN
    return number if math.isfinite(number) else NAN


def _last_of(values: Array) -> float:
    return float(values[-1]) if len(values) else NAN


def _window(points: int) -> int:
    """Returns how many log lines the smoothed curves average: 4% of the run, at least 3."""
    return max(points // 25, 3)


def _read_text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8", "replace")
    except OSError:
        return ""


def _parse_mapping(text: str, parse: Any) -> dict[str, Any]:
    """Parses `text` as a mapping; empty if it is not one, as a report is made of whatever can be read."""
    try:
        plain = parse(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _safe(text: str) -> str:
    """Escapes text for HTML, and removes control characters."""
    return html.escape(printable(text))
