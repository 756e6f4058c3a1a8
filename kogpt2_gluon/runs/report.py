"""Makes one HTML page about a run: figures, plots, recipe, machine and samples, in a file that needs nothing else."""

from __future__ import annotations

import html
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.pages.page import PAGE, STYLE, figure, scrolling
from kogpt2_gluon.pages.plot import Array, rounded, short, smooth
from kogpt2_gluon.recipe import differences, load_recipe, parse_recipe
from kogpt2_gluon.runs.data_record import DATA_FILE
from kogpt2_gluon.runs.environment import hide_users
from kogpt2_gluon.runs.logbook import Entry, read_logbook
from kogpt2_gluon.runs.metrics import CHANGE, printable, read_metrics
from kogpt2_gluon.runs.report_plots import (
    BOOKKEEPING,
    LANGUAGE_MODEL,
    Drawn,
    column,
    number_in,
    plots_of,
    scores_of,
    smoothing_window,
)
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.storage.links import read_file
from kogpt2_gluon.user_files import load_yaml
from kogpt2_gluon.wording import duration

SAMPLE_CHARACTERS = 20_000  # that the page shows of the samples file
EARLIER_SAMPLES = 8  # files that are shown folded, evenly over the run
TABLE_ROWS = 40
LOGBOOK_ROWS = 400
ALIKE = 3  # entries that differ in numbers alone and are all shown


def write_report(run_dir: Path, path: Path | None = None) -> Path:
    """Writes the page about a run, RUN_DIR/report.html if no path is given; returns its path.

    It is made of metrics.jsonl, recipe.yaml, env.json, data.json, log.txt and samples/, of which only metrics.jsonl
    must be there. The page is one self-contained file without scripts. DataError if metrics.jsonl is missing or
    damaged.
    """
    run_dir = Path(run_dir)
    path = path or run_dir / "report.html"
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
    name, unit = str(recipe.get("name") or run_dir.resolve().name), unit_of_loss(recipe)
    logbook = read_logbook(run_dir)
    body = [
        _header(name, run_dir, recipe, environment, lines),
        _headline(train, evaluations, unit),
        _figures(plots_of(train, evaluations, unit, logbook)),
        _samples(run_dir),
        _evaluation_table(evaluations),
        _changes([line for line in lines if line["kind"] == CHANGE]),
        _logbook(logbook),
        _data(_parse_mapping(_read_text(run_dir / DATA_FILE), json.loads)),
        _differences(recipe),
        _section("Recipe", _preformatted(recipe_text) if recipe_text else _placeholder("no recipe.yaml here")),
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


def unit_of_loss(recipe: Mapping[str, Any]) -> str:
    """Returns the unit of the training loss of a recipe, as plain data."""
    task = recipe.get("task")
    return "mean of the rows" if isinstance(task, dict) and task.get("name") else LANGUAGE_MODEL


def _headline(train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], unit: str) -> str:
    """Returns the five figures that a reader looks for first."""
    cards = []
    for key, label, better in scores_of(evaluations, unit):
        steps, values = column(evaluations, key)
        known = np.flatnonzero(np.isfinite(values))
        if not known.size:
            cards.append(_card(label, "–", "not evaluated"))
            continue
        best = known[better(values[known])]
        where = "the best so far" if best == known[-1] else f"best {rounded(values[best])} at step {int(steps[best]):,}"
        if known[0] != known[-1]:
            where += f", first {rounded(values[known[0]])}"
        cards.append(_card(label, rounded(values[known[-1]]), where))
    loss = column(train, "loss")[1]
    last_loss = smooth(loss, smoothing_window(len(loss)))
    last_loss = last_loss[np.isfinite(last_loss)]
    cards.append(_card("Training loss", rounded(_last_of(last_loss)), f"{unit}, lately"))
    epoch = _last_of(column(train, "epoch")[1])
    passes = f"{epoch:.2f} passes over the data" if math.isfinite(epoch) else ""
    cards.append(_card("Tokens seen", short(_last_of(column(train, "tokens")[1])), passes))
    rate = column(train, "tokens_per_second")[1]
    rate = rate[np.isfinite(rate)]
    speed = f"{np.median(rate):,.0f} tokens/s (median)" if rate.size else ""
    seconds = column([*train, *evaluations], "seconds")[1]
    seconds = seconds[np.isfinite(seconds)]
    spent = duration(float(seconds.max())) if seconds.size else "–"
    cards.append(_card("Time", spent, speed))
    return f'<section class="cards">{"".join(cards)}</section>'


def _figures(plots: Sequence[Drawn]) -> str:
    """Returns the plots with their captions."""
    figures = [figure(printable(plot.title), plot.svg, "; ".join(plot.remarks), plot.wide) for plot in plots]
    return f'<section class="plots">{"".join(figures)}</section>'


def _samples(run_dir: Path) -> str:
    """Shows the newest file of samples/, prompts and the model's continuations, and folded some of the earlier ones."""
    files = sorted((run_dir / "samples").glob("step-*.txt"))
    if not files:
        return ""
    earlier = files[:-1]
    every = max(1, -(-len(earlier) // EARLIER_SAMPLES))
    folded = "".join(
        f"<details><summary>{_step_of(path)}</summary>{_texts_of(path)}</details>" for path in earlier[::every]
    )
    return _section(f"Samples at {_step_of(files[-1])}", _texts_of(files[-1]) + folded)


def _step_of(path: Path) -> str:
    return f"step {path.stem.replace('step-', '').lstrip('0') or '0'}"


def _texts_of(path: Path) -> str:
    prompts: list[tuple[str, list[str]]] = []
    for line in _read_text(path)[:SAMPLE_CHARACTERS].splitlines()[1:]:
        if line.startswith("> "):
            prompts.append((line[2:], []))
        elif prompts:
            prompts[-1][1].append(line)
    items = "".join(f"<dt>{_safe(prompt)}</dt><dd>{_safe(chr(10).join(text).strip())}</dd>" for prompt, text in prompts)
    return f'<dl class="samples" lang="ko">{items}</dl>'


def _evaluation_table(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the last evaluations, one row each."""
    rows = evaluations[-TABLE_ROWS:]
    names = [name for name in dict.fromkeys(name for line in rows for name in line) if name not in BOOKKEEPING]
    if not names:
        return ""
    head = "".join(f"<th>{_safe(name.replace('_', ' '))}</th>" for name in ["step", *names])
    body = "".join(
        f"<tr><td>{line['step']:,}</td>"
        + "".join(f"<td>{rounded(number_in(line.get(name)))}</td>" for name in names)
        + "</tr>"
        for line in rows
    )
    left_out = len(evaluations) - len(rows)
    note = f'<p class="meta">The last {len(rows)} of {len(evaluations)}.</p>' if left_out else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return _section("Held-out evaluations", f"{scrolling(table, 'Held-out evaluations')}{note}")


def _changes(changes: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the settings that changed on purpose, at a resume or by `kogpt2 set`, one row each."""
    if not changes:
        return ""
    rows = [
        [f"{line['step']:,}", *(_value(line.get(name)) for name in ("key", "from", "to")), str(line.get("by", ""))]
        for line in changes
    ]
    titles = ("step", "setting", "before", "from there on", "by")
    return _section("Settings changed on the way", _table(titles, rows))


def _logbook(entries: Sequence[Entry]) -> str:
    """Returns a table of all that was said but for figures, and of the operators' notes, one row each.

    Of many entries that differ in their numbers alone, all but the first few are folded.
    """
    if not entries:
        return ""
    seen: Counter[str] = Counter()
    shown: list[Entry] = []
    folded: list[Entry] = []
    for entry in entries[-LOGBOOK_ROWS:]:
        kind = re.sub(r"[\d.,+-]+", "#", entry.text)
        seen[kind] += 1
        (folded if entry.kind == "event" and seen[kind] > ALIKE else shown).append(entry)
    left_out = len(entries) - LOGBOOK_ROWS
    note = f'<p class="meta">The last {LOGBOOK_ROWS} of {len(entries):,}; log.txt has all.</p>' if left_out > 0 else ""
    more = f"<details><summary>{len(folded)} more like those</summary>{_entries(folded)}</details>" if folded else ""
    return _section("Logbook", f"{_entries(shown)}{more}{note}")


def _entries(entries: Sequence[Entry]) -> str:
    rows = "".join(
        f'<tr class="{entry.kind}"><td>{_safe(entry.time)}</td><td>{_safe(entry.kind)}</td>'
        f"<td>{_safe(entry.text)}</td></tr>"
        for entry in entries
    )
    return f'<table class="logbook"><tbody>{rows}</tbody></table>'


def _data(record: Mapping[str, Any]) -> str:
    """Returns what the run was trained and evaluated on, one group for each set, with the counts of its cleaning."""
    sets = record.get("sets")
    if not isinstance(sets, list) or not sets:
        return ""
    groups = {f"{one.get('role', 'data')}: {one.get('path', '')}": one for one in sets if isinstance(one, dict)}
    shown = {
        title: {key.replace("_", " "): value for key, value in one.items() if key not in ("role", "path")}
        for title, one in groups.items()
    }
    fingerprint = {"fingerprint of the order": record.get("fingerprint")}
    return _section("Data", _facts({**fingerprint, **shown}))


def _differences(recipe: Mapping[str, Any]) -> str:
    """Returns a table of the settings in which the run differs from the shipped recipe of its name."""
    try:
        shipped = load_recipe(str(recipe.get("name")))
        found = differences(shipped, parse_recipe(recipe))
    except (KoGPT2Error, TypeError, ValueError):
        return ""
    rows = [(key, value, own) for key, (value, own) in found.items() if key not in ("tracking.run_dir", "name")]
    title = f"Changed against the shipped recipe {shipped.name}"
    if not rows:
        return _section(title, _placeholder("nothing"))
    cells = [[key, _value(value), _value(own)] for key, value, own in rows]
    return _section(title, _table(("setting", "shipped", "here"), cells))


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_safe(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", titles[0])


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


def _preformatted(text: str) -> str:
    return f'<pre tabindex="0">{_safe(text)}</pre>'


def _placeholder(text: str) -> str:
    return f'<p class="nothing">{_safe(text)}</p>'


def _last_of(values: Array) -> float:
    return float(values[-1]) if len(values) else math.nan


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
    """Escapes text for HTML, and removes control characters, and names and passwords in addresses."""
    return html.escape(hide_users(printable(text)))
