"""The loop of a search: choose which trial goes on, train it to its next rung, look at what it has reached."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Callable

from kogpt2_gluon.search.failures import Judge, failure_of
from kogpt2_gluon.search.rungs import BUSY, next_slice
from kogpt2_gluon.search.slices import TRAIN, Slice, shares_of_gpus
from kogpt2_gluon.search.study import Study, Trial

POLL_SECONDS = 0.1
ELSEWHERE_SECONDS = 2.0  # between looks at what other hosts do


def search(
    study: Study,
    workers: int,
    command: Sequence[str] = TRAIN,
    say: Callable[[str], None] = print,
    start: Callable[..., Slice] = Slice,
) -> list[Trial]:
    """Works on a study until no trial should go on; returns all trials.

    `workers` trials train at the same time here, each begun by `start`, which takes the arguments of Slice; other
    processes, on other hosts too, may work on the same study.

    Raises the KoGPT2Error that stopped a trial if it may stop all of them (failures.Judge), PreemptedError if one was
    stopped on the way. The other trials are then asked to save their state, and the same command goes on.
    """
    running: dict[int, Slice] = {}
    judge = Judge()
    next_look = 0.0  # for something to begin: to look means to read all trials
    extra, shares = _settings_of_places(study, workers), shares_of_gpus(workers)
    try:
        while True:
            for place, slice_ in list(running.items()):
                if slice_.has_ended():
                    del running[place]
                    _end(study, slice_, judge, bool(running), say)
                    next_look = 0.0
            if len(running) < workers and time.monotonic() >= next_look:
                places = [[command, extra, shares[place]] for place in range(workers)]
                trials = _begin_some(study, running, places, say, start)
                # One that trains on another host may make one of ours worth going on.
                if not running and trials is not None and not any(trial.standing.state == BUSY for trial in trials):
                    return trials
                next_look = time.monotonic() + ELSEWHERE_SECONDS
            time.sleep(POLL_SECONDS)
    finally:
        for slice_ in running.values():
            slice_.stop()
        for slice_ in running.values():
            slice_.wait()


def _settings_of_places(study: Study, workers: int) -> list[str]:
    """Returns the settings that all trials need so that the search can compare them, and share a machine."""
    plan = study.plan
    settings = [f"evaluation.interval={plan.first}", "checkpoint.mirrors=[]", "checkpoint.ckpt_dir="]
    if workers > 1 and not plan.recipe.training.threads:
        settings.append(f"training.threads={max(1, len(os.sched_getaffinity(0)) // workers)}")
    return settings


def _begin_some(
    study: Study, running: dict[int, Slice], places: Sequence[Any], say: Callable[[str], None], start: Any
) -> list[Trial] | None:
    """Starts what should run next in the places that are free; returns all trials if there was too little to start."""
    for place, more in enumerate(places):
        if place not in running:
            begun, trials = _begin(study, more, say, start)
            if begun is None:
                return trials
            running[place] = begun
    return None


def _begin(
    study: Study, more: Sequence[Any], say: Callable[[str], None], start: Callable[..., Slice]
) -> tuple[Slice | None, list[Trial] | None]:
    """Starts what should run next; returns it, None if nothing should now, and the trials by which that was decided.

    They are None if another process was about to start the same.
    """
    plan = study.plan
    with study.deciding():
        study.note(study.trials())
        trials = study.trials()
        standings = [trial.standing for trial in trials]
        chosen = next_slice(standings, plan.rungs, plan.rule, plan.eta, len(trials) < plan.trials)
        number, until = chosen or (None, 0)
        if chosen and number is None:
            number = study.begin()
            if number is None:  # all combinations were tried
                number, until = next_slice(standings, plan.rungs, plan.rule, plan.eta, False) or (None, 0)
        if number is None:
            return None, trials
        claim = study.claim(number)
        if claim is None:
            return None, None
        trial = study.trials()[number]
    shown = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in trial.settings.items())
    say(f"trial {number}: {'to' if trial.steps else 'begins, to'} step {until:,}: {shown}")
    return start(number, until, trial.settings, study.recipe_file, trial.path, claim, *more), trials


def _end(study: Study, slice_: Slice, judge: Judge, are_others_busy: bool, say: Callable[[str], None]) -> None:
    """Takes the result of a slice."""
    with study.deciding():  # until its end is noted: without its claim the trial looks as if it could go on
        trials = study.trials()
        before = trials[slice_.number]
        failure = failure_of(*slice_.end(), slice_.until in before.values, before.path)
        if failure is None or failure.has_diverged:
            judge.succeeded()
        else:
            judge.check(failure, before.path, trials, are_others_busy)
        if failure:
            study.fail(slice_.number, failure.reason)
            say(f"trial {slice_.number}: failed: {failure.reason}")
            return
        trials = study.trials()
        study.note(trials)
    value, best = before.values[slice_.until], study.best(trials)
    found = "" if best is None else f" (best: {best.values[study.plan.rungs[-1]]:.4f}, trial {best.number})"
    say(f"trial {slice_.number}: step {slice_.until:,}: {study.measure.replace('_', ' ')} {value:.4f}{found}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
