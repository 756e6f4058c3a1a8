"""The head of a run's page: did it learn, how fast, on what, with which changes, and what went wrong."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.pages.plot import Array, rounded, short, smooth
from kogpt2_gluon.runs.logbook import Entry
from kogpt2_gluon.runs.report_health import Health
from kogpt2_gluon.runs.report_parts import mapping_in, safe, with_code
from kogpt2_gluon.runs.report_plots import (
    LANGUAGE_MODEL,
    column,
    is_over_all,
    lately,
    measured_over,
    number_in,
    scores_of,
    smoothing_window,
    unit_of_loss,
)
from kogpt2_gluon.wording import duration

Records = Sequence[Mapping[str, Any]]

MOST_OF_IT = 0.9  # of all that a held-out figure has changed
PROMISED = re.compile(r"(\w[\w -]{0,30}?)\s{2,}(\S.*)")  # a row of a recipe's `about`: its name, and what it says
COMMAND = "command"  # the row of `about` that has a command in each line
ASIDE = re.compile(r"\s{2,}(\(.*\))\s*")  # words after a command
WORKERS = re.compile(r"; ([\d,]+) worker\(s\) on ([^;]+);")


def header(
    name: str, run_dir: Path, recipe: Mapping[str, Any], environment: Mapping[str, Any], lines: Records, health: Health
) -> str:
    """Returns the name of the run, how far it is, and which program made it."""
    facts = [_progress(recipe, lines)]
    if lines:
        facts.append("done" if health.end == "done" else "ended early" if health.end else "no end on record")
    facts.append(f"run folder {run_dir.resolve().name}")
    revision = environment.get("revision")
    if isinstance(revision, Mapping):
        changed = ", with uncommitted changes" if revision.get("modified") else ""
        facts.append(f"program {str(revision.get('commit'))[:10]}{changed}")
    written = f"{time.strftime('%Y-%m-%d %H:%M')} {clock(time.strftime('%z'))}"
    return (
        f'<header><p class="eyebrow">Training report</p><h1>{safe(name)}</h1>'
        f'<p class="meta">{" &middot; ".join(safe(fact) for fact in facts)} &middot; '
        f'<span class="moment">written {written}</span></p></header>'
    )


def clock(offset: str) -> str:
    """Returns how a clock differs from UTC, by an offset such as +0900; "" if it is none."""
    found = re.search(r"([+-]\d\d):?(\d\d)\Z", offset)
    return f"UTC{found[1]}:{found[2]}" if found else ""


def _progress(recipe: Mapping[str, Any], lines: Records) -> str:
    """Says how far the run is."""
    if not lines:
        return "nothing recorded yet"
    step, planned = max(line["step"] for line in lines), mapping_in(recipe, "training").get("num_steps")
    if not isinstance(planned, int) or planned < 1:
        return f"step {step:,}"
    return f"step {step:,} of {planned:,} ({math.floor(1000 * step / planned) / 10:.1f}%)"


def cards(train: Records, evaluations: Records, recipe: Mapping[str, Any], sets: Records) -> str:
    """Returns the five figures that a reader looks for first, each with what to judge it by."""
    unit = unit_of_loss(recipe)
    shown = []
    for key, label, better in scores_of(evaluations, unit):
        steps, values = column(evaluations, key)
        known = np.flatnonzero(np.isfinite(values))
        if not known.size:
            shown.append(_card(label, "–", ["not evaluated"]))
            continue
        best = known[better(values[known])]
        is_best = best == known[-1]
        remarks = ["the best of this run" if is_best else f"best {rounded(values[best])} at step {int(steps[best]):,}"]
        if known[0] != known[-1]:
            remarks.append(f"{beginning(int(steps[known[0]]), recipe)}: {rounded(values[known[0]])}")
        remarks.append(_guess(key, evaluations, recipe, sets))
        shown.append(_card(label, rounded(values[known[-1]]), remarks))
    loss, count = _smoothed(train, "loss")
    shown.append(_card("Training loss", rounded(_last_of(loss)), [unit, f"mean of the last {count:,} records"]))
    epoch = _last_of(column(train, "epoch")[1])
    passes = f"{epoch:.2f} passes over the data" if math.isfinite(epoch) else ""
    shown.append(_card("Tokens seen", short(_last_of(column(train, "tokens")[1])), [passes]))
    rate = column(train, "tokens_per_second")[1]
    rate = rate[np.isfinite(rate)]
    speed = f"{np.median(rate):,.0f} tokens/s (median)" if rate.size else ""
    shown.append(_card("Time", _time_spent([*train, *evaluations]), [speed]))
    return f'<section class="cards">{"".join(shown)}</section>'


def beginning(step: int, recipe: Mapping[str, Any]) -> str:
    """Returns words for the step of the first evaluation: at step 0 a network is untrained, if it began so."""
    if step or not recipe:
        return f"at step {step:,}"
    trained = mapping_in(recipe, "training").get("init_from"), mapping_in(recipe, "distillation").get("init_layers")
    return "before this training" if any(trained) else "untrained"


def _guess(key: str, evaluations: Records, recipe: Mapping[str, Any], sets: Records) -> str:
    """Returns what a network would reach that has learned nothing; "" if what is on record does not say it."""
    pieces = mapping_in(recipe, "model").get("vocab_size")
    if unit_of_loss(recipe) == LANGUAGE_MODEL:
        if isinstance(pieces, bool) or not isinstance(pieces, int) or not 1 < pieces < 10**9:
            return ""
        words = f"a guess among all {pieces:,} pieces:"
        if key == "perplexity":
            return f"{words} {rounded(float(pieces))}"
        bits, nats = (number_in(evaluations[-1].get(name)) for name in ("bits_per_byte", "loss"))
        each = bits / nats if nats > 0 else math.nan  # bits per byte of a nat per token, on this held-out set
        return f"{words} {rounded(math.log(pieces) * each)}" if each > 0 else ""
    shares = [number_in(one.get("share_of_most_frequent_label")) for one in sets if one.get("role") == "held-out"]
    known = key == "accuracy" and shares and math.isfinite(shares[-1])
    return f"the most frequent label for all: {rounded(shares[-1])}" if known else ""


def _parts_of_set(evaluations: Records, recipe: Mapping[str, Any]) -> str:
    """Says over what the last evaluation is, if the one before is over something else."""
    if len(evaluations) < 2 or is_over_all(evaluations[-1], recipe) == is_over_all(evaluations[-2], recipe):
        return ""
    last, before = (measured_over(line, recipe) for line in (evaluations[-1], evaluations[-2]))
    return f" (over {last} held-out sequences; the evaluations before are over {before})"


def learned(train: Records, evaluations: Records, recipe: Mapping[str, Any]) -> str:
    """Returns from where to where the held-out figure went, and when it had done most of that way."""
    unit = unit_of_loss(recipe)
    scores = scores_of(evaluations, unit)
    is_lm = unit == LANGUAGE_MODEL or not scores
    key, title = ("loss", "Held-out loss") if is_lm else scores[0][:2]
    steps, values = column(evaluations, key)
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    seconds = column(evaluations, "seconds")[1][known]
    if len(values) < 2:
        loss, _ = _smoothed(train, "loss")
        if len(loss) < 2:
            return "not known yet"
        way = f"Training loss {_moved(loss[0], loss[-1])} from {rounded(loss[0])} to {rounded(loss[-1])}"
        return f"{way} {unit}; held-out data was not evaluated{' more than once' if len(values) else ''}"
    first, last, better = values[0], values[-1], -1 if is_lm else 1
    text = (
        f"{title} {_moved(first, last)} from {rounded(first)} ({beginning(int(steps[0]), recipe)}) to {rounded(last)}"
        f"{f' {unit}' if is_lm else ''} at step {int(steps[-1]):,}{_parts_of_set(evaluations, recipe)}"
    )
    if better * (last - first) > 0:
        there = int(np.flatnonzero(better * (values - first) >= MOST_OF_IT * better * (last - first))[0])
        spent = f" ({duration(seconds[there])})" if math.isfinite(seconds[there]) else ""
        text += f", {MOST_OF_IT:.0%} of that by step {int(steps[there]):,}{spent}"
    best = int((better * values).argmax())
    if better * (values[best] - last) > 0:
        text += f"; the best was {rounded(values[best])} at step {int(steps[best]):,}, and it has got worse since"
    return text


def how_fast(train: Records, evaluations: Records, environment: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """Returns time, tokens and the machine in a sentence."""
    tokens = _last_of(column(train, "tokens")[1])
    parts = [f"{short(tokens)} tokens in {_time_spent([*train, *evaluations])}"] if math.isfinite(tokens) else []
    rate, count = _smoothed(train, "tokens_per_second")
    known = column(train, "tokens_per_second")[1]
    known = known[np.isfinite(known)]
    if known.size:
        parts.append(
            f"{np.median(known):,.0f} tokens/s (median; over the last {count:,} records {_last_of(rate):,.0f})"
        )
    starts = [entry.text for entry in entries if entry.kind == "start"]
    if starts and (found := WORKERS.search(starts[-1])):
        parts.append(f"{found[1]} worker{'' if found[1] == '1' else 's'} on {found[2]}")
    host = mapping_in(environment, "host")
    gpus = host.get("gpus")
    machine = gpus[0] if isinstance(gpus, list) and gpus else host.get("cpu")
    if machine:
        cores = host.get("usable_cores")
        parts.append(f"{machine}{f', {cores} cores' if machine == host.get('cpu') and cores else ''}")
    return "; ".join(parts) or "not known yet"


def glance(rows: Mapping[str, tuple[str, str]]) -> str:
    """Returns the answers to a reader's first questions: {question: (answer, the place of its section or "")}."""
    shown = ""
    for question, (answer, place) in rows.items():
        asked = f'<a href="#{place}">{safe(question)}</a>' if place else safe(question)
        shown += f"<dt>{asked}</dt><dd>{safe(answer)}</dd>"
    return f'<dl class="glance">{shown}</dl>'


def jumps(places: Mapping[str, str]) -> str:
    """Returns links to the sections of the page: {place: title}."""
    links = "".join(f'<a href="#{place}">{safe(title)}</a>' for place, title in places.items())
    return f'<nav class="jumps" aria-label="Sections of this page">{links}</nav>'


def promise(recipe: Mapping[str, Any]) -> str:
    """Returns the own words of the recipe on its result, apart from what this run reached."""
    about = str(recipe.get("about") or "").strip("\n")
    if not about.strip():
        return ""
    rows = promised_rows(about)
    if rows is None:
        shown = f'<p class="about">{with_code(about.strip())}</p>'
    else:
        items = ""
        for name, lines in rows:
            said = _commands(lines) if name.lower() == COMMAND else with_code(" ".join(lines))
            items += f"<dt>{safe(name)}</dt><dd>{said}</dd>"
        shown = f'<dl class="promised">{items}</dl>'
    note = "The recipe's own words, from before this run. What this run reached is above."
    return f'<section class="promise"><h2>What the recipe promises</h2><p class="meta">{note}</p>{shown}</section>'


def promised_rows(about: str) -> list[tuple[str, list[str]]] | None:
    """Returns the rows of an `about`, each a name and its lines; None if it has another layout."""
    rows: list[tuple[str, list[str]]] = []
    for line in filter(str.strip, about.split("\n")):
        if line[0].isspace() and rows:
            rows[-1][1].append(line.strip())
        elif found := PROMISED.fullmatch(line):
            rows.append((found[1], [found[2].strip()]))
        else:
            return None
    return rows


def _commands(lines: Sequence[str]) -> str:
    shown = []
    for line in lines:
        command, aside, _ = [*ASIDE.split(line, maxsplit=1), "", ""][:3]
        shown.append(f'<p class="command">{safe(command)}</p>' + (f"<p>{with_code(aside)}</p>" if aside else ""))
    return "".join(shown)


def _card(label: str, value: str, remarks: Sequence[str]) -> str:
    lines = "".join(f"<small>{safe(remark)}</small>" for remark in remarks if remark)
    return f"<div><h2>{safe(label)}</h2><p>{safe(value)}</p>{lines}</div>"


def _smoothed(train: Records, key: str) -> tuple[Array, int]:
    """Returns the smoothed values that are known, and how many records the last one is the mean of."""
    values = column(train, key)[1]
    mean = smooth(values, smoothing_window(len(values)))
    return mean[np.isfinite(mean)], lately(len(values))


def _time_spent(lines: Records) -> str:
    seconds = column(lines, "seconds")[1]
    seconds = seconds[np.isfinite(seconds)]
    return duration(float(seconds.max())) if seconds.size else "–"


def _moved(first: float, last: float) -> str:
    return "fell" if last < first else "rose" if last > first else "stayed"


def _last_of(values: Array) -> float:
    return float(values[-1]) if len(values) else math.nan
