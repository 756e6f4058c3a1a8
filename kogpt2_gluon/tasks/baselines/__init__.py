"""Scores that little effort gives: a trained network that is below them has learned little or nothing.

Each baseline is a function of (task, train rows, test rows, seed, say) and reads the answers of the train rows alone.
Its answers are the same at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kogpt2_gluon.tasks.baselines import majority, ngrams, overlap, words
from kogpt2_gluon.tasks.metrics import Predictions
from kogpt2_gluon.tasks.task import Row, Task
from kogpt2_gluon.wording import Say


@dataclass(frozen=True)
class Baseline:
    """A baseline.

    Attributes
    ----------
    name, about : str
        As tables have it; how it answers.
    answer : callable
        It is called with (task, train rows, test rows, seed, say) and returns the answers to the test rows. `say` takes
        a line about what was left out.
    suits : callable
        Called with a task; False if the baseline has no answer to it.
    is_floor : bool
        True if it knows nothing of the language, so that a system that is below has learned nothing.
    """

    name: str
    about: str
    answer: Callable[[Task, Sequence[Row], Sequence[Row], int, Say], Predictions]
    suits: Callable[[Task], bool]
    is_floor: bool


BASELINES = (
    Baseline("majority", majority.ABOUT, majority.answer, lambda task: True, is_floor=True),
    Baseline("bigram overlap", overlap.ABOUT, overlap.answer, overlap.suits, is_floor=True),
    Baseline("character n-grams", ngrams.ABOUT, ngrams.answer, ngrams.suits, is_floor=False),
    Baseline("tags of words", words.ABOUT, words.answer, words.suits, is_floor=False),
)


def baselines_for(task: Task) -> list[Baseline]:
    """Returns the baselines that have an answer to a task."""
    return [baseline for baseline in BASELINES if baseline.suits(task)]
