"""The answers of a fine-tuned network to new texts, of which there may be millions: a window of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tasks.encoding import encode
from kogpt2_gluon.tasks.fine_tuned import FineTuned
from kogpt2_gluon.tasks.prediction import predictions, run_network
from kogpt2_gluon.tasks.task import CLASSIFICATION, JOINT, REGRESSION, TOKEN_LABELS, Row, Span
from kogpt2_gluon.tokens.tokenizer import Tokenizer

STOP, CUT = "stop", "cut"
TOO_LONG = (STOP, CUT)
WINDOW_ROWS, WINDOW_BYTES = 8192, 8 << 20
DIGITS = 6  # of a probability or a value, which a network in float32 has

NumberedRow = tuple[int, Row]


@dataclass(frozen=True)
class Answer:
    """The answer to one row.

    Attributes
    ----------
    number : int
        Of the row.
    texts : tuple of str
        The row's.
    probabilities : dict
        {label: probability} of all labels, in their order; of classes.
    value : float or None
        The number, inside the task's range.
    spans : tuple of Span or None
    """

    number: int
    texts: tuple[str, ...]
    probabilities: dict[str, float] = field(default_factory=dict)
    value: float | None = None
    spans: tuple[Span, ...] | None = None

    @property
    def label(self) -> str:
        """The likeliest label, the first one of several; "" if there are none."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default="")

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain data: row, and label and probabilities, value, or spans, as the task has them."""
        found: dict[str, Any] = {"row": self.number}
        if self.probabilities:
            rounded = {label: _rounded(each) for label, each in self.probabilities.items()}
            found.update(label=self.label, probabilities=rounded)
        if self.value is not None:
            found["value"] = _rounded(self.value)
        if self.spans is not None:
            found["spans"] = [{**span._asdict(), "text": self.texts[0][span.begin : span.end]} for span in self.spans]
        return found


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


@dataclass(frozen=True)
class AnsweringOptions:
    """How rows are answered.

    Attributes
    ----------
    too_long : str
        What happens at a row of more than `seq_length` tokens: STOP names it, CUT cuts its last tokens off.
    seq_length : int
        0: that of the fine-tuning.
    batch_size : int
    """

    too_long: str = STOP
    seq_length: int = 0
    batch_size: int = 32

    def longest(self, tuned: FineTuned) -> int:
        """Returns the most tokens of a row. RecipeError if the network does not take as many."""
        most = tuned.loss_block.net.max_length
        if self.seq_length > most:
            raise RecipeError(f"--seq-length={self.seq_length:,} is above the {most:,} tokens that the network takes")
        return self.seq_length or tuned.recipe.data.seq_length


@dataclass
class Counts:
    """The counts of what was read: rows, those that are cut, and the size of all texts in bytes of UTF-8."""

    rows: int = 0
    cut: int = 0
    size: int = 0


def check_rows(tuned: FineTuned, rows: Iterable[NumberedRow], options: AnsweringOptions) -> Counts:
    """Reads all rows once and counts them. DataError, which says where, for none at all, a bad or a too long one."""
    longest, found = options.longest(tuned), Counts()
    for window in _windows(rows):
        lengths = row_lengths(tuned.tokenizer, [row for _, row in window])
        too_long = np.flatnonzero(lengths > longest)
        if len(too_long) and options.too_long == STOP:
            row, length = window[too_long[0]][1], lengths[too_long[0]]
            most = tuned.loss_block.net.max_length
            raise DataError(
                f"{row.where}: {length:,} tokens, more than the {longest:,} of the longest row; take --seq-length (up "
                f"to {most:,}), or --too-long cut, which cuts such rows and counts them"
            )
        found.rows += len(window)
        found.cut += len(too_long)
        found.size += sum(map(_size, window))
    if not found.rows:
        raise DataError(f"{getattr(rows, 'name', 'the input')}: no rows in it")
    return found


def row_lengths(tokenizer: Tokenizer, rows: Sequence[Row]) -> NDArray[np.int64]:
    """Returns how many tokens each row has as :func:`~kogpt2_gluon.tasks.encoding.encode` makes them, (rows,)."""
    lengths = np.ones(len(rows), np.int64)
    for texts in zip(*(row.texts for row in rows)):
        lengths += [len(ids) + 1 for ids in tokenizer.encode_batch(texts)]
    return lengths


def answer_rows(
    tuned: FineTuned,
    rows: Iterable[NumberedRow],
    options: AnsweringOptions,
    progress: Callable[[float], None] = lambda size: None,
) -> Iterator[Answer]:
    """Yields the answers in the order of the rows, which are cut where they are too long.

    `progress` is called with the bytes that a batch had, on average. DataError if the network gives numbers that
    are not finite.
    """
    longest = options.longest(tuned)
    for window in _windows(rows):
        batches = -(-len(window) // options.batch_size)
        share = sum(map(_size, window)) / batches
        yield from _answer_window(tuned, window, longest, options.batch_size, lambda: progress(share))  # noqa: B023


def _answer_window(
    tuned: FineTuned, window: Sequence[NumberedRow], longest: int, batch_size: int, progress: Callable[[], None]
) -> Iterator[Answer]:
    task, rows = tuned.task, [row for _, row in window]
    examples = encode(task, rows, tuned.tokenizer, longest, cut=True)
    outputs = run_network(tuned.loss_block, examples, batch_size, longest, tuned.ctx, progress=progress)
    if len(odd := np.flatnonzero(~np.isfinite(outputs.losses))):
        raise DataError(
            f"{rows[odd[0]].where}: the network's answer is not a finite number; its weights are, or --precision "
            "float16 or bfloat16 is too coarse for them: take float32"
        )
    found = predictions(task, examples, outputs)
    shifted = outputs.answers - outputs.answers.max(axis=1, keepdims=True, initial=-np.inf)
    odds = np.exp(shifted)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    for place, (number, row) in enumerate(window):
        yield Answer(
            number,
            row.texts,
            dict(zip(task.labels, probabilities[place].tolist())) if task.head in (CLASSIFICATION, JOINT) else {},
            found.values[place] if task.head == REGRESSION else None,
            found.spans[place] if task.head in (TOKEN_LABELS, JOINT) else None,
        )


def _windows(rows: Iterable[NumberedRow]) -> Iterator[list[NumberedRow]]:
    """Yields rows in groups that fit into memory."""
    window: list[NumberedRow] = []
    size = 0
    for each in rows:
        window.append(each)
        size += _size(each)
        if len(window) == WINDOW_ROWS or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _size(row: NumberedRow) -> int:
    return sum(len(text.encode()) for text in row[1].texts)
