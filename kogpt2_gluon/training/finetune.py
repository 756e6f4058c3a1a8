"""Fine-tunes a checkpoint for a task, over several seeds, and says what it is worth, compared with simpler systems.

Each seed is a training run like any other, in DIR/seed-N, so what was interrupted goes on when the same command is
given again. Its best checkpoint on the dev rows answers the test rows. What that scored is kept in the run's
``scores.json``; all of it in DIR/scores.json and DIR/scores.md.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, PreemptedError, RecipeError
from kogpt2_gluon.machine import job
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import WHERE_IT_RUNS
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import BEST, named_in, newest_in
from kogpt2_gluon.tasks.baselines import baselines_for
from kogpt2_gluon.tasks.encoding import Examples, describe_lengths, encode
from kogpt2_gluon.tasks.fine_tuned import load_fine_tuned
from kogpt2_gluon.tasks.leakage import Leakage, check_splits, evaluate_clean
from kogpt2_gluon.tasks.loading import read_split
from kogpt2_gluon.tasks.locales import rows_by_locale, task_of_recipe
from kogpt2_gluon.tasks.metrics import Predictions, evaluate_predictions
from kogpt2_gluon.tasks.prediction import gold, predictions, run_network
from kogpt2_gluon.tasks.pretraining_overlap import find_pretraining_overlap
from kogpt2_gluon.tasks.score_table import BASELINE, FLOOR, SYSTEM, ScoreTable
from kogpt2_gluon.tasks.task import JOINT, TOKEN_LABELS, Row, Task
from kogpt2_gluon.training.finetune_plan import TUNED, Plan
from kogpt2_gluon.training.kept_scores import keep_scores, keep_table
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.signals import StopRequest
from kogpt2_gluon.training.task_objective import judged_split, task_tokenizer, training_rows
from kogpt2_gluon.training.worker import start_worker
from kogpt2_gluon.wording import Say, silent

# Settings of `training` that change no more than the last digits of a score.
MAY_DIFFER = (*WHERE_IT_RUNS, "batch_size")


@dataclass(frozen=True)
class JudgedRows:
    """The rows that all systems are trained on and judged by.

    Attributes
    ----------
    task : Task
    train, dev : list of Row
    judged : list of Row
        Those of `split`.
    split : str
        "test", or "dev" where there are no test rows.
    examples : Examples
        The judged rows as tokens.
    """

    task: Task
    train: list[Row]
    dev: list[Row]
    judged: list[Row]
    split: str
    examples: Examples

    @classmethod
    def of(cls, recipe: Recipe, say: Say) -> JudgedRows:
        """Reads the rows of a recipe's task."""
        task, data = task_of_recipe(recipe.task), Path(recipe.task.data)
        train, dev = training_rows(task, recipe, say)
        split = judged_split(task, data)
        if not split:
            raise DataError(f"{data}: no test rows and no dev rows of {task.name} there, so nothing to judge by")
        judged, most = read_split(task, data, split, say), recipe.data.seq_length
        examples = encode(task, judged, task_tokenizer(recipe), most, cut=recipe.task.too_long == "cut")
        describe_lengths(split, examples, most, say)
        if task.head in (TOKEN_LABELS, JOINT):
            name, faultless = task.metrics[0], evaluate_predictions(task, judged, gold(task, examples))
            say(
                f"{split}: with faultless labels of tokens {name} would be {faultless[name]:.4f}, because tokens cross "
                "the borders of spans, or were cut off"
            )
        return cls(task, train, dev, judged, split, examples)

    def by_locale(self, predicted: Predictions) -> dict[str, dict[str, float]]:
        """Returns the scores on the rows of each locale: {"test, ko-KR": {metric: value}}; none for one language."""
        groups = rows_by_locale(self.task, self.split, self.judged)
        return {
            name: evaluate_predictions(self.task, [self.judged[row] for row in chosen], predicted.at(chosen))
            for name, chosen in groups
        }

    def leakage(self) -> Leakage:
        """Compares the splits."""
        choosing = {"dev": self.dev} if self.split == "test" else {}
        return check_splits(self.task, {"train": self.train, **choosing, self.split: self.judged})


def fine_tune_all(
    plan: Plan, runs: dict[str, list[Recipe]], say: Say, with_baselines: bool, pretraining: Sequence[Path]
) -> ScoreTable:
    """Trains and scores all runs of a plan and the simpler systems; prints the table and keeps it next to the runs.

    Every worker calls this; rank 0 speaks and writes.
    """
    say = say if not job.rank() else silent
    first = runs[TUNED][0]
    for recipe in (each for recipes in runs.values() for each in recipes):
        check_same_settings(recipe)
    rows = JudgedRows.of(first, say)
    leakage = rows.leakage()
    for line in leakage.lines():
        say(line)
    overlap = find_pretraining_overlap(rows.judged, pretraining, say=say) if pretraining else None
    for line in overlap.lines() if overlap else ():
        say(line)
    subsets: dict[str, Sequence[int]] = dict(rows_by_locale(rows.task, rows.split, rows.judged))
    subsets[f"{rows.split}, not in train"] = leakage.clean[rows.split]
    if overlap:
        subsets[f"{rows.split}, not in the pretraining"] = overlap.clean
    table = ScoreTable(f"{rows.task.name}: {plan.checkpoint}")
    with StopRequest() as asked:
        for kind, recipes in runs.items():
            scored = [fine_tune(recipe, rows, say, asked) for recipe in recipes]
            _add(table, kind, SYSTEM, rows, scored, subsets)
        for baseline in baselines_for(rows.task) if with_baselines and not job.rank() else ():
            _stop_if(asked.wanted)
            say(f"baseline {baseline.name}: {baseline.about}")
            answers = baseline.answer(rows.task, rows.train, rows.judged, first.training.seed, say)
            scores = evaluate_predictions(rows.task, rows.judged, answers)
            kind = FLOOR if baseline.is_floor else BASELINE
            _add(table, baseline.name, kind, rows, [RunScores(scores, 0, answers)], subsets)
        if not job.rank():
            table.add_published(rows.task, {rows.split: len(rows.judged)})
            keep_table(table, first.run_dir.parent, say)
            say(table.text())
    return table


def _add(
    table: ScoreTable,
    system: str,
    kind: str,
    rows: JudgedRows,
    scored: Sequence[RunScores],
    subsets: Mapping[str, Sequence[int]],
) -> None:
    """Adds a system's scores on all rows, and on those subsets that lack some of them and are not empty."""
    table.add_runs(system, rows.split, [each.scores for each in scored], len(rows.judged), kind=kind)
    for name, chosen in subsets.items():
        if 0 < len(chosen) < len(rows.judged):
            scores = [evaluate_clean(rows.task, rows.judged, each.predicted, chosen) for each in scored]
            table.add_runs(system, name, scores, len(chosen), kind=kind)


def _stop_if(wanted: bool) -> None:
    if wanted:
        raise PreemptedError("stopped; the same command goes on after the last run that was scored")


def check_same_settings(recipe: Recipe) -> None:
    """RecipeError if a run of other settings is in a recipe's folder: its score would have the wrong name.

    `kogpt2 train` lets a run go on with another learning rate, for instance; a table is about one setting.
    """
    if newest_in(recipe.ckpt_dir) is None:
        return
    before, now = map(_deciding, (open_checkpoint(recipe.ckpt_dir).recipe(), recipe))
    other = [f"{key}: {before[key]} -> {now[key]}" for key in now if before[key] != now[key]]
    if other:
        raise RecipeError(
            f"{recipe.run_dir}: holds a run of other settings ({', '.join(other)}); restore them, or name another "
            "folder: tracking.run_dir=DIR"
        )


def _deciding(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide a score, by their keys."""
    plain = recipe.to_dict()
    plain["training"]["init_from"] = recipe.training.init_from and str(Path(recipe.training.init_from).resolve())
    settings = {f"training.{key}": value for key, value in plain["training"].items() if key not in MAY_DIFFER}
    settings.update({f"model.{key}": value for key, value in plain["model"].items()})
    task = {"task.name": Path(recipe.task.name).stem, "task.locales": recipe.task.locales}
    return {**settings, "data.seq_length": recipe.data.seq_length, **task}


@dataclass(frozen=True)
class RunScores:
    """The scores of one run on the judged rows.

    Attributes
    ----------
    scores : dict
        {metric: value}.
    step : int
        Of the checkpoint.
    predicted : Predictions
    """

    scores: dict[str, float]
    step: int
    predicted: Predictions


def fine_tune(recipe: Recipe, rows: JudgedRows, say: Say, asked: StopRequest) -> RunScores:
    """Trains one run, or goes on with it, and scores its best checkpoint. Every worker calls this.

    PreemptedError if one of them was asked to stop.
    """
    train(recipe, asked=asked)
    gc.collect()  # network and moments are in cycles of references: with them another network would make the peak
    scored, stop_wanted = _score(recipe, rows, say, asked)
    if not job.rank():
        text = {"split": rows.split, "rows": len(rows.judged), "step": scored.step, "scores": _finite(scored.scores)}
        if by_locale := rows.by_locale(scored.predicted):
            text["by_locale"] = {name: _finite(scores) for name, scores in by_locale.items()}
        keep_scores(recipe.run_dir, text, say)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in scored.scores.items())
        say(f"{recipe.run_dir}: {figures} on {rows.split}, by the checkpoint of step {scored.step:,}")
    _stop_if(stop_wanted)
    return scored


def _finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in scores.items()}


def _score(recipe: Recipe, rows: JudgedRows, say: Say, asked: StopRequest) -> tuple[RunScores, bool]:
    """Returns the scores, and True if any worker was asked to stop."""
    task, examples = rows.task, rows.examples
    best = named_in(recipe.ckpt_dir, BEST)
    with start_worker() as worker:
        training = recipe.training
        path = best or recipe.ckpt_dir
        tuned = load_fine_tuned(path, training.device, _precision_of(path), training.ops, worker.local_rank)
        outputs = run_network(
            tuned.loss_block, examples, recipe.evaluation.batch_size, recipe.data.seq_length, tuned.ctx, worker
        )
        stop_wanted = bool(worker.sum([asked.wanted])[0])
    predicted = predictions(task, examples, outputs, in_range=False)
    return RunScores(evaluate_predictions(task, rows.judged, predicted, say), tuned.step, predicted), stop_wanted


def _precision_of(path: Path) -> str:
    """The precision of a run, in which its dev rows were scored too; but for float16, which a CPU would emulate."""
    precision: str = open_checkpoint(path).state()["products"]["precision"]
    return "float32" if precision == "float16" else precision
