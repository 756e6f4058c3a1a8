"""Loads a fine-tuned checkpoint for use: its network with heads, its task, tokenizer and recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, KoGPT2Error
from kogpt2_gluon.machine.runtime import context
from kogpt2_gluon.model.filling import fill_network
from kogpt2_gluon.model.heads import TaskLoss
from kogpt2_gluon.model.precision import cast_network
from kogpt2_gluon.model.prompt import build_network
from kogpt2_gluon.ops.choose import choose_ops
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, use_checkpoint
from kogpt2_gluon.runs.saved_task import saved_task
from kogpt2_gluon.tasks.loading import open_task
from kogpt2_gluon.tasks.prediction import head_sizes
from kogpt2_gluon.tasks.task import Task
from kogpt2_gluon.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned network; `loss_block` holds it and gives its outputs."""

    loss_block: TaskLoss
    task: Task
    tokenizer: Tokenizer
    recipe: Recipe
    ctx: Any
    step: int


def load_fine_tuned(
    path: Path, device: str = "auto", precision: str = "float32", ops: str = "auto", local_rank: int = 0
) -> FineTuned:
    """Verifies and loads a fine-tuned checkpoint; `path` may be the run's folder, or RUN/best.

    DataError if it is damaged, or of a language model. The network has no gradients.
    """

    def load(checkpoint: Checkpoint) -> FineTuned:
        checkpoint.verify(optimizer=False)
        recipe, task, ctx = checkpoint.recipe(), task_of(checkpoint), context(device, local_rank)
        model = recipe.model
        net = build_network(recipe, choose_ops(ops, precision, ctx, model.dropout, model.activation), head_sizes(task))
        fill_network(net, checkpoint.weights(), ctx, source=str(checkpoint.path))
        cast_network(net, precision)
        block = TaskLoss(net)
        block.hybridize(static_alloc=True)
        step = int(checkpoint.state()["step"])
        return FineTuned(block, task, Tokenizer.load(checkpoint.tokenizer_path), recipe, ctx, step)

    return use_checkpoint(path, load)


def task_of(checkpoint: Checkpoint) -> Task:
    """The task of a fine-tuned checkpoint. Its labels are the checkpoint's own, so that the data need not be there."""
    saved = saved_task(checkpoint.state(), checkpoint.path)
    if saved is None:
        raise DataError(f"{checkpoint.path}: of a language model, without a task's head; first: kogpt2 finetune")
    try:
        known = open_task(checkpoint.recipe().task.name)
    except KoGPT2Error:  # a table of one's own whose file is elsewhere now
        known = Task(saved.name, "", saved.head, _no_reader, {}, ())
    return replace(
        known,
        name=saved.name,
        head=saved.head,
        labels=saved.labels,
        kinds=saved.kinds,
        is_pair=saved.is_pair,
        value_range=saved.value_range,
    )


def _no_reader(path: Path, say: Any) -> Any:
    raise DataError(f"{path}: the file that describes this task's table is not where it was")
