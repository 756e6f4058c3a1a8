"""Rows as tokens: what the network reads of a row, and the numbers of its answers.

A text becomes ``<s> text </s>``, as in pretraining, and a pair ``<s> first </s> second </s>`` (Radford et al., 2018,
have a delimiter there). Where one token both begins and ends documents it is there likewise.

Labels of tokens: each token gets the label that its characters have in the spans, B-kind if the span begins in it, else
I-kind, or O. A token that is partly inside a span counts as inside. So a span whose borders are inside a token cannot
be found exactly; :func:`spans_of_tags` says what is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tasks.task import CLASSIFICATION, JOINT, REGRESSION, TOKEN_LABELS, Row, Span, Task
from kogpt2_gluon.tokens.tokenizer import Tokenizer

NO_TAG = -1  # of a token that belongs to no text


@dataclass(frozen=True)
class Examples:
    """The rows of a split as arrays; N rows of L tokens in all.

    Attributes
    ----------
    rows : sequence of Row
    tokens : (L,) int32
        Of all rows, one after another.
    ends : (N + 1,) int64
        Row i has the tokens from ``ends[i]`` to ``ends[i + 1]``.
    answers : (N,) float32
        The number of the class, or the value from 0 (lowest) to 1 (highest); 0 where the task has neither.
    tags : (L,) float32
        The number of each token's label in :func:`tag_names`, or NO_TAG.
    places : (L, 2) int32
        The characters of ``texts[0]`` that a token stands for; only for tasks with labels of tokens, else (0, 2).
    fingerprint : str
        Identifies rows and tokenizer.
    cut : int
        Rows that lost tokens.
    """

    rows: Sequence[Row]
    tokens: NDArray[np.int32]
    ends: NDArray[np.int64]
    answers: NDArray[np.float32]
    tags: NDArray[np.float32]
    places: NDArray[np.int32]
    fingerprint: str
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (N,)."""
        return np.diff(self.ends)

    def some(self, count: int) -> Examples:
        """`count` of the rows, evenly spaced, with a fingerprint of their own."""
        chosen = np.linspace(0, len(self) - 1, count).round().astype(np.int64)
        parts = [np.arange(self.ends[row], self.ends[row + 1]) for row in chosen]
        flat = np.concatenate(parts)
        return Examples(
            [self.rows[row] for row in chosen],
            self.tokens[flat],
            np.cumsum([0, *map(len, parts)], dtype=np.int64),
            self.answers[chosen],
            self.tags[flat],
            self.places[flat] if len(self.places) else self.places,
            f"{self.fingerprint}/{count}",
        )

    def close(self) -> None:
        """There is nothing to close."""


def tag_names(task: Task) -> tuple[str, ...]:
    """The labels that a token can have: O, and B-kind and I-kind of each kind."""
    return task.saved.tag_names


def encode(task: Task, rows: Sequence[Row], tokenizer: Tokenizer, most: int, cut: bool = False) -> Examples:
    """Turns rows into tokens; none gets more than `most` of them.

    DataError for no rows at all and, without `cut`, for a row that is longer; RecipeError if no text fits. With `cut`
    the text loses its last tokens; of a pair, the longer text.
    """
    if not rows:
        raise DataError(f"task {task.name}: no rows")
    if most < 2 + task.is_pair:
        raise RecipeError(f"data.seq_length={most}: <s> and </s> alone take {2 + task.is_pair} tokens of a row")
    has_tags = task.head in (TOKEN_LABELS, JOINT)
    texts = [[row.texts[k] for row in rows] for k in range(1 + task.is_pair)]
    found = tokenizer.encode_with_places(texts[0]) if has_tags else []
    parts = [[ids for ids, _ in found]] if has_tags else [tokenizer.encode_batch(each) for each in texts]
    framed: list[list[int]] = []
    places: list[tuple[int, int]] = []
    was_cut = 0
    for number, row in enumerate(rows):
        ids = [part[number] for part in parts]
        around = 1 + len(ids)
        if (length := sum(map(len, ids)) + around) > most:
            if not cut:
                raise _too_long(task, row, length, most)
            ids, was_cut = _shortened(ids, most - around), was_cut + 1
        framed.append([tokenizer.bos_id, *(token for part in ids for token in (*part, tokenizer.eos_id))])
        if has_tags:
            places += [(0, 0), *found[number][1][: len(ids[0])], (0, 0)]
    ends = np.cumsum([0, *map(len, framed)], dtype=np.int64)
    tokens = np.fromiter((token for each in framed for token in each), np.int32, ends[-1])
    flat = np.array(places, np.int32).reshape(-1, 2)
    tags = np.full(len(tokens), NO_TAG, np.float32)
    if has_tags:
        numbers = {name: number for number, name in enumerate(tag_names(task))}
        for number, row in enumerate(rows):
            begin, end = ends[number], ends[number + 1]
            tags[begin + 1 : end - 1] = [numbers[tag] for tag in tags_of_spans(row.spans, flat[begin + 1 : end - 1])]
    answers = _answers(task, rows)
    digest = hashlib.sha256(tokenizer.sha256.encode() + repr((task.labels, task.kinds)).encode())
    for array in (tokens, ends, answers, tags):
        digest.update(array.tobytes())
    return Examples(rows, tokens, ends, answers, tags, flat, digest.hexdigest(), was_cut)


def _shortened(ids: list[list[int]], most: int) -> list[list[int]]:
    """Takes tokens off the end of the longest part until no more than `most` are left in all."""
    lengths = [len(part) for part in ids]
    while sum(lengths) > most:
        lengths[lengths.index(max(lengths))] -= 1
    return [part[:length] for part, length in zip(ids, lengths)]


def _too_long(task: Task, row: Row, length: int, most: int) -> DataError:
    return DataError(
        f"{row.where}: {length:,} tokens, more than data.seq_length={most:,}; raise it (up to model.max_length), or "
        f"take task.too_long=cut, which cuts such rows of {task.name} and counts them"
    )


def _answers(task: Task, rows: Sequence[Row]) -> NDArray[np.float32]:
    if task.head == REGRESSION:
        low, high = task.value_range
        return np.array([(row.value - low) / (high - low) for row in rows], np.float32)
    if task.head in (CLASSIFICATION, JOINT):
        numbers = {label: number for number, label in enumerate(task.labels)}
        return np.array([numbers[row.label] for row in rows], np.float32)
    return np.zeros(len(rows), np.float32)


def tags_of_spans(spans: Sequence[Span], places: NDArray[np.int32]) -> list[str]:
    """The label of each token, given the characters (tokens, 2) that it stands for.

    Of several spans in a token the first one counts.
    """
    tags: list[str] = []
    last: Span | None = None
    for begin, end in places.tolist():
        found = next((span for span in spans if span.begin < end and begin < span.end), None)
        tags.append("O" if found is None else f"{'I' if found is last else 'B'}-{found.kind}")
        last = found
    return tags


def spans_of_tags(tags: Sequence[str], places: NDArray[np.int32], text: str) -> tuple[Span, ...]:
    """The spans that labels of tokens describe: from a B-kind, or an I-kind that follows no such kind, to the last I.

    White space at the ends of a span is not part of it.
    """
    found: list[Span] = []
    before = "O"
    for tag, (begin, end) in zip(tags, places.tolist()):
        kind = tag[2:]
        if tag.startswith("I-") and before[2:] == kind:
            found[-1] = found[-1]._replace(end=end)
        elif tag != "O":
            found.append(Span(begin, end, kind))
        before = tag
    spans = []
    for span in found:
        stretch = text[span.begin : span.end]
        begin = span.begin + len(stretch) - len(stretch.lstrip())
        end = span.end - len(stretch) + len(stretch.rstrip())
        if begin < end:
            spans.append(Span(begin, end, span.kind))
    return tuple(spans)


def describe_lengths(split: str, examples: Examples, most: int, say: Callable[[str], None]) -> None:
    """Says how long the rows are, and how many were cut."""
    lengths = examples.lengths
    cut = f"; {examples.cut:,} rows were cut to {most:,}" if examples.cut else ""
    say(f"{split}: {len(examples):,} rows of {lengths.mean():.1f} tokens on average, {lengths.max():,} at most{cut}")
