"""The page of a search: what it found, the curves of its trials, which settings matter, and every trial."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.pages.page import PAGE, STYLE, figure, scrolling
from kogpt2_gluon.pages.parallel import Quantity, bars, parallel_plot
from kogpt2_gluon.pages.plot import Series, line_plot, rounded
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.search.rungs import DONE, FAILED
from kogpt2_gluon.search.study import Study, Trial
from kogpt2_gluon.storage.files import write_file

PAGE_FILE = "search.html"
MOST_CURVES = 100  # the best ones
LEAST_FOR_IMPORTANCE = 4  # trials


def write_page(study: Study, trials: Sequence[Trial]) -> Path:
    """Writes STUDY/search.html, one file that needs nothing else; returns its path."""
    path = study.folder / PAGE_FILE
    write_file(path, render_page(study, trials).encode("utf-8", "replace"))
    return path


def render_page(study: Study, trials: Sequence[Trial]) -> str:
    """Returns the page as text."""
    name = html.escape(study.plan.recipe.name)
    best = study.best(trials)
    body = [
        f'<header><p class="eyebrow">Search</p><h1>{name}</h1><p class="meta">{len(trials):,} trials &middot; rungs '
        f"{', '.join(f'{step:,}' for step in study.plan.rungs)} steps &middot; written "
        f"{time.strftime('%Y-%m-%d %H:%M')}</p></header>",
        _cards(study, trials, best),
        f'<section class="plots">{_curves(study, trials, best)}{_coordinates(study, trials, best)}</section>',
        _importance(study, trials),
        _table(study, trials),
    ]
    return PAGE.format(title=f"{name}: search", style=STYLE, body="\n".join(part for part in body if part))


def ranked(study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials, the one that went furthest and is best there first, those without a result last."""
    rungs = study.plan.rungs

    def place(trial: Trial) -> tuple[bool, int, float, int]:
        results = {step: cost for step, cost in trial.standing.results.items() if math.isfinite(cost)}
        last = max(results, default=0)
        failed = trial.standing.state == FAILED
        return failed, -rungs.index(last) - 1 if last else 0, results.get(last, math.inf), trial.number

    return sorted(trials, key=place)


def _cards(study: Study, trials: Sequence[Trial], best: Trial | None) -> str:
    measure, last = study.measure.replace("_", " ") or "result", study.plan.rungs[-1]
    steps, full = sum(trial.steps for trial in trials), len(trials) * last
    done = sum(trial.standing.state == DONE for trial in trials)
    failed = sum(trial.standing.state == FAILED for trial in trials)
    cards = [
        (
            "Best " + measure,
            rounded(best.values[last]) if best else "–",
            f"trial {best.number}" if best else "none yet",
        ),
        ("Trials", f"{len(trials):,}", f"{done:,} to the end, {failed:,} failed"),
        ("Steps trained", f"{steps:,}", f"{steps / full:.0%} of all trials to the end" if full else ""),
        *((key, _shown(value), "of the best") for key, value in list(best.settings.items() if best else ())[:2]),
    ]
    items = "".join(
        f"<div><h2>{html.escape(label)}</h2><p>{html.escape(value)}</p><small>{html.escape(remark)}</small></div>"
        for label, value, remark in cards
    )
    return f'<section class="cards">{items}</section>'


def _curves(study: Study, trials: Sequence[Trial], best: Trial | None) -> str:
    series = []
    for trial in [each for each in reversed(ranked(study, trials)[:MOST_CURVES])]:
        try:
            lines = [line for line in read_metrics(trial.path) if line["kind"] == "evaluation" and line["step"]]
        except DataError:
            continue
        known = [(line["step"], line.get(study.measure)) for line in lines]
        x = np.array([step for step, _ in known], dtype=np.float64)
        y = np.array([math.nan if value is None else value for _, value in known], dtype=np.float64)
        is_best = best is not None and trial.number == best.number
        series.append(Series(x, y, "heldout solid" if is_best else "raw", f"trial {trial.number}" if is_best else ""))
    drawn = [one for one in series if len(one.x)]
    unit = study.measure.replace("_", " ")
    later = [one.y[1:][np.isfinite(one.y[1:])] for one in drawn]
    rest = np.concatenate(later) if drawn else np.empty(0)  # the frame leaves out where the trials begin
    plot = (
        line_plot(
            drawn,
            title="Held-out curves",
            unit=unit,
            width=1072,
            height=380,
            top=float(rest.max()) if rest.size and study.best_is_low else None,
            bottom=float(rest.min()) if rest.size and not study.best_is_low else None,
        )
        if drawn
        else ""
    )
    return figure("Held-out curves", plot, wide=True)


def _coordinates(study: Study, trials: Sequence[Trial], best: Trial | None) -> str:
    order = ranked(study, trials)
    strengths = [1.0 if best and trial.number == best.number else 0.7 * 0.8**place for place, trial in enumerate(order)]
    axes = [
        Quantity(each.key.rpartition(".")[2], [trial.settings.get(each.key) for trial in order], log=each.log)
        for each in study.plan.space.dimensions
    ]
    axes.append(Quantity("steps", [trial.steps for trial in order]))
    axes.append(Quantity(study.measure.replace("_", " ") or "result", [_last(trial) for trial in order]))
    plot = parallel_plot(axes, strengths, [_words(study, trial) for trial in order], "Settings and results")
    remark = "the best trial is marked; others are fainter the worse they are"
    return figure("Settings and results", plot, remark, wide=True)


def importance(study: Study, trials: Sequence[Trial]) -> list[tuple[str, float]]:
    """Returns how much of the variance at the first rung each setting explains, the largest first.

    By Optuna's PED-ANOVA (Watanabe et al., 2023), over the first rung since all trials have been there. Empty with too
    few trials, or if they do not differ.
    """
    import optuna
    from optuna.trial import create_trial

    rung = study.plan.rungs[0]
    known = [each for each in trials if math.isfinite(each.standing.results.get(rung, math.nan))]
    varied = [
        one.key for one in study.plan.space.dimensions if len({str(each.settings[one.key]) for each in known}) > 1
    ]
    if len(known) < LEAST_FOR_IMPORTANCE or len(varied) < 2 or len({t.standing.results[rung] for t in known}) < 2:
        return []
    memory = optuna.create_study(direction="minimize")
    kinds = study.plan.space.distributions
    memory.add_trials(
        [create_trial(value=t.standing.results[rung], params=dict(t.settings), distributions=kinds) for t in known]
    )
    found = optuna.importance.get_param_importances(
        memory, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=varied
    )
    return sorted(found.items(), key=lambda pair: -pair[1])


def _importance(study: Study, trials: Sequence[Trial]) -> str:
    shares = importance(study, trials)
    drawn = bars(shares, "Importance") or _nothing(
        f"at least {LEAST_FOR_IMPORTANCE} trials and two settings are needed"
    )
    note = f'<p class="meta">Share of the variance at step {study.plan.rungs[0]:,} (PED-ANOVA).</p>' if shares else ""
    return f'<section><h2>Which settings matter</h2><div class="half">{drawn}</div>{note}</section>'


def _table(study: Study, trials: Sequence[Trial]) -> str:
    keys = [each.key for each in study.plan.space.dimensions]
    head = "".join(
        f"<th>{html.escape(each)}</th>" for each in ("trial", *keys, "state", "steps", study.measure or "result")
    )
    rows = "".join(
        f"<tr><td>{trial.number}</td>"
        + "".join(f"<td>{html.escape(_shown(trial.settings.get(key)))}</td>" for key in keys)
        + f"<td>{html.escape(trial.reason or trial.standing.state)}</td><td>{trial.steps:,}</td>"
        f"<td>{rounded(_last(trial))}</td></tr>"
        for trial in ranked(study, trials)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<section><h2>Trials</h2>{scrolling(table, 'Trials')}</section>"


def _words(study: Study, trial: Trial) -> str:
    settings = ", ".join(f"{key} {_shown(value)}" for key, value in trial.settings.items())
    return f"trial {trial.number}: {settings}: {rounded(_last(trial))} after {trial.steps:,} steps"


def _last(trial: Trial) -> float:
    return trial.values[max(trial.values)] if trial.values else math.nan


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _nothing(text: str) -> str:
    return f'<p class="nothing">{html.escape(text)}</p>'
