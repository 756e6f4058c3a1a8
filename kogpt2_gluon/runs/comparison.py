"""Makes one HTML page about several runs: curves over tokens, time, operations and cost, and tables of results and
differences.

The page needs nothing else, and no script: which axis is shown is a radio button's business, and CSS does the rest.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.estimate import flops_per_token, gpu_named
from kogpt2_gluon.pages.page import PAGE, STYLE, scrolling
from kogpt2_gluon.pages.plot import rounded, short
from kogpt2_gluon.runs.comparability import Kind, held_out_of, kind_of, notes_on
from kogpt2_gluon.runs.comparison_plots import axes_of, curves, styles, swatch
from kogpt2_gluon.runs.differences import differences_of
from kogpt2_gluon.runs.metrics import printable
from kogpt2_gluon.runs.names import names_of
from kogpt2_gluon.runs.report_plots import number_in
from kogpt2_gluon.runs.run_folder import LOW_IS_BEST, RunFolder
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.wording import counted, duration, operations

OWN_STYLE = """
.caveat { margin-top: 32px; padding: 14px 22px 16px; background: var(--panel); border-left: 4px solid var(--heldout);
  border-radius: 0 8px 8px 0; }
.caveat h2 { margin: 0 0 6px; font-size: 16px; } .caveat ul { margin: 0; padding-left: 18px; max-width: 110ch; }
.caveat li { margin-top: 4px; overflow-wrap: anywhere; }
.runs th[scope=row] { position: sticky; left: 0; min-width: 110px; max-width: 340px; background: var(--paper);
  color: var(--ink); font-weight: 400; text-align: left; overflow-wrap: anywhere; }
.runs thead th:first-child { position: sticky; left: 0; background: var(--paper); }
.runs td { white-space: nowrap; } .runs td strong { font-weight: 680; }
.runs th[scope=rowgroup] { padding-top: 20px; color: var(--ink); font-weight: 620; text-align: left; }
.runs th[scope=rowgroup] span { position: sticky; left: 0; }
.differ td { min-width: 12ch; max-width: 32ch; white-space: normal; overflow-wrap: anywhere; }
.differ td, .differ th { text-align: left; vertical-align: top; } .differ th[scope=row] { min-width: 210px; }
@media (max-width: 760px) { .runs th[scope=row] { min-width: 130px; max-width: 150px; }
  .runs th[scope=rowgroup] span { display: block; width: calc(100vw - 36px); overflow-wrap: anywhere; } }
"""


@dataclass(frozen=True)
class Row:
    """A run's results.

    Attributes
    ----------
    number : int
        Of the run, which has its colour.
    figures : mapping
        Titles of columns and numbers, NaN if not known.
    texts : mapping
        The same columns in words, and those of the state and the step.
    trained : bool
        False if nothing was evaluated after the first update.
    """

    number: int
    figures: Mapping[str, float]
    texts: Mapping[str, str]
    trained: bool


def write_comparison(runs: Sequence[RunFolder], path: Path, dollars_per_hour: Sequence[float] | None = None) -> Path:
    """Writes the page of several runs; returns its path. `dollars_per_hour` is what each run's machines cost.

    Without it, runs on GPUs of a known kind have the public price of those.
    """
    write_file(path, render_comparison(runs, dollars_per_hour).encode("utf-8", "replace"))
    return path


def render_comparison(runs: Sequence[RunFolder], dollars_per_hour: Sequence[float] | None = None) -> str:
    """Returns the page as text."""
    names, prices = names_of(runs), list(dollars_per_hour or map(price_of, runs))
    body = [
        f'<header><p class="eyebrow">Comparison</p><h1>{len(runs)} runs</h1><p class="meta">'
        f"written {time.strftime('%Y-%m-%d %H:%M')}</p></header>",
        _notes(runs, names),
        _results(runs, names, prices),
        curves(runs, names, axes_of(runs, prices)),
        _differences(runs, names),
    ]
    style = STYLE + OWN_STYLE + styles(len(runs))
    return PAGE.format(title=f"{len(runs)} runs", style=style, body="\n".join(part for part in body if part))


def price_of(run: RunFolder) -> float:
    """Returns dollars an hour of a run's GPUs by estimate.py's price list; NaN if their kind or number is unknown."""
    host = run.environment.get("host")
    gpus = host.get("gpus") if isinstance(host, Mapping) else None
    name = str(gpus[0]) if isinstance(gpus, list) and gpus else ""
    device = gpu_named(name)
    return device.dollars_per_hour * run.workers if device and run.workers else math.nan


def _notes(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    """Says in which ways the runs do not compare; "" if they all do."""
    notes = notes_on(runs, names)
    if not notes:
        return ""
    items = "".join(f"<li><b>{_safe(note.heading)}.</b> {_safe(note.text)}.</li>" for note in notes)
    return f'<section class="caveat"><h2>Not all of these runs compare</h2><ul>{items}</ul></section>'


def _results(runs: Sequence[RunFolder], names: Sequence[str], prices: Sequence[float]) -> str:
    """Returns the table of results: a group of rows for each held-out data and figure, since these alone compare."""
    kinds, held_out = [kind_of(run) for run in runs], held_out_of(runs)
    groups: dict[tuple[Kind, str], list[Row]] = {}
    for number, (run, kind) in enumerate(zip(runs, kinds)):
        groups.setdefault((kind, held_out[number]), []).append(_row(run, number, prices[number], kind))
    rows = [row for group in groups.values() for row in group]
    titles = [title for title in rows[0].figures if any(math.isfinite(row.figures[title]) for row in rows)]
    one = kinds[0].measure.replace("_", " ") if len(set(kinds)) == 1 else ""
    heads = {title: f"{title} {one or 'held-out'}" for title in ("last", "best")}
    head = "".join(
        f'<th scope="col">{_safe(heads.get(title, title))}</th>' for title in ("run", "state", "step", *titles)
    )
    parts = []
    for (kind, data), group in groups.items():
        above = _group_head(kind, data, len(titles) + 3) if len(groups) > 1 else ""
        parts.append(f"<tbody>{above}{_group(group, names, titles, kind)}</tbody>")
    body = "".join(parts)
    table = f'<table class="runs"><thead><tr>{head}</tr></thead>{body}</table>'
    remarks = ["Bold: the best of the runs that compare."] if "<strong>" in body else []
    if not any(map(math.isfinite, prices)):
        remarks.append("Cost is not known: --dollars-per-hour adds it, as a column and an axis.")
    note = f'<p class="meta">{" ".join(remarks)}</p>' if remarks else ""
    return f"<section><h2>Results</h2>{scrolling(table, 'Results')}{note}</section>"


def _row(run: RunFolder, number: int, price: float, kind: Kind) -> Row:
    tokens = number_in(run.last.get("tokens"))
    flops = tokens * flops_per_token(run.recipe.model, run.recipe.data.seq_length)
    written: dict[str, tuple[float, Callable[[float], str]]] = {
        "tokens": (tokens, short),
        "time": (run.seconds, duration),
        "operations": (flops, operations),
        "$": (run.seconds * price / 3600, rounded),
    }
    figures, texts = {}, {"state": run.state, "step": f"{run.step:,}"}
    for title, (step, value) in (("last", run.last_of(kind.measure)), ("best", run.best_of(kind.measure))):
        figures[title] = value
        texts[title] = f"{run.start} {rounded(value)}" if step == 0 and math.isfinite(value) else rounded(value)
    for title, (value, write) in written.items():
        figures[title], texts[title] = value, write(value)
    return Row(number, figures, texts, run.last_of(kind.measure)[0] > 0)


def _group_head(kind: Kind, held_out: str, columns: int) -> str:
    words = f"{kind.measure.replace('_', ' ')} on {held_out or 'unknown data'}" if kind.measure else "not evaluated"
    return f'<tr><th scope="rowgroup" colspan="{columns}"><span>{_safe(words)}</span></th></tr>'


def _group(rows: Sequence[Row], names: Sequence[str], titles: Sequence[str], kind: Kind) -> str:
    """Returns the rows of runs that compare, with the best figure of each column marked."""
    best = {title: _best(rows, title, kind) for title in titles}
    parts = []
    for row in rows:
        cells = [row.texts["state"], row.texts["step"]]
        cells = [f"<td>{_safe(cell)}</td>" for cell in cells]
        for title in titles:
            text = _safe(row.texts[title])
            cells.append(f"<td><strong>{text}</strong></td>" if row.number in best[title] else f"<td>{text}</td>")
        name = f"{swatch(row.number)}{_safe(names[row.number])}"
        parts.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    return "".join(parts)


def _best(rows: Sequence[Row], title: str, kind: Kind) -> set[int]:
    """Returns the numbers of the runs that are best in a column; none where its figures do not rank runs.

    Time and cost rank runs over the same number of tokens.
    """
    if title in ("last", "best"):
        low, known = kind.measure in LOW_IS_BEST, [row for row in rows if row.trained]
    elif title in ("time", "$") and len({row.figures["tokens"] for row in rows}) == 1:
        low, known = True, list(rows)
    else:
        return set()
    values = {row.number: row.figures[title] for row in known if math.isfinite(row.figures[title])}
    if len(values) < 2 or len(set(values.values())) < 2:
        return set()
    best = (min if low else max)(values.values())
    return {number for number, value in values.items() if value == best}


def _differences(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    """Returns a table of the settings and the data in which runs differ, a column for each run."""
    found = differences_of(runs)
    shown = {**{key: list(map(_shown, values)) for key, values in found.settings.items()}, **found.data}
    noise = {key: list(map(_shown, values)) for key, values in found.noise.items()}
    table = _table(shown, names, "Differences") if shown else ""
    if noise:
        words = f"{counted(len(noise), 'setting')} that change nothing of what is learned"
        table += f"<details><summary>{words}</summary>{_table(noise, names, words)}</details>"
    nothing = '<p class="nothing">the recipes and the data are the same</p>'
    return f"<section><h2>Differences</h2>{table or nothing}</section>"


def _table(rows: Mapping[str, Sequence[Any]], names: Sequence[str], label: str) -> str:
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in ("setting", *names))
    body = "".join(
        f'<tr><th scope="row">{_safe(key)}</th>'
        + "".join(f"<td>{_safe('–' if value is None else str(value))}</td>" for value in values)
        + "</tr>"
        for key, values in rows.items()
    )
    table = f'<table class="runs differ"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return scrolling(table, label)


def _shown(value: Any) -> str:
    """Returns the value of a setting as a reader of tables wants it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {each}" for key, each in value.items())
    return str(value) or "–"


def _safe(text: str) -> str:
    return html.escape(printable(text))
