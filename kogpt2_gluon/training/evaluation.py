"""When a training run is scored on held-out text, and when those scores end it."""

from __future__ import annotations

import math

from kogpt2_gluon.errors import DivergedError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.metrics import NullTracker
from kogpt2_gluon.training.best import is_best, note_best
from kogpt2_gluon.training.objective import Scores
from kogpt2_gluon.training.state import TrainingRun


def is_due(step: int, interval: int) -> bool:
    """Returns True if something that happens every `interval` steps (0: never) happens after `step`."""
    return interval > 0 and step % interval == 0


def evaluate_if_due(recipe: Recipe, run: TrainingRun, tracker: NullTracker, is_asked: bool = False) -> bool:
    """Scores the held-out set if this step calls for it and has not had it; applies the stop rule at an epoch's end.

    A user may call for it, too (`is_asked`).
    A skipped update does not call for an evaluation, unless it was the one that completed an epoch.
    During training the first evaluation and those in between use `evaluation.max_sequences`. The last one, and those
    that the stop rule compares, use the whole set. Returns True if anything was done.
    """
    state = run.state
    before = state.evaluation or {"step": None, "attempt": None}
    if run.objective.held_out is None or before["attempt"] == state.attempt:
        return False
    last = state.step >= recipe.training.num_steps
    epoch_ended = recipe.evaluation.stop_improvement > 0 and run.reader.epoch_ended
    due = is_asked or state.step == 0 or last or is_due(state.step, recipe.evaluation.interval)
    if not (epoch_ended or (due and before["step"] != state.step)):
        return False
    run_evaluation(recipe, run, tracker, 0 if last or epoch_ended else recipe.evaluation.max_sequences)
    if epoch_ended:
        apply_stop_rule(recipe.evaluation.stop_improvement, run, tracker)
    return True


def run_evaluation(recipe: Recipe, run: TrainingRun, tracker: NullTracker, max_sequences: int) -> None:
    """Scores the held-out set (`max_sequences` of it; 0: all) and, on rank 0, continues the recipe's prompts.

    A score better than all those before makes this step the best one; see training/best.py.
    """
    state, worker = run.state, run.worker
    scores = run.objective.score(run, max_sequences)
    if not math.isfinite(scores.loss):
        raise DivergedError(f"step {state.step}: held-out loss {scores.loss:g}; nothing was saved for this step")
    state.evaluation = {"step": state.step, "attempt": state.attempt, **scores.to_dict()}
    sequences = run.objective.sequences
    tracker.log_evaluation(state.step, scores.shown, (sequences(max_sequences), sequences(0)))
    if worker.rank == 0 and recipe.tracking.sample_prompts:
        tracker.log_samples(state.step, run.objective.samples(run))
    # Random weights are not worth a checkpoint; those of a task's head are random at step 0 whatever they begin with.
    is_untrained = state.step == 0 and bool(recipe.task.name or not recipe.training.init_from)
    if not is_untrained:
        compare_with_best(recipe, run, tracker, scores, max_sequences)


def compare_with_best(
    recipe: Recipe, run: TrainingRun, tracker: NullTracker, scores: Scores, max_sequences: int
) -> None:
    """Notes whether this step is the best so far: by `scores`, or by a second evaluation if they are of more sequences.

    `scores` are of `max_sequences`, and the best checkpoint is chosen by `evaluation.max_sequences`. Too many steps in
    a row that are not the best end the run, if `evaluation.patience` says so.
    """
    rules, objective, state = recipe.evaluation, run.objective, run.state
    if not (recipe.checkpoint.keep_best or rules.patience):
        return
    measure = objective.measure()
    if objective.sequences(max_sequences) != measure["sequences"]:
        scores = objective.score(run, rules.max_sequences)
        name, value = scores.chooses
        tracker.message(
            f"held-out {name} over the {measure['sequences']:,} sequences of the earlier evaluations "
            f"(evaluation.max_sequences): {value:.4f}; by these the best checkpoint is chosen"
        )
    note_best(state, scores, measure, tracker.message)
    state.not_best_in_a_row = 0 if is_best(state) else state.not_best_in_a_row + 1
    if rules.patience and state.not_best_in_a_row >= rules.patience:
        state.stop_rule_met = True
        tracker.message(f"stops early: {state.not_best_in_a_row} evaluations in a row were not the best so far")


def apply_stop_rule(stop_improvement: float, run: TrainingRun, tracker: NullTracker) -> None:
    """The original's rule (KoGPT2 issue #23): an epoch that improves held-out perplexity by too little is the last."""
    state = run.state
    assert state.evaluation
    before, now = state.epoch_perplexity, state.evaluation["perplexity"]
    state.epoch_perplexity = now
    if before is not None and now > before * (1 - stop_improvement):
        state.stop_rule_met = True
        tracker.message(f"stop rule met: perplexity {before:.3f} -> {now:.3f} over epoch {run.reader.epoch:.0f}")
