"""The objective of fine-tuning: the answers to a task's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.estimate import flops_per_token
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.reader import Reader
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import TaskRecipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import newest_in
from kogpt2_gluon.runs.saved_task import TASK
from kogpt2_gluon.tasks.encoding import Examples, describe_lengths, encode
from kogpt2_gluon.tasks.loading import find_split, read_split, split_dev
from kogpt2_gluon.tasks.locales import task_of_recipe
from kogpt2_gluon.tasks.reader import ExampleReader, consumed_of
from kogpt2_gluon.tasks.task import CLASSIFICATION, REGRESSION, Row, Task
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.objective import Objective
from kogpt2_gluon.wording import Say

if TYPE_CHECKING:
    from kogpt2_gluon.model.heads import TaskLoss
    from kogpt2_gluon.training.state import TrainingRun


DEV_SEED = 0  # the held-out rows are the same for all seeds of training


@dataclass(frozen=True)
class TaskScores:
    """The scores of one evaluation: the mean loss of a row, and the task's metrics, of which `metric` comes first."""

    loss: float
    metrics: dict[str, float]
    metric: str

    @property
    def shown(self) -> dict[str, float]:
        return {"loss": self.loss, **self.metrics}

    @property
    def chooses(self) -> tuple[str, float]:
        return self.metric, self.metrics[self.metric]

    def to_dict(self) -> dict[str, float]:
        return self.shown


class TaskObjective(Objective):
    """A task on its training rows, scored on its dev rows.

    Attributes
    ----------
    task : Task
    train : Examples
    """

    held_out: Examples
    _block: TaskLoss  # is made with the network

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.task = task_of_recipe(recipe.task)
        self.unit = "squared error" if self.task.head == REGRESSION else "nats per row"
        self.tokenizer = task_tokenizer(recipe)
        train, dev = training_rows(self.task, recipe, self.notes.append)
        if recipe.training.total_batch_size > len(train):
            raise RecipeError(
                f"training.total_batch_size={recipe.training.total_batch_size} is more than the {len(train):,} rows "
                f"of {recipe.task.data}; take a smaller one"
            )
        self.train = self.encode("train", train)
        self.held_out = self.encode("dev", dev)

    def encode(self, split: str, rows: list[Row]) -> Examples:
        """Turns rows into tokens, as the recipe says."""
        most = self.recipe.data.seq_length
        assert self.tokenizer
        examples = encode(self.task, rows, self.tokenizer, most, cut=self.recipe.task.too_long == "cut")
        describe_lengths(split, examples, most, self.notes.append)
        return examples

    def facts_of_data(self) -> list[dict[str, Any]]:
        return [self._facts("train", self.train), self._facts("held-out", self.held_out)]

    def _facts(self, role: str, examples: Examples) -> dict[str, Any]:
        """Returns the counts of rows; of classes also the share of the largest, which guessing that one would reach."""
        facts = {
            "role": role,
            "path": self.recipe.task.data,
            "name": self.task.name,
            "rows": len(examples),
            "tokens": len(examples.tokens),
            "tokens_a_row": round(float(examples.lengths.mean()), 1),
            "longest": int(examples.lengths.max()),
            "cut": examples.cut,
        }
        if self.task.head == CLASSIFICATION:
            counts = np.bincount(examples.answers.astype(np.int64), minlength=len(self.task.labels))
            facts["most_frequent_label"] = self.task.labels[int(counts.argmax())]
            facts["share_of_most_frequent_label"] = float(counts.max() / counts.sum())
        return facts

    def open_reader(
        self, worker: Worker, saved: dict[str, Any] | None, source: str, changed: Mapping[str, Any]
    ) -> Reader:
        return ExampleReader(self.train, self.recipe, worker, self._consumed(worker, saved, source))

    def check_reader(
        self, worker: Worker, saved: dict[str, Any] | None, source: str, changed: Mapping[str, Any]
    ) -> list[str]:
        self._consumed(worker, saved, source)
        return []

    def _consumed(self, worker: Worker, saved: dict[str, Any] | None, source: str) -> int:
        """The rows used so far. DataError if the workers have different rows, or the saved state is of others."""
        digits = (self.train.fingerprint + self.held_out.fingerprint).encode()
        if not worker.all_equal(list(digits)):
            raise DataError(f"{self.recipe.task.data}: the workers see different rows there")
        return consumed_of(saved, self.train, self.recipe, source)

    def batches(self, reader: Reader, ctx: Any) -> Iterator[tuple[list[Any], list[Any]]]:
        from kogpt2_gluon.tasks.prediction import micro_batch, on_device

        assert isinstance(reader, ExampleReader)
        most, batch_size = self.recipe.data.seq_length, self.recipe.training.batch_size
        longest = np.full(batch_size, self.train.lengths.argmax())
        self._block.reserve(on_device(micro_batch(self.train, longest, most, ctx), ctx))
        for update in reader.updates():
            batches = [micro_batch(self.train, rows, most, ctx) for rows in update]
            yield batches, [on_device(batch, ctx) for batch in batches]

    @property
    def tokens_per_step(self) -> int:
        return round(float(self.train.lengths.mean()) * self.recipe.training.total_batch_size)

    @property
    def flops_per_token(self) -> float:
        model = self.recipe.model
        language_model_head = 6.0 * model.vocab_size * model.units
        return flops_per_token(model, round(float(self.train.lengths.mean()))) - language_model_head

    def build_model(self, ops: Any) -> Any:
        from kogpt2_gluon.model.prompt import build_network
        from kogpt2_gluon.tasks.prediction import head_sizes

        return build_network(self.recipe, ops, head_sizes(self.task))

    def loss_block(self, net: Any) -> Any:
        from kogpt2_gluon.model.heads import TaskLoss

        self._block = TaskLoss(net)
        self._block.hybridize(static_alloc=True)
        return self._block

    def sums(self, losses: NDArray[Any], batch: Any) -> NDArray[Any]:
        return np.array([losses.sum(dtype=np.float64), len(losses)])

    def measure(self) -> dict[str, Any]:
        sequences = self.sequences(self.recipe.evaluation.max_sequences)
        seq_length = self.recipe.data.seq_length
        metric = self.task.metrics[0]
        return {
            "held_out": self.held_out.fingerprint,
            "seq_length": seq_length,
            "sequences": sequences,
            "metric": metric,
        }

    def sequences(self, most: int) -> int:
        return min(most or len(self.held_out), len(self.held_out))

    def score(self, run: TrainingRun, most: int) -> TaskScores:
        from kogpt2_gluon.tasks.metrics import evaluate_predictions
        from kogpt2_gluon.tasks.prediction import predictions, run_network

        rules, examples = self.recipe.evaluation, self.held_out
        if self.sequences(most) < len(examples):
            examples = examples.some(self.sequences(most))
        longest = self.recipe.data.seq_length
        outputs = run_network(
            run.loss_block, examples, rules.batch_size, longest, run.ctx, run.worker, run.progress.beat
        )
        found = predictions(self.task, examples, outputs, in_range=False)
        metrics = evaluate_predictions(self.task, examples.rows, found)
        return TaskScores(float(outputs.losses.mean()), metrics, self.task.metrics[0])

    def state(self) -> dict[str, Any]:
        """Returns what a fine-tuned network needs to be used without its data."""
        return {TASK: self.task.saved.to_dict()}


def task_tokenizer(recipe: Recipe) -> Tokenizer:
    """The tokenizer of a task's run: data.tokenizer, else that of its own checkpoint or of training.init_from.

    RecipeError if there is none, or if it has more pieces than the model has rows.
    """
    own = newest_in(recipe.ckpt_dir)
    if recipe.data.tokenizer:
        path = Path(recipe.data.tokenizer)
    elif own:
        path = open_checkpoint(own).tokenizer_path
    elif recipe.training.init_from:
        path = open_source(Path(recipe.training.init_from))[0].tokenizer_path
    else:
        raise RecipeError("a task needs a tokenizer: training.init_from=CHECKPOINT, or data.tokenizer=FILE")
    tokenizer, rows = Tokenizer.load(path), recipe.model.vocab_size
    if tokenizer.vocab_size > rows:
        raise RecipeError(f"{path}: {tokenizer.vocab_size} tokens, more than model.vocab_size={rows}; set it to that")
    return tokenizer


def judged_split(task: Task, data: Path) -> str:
    """The split that the fine-tuned network is judged by: test, or dev where there are no test rows; "" if neither."""
    return next((split for split in ("test", "dev") if split in task.splits and find_split(task, data, split)), "")


def training_rows(task: Task, recipe: Recipe, say: Say) -> tuple[list[Row], list[Row]]:
    """The rows to train on, and those that choose the best checkpoint.

    The latter are the dev rows. Where these are all that there is to judge by, or there are none, they are some of the
    training rows, since a checkpoint that the judge has chosen looks better than it is.
    """
    data = Path(recipe.task.data)
    train, share = read_split(task, data, "train", say), recipe.task.dev_share
    if judged_split(task, data) == "test" and "dev" in task.splits and find_split(task, data, "dev"):
        if share != TaskRecipe().dev_share:
            say(f"note: task.dev_share={share:g} has no effect: the dev rows of the data choose the best checkpoint")
        return train, read_split(task, data, "dev", say)
    train, dev = split_dev(train, share, DEV_SEED)
    say(
        f"{len(dev):,} rows of train choose the best checkpoint (task.dev_share={share:g}); {len(train):,} are trained "
        "on"
    )
    return train, dev
