"""Makes one HTML page about a run: figures, plots, recipe, machine and samples, in a file that needs nothing else.

What a reader asks first is at the top: did it learn, how fast, on what, with which changes, and what went wrong. The
sections have files of their own, report_*.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kogpt2_gluon.pages.page import PAGE, STYLE, figure
from kogpt2_gluon.pages.plot import rounded
from kogpt2_gluon.runs import report_changes, report_data, report_head, report_health
from kogpt2_gluon.runs.data_record import DATA_FILE
from kogpt2_gluon.runs.logbook import read_logbook
from kogpt2_gluon.runs.metrics import CHANGE, printable, read_metrics
from kogpt2_gluon.runs.report_logbook import logbook_section
from kogpt2_gluon.runs.report_parts import (
    STYLE_OF_REPORT,
    folded,
    groups,
    language_of,
    mapping_in,
    placeholder,
    remark,
    safe,
    section,
    table,
)
from kogpt2_gluon.runs.report_plots import BOOKKEEPING, Drawn, column, measured_over, number_in, plots_of
from kogpt2_gluon.runs.report_words import words_section
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.storage.links import read_file
from kogpt2_gluon.user_files import load_yaml
from kogpt2_gluon.wording import gib

SAMPLE_CHARACTERS = 20_000  # that the page shows of the samples file
EARLIER_SAMPLES = 8  # files that are shown folded, evenly over the run
TABLE_ROWS = 40
FACTS = {"usable_cores": "cores it may use", "memory_mb": "memory", "free_disk_mb": "free disk at the start"}
UNITS = {"loss": "loss, nats per token"}  # of the columns of a language model's evaluations


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
    on_the_way = [line for line in lines if line["kind"] == CHANGE]
    recipe_text = _read_text(run_dir / "recipe.yaml")
    recipe = _parse_mapping(recipe_text, load_yaml)
    environment = _parse_mapping(_read_text(run_dir / "env.json"), json.loads)
    data = _parse_mapping(_read_text(run_dir / DATA_FILE), json.loads)
    name, logbook = str(recipe.get("name") or run_dir.resolve().name), read_logbook(run_dir)
    health, sets = report_health.health_of(logbook), report_data.sets_of(data, logbook)
    changes = report_changes.changes_of(recipe)
    answers = {
        "Did it learn?": (report_head.learned(train, evaluations, recipe), "curves"),
        "How fast?": (report_head.how_fast(train, evaluations, environment, logbook), "curves"),
        "Trained on": (report_data.in_a_sentence(sets, _last_epoch(train)), "data"),
        "Changed": (report_changes.in_a_sentence(changes, on_the_way), "changes"),
        "What went wrong": (_on_the_way(health, recipe, train, bool(logbook)), "logbook"),
    }
    sections = [
        report_head.cards(train, evaluations, recipe, sets),
        report_head.glance(answers),
        report_head.promise(recipe),
        _figures(plots_of(train, evaluations, recipe, logbook)),
        report_changes.changes_section(changes, on_the_way, environment),
        report_data.data_section(data, sets),
        _evaluation_table(evaluations, recipe),
        _samples(run_dir),
        logbook_section(logbook, recipe, report_head.clock(str(environment.get("written")))),
        _environment(environment),
        report_changes.recipe_section(recipe_text, recipe),
    ]
    body = "\n".join(part for part in sections if part)
    body += words_section(body)
    head = report_head.header(name, run_dir, recipe, environment, lines, health) + report_head.jumps(_places(body))
    return PAGE.format(title=f"{safe(name)}: training report", style=STYLE + STYLE_OF_REPORT, body=head + body)


def _places(body: str) -> dict[str, str]:
    """Returns the sections that a link at the top leads to."""
    titles = {
        "curves": "Curves",
        "changes": "Changes",
        "data": "Data",
        "evaluations": "Evaluations",
        "samples": "Samples",
        "logbook": "Logbook",
        "environment": "Environment",
        "recipe": "Recipe",
        "words": "Words",
    }
    return {place: title for place, title in titles.items() if f'<section id="{place}"' in body}


def _on_the_way(
    health: report_health.Health, recipe: Mapping[str, Any], train: Sequence[Mapping[str, Any]], has_log: bool
) -> str:
    """Returns the line on restarts, skipped updates, spikes, damage and warnings."""
    not_finite = int((~np.isfinite(column(train, "loss")[1])).sum())
    if not has_log:
        return "not known: there is no log.txt here" + f"; {not_finite:,} losses are not finite" * bool(not_finite)
    counts = report_health.in_a_line(health, recipe, max((line["step"] for line in train), default=0), not_finite)
    return counts if health.end in ("", "done") else f"{counts}. It ended early: {health.end[:300]}"


def _last_epoch(train: Sequence[Mapping[str, Any]]) -> float:
    epochs = column(train, "epoch")[1]
    epochs = epochs[np.isfinite(epochs)]
    return float(epochs[-1]) if epochs.size else math.nan


def _figures(plots: Sequence[Drawn]) -> str:
    """Returns the plots with their captions."""
    figures = [
        figure(printable(plot.title), plot.svg, "; ".join(plot.remarks), plot.wide, plot.narrow, plot.about)
        for plot in plots
    ]
    return f'<section id="curves" class="plots" aria-label="Curves">{"".join(figures)}</section>'


def _samples(run_dir: Path) -> str:
    """Shows the newest file of samples/, prompts and the model's continuations, and folded some of the earlier ones."""
    files = sorted((run_dir / "samples").glob("step-*.txt"))
    if not files:
        return ""
    earlier = files[:-1]
    every = max(1, -(-len(earlier) // EARLIER_SAMPLES))
    more = "".join(folded(_step_of(path), _texts_of(path)) for path in earlier[::every])
    return section(f"Samples at {_step_of(files[-1])}", _texts_of(files[-1]) + more, "samples")


def _step_of(path: Path) -> str:
    number = path.stem.replace("step-", "")
    return f"step {int(number):,}" if number.isascii() and number.isdigit() and len(number) < 20 else path.stem


def _texts_of(path: Path) -> str:
    prompts: list[tuple[str, list[str]]] = []
    for line in _read_text(path)[:SAMPLE_CHARACTERS].splitlines()[1:]:
        if line.startswith("> "):
            prompts.append((line[2:], []))
        elif prompts:
            prompts[-1][1].append(line)
    items = ""
    for prompt, lines in prompts:
        text = "\n".join(lines).strip()
        items += f"<dt{language_of(prompt)}>{safe(prompt)}</dt><dd{language_of(text)}>{safe(text)}</dd>"
    return f'<dl class="samples">{items}</dl>' if items else placeholder("no texts in this file")


def _evaluation_table(evaluations: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> str:
    """Returns a table of the last evaluations, one row each."""
    rows = evaluations[-TABLE_ROWS:]
    names = [name for name in dict.fromkeys(name for line in rows for name in line) if name not in BOOKKEEPING]
    if not names:
        return ""
    units = {} if mapping_in(recipe, "task").get("name") else UNITS
    titles = ["step", *(units.get(name, name.replace("_", " ")) for name in names), "over sequences"]
    cells = [
        [
            f"{line['step']:,}",
            *(rounded(number_in(line.get(name))) for name in names),
            measured_over(line, recipe),
        ]
        for line in rows
    ]
    left_out = len(evaluations) - len(rows)
    note = f"The last {len(rows)} of {len(evaluations):,}. " if left_out else ""
    if len({row[-1] for row in cells}) > 1:
        note += "Figures over different sequences do not compare exactly."
    return section("Held-out evaluations", table(titles, cells, "Held-out evaluations") + remark(note), "evaluations")


def _environment(environment: Mapping[str, Any]) -> str:
    """Returns versions, machine and variables in boxes."""
    if not environment:
        return section("Environment", placeholder("no env.json here"), "environment")
    loose = {key: value for key, value in environment.items() if not isinstance(value, dict) and key != "command"}
    boxes: dict[str, dict[str, Any]] = {"start": loose}
    for title, group in environment.items():
        if isinstance(group, dict):
            boxes[title] = {FACTS.get(key, key.replace("_", " ")): _fact(key, value) for key, value in group.items()}
    if isinstance(revision := environment.get("revision"), dict):
        modified = revision.get("modified")
        state = "not known" if modified is None else "some" if modified else "none"
        others = {key: value for key, value in revision.items() if key != "modified"}
        boxes["revision"] = {**others, "uncommitted changes": state}
    if boxes.get("variables"):
        boxes["variables"] = dict(environment["variables"])  # their names are not words
    return section("Environment", groups(boxes), "environment")


def _fact(key: str, value: Any) -> Any:
    is_size = key.endswith("_mb") and type(value) is int and 0 <= value < 10**12
    return gib(value * 2**20) if is_size else value


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
