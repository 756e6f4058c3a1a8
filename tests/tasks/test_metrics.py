"""Scores are the published ones' kind, and what does not exist is not a number."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.tasks.metrics import (
    METRICS,
    Predictions,
    character_tags,
    check_metrics,
    evaluate_predictions,
    word_tags,
)
from kogpt2_gluon.tasks.task import CLASSIFICATION, HEADS, JOINT, REGRESSION, TOKEN_LABELS, Row, Span, Task


def make_task(
    head: str, *metrics: str, labels: tuple[str, ...] = ("no", "yes"), kinds: tuple[str, ...] = ("PS", "LC")
) -> Task:
    return Task("mine", "a test", head, lambda path, say: iter(()), {}, metrics, labels, kinds)


def of_labels(*labels: str) -> list[Row]:
    return [Row(("가",), label) for label in labels]


def of_values(*values: float) -> list[Row]:
    return [Row(("가", "나"), value=value) for value in values]


def score(task: Task, rows: list[Row], predicted: Predictions) -> tuple[dict[str, float], list[str]]:
    said: list[str] = []
    return evaluate_predictions(task, rows, predicted, said.append), said


def test_classes() -> None:
    task = make_task(CLASSIFICATION, "macro_f1", "accuracy", "f1", "f1:no")
    scores, said = score(task, of_labels("yes", "yes", "no", "no"), Predictions(labels=["yes", "no", "no", "no"]))
    assert list(scores) == ["macro_f1", "accuracy", "f1", "f1:no"], "in the order of the task"
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx(2 / 3) and scores["f1:no"] == pytest.approx(0.8)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert not said


def test_predictions_that_are_all_the_same_are_said() -> None:
    task = make_task(CLASSIFICATION, "accuracy", "f1")
    scores, said = score(task, of_labels("no", "yes"), Predictions(labels=["no", "no"]))
    assert scores == {"accuracy": 0.5, "f1": 0.0}, "an F1 of 0 exists: there was something to find"
    assert said == ["all 2 predictions are no"]


def test_a_class_that_is_nowhere_has_no_f1() -> None:
    task = make_task(CLASSIFICATION, "f1", "macro_f1")
    scores, said = score(task, of_labels("no", "no"), Predictions(labels=["no", "no"]))
    assert math.isnan(scores["f1"]) and scores["macro_f1"] == 1.0
    assert "no row has yes as its label; predicted 0 times" in said
    assert any(line.startswith("f1 does not exist here") for line in said)


def test_a_class_that_is_only_predicted_costs() -> None:
    task = make_task(CLASSIFICATION, "macro_f1", labels=("a", "b", "c"))
    scores, said = score(task, of_labels("a", "a", "b", "b"), Predictions(labels=["a", "a", "b", "c"]))
    assert scores["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert said == ["no row has c as its label; predicted 1 times"]


def test_correlations() -> None:
    task = make_task(REGRESSION, "pearson", "spearman", "f1:3")
    scores, said = score(task, of_values(0, 1, 4, 5), Predictions(values=[0.0, 1.0, 2.0, 30.0]))
    assert scores["spearman"] == pytest.approx(1.0) and scores["f1:3"] == pytest.approx(2 / 3)
    assert scores["pearson"] == pytest.approx(np.corrcoef([0, 1, 4, 5], [0, 1, 2, 30])[0, 1]) and not said


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([2.5, 2.5, 2.5], "all 3 predictions are 2.5"),
        ([1.0, math.nan, 2.0], "predictions that are not finite numbers: 1 of 3"),
        ([1.0, math.inf, -math.inf], "predictions that are not finite numbers: 2 of 3"),
    ],
)
def test_a_correlation_that_does_not_exist_is_not_0(values: list[float], line: str) -> None:
    scores, said = score(make_task(REGRESSION, "pearson", "spearman"), of_values(0, 1, 2), Predictions(values=values))
    assert math.isnan(scores["pearson"]) and math.isnan(scores["spearman"])
    assert line in said and any(each.startswith("pearson does not exist here") for each in said)


def test_predictions_that_are_nearly_the_same_are_said() -> None:
    values = [2.5, 2.5 + 1e-15, 2.5]
    _, said = score(make_task(REGRESSION, "pearson"), of_values(0, 1, 2), Predictions(values=values))
    assert any(line.startswith("pearson: ") and "nearly constant" in line for line in said)


@pytest.mark.parametrize("head", HEADS)
def test_no_rows_have_no_score(head: str) -> None:
    names = tuple(
        name if name != "f1" or head != REGRESSION else "f1:3" for name in METRICS if head in METRICS[name].heads
    )
    scores, said = score(make_task(head, *names), [], Predictions())
    assert list(scores) == list(names) and all(map(math.isnan, scores.values()))
    assert said == ["no rows, so no score exists"]


@pytest.mark.parametrize("head", HEADS)
def test_one_row(head: str) -> None:
    names = tuple(
        name if name != "f1" or head != REGRESSION else "f1:3" for name in METRICS if head in METRICS[name].heads
    )
    row = Row(("홍길동 서울",), "yes", 4.0, (Span(0, 3, "PS"), Span(4, 6, "LC")))
    scores, _ = score(make_task(head, *names), [row], Predictions(["yes"], [4.0], [row.spans]))
    assert all(
        value == 1.0 or (name in ("pearson", "spearman") and math.isnan(value)) for name, value in scores.items()
    )


@pytest.mark.parametrize(
    ("head", "metric", "words"),
    [
        (
            CLASSIFICATION,
            "pearson",
            "no metric 'pearson' for the head classification; choose of accuracy, macro_f1, f1",
        ),
        (CLASSIFICATION, "acuracy", "no metric 'acuracy'"),
        (CLASSIFICATION, "f1:maybe", "no label 'maybe'"),
        (CLASSIFICATION, "accuracy:no", "takes nothing after a colon"),
        (REGRESSION, "f1", "needs a lowest value after a colon, such as f1:3"),
        (REGRESSION, "f1:high", "needs a lowest value"),
        (TOKEN_LABELS, "accuracy", "choose of entity_f1, entity_micro_f1, character_f1"),
        (TOKEN_LABELS, "exact_match", "no metric"),
    ],
)
def test_bad_metrics(head: str, metric: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_metrics(make_task(head, metric))
    with pytest.raises(RecipeError, match=words):
        evaluate_predictions(make_task(head, metric), [], Predictions())


def test_f1_of_three_classes_needs_a_name() -> None:
    with pytest.raises(RecipeError, match="the metric f1 of 3 classes; write f1:LABEL or macro_f1"):
        check_metrics(make_task(CLASSIFICATION, "f1", labels=("a", "b", "c")))


# Spans. ---------------------------------------------------------------------------------------------------------------


def test_tags_of_characters_leave_white_space_out() -> None:
    assert character_tags("김 씨는\t갔다", (Span(0, 3, "PS"),)) == ["B-PS", "I-PS", "O", "O", "O"]
    assert character_tags("김 씨", (Span(0, 2, "PS"),)) == character_tags("김 씨", (Span(0, 1, "PS"),))


def test_klue_figures() -> None:
    """The expected figures are worked out by hand from the definitions of KLUE's own functions."""
    rows = [
        Row(("홍길동은 서울에",), spans=(Span(0, 3, "PS"), Span(5, 7, "LC"))),
        Row(("부산",), spans=(Span(0, 2, "LC"),)),
        Row(("안녕",)),
    ]
    predicted = Predictions(spans=[(Span(0, 3, "PS"), Span(5, 8, "LC")), (Span(0, 2, "LC"),), ()])
    scores, _ = score(make_task(TOKEN_LABELS, "entity_f1", "entity_micro_f1", "character_f1"), rows, predicted)
    assert scores["entity_f1"] == pytest.approx((1 + 0.5) / 2)
    assert scores["entity_micro_f1"] == pytest.approx(2 / 3)
    # B-PS 1, I-PS 1, B-LC 1, I-LC 2 * 2 / (2 * 2 + 1), O 2 * 3 / (2 * 3 + 1): O is counted
    assert scores["character_f1"] == pytest.approx((1 + 1 + 1 + 4 / 5 + 6 / 7) / 5)


def test_a_tag_that_is_nowhere_counts_as_1_as_in_klue() -> None:
    rows = [Row(("홍길",), spans=(Span(0, 1, "PS"),))]
    scores, _ = score(make_task(TOKEN_LABELS, "character_f1"), rows, Predictions(spans=[()]))
    assert scores["character_f1"] == pytest.approx((0 + 1 + 1 + 1 + 2 / 3) / 5)


def test_spans_that_are_nowhere_have_no_f1() -> None:
    task = make_task(TOKEN_LABELS, "entity_f1", "entity_micro_f1")
    scores, said = score(task, [Row(("안녕",))], Predictions(spans=[()]))
    assert all(map(math.isnan, scores.values())) and "no span is predicted in 1 row" in said
    scores, _ = score(task, [Row(("안녕",))], Predictions(spans=[(Span(0, 1, "PS"),)]))
    assert scores == {"entity_f1": 0.0, "entity_micro_f1": 0.0}


texts = st.text("가나 \t", min_size=1, max_size=12)


@st.composite
def spans_in(draw: st.DrawFn, text: str) -> tuple[Span, ...]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    kinds = [draw(st.sampled_from(["", "PS", "LC"])) for _ in cuts[1:]]
    return tuple(Span(begin, end, kind) for begin, end, kind in zip(cuts, cuts[1:], kinds) if kind)


@st.composite
def answered(draw: st.DrawFn) -> tuple[list[Row], list[tuple[Span, ...]]]:
    rows = [Row((text,), "yes", spans=draw(spans_in(text))) for text in draw(st.lists(texts, min_size=1, max_size=4))]
    return rows, [draw(spans_in(row.texts[0])) for row in rows]


def shrunk(text: str, span: Span) -> tuple[int, int, str] | None:
    """A span counted in characters that are not white space."""
    begin, end = (sum(not sign.isspace() for sign in text[:place]) for place in (span.begin, span.end))
    return (begin, end, span.kind) if begin < end else None


@settings(deadline=None, derandomize=True, max_examples=150)
@given(answered())
def test_entities_are_sets_of_spans(case: tuple[list[Row], list[tuple[Span, ...]]]) -> None:
    """The F1 of tags is the F1 of the spans as sets, counted without white space."""
    rows, predicted = case
    truth, found = (
        {
            (number, *each)
            for number, row in enumerate(rows)
            for span in spans[number]
            if (each := shrunk(row.texts[0], span))
        }
        for spans in ([row.spans for row in rows], predicted)
    )
    scores, _ = score(make_task(TOKEN_LABELS, "entity_micro_f1"), rows, Predictions(spans=predicted))
    if truth or found:
        assert scores["entity_micro_f1"] == pytest.approx(2 * len(truth & found) / (len(truth) + len(found)))
    else:
        assert scores["entity_micro_f1"] in (0.0,) or math.isnan(scores["entity_micro_f1"])


# MASSIVE. -------------------------------------------------------------------------------------------------------------

UTTERANCE = "내일 아침 여덟 시 에 깨워"


def test_slots_are_counted_by_words() -> None:
    spans = (Span(0, 2, "date"), Span(3, 10, "time"))
    assert word_tags(UTTERANCE, spans) == ["B-date", "B-time", "I-time", "I-time", "O", "O"]
    assert word_tags(UTTERANCE, (Span(1, 2, "date"),)) == ["O"] * 6, "a word has the slot of its first character"
    assert word_tags("  내일  ", (Span(2, 4, "date"),)) == ["B-date"]
    adjacent = (Span(3, 5, "time"), Span(6, 10, "time"))
    assert word_tags(UTTERANCE, adjacent) == word_tags(UTTERANCE, spans[1:]), "MASSIVE joins slots of one kind"


def massive(tags: list[str], found: list[str]) -> dict[str, float]:
    """The scores of one utterance of words with these slots, "" outside."""
    text = " ".join("가" * len(tags))
    spans = [tuple(Span(2 * i, 2 * i + 1, kind) for i, kind in enumerate(each) if kind) for each in (tags, found)]
    task = make_task(JOINT, "exact_match", "intent_accuracy", "slot_f1", kinds=("X", "Y", "Z"))
    return score(task, [Row((text,), "yes", spans=spans[0])], Predictions(["yes"], [], [spans[1]]))[0]


@pytest.mark.parametrize(
    ("found", "truth", "slot_f1"),
    [
        ("XY", "XY", 1.0),
        ("XXZ", "XXY", 0.5),
        ("XX XXYZ", "XX XXZY", 0.5),
        ("XXXYY", "XX YY", 0.5),
        ("X  YY", "XX YY", 0.5),
        ("XXY  ", "XXY Y", 0.8),
    ],
)
def test_slot_f1_is_that_of_massive(found: str, truth: str, slot_f1: float) -> None:
    """Situations and figures of alexa/massive, test/test_eval_metrics.py (0552cdd)."""
    scores = massive([kind.strip() for kind in truth], [kind.strip() for kind in found])
    assert scores["slot_f1"] == pytest.approx(slot_f1)
    assert scores["exact_match"] == float(found == truth) and scores["intent_accuracy"] == 1.0


def test_exact_match_needs_both() -> None:
    task = make_task(JOINT, "exact_match", "intent_accuracy", "slot_f1")
    right = (Span(0, 2, "PS"),)
    rows = [Row((UTTERANCE,), label, spans=right) for label in ("yes", "yes", "no", "no")]
    predicted = Predictions(["yes", "no", "no", "no"], [], [right, right, (), right])
    scores, said = score(task, rows, predicted)
    assert scores == {"exact_match": 0.5, "intent_accuracy": 0.75, "slot_f1": pytest.approx(6 / 7)} and not said


def test_slots_inside_words_are_said() -> None:
    task = make_task(JOINT, "slot_f1")
    scores, said = score(task, [Row(("오늘내일",), "yes", spans=(Span(2, 4, "PS"),))], Predictions(["yes"], [], [()]))
    assert math.isnan(scores["slot_f1"])
    assert "spans of the rows that begin inside a word: 1; slots are counted by words, so without them" in said


# The rest. ------------------------------------------------------------------------------------------------------------


def test_some_rows_are_scored() -> None:
    predicted = Predictions(["a", "b", "c"], [], [(), (Span(0, 1, "PS"),), ()])
    assert predicted.at([2, 1]) == Predictions(["c", "b"], [], [(), (Span(0, 1, "PS"),)])


def test_every_metric_says_what_it_is() -> None:
    assert all(metric.about and metric.heads and set(metric.heads) <= set(HEADS) for metric in METRICS.values())
    assert {field.name for field in dataclasses.fields(Predictions)} == {"labels", "values", "spans"}


def test_a_missing_library_is_one_line() -> None:
    program = (
        "import sys\nsys.modules['sklearn'] = None\n"
        "from kogpt2_gluon.errors import one_line\nfrom kogpt2_gluon.tasks.metrics import import_library\n"
        "with one_line('kogpt2'):\n    import_library('sklearn.metrics')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "need scikit-learn: pip install --use-pep517 'kogpt2-gluon[tasks]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_libraries_are_loaded_when_they_are_needed() -> None:
    program = "import sys, kogpt2_gluon.tasks.metrics\nassert not {'sklearn', 'scipy', 'seqeval'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
