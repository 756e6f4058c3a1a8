"""Fine-tunes a checkpoint for a task, over several seeds, and says what it is worth beside simpler systems.

Each seed is a training run like any other, in DIR/seed-N, so what was interrupted goes on when the same command is
given again. Its best checkpoint on the dev rows answers the test rows. What that scored is kept in the run's
``scores.json``; all of it in DIR/scores.json and DIR/scores.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.recipe import Recipe, find_recipe, load_recipe
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.tasks.encoding import encode
from kogpt2_gluon.tasks.fine_tuned import load_fine_tuned
from kogpt2_gluon.tasks.loading import find_split, open_task, read_split
from kogpt2_gluon.tasks.metrics import Predictions, evaluate_predictions
from kogpt2_gluon.tasks.prediction import gold, predictions, run_network
from kogpt2_gluon.tasks.task import JOINT, TOKEN_LABELS, Row, Task
from kogpt2_gluon.training.loop import train
from kogpt2_gluon.training.steps_of_task import with_steps
from kogpt2_gluon.training.worker import start_worker
from kogpt2_gluon.user_files import read_yaml

SCORES = "scores.json"
NOT_COPIED = ("dropout",)  # settings of `model` that are the recipe's, not the checkpoint's

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunScores:
    """What one run scored on a split.

    Attributes
    ----------
    split : str
        "test", or "dev" where the task has no test rows: then the best checkpoint was chosen by the same rows.
    scores : dict
        {metric: value}.
    step : int
        Of the checkpoint.
    predicted : Predictions
    """

    split: str
    scores: dict[str, float]
    step: int
    predicted: Predictions


def fine_tune(recipe: Recipe, say: Say) -> RunScores:
    """Trains one run, or goes on with it, and scores its best checkpoint. Every worker calls this."""
    train(recipe)
    mx.nd.waitall()
    task, data = open_task(recipe.task.name), Path(recipe.task.data)
    split = split_to_score(task, data)
    rows = judged_rows(task, recipe, split)
    scored = _score(task, recipe, split, rows, say)
    with start_worker() as worker:
        if worker.rank == 0:
            text = {"split": split, "rows": len(rows), "step": scored.step, "scores": scored.scores}
            write_file(recipe.run_dir / SCORES, json.dumps(text, indent=1).encode())
    return scored


def split_to_score(task: Task, data: Path) -> str:
    """ "test" if the task has such rows here, else "dev"."""
    return "test" if "test" in task.splits and find_split(task, data, "test") else "dev"


def judged_rows(task: Task, recipe: Recipe, split: str) -> list[Row]:
    """The rows that the runs are judged by."""
    from kogpt2_gluon.training.task_objective import training_rows

    if split == "test":
        return read_split(task, Path(recipe.task.data), "test", lambda line: None)
    return training_rows(task, recipe, lambda line: None)[1]


def _score(task: Task, recipe: Recipe, split: str, rows: list[Row], say: Say) -> RunScores:
    best = recipe.run_dir / "best"
    tuned = load_fine_tuned(best if best.exists() else recipe.run_dir, recipe.training.device, ops=recipe.training.ops)
    most = recipe.data.seq_length
    examples = encode(task, rows, tuned.tokenizer, most, cut=recipe.task.too_long == "cut")
    with start_worker() as worker:
        outputs = run_network(tuned.loss_block, examples, recipe.evaluation.batch_size, most, tuned.ctx, worker)
    predicted = predictions(task, examples, outputs)
    scores = evaluate_predictions(task, rows, predicted, say)
    if task.head in (TOKEN_LABELS, JOINT):
        ceiling = evaluate_predictions(task, rows, gold(task, examples))
        name = task.metrics[0]
        say(f"{split}: with faultless labels of tokens {name} would be {ceiling[name]:.4f}, as tokens cross borders")
    return RunScores(split, scores, tuned.step, predicted)
