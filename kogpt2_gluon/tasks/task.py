"""A task, and its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# The words are here for all others that speak of tasks.
from kogpt2_gluon.runs.saved_task import (  # noqa: F401
    CLASSIFICATION,
    HEADS,
    JOINT,
    REGRESSION,
    TOKEN_LABELS,
    SavedTask,
)

SPLITS = ("train", "dev", "test")


class Span(NamedTuple):
    """A stretch of a text: characters `begin` to `end`, the last excluded, and its kind."""

    begin: int
    end: int
    kind: str


@dataclass(frozen=True)
class Row:
    """One row of a task's data.

    Attributes
    ----------
    texts : tuple of str
        One text, or two of a pair, as the file has them.
    label : str
        The name of the class; with the heads classification and joint.
    value : float
        The number to predict; with regression.
    spans : tuple of Span
        In ``texts[0]``, in order, without overlap; with token labels and joint.
    where : str
        "FILE, line 12" (or row), for messages.
    locale : str
        Its language and country, such as "ko-KR", where the task has several; each has scores of its own.
    """

    texts: tuple[str, ...]
    label: str = ""
    value: float = math.nan
    spans: tuple[Span, ...] = ()
    where: str = ""
    locale: str = ""


@dataclass(frozen=True)
class Split:
    """The file of a split.

    Attributes
    ----------
    files : tuple of str
        The names that the public data has for it, below the folder of the data; the first that is there is read.
    rows : int
        As published; 0 if nobody published a number.
    """

    files: tuple[str, ...]
    rows: int = 0


class Published(NamedTuple):
    """A score that somebody published: of which model, by which metric, on which split, and where."""

    model: str
    metric: str
    score: float
    split: str
    source: str


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes
    ----------
    name, about : str
    head : str
        One of HEADS.
    read : callable
        Yields the rows of a file, in order. It raises DataError, which names the line, for whatever a row cannot be
        made of, and leaves nothing out without saying so through its second argument, which takes a line for people.
    splits : mapping
        "train", and those of "dev" and "test" that exist. Without dev, some of train is held out.
    labels : tuple of str
        The classes, in the order of the head's rows.
    kinds : tuple of str
        The kinds of spans.
    is_pair : bool
        True if a row has two texts.
    value_range : tuple of float
        Of regression: the lowest and the highest value.
    metrics : tuple of str
        Names in tasks/metrics.py; the first one chooses the best checkpoint.
    published : tuple of Published
    source : str
        Address, version and licence of the data.
    names : mapping
        What the labels mean in Korean, for prompts: {label: word}.
    in_locale : callable
        Returns the task in a locale, of which `locales` are all; None for a task of one language.
    locales : tuple of str
    parts : tuple of Task
        The tasks in one locale each, of which the rows of this one are. Those of `zero_shot` have test rows alone.
    zero_shot : tuple of str
        Locales that are left out of training, and judged.
    """

    name: str
    about: str
    head: str
    read: Callable[[Path, Callable[[str], None]], Iterator[Row]]
    splits: Mapping[str, Split]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    is_pair: bool = False
    value_range: tuple[float, float] = (0.0, 0.0)
    published: tuple[Published, ...] = ()
    source: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    in_locale: Callable[[str], Task] | None = None
    locales: tuple[str, ...] = ()
    parts: tuple[Task, ...] = ()
    zero_shot: tuple[str, ...] = ()

    @property
    def saved(self) -> SavedTask:
        """Returns what a checkpoint keeps of it."""
        return SavedTask(self.name, self.head, self.labels, self.kinds, self.is_pair, self.value_range)
