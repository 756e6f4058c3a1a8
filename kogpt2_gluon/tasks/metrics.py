"""Scores of predictions, as the field counts them; the counting is scikit-learn's, SciPy's and seqeval's.

A score is a fraction, 0.899 and not 89.9. Where a score does not exist it is NaN, never 0: a correlation with
predictions that are all the same, the F1 of a class that is neither there nor predicted, any score of no rows. What a
reader of the table should know, why a score is NaN among them, is said as lines.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.tasks.task import CLASSIFICATION, JOINT, REGRESSION, TOKEN_LABELS, Row, Span, Task
from kogpt2_gluon.wording import Say, counted, silent

HIGHER_IS_BETTER = True  # of every metric here
INSTALL = "pip install --use-pep517 'kogpt2-gluon[tasks]'"  # without the option seqeval does not build everywhere
OUTSIDE = "O"
BY_CHARACTER = ("ja-JP", "zh-CN", "zh-TW")  # of MASSIVE: languages that are written without spaces
SPACES = -1  # no chunk of a text
_SHOWN = 5  # names in a message

Compute = Callable[["Task", "Sequence[Row]", "Predictions", str], Any]  # a number of whichever type


@dataclass(frozen=True)
class Predictions:
    """The answers of a system: for each row one, in the order of the rows, in the lists that the task's head has.

    Attributes
    ----------
    labels : list of str
        Classes; of the heads classification and joint.
    values : list of float
        Of the head regression.
    spans : list of tuple of Span
        In order and without overlap, within the row's first text; of the heads token labels and joint.
    """

    labels: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    spans: list[tuple[Span, ...]] = field(default_factory=list)

    def at(self, rows: Sequence[int]) -> Predictions:
        """Returns the answers to some of the rows, given by their numbers."""
        return Predictions(
            [self.labels[row] for row in rows] if self.labels else [],
            [self.values[row] for row in rows] if self.values else [],
            [self.spans[row] for row in rows] if self.spans else [],
        )


@dataclass(frozen=True)
class Metric:
    """A metric. `compute` (task, rows, predicted) is called with one row or more; `argument` follows a colon."""

    about: str
    heads: tuple[str, ...]
    compute: Compute
    takes_argument: bool = False


def evaluate_predictions(
    task: Task, rows: Sequence[Row], predicted: Predictions, say: Say = silent
) -> dict[str, float]:
    """Returns the scores named in ``task.metrics``, in that order; NaN where one does not exist.

    `say` is called with a line for each thing to know: classes that are missing, predictions that are all the same, a
    score that does not exist. RecipeError for a metric that is not here or is not for the task's head, and if a
    library is missing.
    """
    check_metrics(task)
    if not rows:
        say("no rows, so no score exists")
        return dict.fromkeys(task.metrics, math.nan)
    _check_predictions(task, rows, predicted)
    for line in _remarks(task, rows, predicted):
        say(line)
    scores = {}
    for name in task.metrics:
        kind, _, argument = name.partition(":")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scores[name] = float(METRICS[kind].compute(task, rows, predicted, argument))
        for line in dict.fromkeys(str(each.message).strip().split("\n")[0] for each in caught):
            say(f"{name}: {line}")
        if math.isnan(scores[name]):
            say(f"{name} does not exist here: {METRICS[kind].about}")
    return scores


def check_metrics(task: Task) -> None:
    """Raises RecipeError for a metric of a task that is not here, or is not for its head or its labels."""
    for name in task.metrics:
        kind, _, argument = name.partition(":")
        metric = METRICS.get(kind)
        if metric is None or task.head not in metric.heads:
            fitting = ", ".join(each for each, metric in METRICS.items() if task.head in metric.heads)
            raise RecipeError(f"task {task.name}: no metric {name!r} for the head {task.head}; choose of {fitting}")
        if argument and not metric.takes_argument:
            raise RecipeError(f"task {task.name}: the metric {kind} takes nothing after a colon, but is {name!r}")
        if kind == "f1":
            _positive_class(task, argument)


def _check_predictions(task: Task, rows: Sequence[Row], predicted: Predictions) -> None:
    lists: dict[str, list[Sequence[object]]] = {
        CLASSIFICATION: [predicted.labels],
        REGRESSION: [predicted.values],
        TOKEN_LABELS: [predicted.spans],
        JOINT: [predicted.labels, predicted.spans],
    }
    assert all(len(each) == len(rows) for each in lists[task.head]), "a prediction for each row"


def _remarks(task: Task, rows: Sequence[Row], predicted: Predictions) -> Iterator[str]:
    """Yields what a reader of the scores should know of the rows and the predictions."""
    if task.head in (CLASSIFICATION, JOINT):
        there, answers = {row.label for row in rows}, set(predicted.labels)
        if missing := [label for label in task.labels if label not in there]:
            found = sum(label in missing for label in predicted.labels)
            yield f"no row has {_names(missing)} as its label; predicted {found:,} times"
        if len(answers) == 1:
            yield f"all {counted(len(rows), 'prediction')} are {_names(answers)}"
    if task.head == REGRESSION:
        values = np.asarray(predicted.values, np.float64)
        if not np.isfinite(values).all():
            yield f"predictions that are not finite numbers: {int((~np.isfinite(values)).sum()):,} of {len(rows):,}"
        elif (values == values[0]).all():
            yield f"all {counted(len(rows), 'prediction')} are {values[0]:.6g}"
        if len({row.value for row in rows}) == 1:
            yield f"the value of all {counted(len(rows), 'row')} is {rows[0].value:.6g}"
    if task.head in (TOKEN_LABELS, JOINT) and not any(predicted.spans):
        yield f"no span is predicted in {counted(len(rows), 'row')}"
    if task.head == JOINT and (inside := sum(_begins_inside(row) for row in rows)):
        yield f"spans of the rows that begin inside a word: {inside:,}; slots are counted by words, so without them"


def _names(names: Iterable[str]) -> str:
    """Writes some names, at most _SHOWN of them."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} others" if len(listed) > _SHOWN else "")


# Classes. -------------------------------------------------------------------------------------------------------------


def _accuracy(task: Task, rows: Sequence[Row], predicted: Predictions, argument: str) -> Any:
    return import_library("sklearn.metrics").accuracy_score([row.label for row in rows], predicted.labels)


def _macro_f1(task: Task, rows: Sequence[Row], predicted: Predictions, argument: str) -> Any:
    # Over the classes that are in the rows or predicted, scikit-learn's own choice and so what papers have: KLUE-TC's
    # is computed in this way (KLUE-benchmark/KLUE-baseline, klue_baseline/metrics/functional.py, 443c38b).
    return import_library("sklearn.metrics").f1_score(
        [row.label for row in rows], predicted.labels, average="macro", zero_division=np.nan
    )


def _f1(task: Task, rows: Sequence[Row], predicted: Predictions, argument: str) -> Any:
    positive = _positive_class(task, argument)
    if isinstance(positive, str):
        truth = [row.label == positive for row in rows]
        answers = [label == positive for label in predicted.labels]
    else:
        if not np.isfinite(predicted.values).all():
            return math.nan
        truth = [row.value >= positive for row in rows]
        answers = [value >= positive for value in predicted.values]
    return import_library("sklearn.metrics").f1_score(truth, answers, zero_division=np.nan)


def _positive_class(task: Task, argument: str) -> str | float:
    """Returns the class whose F1 is meant, or the lowest value of it: KLUE-STS counts 3 and above (`f1:3`)."""
    if task.head == REGRESSION:
        try:
            return float(argument)
        except ValueError:
            raise RecipeError(
                f"task {task.name}: the metric f1 of numbers needs a lowest value after a colon, such as f1:3"
            ) from None
    if argument:
        if argument not in task.labels:
            raise RecipeError(f"task {task.name}: no label {argument!r}; the metric f1:LABEL is of one of its labels")
        return argument
    if len(task.labels) != 2:
        raise RecipeError(f"task {task.name}: the metric f1 of {len(task.labels)} classes; write f1:LABEL or macro_f1")
    return task.labels[1]  # as scikit-learn's pos_label=1


# Numbers. -------------------------------------------------------------------------------------------------------------


def _correlation(name: str) -> Compute:
    def compute(task: Task, rows: Sequence[Row], predicted: Predictions, argument: str) -> Any:
        truth, values = np.array([row.value for row in rows]), np.asarray(predicted.values, np.float64)
        if not np.isfinite(values).all() or any((each == each[0]).all() for each in (truth, values)):
            return math.nan
        return getattr(import_library("scipy.stats"), name)(truth, values)[0]

    return compute


# Spans. ---------------------------------------------------------------------------------------------------------------


def character_tags(text: str, spans: Iterable[Span]) -> list[str]:
    """Returns the IOB2 tags of a text's characters, without its white space: ``B-PS I-PS O O``.

    KLUE's own code leaves spaces out too (klue_baseline/data/klue_ner.py, 0cd61a0), so a span with a space at its edge
    is the same span.
    """
    tags = [OUTSIDE] * len(text)
    for begin, end, kind in spans:
        assert 0 <= begin < end <= len(text), f"a span from {begin} to {end} of {len(text)} characters"
        assert tags[begin:end] == [OUTSIDE] * (end - begin), "spans overlap"
        inside = [place for place in range(begin, end) if not text[place].isspace()]
        for place in inside:
            tags[place] = f"{'B' if place == inside[0] else 'I'}-{kind}"
    return [tag for tag, sign in zip(tags, text) if not sign.isspace()]


def _tags_of(rows: Sequence[Row], predicted: Predictions) -> tuple[list[list[str]], list[list[str]]]:
    truth = [character_tags(row.texts[0], row.spans) for row in rows]
    return truth, [character_tags(row.texts[0], spans) for row, spans in zip(rows, predicted.spans)]


def _entity_f1(average: str) -> Compute:
    # Macro over kinds is what the table of KLUE calls entity F1: seqeval, strict, IOB2 (klue_ner_entity_macro_f1,
    # KLUE-benchmark/KLUE-baseline, klue_baseline/metrics/functional.py, 443c38b). Its code joins all sentences into
    # one, each between two special tokens, and cuts rows and truth alike at max_seq_length; here nothing is cut.
    def compute(task: Task, rows: Sequence[Row], predicted: Predictions, argument: str) -> Any:
        if not any(row.spans for row in rows) and not any(predicted.spans):
            return math.nan
        scheme = import_library("seqeval.scheme").IOB2
        f1_score = import_library("seqeval.metrics").f1_score
        return f1_score(*_tags_of(rows, predicted), average=average, mode="strict", scheme=scheme, zero_division=0)

    return compute


def _character_f1(task: Task, rows: Sequence[Row], predicted: Predictions, argument: str) -> Any:
    # KLUE's second figure (klue_ner_char_macro_f1, same file): the mean over all tags. "O" is among them in its code,
    # against its own docstring (KLUE-baseline, pull request 7), and a tag that is nowhere counts as 1. So that scores
    # compare with published ones, both are done in the same way. Two more tokens a sentence, which count as "O" there,
    # are not counted here.
    names = [*(f"{prefix}-{kind}" for kind in task.kinds for prefix in "BI"), OUTSIDE]
    numbers = {name: number for number, name in enumerate(names)}
    truth, answers = (
        np.array([numbers[tag] for tags in each for tag in tags], np.int32) for each in _tags_of(rows, predicted)
    )
    if not len(truth):
        return math.nan
    return import_library("sklearn.metrics").f1_score(
        truth, answers, labels=range(len(names)), average="macro", zero_division=1.0
    )


# MASSIVE: a class and slots. ------------------------------------------------------------------------------------------


def word_tags(text: str, spans: Iterable[Span], starts: Iterable[int] | None = None) -> list[str]:
    """Returns the IOB tags of a text's words, as MASSIVE counts slots.

    A word has the slot of its first character, and words that follow one another with the same slot are one slot, also
    where the data has two (alexa/massive, src/massive/utils/training_utils.py, convert_to_bio, 3932705). `starts` says
    where words begin, as :func:`word_starts` returns it; without it they are what white space separates.
    """
    kinds = [OUTSIDE] * len(text)
    for begin, end, kind in spans:
        kinds[begin:end] = [kind] * (end - begin)
    tags: list[str] = []
    for kind, group in groupby(kinds[start] for start in (word_starts(text) if starts is None else starts)):
        length = sum(1 for _ in group)
        tags += [OUTSIDE] * length if kind == OUTSIDE else [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
    return tags


def word_starts(text: str, spans: Iterable[Span] = (), locale: str = "") -> list[int]:
    """Returns the places of a text where its words begin: after white space.

    In the locales BY_CHARACTER each character is a word, but ASCII ones between white space or the borders of `spans`,
    the row's own, are one word (alexa/massive, scripts/create_hf_dataset.py, 13453b2: there these are what white space
    separates in the annotated utterance).
    """
    borders = {border for span in spans for border in (span.begin, span.end)} if locale in BY_CHARACTER else set()
    starts: list[int] = []
    for number, chunk in groupby(_chunks(text, borders), key=lambda each: each[1]):
        if number != SPACES:
            places = [place for place, _ in chunk]
            is_one = locale not in BY_CHARACTER or text[places[0] : places[-1] + 1].isascii()
            starts += places[:1] if is_one else places
    return starts


def _chunks(text: str, borders: set[int]) -> Iterator[tuple[int, int]]:
    """Yields each place of a text and the number of its chunk, or SPACES."""
    number = 0
    for place, sign in enumerate(text):
        number += place in borders
        yield place, SPACES if sign.isspace() else number


def _begins_inside(row: Row) -> int:
    """Returns how many spans begin inside a word."""
    starts = word_starts(row.texts[0], row.spans, row.locale)
    return sum(span.begin not in starts for span in row.spans)


def _words_of(rows: Sequence[Row], predicted: Predictions) -> tuple[list[list[str]], list[list[str]]]:
    starts = [word_starts(row.texts[0], row.spans, row.locale) for row in rows]
    truth = [word_tags(row.texts[0], row.spans, places) for row, places in zip(rows, starts)]
    return truth, [word_tags(row.texts[0], spans, places) for row, spans, places in zip(rows, predicted.spans, starts)]


def _slot_f1(task: Task, rows: Sequence[Row], predicted: Predictions, argument: str) -> Any:
    # As alexa/massive's eval_preds (same file): seqeval's default, which is micro F1 as conlleval counts it.
    truth, answers = _words_of(rows, predicted)
    if not any(tag != OUTSIDE for each in (truth, answers) for tags in each for tag in tags):
        return math.nan
    return import_library("seqeval.metrics").f1_score(truth, answers, zero_division=0)


def _exact_match(task: Task, rows: Sequence[Row], predicted: Predictions, argument: str) -> Any:
    # The class and the tags of all words are right (same function, ex_match_acc).
    truth, answers = _words_of(rows, predicted)
    right = [
        row.label == label and tags == found for row, label, tags, found in zip(rows, predicted.labels, truth, answers)
    ]
    return import_library("sklearn.metrics").accuracy_score([True] * len(right), right)


_CLASSES = (CLASSIFICATION, JOINT)
_SPANS = (TOKEN_LABELS, JOINT)
METRICS = {
    "accuracy": Metric("the share of rows with the right class", _CLASSES, _accuracy),
    "macro_f1": Metric("the mean of the F1 of the classes that are there or predicted", _CLASSES, _macro_f1),
    "f1": Metric(
        "the F1 of one class (f1:LABEL, or the second of two), or of values from a lowest one on (f1:3)",
        (CLASSIFICATION, REGRESSION),
        _f1,
        takes_argument=True,
    ),
    "pearson": Metric("Pearson's correlation, which needs values that differ", (REGRESSION,), _correlation("pearsonr")),
    "spearman": Metric(
        "Spearman's correlation of ranks, which needs values that differ", (REGRESSION,), _correlation("spearmanr")
    ),
    "entity_f1": Metric("the mean of the kinds' F1 of whole spans, as KLUE counts it", _SPANS, _entity_f1("macro")),
    "entity_micro_f1": Metric("the F1 of whole spans, all kinds together", _SPANS, _entity_f1("micro")),
    "character_f1": Metric("the mean of the F1 of the tags of characters, as KLUE counts it", _SPANS, _character_f1),
    "intent_accuracy": Metric("the share of rows with the right class", (JOINT,), _accuracy),
    "slot_f1": Metric("the F1 of slots over words, all kinds together, as MASSIVE counts it", (JOINT,), _slot_f1),
    "exact_match": Metric("the share of rows with the right class and slots", (JOINT,), _exact_match),
}


def import_library(name: str) -> Any:
    """Returns a module of scikit-learn, SciPy or seqeval. RecipeError if it is missing or cannot be imported."""
    package = {"sklearn": "scikit-learn"}.get(name.partition(".")[0], name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise RecipeError(f"scores and baselines of tasks need {package}: {INSTALL}") from None
    except ImportError as error:
        reason = str(error).strip().split("\n")[0]
        raise RecipeError(f"{package} cannot be imported ({reason}): {INSTALL}") from None
