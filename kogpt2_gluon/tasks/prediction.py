"""Runs a network over the rows of a task, and reads its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model.heads import HeadSizes, MicroBatch, TaskLoss
from kogpt2_gluon.tasks.encoding import NO_TAG, Examples, spans_of_tags, tag_names
from kogpt2_gluon.tasks.metrics import Predictions
from kogpt2_gluon.tasks.task import CLASSIFICATION, JOINT, REGRESSION, TOKEN_LABELS, Task

ROUNDED = {"gpu": 8, "cpu": 1}  # lengths of batches are multiples of it: a GPU multiplies matrices of such sizes faster

Floats = NDArray[np.float32]


def head_sizes(task: Task) -> HeadSizes:
    """The sizes of a task's heads."""
    saved = task.saved
    return HeadSizes(saved.answers, len(saved.tag_names), is_number=task.head == REGRESSION)


def micro_batch(examples: Examples, rows: NDArray[np.int64], most: int, ctx: Any) -> MicroBatch:
    """The rows of these numbers as arrays of NumPy for a device, filled up at the right.

    The length is that of the longest row, on a GPU rounded up to a multiple of 8 but not above `most`.
    """
    begins, lengths = examples.ends[rows], examples.lengths[rows]
    unit = ROUNDED[ctx.device_type]
    length = min(most, -(-int(lengths.max()) // unit) * unit)
    place = np.arange(length)
    is_there = place < lengths[:, None]
    source = np.where(is_there, begins[:, None] + place, 0)
    tokens = np.where(is_there, examples.tokens[source], 0).astype(np.int32)
    tags = np.where(is_there, examples.tags[source], NO_TAG).astype(np.float32)
    return MicroBatch(tokens, (lengths - 1).astype(np.float32), examples.answers[rows], tags)


def on_device(batch: MicroBatch, ctx: Any) -> MicroBatch:
    """Copies a micro batch to a device."""
    return MicroBatch(*(mx.nd.array(part, ctx=ctx, dtype=part.dtype) for part in batch))


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network for each of N rows of L tokens.

    Attributes
    ----------
    losses : (N,) float64
    answers : (N, K) float64
        The scores of the classes, or the number in (N, 1); K is 0 where there is no such head.
    tags : (L,) int64
        The most likely label of each token.
    """

    losses: NDArray[np.float64]
    answers: NDArray[np.float64]
    tags: NDArray[np.int64]


def run_network(
    loss_block: TaskLoss,
    examples: Examples,
    batch_size: int,
    most: int,
    ctx: Any,
    worker: Worker | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Outputs:
    """Runs a network over rows, in prediction mode. Every worker takes its share and gets the outputs of all."""
    worker, heads = worker or Worker(), loss_block.net.heads
    count = len(examples)
    losses, answers = np.zeros(count), np.zeros((count, heads.answers))
    tags = np.zeros(len(examples.tokens) if heads.tags else 0)
    # The longest first: MXNet plans memory for each length, and that of the longest suffices for all others.
    by_length = np.argsort(-examples.lengths, kind="stable")
    batches = [by_length[begin : begin + batch_size] for begin in range(0, count, batch_size)]
    for rows in batches[worker.rank :: worker.size]:
        batch = micro_batch(examples, rows, most, ctx)
        outputs = [each.asnumpy() for each in loss_block.with_answers(on_device(batch, ctx))]
        losses[rows] = outputs.pop(0)
        if heads.answers:
            answers[rows] = outputs.pop(0)
        if heads.tags:
            best = outputs.pop(0).argmax(axis=-1)
            for row, of_row in zip(rows, best):
                begin, end = examples.ends[row], examples.ends[row + 1]
                tags[begin:end] = of_row[: end - begin]
        progress()
    if worker.size > 1:  # each row is one worker's, the others add 0
        sums = worker.sum(np.concatenate([losses, answers.ravel(), tags]))
        losses, rest = sums[:count], sums[count:]
        answers, tags = rest[: answers.size].reshape(answers.shape), rest[answers.size :]
    return Outputs(losses, answers, tags.astype(np.int64))


def predictions(task: Task, examples: Examples, outputs: Outputs, in_range: bool = True) -> Predictions:
    """The answers that outputs stand for: the likeliest class, the spans, the number.

    Numbers outside the task's range become its ends with `in_range`; for a correlation they would be ties.
    """
    labels: list[str] = []
    values: list[float] = []
    if task.head in (CLASSIFICATION, JOINT):
        labels = [task.labels[number] for number in outputs.answers.argmax(axis=1)]
    if task.head == REGRESSION:
        low, high = task.value_range
        numbers = low + (high - low) * outputs.answers[:, 0]
        values = (np.clip(numbers, low, high) if in_range else numbers).tolist()
    spans = []
    if task.head in (TOKEN_LABELS, JOINT):
        names = tag_names(task)
        for number, row in enumerate(examples.rows):
            begin, end = examples.ends[number] + 1, examples.ends[number + 1] - 1
            found = [names[tag] for tag in outputs.tags[begin:end]]
            spans.append(spans_of_tags(found, examples.places[begin:end], row.texts[0]))
    return Predictions(labels=labels, values=values, spans=spans)


def gold(task: Task, examples: Examples) -> Predictions:
    """The answers that a faultless network gives: its labels of tokens are right, their borders those of tokens."""
    names = tag_names(task)
    spans = []
    if task.head in (TOKEN_LABELS, JOINT):
        for number, row in enumerate(examples.rows):
            begin, end = examples.ends[number] + 1, examples.ends[number + 1] - 1
            tags = [names[int(tag)] for tag in examples.tags[begin:end]]
            spans.append(spans_of_tags(tags, examples.places[begin:end], row.texts[0]))
    return Predictions([row.label for row in examples.rows], [row.value for row in examples.rows], spans)
