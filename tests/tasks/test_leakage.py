"""Leaks, repetitions and contradictions are those that comparing every row with every other one finds."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.tasks.leakage import KINDS, Leakage, check_splits, evaluate_clean, normalize
from kogpt2_gluon.tasks.loading import open_task
from kogpt2_gluon.tasks.metrics import Predictions
from kogpt2_gluon.tasks.task import CLASSIFICATION, REGRESSION, Row, Task
from tests.helpers import REAL_TEXT

FINETUNE = REAL_TEXT / "finetune"
needs_korean = pytest.mark.skipif(not FINETUNE.is_dir(), reason="the real Korean tasks (../shared/korean) are not here")

SINGLE = Task("mine", "a test", CLASSIFICATION, lambda path, say: iter(()), {}, ("accuracy",), ("no", "yes"))
PAIRS = Task(
    "mine", "a test", CLASSIFICATION, lambda path, say: iter(()), {}, ("accuracy",), ("no", "yes"), is_pair=True
)


def rows_of(name: str, *rows: tuple[str, ...]) -> list[Row]:
    """Rows whose last part is their answer."""
    return [Row(parts[:-1], parts[-1], where=f"/data/{name}, line {number}") for number, parts in enumerate(rows, 1)]


def counts(leakage: Leakage) -> dict[tuple[str, str, str], int]:
    return {(each.split, each.other, each.kind): each.rows for each in leakage.findings if each.rows}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("좋은 영화", " 좋은\u00a0\u3000영화\n"),
        ("한국", unicodedata.normalize("NFD", "한국")),
        ("영화", "\ufeff영\u200b화\u00ad"),
        ("", " \t\u200b"),
    ],
)
def test_equal_texts(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)


@pytest.mark.parametrize(("one", "other"), [("영화", "영 화"), ("Film", "film"), ("영화", "영화."), ("①", "1")])
def test_different_texts(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)


def test_single_texts() -> None:
    train = rows_of("train", ("가", "yes"), ("나", "no"), ("가", "no"), ("가 ", "yes"), ("다", "no"), ("다", "no"))
    test = rows_of("test", ("가", "yes"), (" 나", "yes"), ("라", "no"), ("다", "no"))
    leakage = check_splits(SINGLE, {"train": train, "test": test})
    assert counts(leakage) == {
        ("train", "", "duplicate"): 3,
        ("train", "", "contradiction"): 3,
        ("test", "train", "exact"): 2,
        ("test", "train", "normalized"): 1,
        ("test", "train", "other answer"): 1,
    }
    assert leakage.clean == {"test": (2,)}
    assert leakage.lines()[1:] == [
        "train: 3 of 6 rows (50.00%) have the texts of another row and another answer (train, line 3 = train, line 1)",
        "test: 2 of 4 rows (50.00%) are in train, sign by sign (test, line 1 = train, line 1; "
        "test, line 4 = train, line 5)",
        "test: 1 of 4 rows (25.00%) are in train but for white space or the way in which letters are encoded "
        "(test, line 2 = train, line 2)",
        "test: 1 of 4 rows (25.00%) are in train with another answer only (test, line 2 = train, line 2)",
    ]


def test_pairs() -> None:
    train = rows_of("train", ("가", "나", "yes"), ("다", "라", "no"), ("나", "가", "yes"), ("마", "마", "yes"))
    dev = rows_of("dev", ("라", "다", "yes"), ("마", "마", "yes"), ("바", "사", "no"))
    test = rows_of("test", ("가", "라", "no"), ("사", "바", "no"), ("아", "자", "no"))
    leakage = check_splits(PAIRS, {"train": train, "dev": dev, "test": test})
    assert counts(leakage) == {
        ("train", "", "swapped duplicate"): 1,
        ("dev", "train", "exact"): 1,
        ("dev", "train", "swapped"): 1,
        ("dev", "train", "other answer"): 1,
        ("test", "train", "one text"): 1,
        ("test", "dev", "swapped"): 1,
        ("test", "dev", "one text"): 1,
    }
    assert leakage.clean == {"dev": (2,), "test": (0, 1, 2)}, "clean of train; dev is counted only"
    assert leakage.lines()[-1] == "test: no row is in train"
    assert "dev, line 1 = train, line 2" in next(line for line in leakage.lines() if "swapped (dev" in line)


def test_numbers_contradict() -> None:
    task = Task("mine", "a test", REGRESSION, lambda path, say: iter(()), {}, ("pearson",), is_pair=True)
    rows = [Row(("가", "나"), value=value, where=f"f, line {value}") for value in (1.0, 2.0)]
    assert counts(check_splits(task, {"train": rows}))["train", "", "contradiction"] == 2


def test_no_rows() -> None:
    leakage = check_splits(PAIRS, {"train": [], "test": rows_of("test", ("가", "나", "no"))})
    assert leakage.clean == {"test": (0,)} and leakage.lines() == ["test: no row is in train"]
    leakage = check_splits(PAIRS, {"train": rows_of("train", ("가", "나", "no")), "test": []})
    assert leakage.clean == {"test": ()}


def test_texts_are_never_shown() -> None:
    secret = "지독한욕설"
    rows = rows_of("f", *[(secret, "yes"), (secret, "no"), (secret + " ", "no")] * 3)
    lines = check_splits(SINGLE, {"train": rows, "test": rows}).lines()
    assert lines and not any(secret in line for line in lines)


texts = st.sampled_from(["가", "가 ", " 가", "나", "나\u200b", "가나", "각", unicodedata.normalize("NFD", "각"), ""])
answers = st.sampled_from(["yes", "no"])


def same(one: Row, other: Row, swapped: bool = False) -> bool:
    order = other.texts[::-1] if swapped else other.texts
    return [normalize(text) for text in one.texts] == [normalize(text) for text in order]


def expected(train: Sequence[Row], test: Sequence[Row], is_pair: bool) -> dict[tuple[str, str, str], int]:
    """Counts the same things by comparing every row with every other one."""
    found: dict[tuple[str, str, str], int] = {}

    def note(split: str, other: str, kind: str) -> None:
        found[split, other, kind] = found.get((split, other, kind), 0) + 1

    for name, rows in (("train", train), ("test", test)):
        for number, row in enumerate(rows):
            if any(same(row, each) for each in rows[:number]):
                note(name, "", "duplicate")
            elif is_pair and any(same(row, each, swapped=True) for each in rows[:number]):
                note(name, "", "swapped duplicate")
            if any(same(row, each) and row.label != each.label for each in rows):
                note(name, "", "contradiction")
    for row in test:
        if any(row.texts == each.texts for each in train):
            kind, partners = "exact", [each for each in train if same(row, each)]
        elif any(same(row, each) for each in train):
            kind, partners = "normalized", [each for each in train if same(row, each)]
        elif is_pair and any(same(row, each, swapped=True) for each in train):
            kind, partners = "swapped", [each for each in train if same(row, each, swapped=True)]
        else:
            known = {normalize(text) for each in train for text in each.texts}
            if is_pair and any(normalize(text) in known for text in row.texts):
                note("test", "train", "one text")
            continue
        note("test", "train", kind)
        if not any(each.label == row.label for each in partners):
            note("test", "train", "other answer")
    return found


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.booleans(), st.data())
def test_as_comparing_all_rows(is_pair: bool, data: st.DataObject) -> None:
    row = st.tuples(texts, texts, answers) if is_pair else st.tuples(texts, answers)
    train, test = (rows_of(name, *data.draw(st.lists(row, max_size=8))) for name in ("train", "test"))
    leakage = check_splits(PAIRS if is_pair else SINGLE, {"train": train, "test": test})
    assert counts(leakage) == expected(train, test, is_pair)
    clean = [not any(same(row, each) or (is_pair and same(row, each, swapped=True)) for each in train) for row in test]
    assert leakage.clean["test"] == tuple(np.flatnonzero(clean))
    assert all(len(each.examples) == min(each.rows, 3) for each in leakage.findings if each.kind != "contradiction")


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=20, unique=True))
@example([("가", "나"), ("나", "가"), ("", "가나"), ("가나", "")])
def test_different_pairs_are_not_leaks(pairs: list[tuple[str, str]]) -> None:
    keys = {tuple(map(normalize, pair)) for pair in pairs}
    leakage = check_splits(PAIRS, {"train": rows_of("train", *((*pair, "no") for pair in pairs))})
    duplicates = next(each for each in leakage.findings if each.kind == "duplicate")
    assert duplicates.rows == len(pairs) - len(keys)


def test_the_score_without_leaked_rows() -> None:
    rows = rows_of("test", ("가", "yes"), ("나", "no"), ("다", "no"))
    predicted = Predictions(["yes", "yes", "no"])
    assert evaluate_clean(SINGLE, rows, predicted, (1, 2)) == {"accuracy": 0.5}
    said: list[str] = []
    assert math.isnan(evaluate_clean(SINGLE, rows, predicted, (), said.append)["accuracy"])
    assert said == ["no rows, so no score exists"]


def test_kinds_can_be_written() -> None:
    assert all(KINDS[kind].format("train") for kind in KINDS)


@needs_korean
def test_question_pair() -> None:
    task = open_task("question-pair")
    names = {"train": "train.txt", "dev": "validation.txt", "test": "test.txt"}
    splits = {split: list(task.read(FINETUNE / "question_pair" / name, print)) for split, name in names.items()}
    leakage = check_splits(task, splits)
    found = counts(leakage)
    assert found["test", "train", "exact"] == 2 and found["test", "train", "one text"] == 35
    assert {split: len(clean) for split, clean in leakage.clean.items()} == {"dev": 681, "test": 756}


@needs_korean
def test_korsts() -> None:
    task = open_task("korsts")
    names = {split: f"sts-{split}.tsv" for split in ("train", "dev", "test")}
    found = counts(
        check_splits(task, {split: list(task.read(FINETUNE / "KorSTS" / name, print)) for split, name in names.items()})
    )
    assert found["train", "", "contradiction"] == 18 and found["test", "train", "swapped"] == 2
    assert found["test", "dev", "exact"] == 4 and ("test", "train", "exact") not in found
