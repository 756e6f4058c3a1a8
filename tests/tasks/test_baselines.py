"""Baselines read nothing but what they may, answer the same at every call, and give the known figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.tasks.baselines import BASELINES, Baseline, baselines_for, majority, ngrams, overlap, words
from kogpt2_gluon.tasks.loading import open_task
from kogpt2_gluon.tasks.metrics import Predictions, evaluate_predictions
from kogpt2_gluon.tasks.task import CLASSIFICATION, HEADS, JOINT, REGRESSION, TOKEN_LABELS, Row, Span, Task
from tests.helpers import REAL_TEXT

FINETUNE = REAL_TEXT / "finetune"
needs_korean = pytest.mark.skipif(not FINETUNE.is_dir(), reason="the real Korean tasks (../shared/korean) are not here")


def make_task(head: str, is_pair: bool = False, labels: tuple[str, ...] = ("bad", "good")) -> Task:
    metrics = {REGRESSION: ("pearson",), TOKEN_LABELS: ("entity_f1",), JOINT: ("exact_match",)}
    return Task(
        "mine", "a test", head, lambda path, say: iter(()), {}, metrics.get(head, ("accuracy",)), labels, ("PS", "LC"),
        is_pair=is_pair, value_range=(0.0, 5.0),
    )  # fmt: skip


GOOD = ["정말 좋다", "최고의 영화", "좋은 배우", "다시 보고 싶다", "정말 최고"]
BAD = ["너무 지루하다", "최악의 영화", "돈이 아깝다", "지루하고 나쁘다", "정말 최악"]


def make_rows(task: Task) -> list[Row]:
    rows = []
    for number, (text, other) in enumerate(zip(GOOD + BAD, BAD + GOOD)):
        good = number < len(GOOD)
        texts = (text, text + "!" if good else other) if task.is_pair else (text,)
        spans = (Span(0, 2, "PS"), Span(3, 5, "LC")) if good else ()
        rows.append(Row(texts, task.labels[good], 4.0 + number / 10 if good else 1.0, spans, f"rows, line {number}"))
    return rows


CASES = [
    (baseline, make_task(head, is_pair))
    for head in HEADS
    for is_pair in (False, True)
    for baseline in baselines_for(make_task(head, is_pair))
    if not (is_pair and head in (TOKEN_LABELS, JOINT))
]
IDS = [f"{baseline.name}, {task.head}{', pairs' * task.is_pair}" for baseline, task in CASES]


@pytest.mark.parametrize(("baseline", "task"), CASES, ids=IDS)
def test_answers(baseline: Baseline, task: Task) -> None:
    """They fit the task, are the same at every call, and do not come from the answers of the test rows."""
    train = make_rows(task)
    test = [*train, dataclasses.replace(train[0], texts=("",) * len(train[0].texts), spans=())]
    found = baseline.answer(task, train, test, 7, print)
    evaluate_predictions(task, test, found)
    assert found == baseline.answer(task, train, test, 7, print)
    blank = [Row(row.texts) for row in test]
    assert found == baseline.answer(task, train, blank, 7, print), "it has read the answers"
    assert baseline.answer(task, train, [], 7, print) == Predictions()


@pytest.mark.parametrize(("baseline", "task"), CASES, ids=IDS)
def test_all_answers_alike(baseline: Baseline, task: Task) -> None:
    train = [dataclasses.replace(row, label="good", value=2.0, spans=()) for row in make_rows(task)]
    found = baseline.answer(task, train, train, 0, print)
    if task.head == REGRESSION:
        assert found.values == pytest.approx([2.0] * len(train))
    if task.head in (CLASSIFICATION, JOINT):
        assert found.labels == ["good"] * len(train)


def test_which_baseline_suits() -> None:
    names = {(task.head, task.is_pair): [each.name for each in baselines_for(task)] for _, task in CASES}
    assert names == {
        (CLASSIFICATION, False): ["majority", "character n-grams"],
        (CLASSIFICATION, True): ["majority", "bigram overlap", "character n-grams"],
        (REGRESSION, False): ["majority", "character n-grams"],
        (REGRESSION, True): ["majority", "bigram overlap", "character n-grams"],
        (TOKEN_LABELS, False): ["majority", "tags of words"],
        (JOINT, False): ["majority", "character n-grams"],
    }
    three = make_task(CLASSIFICATION, True, labels=("a", "b", "c"))
    assert [each.name for each in baselines_for(three)] == ["majority", "character n-grams"]
    assert all(each.about for each in BASELINES)


def test_majority() -> None:
    task = make_task(CLASSIFICATION, labels=("a", "b", "c"))
    rows = [Row(("",), label) for label in "cbbc"]
    assert majority.answer(task, rows, rows[:2]).labels == ["b", "b"], "the task's first of several"
    numbers = [Row(("",), value=value) for value in (1.0, 2.0, 4.5)]
    assert majority.answer(make_task(REGRESSION), numbers, rows[:1]).values == [2.5]


# Overlap. -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ("좋다", "좋다", 1.0),
        ("좋다", "나빠", 0.0),
        ("좋다", "  좋다\n", 1.0),
        ("가", "가나", 2 * 1 / 5),  # ' 가' of ' 가', '가 ' and of ' 가', '가나', '나 '
        ("", "", 1.0),
        ("가", "", 0.0),
        ("\u1100\u1161", "가", 1.0),
    ],
)
def test_bigram_overlap(first: str, second: str, share: float) -> None:
    assert overlap.bigram_overlap(first, second) == overlap.bigram_overlap(second, first) == pytest.approx(share)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["bad", "good"])), min_size=1, max_size=20))
def test_no_threshold_is_better(pairs: list[tuple[int, str]]) -> None:
    task = make_task(CLASSIFICATION, is_pair=True)
    known, labels = np.array([value / 6 for value, _ in pairs]), [label for _, label in pairs]
    low, high, threshold = overlap._best_threshold(task, known, labels)
    assert {low, high} == {"bad", "good"}

    def right(low: str, high: str, threshold: float) -> int:
        return sum((high if value >= threshold else low) == label for value, label in zip(known, labels))

    candidates = [*known, np.inf]
    best = max(right(*order, each) for order in (("bad", "good"), ("good", "bad")) for each in candidates)
    assert right(low, high, threshold) == best


def test_a_line_stays_in_the_range() -> None:
    task = make_task(REGRESSION, is_pair=True)
    train = [Row(("가나다라", "가나다라"), value=5.0), Row(("가나다라", "가나마바"), value=4.0)]
    found = overlap.answer(task, train, [Row(("가나", "다라")), Row(("가나다라", "가나다라"))]).values
    assert found[1] == pytest.approx(5.0) and 0.0 <= found[0] < 4.0


# Words. ---------------------------------------------------------------------------------------------------------------


def test_words() -> None:
    train = [
        Row(("홍길동은 서울 시에 산다",), spans=(Span(0, 3, "PS"), Span(5, 9, "LC"))),
        Row(("홍길동은 간다",), spans=(Span(0, 3, "PS"),)),
        Row(("홍길동은 온다",)),
    ]
    tags = words.learn(train)
    assert set(tags) == {"홍길동은", "서울", "시에"}
    assert words.find_spans("어제 홍길동은  서울  시에", tags) == (Span(3, 6, "PS"), Span(9, 14, "LC"))
    assert words.find_spans("시에 서울", tags) == (Span(0, 1, "LC"), Span(3, 5, "LC")), (
        "begins inside, but after nothing"
    )
    assert words.find_spans("", tags) == ()


@st.composite
def marked(draw: st.DrawFn) -> Row:
    """A row whose words are all different, so that looking them up finds its own spans."""
    names = draw(st.lists(st.text("가나다라", min_size=1, max_size=4), min_size=1, max_size=5, unique=True))
    text = " ".join(names)
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    kinds = [draw(st.sampled_from(["", "PS", "LC"])) for _ in cuts[1:]]
    spans = []
    for begin, end, kind in zip(cuts, cuts[1:], kinds):
        stretch = text[begin:end]
        begin, end = begin + len(stretch) - len(stretch.lstrip()), end - len(stretch) + len(stretch.rstrip())
        if kind and begin < end:
            spans.append(Span(begin, end, kind))
    return Row((text,), spans=tuple(spans))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(marked())
def test_words_that_were_seen_have_their_spans(row: Row) -> None:
    assert words.find_spans(row.texts[0], words.learn([row])) == row.spans


# n-grams. -------------------------------------------------------------------------------------------------------------


def test_many_rows_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(CLASSIFICATION)
    train = make_rows(task) * 4
    monkeypatch.setattr(ngrams, "MOST_IN_ALL", sum(len(row.texts[0]) + 2 for row in train) // 2)
    said: list[str] = []
    chosen = ngrams._affordable(train, 3, said.append)
    assert 0 < len(chosen) < len(train) and said == [
        f"character n-grams: fitted to {len(chosen)} of 40 train rows, to spare memory"
    ]
    assert chosen == ngrams._affordable(train, 3, said.append)
    assert chosen != ngrams._affordable(train, 4, said.append)


def test_long_texts_are_read_in_part() -> None:
    task = make_task(CLASSIFICATION)
    long = Row((GOOD[0] + " " * 2000 + "최악 " * 100_000,), "good")
    short = Row((GOOD[0],), "good")
    found = ngrams.answer(task, make_rows(task), [long, short])
    assert found.labels[0] == found.labels[1]


def read(task: str, name: str) -> tuple[Task, list[Row]]:
    public = open_task(task)
    return public, list(public.read(FINETUNE / name, print))


@needs_korean
@pytest.mark.parametrize(
    ("folder", "train", "test", "accuracy"),
    [
        ("question_pair", "train.txt", "test.txt", 0.852),
        ("question_pair", "kor_pair_train.csv", "kor_Pair_test.csv", 0.763),
    ],
)
def test_overlap_of_question_pair(folder: str, train: str, test: str, accuracy: float) -> None:
    task, known = read("question-pair", str(Path(folder) / train))
    _, asked = read("question-pair", str(Path(folder) / test))
    found = overlap.answer(task, known, asked)
    assert evaluate_predictions(task, asked, found)["accuracy"] == pytest.approx(accuracy, abs=5e-4)


@needs_korean
def test_ngrams_on_a_tenth_of_nsmc() -> None:
    """6,000 rows give 0.819; all 60,000 give 0.864, in 10 seconds."""
    task, known = read("nsmc", "nsmc/rebuilt_ratings_train.txt")
    _, asked = read("nsmc", "nsmc/rebuilt_ratings_test.txt")
    found = ngrams.answer(task, known[:6000], asked[:2000])
    assert evaluate_predictions(task, asked[:2000], found)["accuracy"] == pytest.approx(0.819, abs=0.005)
