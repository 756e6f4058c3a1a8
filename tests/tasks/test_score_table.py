"""The table marks what has learned nothing, and never writes a number that does not exist."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.tasks.score_table import BASELINE, COLUMNS, FLOOR, PUBLISHED, SYSTEM, Score, ScoreTable
from kogpt2_gluon.tasks.task import CLASSIFICATION, Published, Split, Task


def table_of(**means: float) -> ScoreTable:
    """A table of one metric on one split; the kind is the first letter of the name."""
    kinds = {"f": FLOOR, "b": BASELINE, "s": SYSTEM}
    scores = [Score(name, "test", "accuracy", mean, rows=758, kind=kinds[name[0]]) for name, mean in means.items()]
    return ScoreTable("Question Pair", scores)


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (0.5, "below f_overlap: has learned nothing"),
        (0.851, "below f_overlap: has learned nothing"),
        (0.8522, "no better than f_overlap: has learned nothing"),
        (0.86, "below b_ngrams"),
        (0.918, "no better than b_ngrams"),
        (0.93, ""),
        (math.nan, "this score does not exist"),
    ],
)
def test_verdicts(mean: float, verdict: str) -> None:
    table = table_of(f_majority=0.67, f_overlap=0.8522, b_ngrams=0.918, s=mean)
    assert table.verdict(table.scores[-1]) == verdict
    assert verdict in table.text() and not any(table.verdict(score) for score in table.scores[:-1])


def test_a_baseline_without_a_score_marks_nothing() -> None:
    table = table_of(f_majority=math.nan, s=-0.1)
    assert table.verdict(table.scores[1]) == ""


def test_scores_on_other_rows_are_not_compared() -> None:
    table = table_of(f=0.9, s=0.5)
    other = [Score("s", split, metric, 0.1, rows=rows) for split, metric, rows in
             (("dev", "accuracy", 758), ("test", "f1", 758), ("test", "accuracy", 756))]  # fmt: skip
    assert [table.verdict(score) for score in other] == ["", "", ""]


def test_runs_have_mean_and_spread() -> None:
    table = ScoreTable("t")
    table.add_runs("ours", "test", [{"accuracy": 0.8, "f1": 0.5}, {"accuracy": 0.9, "f1": math.nan}], 10, "length 64")
    accuracy, f1 = table.scores
    assert (accuracy.mean, accuracy.seeds) == (pytest.approx(0.85), 2)
    assert accuracy.spread == pytest.approx(math.sqrt(2 * 0.05**2)), "of a sample"
    assert accuracy.written() == "0.8500 ± 0.0707" and accuracy.note == "length 64"
    assert math.isnan(f1.mean) and f1.note == "length 64; undefined with 1 of 2 seeds" and f1.written() == "undefined"


def test_a_single_run_has_no_spread() -> None:
    table = ScoreTable("t")
    table.add_runs("ours", "test", [{"accuracy": 0.8}], 10)
    assert table.scores[0].written() == "0.8000" and math.isnan(table.scores[0].spread)


def published_task() -> Task:
    return Task(
        "nsmc", "a test", CLASSIFICATION, lambda path, say: iter(()), {"test": Split(("a",), 50_000)}, ("accuracy",),
        ("0", "1"),
        published=(
            Published("KoGPT-2", "accuracy", 0.899, "test", "its README"),
            Published("KoGPT-2", "f1", 0.9, "test", "its README"),
            Published("other", "accuracy", 0.7, "hidden", "a paper"),
        ),
    )  # fmt: skip


def test_published_scores_have_their_split() -> None:
    table = ScoreTable("NSMC")
    table.add_runs("ours", "test", [{"accuracy": 0.95}], 10_000)
    table.add_published(published_task(), {"test": 10_000})
    assert [(each.system, each.split, each.rows, each.kind) for each in table.scores[1:]] == [
        ("KoGPT-2", "test", 50_000, PUBLISHED),
        ("other", "hidden", 0, PUBLISHED),
    ]
    line = next(line for line in table.text().splitlines() if line.startswith("KoGPT-2"))
    note = "made on 50,000 rows, not on these 10,000; its README; published"
    assert " ".join(line.split()) == f"KoGPT-2 test 50,000 accuracy 0.8990 {note}"


def test_the_same_rows_need_no_warning() -> None:
    table = ScoreTable("NSMC")
    table.add_published(published_task(), {"test": 50_000})
    assert [score.note for score in table.scores] == ["its README", "a paper"]


def test_order() -> None:
    table = ScoreTable("t", [
        Score("a", "test", "f1", 0.1), Score("b", "dev", "accuracy", 0.1), Score("c", "test", "accuracy", 0.1),
        Score("d", "test", "f1", 0.1, kind=PUBLISHED), Score("e", "test", "f1", 0.1, kind=FLOOR),
        Score("f", "test", "f1", 0.1),
    ])  # fmt: skip
    assert [score.system for score in table.ordered()] == ["e", "a", "f", "d", "c", "b"]


def test_korean_names_are_aligned() -> None:
    lines = table_of(f_다수결=0.67, s_우리=0.9).text().splitlines()
    width = [
        sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in line.split("test")[0])
        for line in lines[2:]
    ]
    assert len(set(width)) == 1
    assert lines[1].split() == list(COLUMNS)


def test_no_rows() -> None:
    table = ScoreTable("empty")
    assert table.text().splitlines()[0] == "empty" and json.loads(table.json()) == {"title": "empty", "scores": []}
    assert table.markdown().count("\n") == 4


def test_a_path_that_is_no_unicode_can_be_written() -> None:
    table = ScoreTable("t", [Score("runs/\udced\udc95", "test", "accuracy", 0.5)])
    for text in (table.text(), table.markdown(), table.json()):
        text.encode()


def test_json_has_no_nan() -> None:
    plain = json.loads(table_of(f=0.67, s=math.nan).json(), parse_constant=pytest.fail)
    assert plain["scores"][1]["mean"] is None and plain["scores"][1]["spread"] is None
    assert plain["scores"][1]["verdict"] == "this score does not exist"
    assert plain["scores"][0]["mean"] == 0.67 and plain["scores"][0]["kind"] == FLOOR


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.text(), st.text(), st.floats()), min_size=1, max_size=5), st.text())
def test_any_names(parts: list[tuple[str, str, float]], title: str) -> None:
    """Names from files cannot break a table: a line a score, and no column more."""
    table = ScoreTable(title, [Score(name, "test", "accuracy", mean, note=note) for name, note, mean in parts])
    assert len(table.text().split("\n")) == len(parts) + 3 and table.text().replace("\n", "").isprintable()
    rows = table.markdown().split("\n")[2:-1]
    assert len(rows) == len(parts) + 2
    assert all(row.replace("\\\\", "").replace("\\|", "").count("|") == len(COLUMNS) + 1 for row in rows)
    names = [score.system for score in table.ordered()]
    assert [each["system"] for each in json.loads(table.json())["scores"]] == names
