"""Shots: solved rows in front of a question, drawn from the rows of train, and prompts that fit the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.prompt_encoding import EncodedPrompt, PromptEncoder
from kogpt2_gluon.tasks.prompts.prompts import Prompt
from kogpt2_gluon.tasks.task import Row, Task
from kogpt2_gluon.wording import counted

REFUSE, FEWER_SHOTS, CUT = "refuse", "fewer-shots", "cut"
TOO_LONG = (REFUSE, FEWER_SHOTS, CUT)


class ShotPool:
    """The rows that shots are drawn from: rows of train with different texts, none of which is scored.

    Parameters
    ----------
    task : Task
    train, scored : sequence of Row
    say : callable
        Is called with what was left out.
    """

    def __init__(self, task: Task, train: Sequence[Row], scored: Sequence[Row], say: Callable[[str], None]) -> None:
        self._task = task
        banned = {_key(row) for row in scored}
        fresh: dict[tuple[str, ...], Row] = {}
        known = 0
        for row in train:
            key = _key(row)
            known += key in banned
            if key not in banned:
                fresh.setdefault(key, row)
        rows = list(fresh.values())
        if known:
            say(f"shots: {counted(known, 'row')} of train left out, with the texts of rows that are scored")
        self._by_label = [[row for row in rows if row.label == label] for label in task.labels]
        if missing := [label for label, rows in zip(task.labels, self._by_label) if not rows]:
            say(f"shots: none has the label {' or '.join(missing)}, which no row of train has")

    def draw(self, count: int, seed: int, draw: int) -> list[Row]:
        """Returns `count` rows, balanced: each label once in a row of as many shots as there are labels, and so on.

        The order of the labels is random in each such stretch, the last one may be cut off, and a label that train
        lacks is left out. The first shots of a draw are the same for every `count`. DataError if train has too few
        rows.
        """
        rng = np.random.default_rng([seed, draw])
        queues = [[rows[place] for place in rng.permutation(len(rows))] for rows in self._by_label]
        shots: list[Row] = []
        while len(shots) < count:
            turn = [queues[place].pop() for place in rng.permutation(len(queues)) if queues[place]]
            if not turn:
                raise DataError(
                    f"task {self._task.name}: {count} shots were asked for, and train has {len(shots)} rows with "
                    "different texts that are not scored themselves"
                )
            shots += turn
        return shots[:count]


def _key(row: Row) -> tuple[str, ...]:
    """Returns a row's texts, the same for rows that differ in their spaces or in the order of a pair."""
    return tuple(sorted(" ".join(text.split()) for text in row.texts))


class Asked(NamedTuple):
    """A row as a prompt.

    Attributes
    ----------
    encoded : EncodedPrompt
        An answer for each label of the task, in their order.
    shots : int
        How many are left in it.
    is_cut : bool
        True if the end of a text is missing.
    context : str
    answers : list of str
        What was encoded.
    """

    encoded: EncodedPrompt
    shots: int
    is_cut: bool
    context: str
    answers: list[str]

    def answer_bytes(self) -> list[int]:
        """Returns the bytes of UTF-8 of each answer."""
        return [len(answer.strip().encode()) for answer in self.answers]


@dataclass(frozen=True)
class Asker:
    """Makes prompts of rows that fit the network.

    Attributes
    ----------
    task : Task
    prompt : Prompt
    encoder : PromptEncoder
    max_length : int
        The network's positions.
    too_long : str
        What is done with a row that does not fit: "refuse", which raises DataError; "fewer-shots", which leaves out
        the first shots, as many as are needed; "cut", which cuts the end of the longer text too if that does not
        suffice.
    """

    task: Task
    prompt: Prompt
    encoder: PromptEncoder
    max_length: int
    too_long: str = REFUSE

    def ask(self, rows: Sequence[Row], shots: Sequence[Row]) -> list[Asked]:
        """Returns the prompt of each row. DataError names a row that does not fit."""
        asked: dict[int, Asked] = {}
        pending = list(range(len(rows)))
        for count in range(len(shots), -1, -1):
            left = []
            for place, each in zip(pending, self._encode([rows[place].texts for place in pending], shots, count)):
                if self._fits(each):
                    asked[place] = each
                elif self.too_long == REFUSE:
                    raise self._does_not_fit(rows[place], each, count)
                else:
                    left.append(place)
            pending = left
            if not pending:
                break
        for place in pending:
            asked[place] = self._cut(rows[place])
        return [asked[place] for place in range(len(rows))]

    def _encode(self, texts: Sequence[Sequence[str]], shots: Sequence[Row], count: int) -> list[Asked]:
        """Encodes rows after the last `count` shots."""
        last, labels = shots[len(shots) - count :], self.task.labels
        prompts = [
            (self.prompt.context(last, each), [self.prompt.answer(each, label) for label in labels]) for each in texts
        ]
        encoded = self.encoder.encode(prompts)
        return [Asked(each, count, False, context, answers) for each, (context, answers) in zip(encoded, prompts)]

    def _fits(self, asked: Asked) -> bool:
        return _positions(asked) <= self.max_length

    def _cut(self, row: Row) -> Asked:
        """Returns a row with as many characters of its longer text as fit, without shots."""
        least = self._encode([[""] * len(row.texts)], (), 0)[0]
        if self.too_long != CUT or not self._fits(least):
            raise self._does_not_fit(row, self._encode([row.texts], (), 0)[0], 0)
        low, high, best = 0, max(map(len, row.texts)), least
        while low < high - 1:
            middle = (low + high) // 2
            found = self._encode([[text[:middle] for text in row.texts]], (), 0)[0]
            if self._fits(found):
                low, best = middle, found
            else:
                high = middle
        return best._replace(is_cut=True)

    def _does_not_fit(self, row: Row, asked: Asked, shots: int) -> DataError:
        ways = {
            REFUSE: "take fewer shots, or --too-long fewer-shots or cut",
            FEWER_SHOTS: "--too-long cut leaves out the end of its text",
            CUT: "the prompt's own words are too long",
        }
        return DataError(
            f"{row.where or 'a row'}: with {counted(shots, 'shot')} it needs {_positions(asked):,} positions, and the "
            f"network has {self.max_length:,}: {ways[self.too_long]}"
        )


def _positions(asked: Asked) -> int:
    """Returns how many tokens are read: all but the last one of the longest answer."""
    return len(asked.encoded.context) + max(map(len, asked.encoded.answers)) - 1
