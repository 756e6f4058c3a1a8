"""Tasks by name, files of splits, checks of rows, and a part held out by its texts."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tasks.loading import check_row, find_split, open_task, split_dev
from kogpt2_gluon.tasks.metrics import check_metrics
from kogpt2_gluon.tasks.public import PUBLIC
from kogpt2_gluon.tasks.task import CLASSIFICATION, HEADS, JOINT, REGRESSION, SPLITS, TOKEN_LABELS, Row, Span, Task
from tests.tasks.data_helpers import fault, read, write

NAMES = "nsmc question-pair korsts kornli pawsx hate-speech 3i4k klue-ner klue-nli klue-sts massive carecall-memory"
NSMC = PUBLIC["nsmc"]


def test_every_public_task_is_whole() -> None:
    assert " ".join(PUBLIC) == NAMES
    for name, task in PUBLIC.items():
        assert (task.name, open_task(name)) == (name, task)
        assert task.head in HEADS and task.about and task.source
        assert "train" in task.splits and set(task.splits) <= set(SPLITS)
        assert bool(task.labels) == (task.head in (CLASSIFICATION, JOINT))
        assert bool(task.kinds) == (task.head in (TOKEN_LABELS, JOINT))
        assert (task.value_range != (0.0, 0.0)) == (task.head == REGRESSION)
        assert not task.names or tuple(task.names) == task.labels
        check_metrics(task)
        for score in task.published:
            assert 0.5 < score.score < 1 and score.metric in task.metrics and score.split and score.source


@pytest.mark.parametrize(
    ("name", "near"), [("NSMC", "nsmc"), ("question_pair", "question-pair"), ("klue_sts", "klue-sts")]
)
def test_the_nearest_task_is_named(name: str, near: str) -> None:
    with pytest.raises(RecipeError, match=f"did you mean {near}"):
        open_task(name)


def test_a_name_of_nothing_lists_the_tasks() -> None:
    with pytest.raises(RecipeError, match="the tasks: nsmc, question-pair, korsts"):
        open_task("summarise")


def test_files_are_found_below_any_of_their_folders(tmp_path: Path) -> None:
    path = write(tmp_path / "clones/KorNLUDatasets/KorSTS/sts-dev.tsv", "")
    for data in (path.parent, path.parents[1], path.parents[2]):
        assert find_split(PUBLIC["korsts"], data, "dev") == path
    assert find_split(PUBLIC["korsts"], tmp_path, "dev") is None
    assert find_split(PUBLIC["korsts"], path.parent, "train") is None
    assert find_split(NSMC, path.parent, "dev") is None  # NSMC has none


def test_a_split_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"{number:02}.txt", "")
    told = fault(NSMC, tmp_path)
    assert f"{tmp_path}: has no nsmc/ratings_train.txt or " in told
    assert "(it has 00.txt, 01.txt, 02.txt, 03.txt, 04.txt, 05.txt, 06.txt, 07.txt, and 4 more)" in told
    assert "https://github.com/e9t/nsmc" in told
    assert f"{tmp_path / 'none'}: no such folder" in fault(NSMC, tmp_path / "none")
    assert "00.txt: is a file; name the folder of the data" in fault(NSMC, tmp_path / "00.txt")


def test_a_name_that_is_too_long_is_that_of_no_file(tmp_path: Path) -> None:
    long = "가" * 300
    assert "no such folder; name the folder of the data" in fault(NSMC, tmp_path / long)
    own = write(tmp_path / "own.yaml", f"name: a\nlabels: [x, y]\nfiles: {{train: {long}}}\n")
    assert f"{tmp_path}: has no {long} for train of a" in fault(open_task(str(own)), tmp_path)
    with pytest.raises(RecipeError, match="no such task, and no file"):
        open_task(long)


# Rows. ----------------------------------------------------------------------------------------------------------------

PAIR, VALUE = PUBLIC["kornli"], PUBLIC["korsts"]
NER = PUBLIC["klue-ner"]


@pytest.mark.parametrize(
    ("task", "row", "told"),
    [
        (PAIR, Row(("가",), "neutral"), "1 text, where 2 are expected"),
        (NSMC, Row(("가", "나"), "positive"), "2 texts, where 1 are expected"),
        (NSMC, Row(("가",), "0"), "the label '0' is none of 'negative, positive'"),
        (NSMC, Row(("\udcff",), "positive"), "half of a surrogate pair"),
        (NSMC, Row(("가\0",), "positive"), "a zero byte"),
        (PAIR, Row(("가", "\u3000 "), "neutral"), "an empty text"),
        (VALUE, Row(("가", "나"), value=math.nan), "the value nan is not from 0 to 5"),
        (VALUE, Row(("가", "나"), value=-0.01), "the value -0.01 is not from 0 to 5"),
        (NER, Row(("가나",), spans=(Span(0, 1, "XX"),)), "the kind 'XX' of a span is none of"),
        (NER, Row(("가나",), spans=(Span(1, 3, "PS"),)), "a span from 1 to 3 after 0, in a text of 2 characters"),
        (NER, Row(("가나",), spans=(Span(-1, 1, "PS"),)), "a span from -1 to 1"),
        (NER, Row(("가나",), spans=(Span(1, 1, "PS"),)), "a span from 1 to 1"),
        (NER, Row(("가나다",), spans=(Span(1, 3, "PS"), Span(0, 1, "PS"))), "a span from 0 to 1 after 3"),
        (NER, Row(("가나다",), spans=(Span(0, 2, "PS"), Span(1, 3, "PS"))), "a span from 1 to 3 after 2"),
    ],
)
def test_a_row_that_the_task_cannot_have(task: Task, row: Row, told: str) -> None:
    with pytest.raises(DataError) as caught:
        check_row(task, replace(row, where="a.tsv, line 7"))
    assert str(caught.value).startswith("a.tsv, line 7: ") and told in str(caught.value)


def test_rows_that_the_task_can_have() -> None:
    check_row(NSMC, Row(("",), "positive"))
    check_row(NER, Row(("가나다",), spans=(Span(0, 1, "PS"), Span(1, 3, "LC"))))
    check_row(VALUE, Row(("가", "나"), value=5.0))


# Held out. ------------------------------------------------------------------------------------------------------------

ROWS = st.lists(st.tuples(st.text("가나", max_size=3), st.text("가나", max_size=3)).map(Row), min_size=1, max_size=40)
SHARES = st.floats(0.01, 0.99)


@settings(deadline=None)
@given(ROWS, SHARES, st.integers(0, 2**64), st.randoms())
def test_the_same_texts_are_on_one_side(rows: list[Row], share: float, seed: int, source: random.Random) -> None:
    if len({row.texts for row in rows}) == 1:
        with pytest.raises(DataError, match="one and the same text"):
            split_dev(rows, share, seed)
        return
    train, dev = split_dev(rows, share, seed)
    assert train and dev and sorted(train + dev, key=str) == sorted(rows, key=str)
    assert not {row.texts for row in train} & {row.texts for row in dev}
    assert [row for row in rows if row in train] == train  # the order is kept
    shuffled = rows.copy()
    source.shuffle(shuffled)
    assert {row.texts for row in split_dev(shuffled, share, seed)[1]} == {row.texts for row in dev}


def test_the_share_and_the_seed_decide() -> None:
    rows = [Row((f"문장 {number}",)) for number in range(20_000)]
    dev = split_dev(rows, 0.1, 3)[1]
    assert abs(len(dev) - 2_000) < 200
    other = split_dev(rows, 0.1, 4)[1]
    assert abs(len({*map(str, dev)} & {*map(str, other)}) - 200) < 80  # as chance has it
    larger = split_dev(rows, 0.2, 3)[1]
    assert {*map(str, dev)} < {*map(str, larger)}
    assert split_dev(rows[:15_000], 0.1, 3)[1] == [row for row in dev if row in rows[:15_000]]


def test_texts_of_a_pair_are_not_run_together() -> None:
    pairs = [Row(("가나", "다")), Row(("가", "나다")), Row(("", "가나다")), Row(("가나다", ""))]
    sides = {tuple(len(side) for side in split_dev(pairs, 0.5, seed)) for seed in range(40)}
    assert len(sides) > 1 and (4, 0) not in sides


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(RecipeError, match="it is between 0 and 1"):
        split_dev([Row(("가",)), Row(("나",))], share, 1)
    with pytest.raises(DataError, match="0 rows with one and the same text"):
        split_dev([], 0.5, 1)


def test_what_was_read_is_said_next_to_what_was_published(tmp_path: Path) -> None:
    few = replace(NSMC, splits={"train": replace(NSMC.splits["train"], rows=2)})
    write(tmp_path / "nsmc/ratings_train.txt", "document\tlabel\n가\t0\n나\t1\n")
    assert read(few, tmp_path).said == ["train: 2 rows of nsmc/ratings_train.txt (as published)"]
