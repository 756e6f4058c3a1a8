"""A person's own task: a YAML file that says what the columns of a table are.

    name: toxicity
    head: classification
    labels: [clean, toxic]
    text: comment
    label: is_toxic
    files: {train: train.csv, dev: dev.csv, test: test.csv}
    delimiter: comma

The files are below the folder of the data. The fields of OwnTable are the reference.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.options import Fault, from_plain, option
from kogpt2_gluon.tasks.metrics import check_metrics
from kogpt2_gluon.tasks.public.answers import class_of, value_of
from kogpt2_gluon.tasks.public.json_records import number_of, read_json_lines, text_of
from kogpt2_gluon.tasks.public.labelled_lines import read_labelled
from kogpt2_gluon.tasks.public.spans import OUTSIDE, spans_of_brackets
from kogpt2_gluon.tasks.public.tables import read_table
from kogpt2_gluon.tasks.public.text_lines import shown
from kogpt2_gluon.tasks.task import CLASSIFICATION, REGRESSION, SPLITS, TOKEN_LABELS, Row, Span, Split, Task
from kogpt2_gluon.user_files import read_yaml
from kogpt2_gluon.wording import Say, counted

TABLE, JSON_LINES, CHARACTERS, WORDS = "table", "json lines", "characters", "words"
DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
METRICS = {CLASSIFICATION: "accuracy", REGRESSION: "spearman", TOKEN_LABELS: "entity_f1"}
_LABELLED = (CHARACTERS, WORDS)  # formats that have a piece of a text and its label in each line


@dataclass
class OwnFiles:
    """The files of the splits, below the folder of the data. Without dev, some of train is held out."""

    train: str = option("", "file of the rows to train on", needed=True)
    dev: str = option("", "file of the rows that choose the best checkpoint")
    test: str = option("", "file of the rows that are scored at the end")


@dataclass
class OwnTable:
    """A task, as its YAML file has it."""

    name: str = option("", "short name of the task", needed=True)
    about: str = option("", "what is asked, for people")
    head: str = option(CLASSIFICATION, "kind of the answers", choices=(CLASSIFICATION, REGRESSION, TOKEN_LABELS))
    files: OwnFiles = field(default_factory=OwnFiles)
    format: str = option(
        TABLE,
        "table; json lines (an object a line); or for token labels characters, or words: a piece, a delimiter and its "
        "label a line (O, B-KIND, I-KIND), an empty line after each text",
        choices=(TABLE, JSON_LINES, CHARACTERS, WORDS),
    )
    delimiter: str = option(
        "tab", "what is between columns; with comma or semicolon the file is CSV", choices=tuple(DELIMITERS)
    )
    header: bool = option(True, "whether the first line has the names of the columns; else they are 1, 2, 3, ...")
    text: str = option("text", "column of the text; for token labels in a table it has [kind : words] in it")
    text_pair: str = option("", "column of the second text, where rows are pairs")
    label: str = option(
        "label", "column of the class or the number; for token labels in json lines a list of [begin, end, kind]"
    )
    labels: list[str] = option([], "classes, as the file spells them; of token labels the kinds, without B- and I-")
    words: list[str] = option([], "what the labels mean in Korean, in the same order, for prompts")
    lowest: float = option(0.0, "lowest number that the column label can have")
    highest: float = option(1.0, "highest number that the column label can have")
    metrics: list[str] = option([], "scores, the first of which chooses the best checkpoint; empty: what the head has")


def load_own_task(path: Path) -> Task:
    """Reads a task from a YAML file. RecipeError names all its faults at once."""
    plain = read_yaml(path, "task")
    own, faults = from_plain(OwnTable, plain)
    task = _as_task(own, str(path))
    faults = faults or [*_cross_check(own, plain), *_check_metrics(task)]
    if not faults:
        return task
    head = f"task {path}: " if len(faults) == 1 else f"task {path}: {len(faults)} faults:\n  "
    raise RecipeError(head + "\n  ".join(fault.text for fault in faults))


def _as_task(own: OwnTable, source: str) -> Task:
    files = dataclasses.asdict(own.files)
    return Task(
        name=own.name,
        about=own.about,
        head=own.head,
        read=partial(_READERS[own.format], own),
        splits={split: Split((files[split],)) for split in SPLITS if files[split]},
        metrics=tuple(own.metrics) or (METRICS[own.head],),
        labels=tuple(own.labels) if own.head == CLASSIFICATION else (),
        kinds=tuple(own.labels) if own.head == TOKEN_LABELS else (),
        is_pair=bool(own.text_pair),
        value_range=(own.lowest, own.highest) if own.head == REGRESSION else (0.0, 0.0),
        source=source,
        names=dict(zip(own.labels, own.words)),
    )


def _cross_check(own: OwnTable, plain: Mapping[str, Any]) -> Iterator[Fault]:
    """Yields the faults between fields that are each admissible alone."""
    if not own.name.strip():
        yield Fault(("name",), "name: is missing; give the task a short name")
    if not own.files.train.strip():
        yield Fault(("files.train",), "files.train: is missing; name the file of the rows to train on")
    yield from _check_files(own.files)
    yield from _check_labels(own)
    if own.format in _LABELLED and own.head != TOKEN_LABELS:
        yield Fault(("format", "head"), f"format={own.format} is for head={TOKEN_LABELS}, and head is {own.head}")
    if own.text_pair and own.head == TOKEN_LABELS:
        yield Fault(("text_pair", "head"), f"text_pair: rows with {TOKEN_LABELS} have one text")
    columns = [name for name in (own.text, own.text_pair, own.label) if name]
    if len(set(columns)) < len(columns):
        yield Fault(("text", "text_pair", "label"), "text, text_pair, label: one column twice")
    if own.head == REGRESSION and own.lowest >= own.highest:
        yield Fault(("lowest", "highest"), f"lowest={own.lowest:g} is not below highest={own.highest:g}")
    for keys, needed, has_effect in (
        (("lowest", "highest"), f"head={REGRESSION}", own.head == REGRESSION),
        (("labels", "words"), f"head={CLASSIFICATION} or {TOKEN_LABELS}", own.head != REGRESSION),
        (("header",), f"format={TABLE}", own.format == TABLE),
        (("delimiter",), f"another format than {JSON_LINES}", own.format != JSON_LINES),
        (("text", "label"), f"format={TABLE} or {JSON_LINES}", own.format not in _LABELLED),
    ):
        if not has_effect:
            for key in keys:
                if key in plain:
                    yield Fault((key,), f"{key}: has no effect; it needs {needed}")


def _check_files(files: OwnFiles) -> Iterator[Fault]:
    """Yields the faults of the names: a description that somebody else wrote names no file outside of the data."""
    names = {split: name for split, name in dataclasses.asdict(files).items() if name}
    if len({PurePath(name) for name in names.values()}) < len(names):
        yield Fault(("files",), "files: one file for two splits")
    for split, name in names.items():
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts or (len(path.parts) > 1 and name.startswith("~")):
            yield Fault(
                (f"files.{split}",),
                f"files.{split}: {name} is not below the folder of the data (--data, task.data); name it from there",
            )


def _check_metrics(task: Task) -> Iterator[Fault]:
    try:
        check_metrics(task)
    except RecipeError as error:
        yield Fault(("metrics",), f"metrics: {str(error).removeprefix(f'task {task.name}: ')}")


def _check_labels(own: OwnTable) -> Iterator[Fault]:
    if own.head == REGRESSION:
        return
    least = 2 if own.head == CLASSIFICATION else 1
    if len(own.labels) < least:
        what = "at least two classes" if least == 2 else "the kinds of spans"
        yield Fault(("labels",), f"labels: {counted(len(own.labels), 'label')}; head={own.head} needs {what}")
    if len(set(own.labels)) < len(own.labels):
        yield Fault(("labels",), "labels: names a label twice")
    if not all(label.strip() for label in own.labels):
        yield Fault(("labels",), "labels: an empty label")
    if own.head == TOKEN_LABELS and any(label == OUTSIDE or label[:2] in ("B-", "I-") for label in own.labels):
        yield Fault(("labels",), "labels: for token labels these are the kinds, such as PS, without O, B- and I-")
    if own.words and len(own.words) != len(own.labels):
        yield Fault(("words", "labels"), f"words: {len(own.words)} for {counted(len(own.labels), 'label')}")


# The readers of the formats. ------------------------------------------------------------------------------------------


def _read_table(own: OwnTable, path: Path, say: Say) -> Iterator[Row]:
    has_label = own.head != TOKEN_LABELS
    wanted = {"first": own.text, "second": own.text_pair, "label": own.label if has_label else ""}
    columns = {name: (column,) for name, column in wanted.items() if column}
    delimiter = DELIMITERS[own.delimiter]
    for where, fields in read_table(path, say, columns, delimiter, numbered=not own.header):
        if own.head == TOKEN_LABELS:
            text, spans = spans_of_brackets(where, fields["first"])
            yield Row((text,), spans=spans, where=where)
            continue
        texts = (fields["first"], fields["second"]) if own.text_pair else (fields["first"],)
        yield _row(own, where, texts, fields["label"])


def _read_json_lines(own: OwnTable, path: Path, say: Say) -> Iterator[Row]:
    for where, record in read_json_lines(path):
        texts = tuple(text_of(where, record, key) for key in (own.text, own.text_pair) if key)
        if own.head == CLASSIFICATION:
            value = record.get(own.label)  # 0 and true are classes as "0" and "true" are
            known = value if isinstance(value, str) or value is None else json.dumps(value)
            yield _row(own, where, texts, text_of(where, {} if known is None else {own.label: known}, own.label))
        elif own.head == REGRESSION:
            yield Row(texts, value=number_of(where, record, own.label), where=where)
        else:
            yield Row(texts, spans=_spans_of(where, record, own.label), where=where)


def _row(own: OwnTable, where: str, texts: tuple[str, ...], answer: str) -> Row:
    if own.head == REGRESSION:
        return Row(texts, value=value_of(where, answer), where=where)
    return Row(texts, class_of(where, answer, {label: label for label in own.labels}), where=where)


def _spans_of(where: str, record: Mapping[str, Any], key: str) -> tuple[Span, ...]:
    found = record.get(key)
    if not isinstance(found, list):
        raise DataError(f"{where}: {key} is not a list of [begin, end, kind]")
    spans = []
    for each in found:
        if not isinstance(each, list) or [type(part) for part in each] != [int, int, str]:
            raise DataError(
                f"{where}: {shown(json.dumps(each, ensure_ascii=False))} in {key} is not [begin, end, kind]"
            )
        spans.append(Span(*each))
    return tuple(sorted(spans))


def _read_pieces(own: OwnTable, path: Path, say: Say) -> Iterator[Row]:
    return read_labelled(path, say, DELIMITERS[own.delimiter], gap=" " if own.format == WORDS else "")


_READERS = {TABLE: _read_table, JSON_LINES: _read_json_lines, CHARACTERS: _read_pieces, WORDS: _read_pieces}
