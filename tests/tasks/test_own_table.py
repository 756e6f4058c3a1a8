"""A person's own task: what its YAML file may say, all faults at once, and the formats."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tasks.loading import find_split, open_task
from kogpt2_gluon.tasks.task import CLASSIFICATION, REGRESSION, TOKEN_LABELS, Span
from tests.tasks.data_helpers import fault, read, write

CLASSES = """
name: toxicity
head: classification
labels: [0, 1]
words: [깨끗함, 독함]
text: comment
label: is_toxic
files: {train: train.csv, dev: dev.csv}
delimiter: comma
"""


def own(tmp_path: Path, text: str):
    return open_task(str(write(tmp_path / "mine.yaml", text)))


def faults(tmp_path: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        own(tmp_path, text)
    return str(caught.value)


def test_a_table_of_classes(tmp_path: Path) -> None:
    task = own(tmp_path, CLASSES)
    assert (task.name, task.head, task.labels, task.metrics) == ("toxicity", CLASSIFICATION, ("0", "1"), ("accuracy",))
    assert task.names == {"0": "깨끗함", "1": "독함"} and list(task.splits) == ["train", "dev"]
    write(tmp_path / "train.csv", 'id,is_toxic,comment\r\n1,0,"네, 좋아요"\r\n2,1,"두\n줄"\r\n')
    rows, said = read(task, tmp_path)
    assert [(row.texts[0], row.label) for row in rows] == [("네, 좋아요", "0"), ("두\n줄", "1")]
    assert said == ["train: 2 rows of train.csv"]
    write(tmp_path / "dev.csv", "is_toxic,comment\n2,좋아요\n")
    assert "dev.csv, line 2: the label '2' is none of 0, 1" in fault(task, tmp_path, "dev")
    write(tmp_path / "dev.csv", "toxic,comment\n1,좋아요\n")
    assert "dev.csv: no column is_toxic (it has 'toxic, comment')" in fault(task, tmp_path, "dev")


def test_the_order_of_the_labels_is_that_of_the_file(tmp_path: Path) -> None:
    assert own(tmp_path, CLASSES.replace("[0, 1]", "[1, 0]")).labels == ("1", "0")


def test_files_of_an_own_task_are_where_it_says(tmp_path: Path) -> None:
    task = own(tmp_path, CLASSES.replace("train.csv", "sub/train.csv"))
    write(tmp_path / "train.csv", "is_toxic,comment\n1,다른 파일\n")
    assert "has no sub/train.csv for train of toxicity" in fault(task, tmp_path)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """Or some of train would choose the best checkpoint, or dev would be the judge, and the user thinks otherwise."""
    task = own(tmp_path, CLASSES)
    with pytest.raises(
        DataError, match=r"has no dev\.csv for dev of toxicity .*; if there are none, leave dev out of its"
    ):
        find_split(task, tmp_path, "dev")
    write(tmp_path / "dev.csv", "is_toxic,comment\n1,좋아요\n")
    assert find_split(task, tmp_path, "dev") == tmp_path / "dev.csv"
    assert find_split(task, tmp_path, "test") is None  # it is not named


def test_a_table_of_pairs_with_numbers_and_without_header(tmp_path: Path) -> None:
    task = own(
        tmp_path,
        "name: close\nhead: regression\nheader: false\ntext: 2\ntext_pair: 3\nlabel: 1\nlowest: -1\nhighest: 1\n"
        "files: {train: a.tsv}\n",
    )
    assert (task.head, task.is_pair, task.value_range, task.metrics) == (REGRESSION, True, (-1.0, 1.0), ("spearman",))
    write(tmp_path / "a.tsv", "-0.5\t가\t나\n1e0\t다\t라\n")
    assert [(row.texts, row.value) for row in read(task, tmp_path).rows] == [(("가", "나"), -0.5), (("다", "라"), 1.0)]
    write(tmp_path / "a.tsv", "-0.5\t가\t나\n1.5\t다\t라\n")
    assert "a.tsv, line 2: the value 1.5 is not from -1 to 1" in fault(task, tmp_path)


LABELS = "name: names\nhead: token labels\nlabels: [PS, LC]\n"


@pytest.mark.parametrize(
    ("more", "content"),
    [
        ("format: characters\n", "박\tB-PS\n씨\tO\n \tO\n서\tB-LC\n울\tI-LC\n"),
        ("format: words\ndelimiter: space\n", "박 B-PS\n\n"),
        ("text: 글\n", "글\n[PS : 박]씨 [LC : 서울]\n"),
        (
            "format: json lines\nlabel: spans\n",
            json.dumps({"text": "박씨 서울", "spans": [[3, 5, "LC"], [0, 1, "PS"]]}, ensure_ascii=False),
        ),
    ],
)
def test_token_labels_in_each_format(tmp_path: Path, more: str, content: str) -> None:
    task = own(tmp_path, f"{LABELS}{more}files: {{train: a.txt}}\n")
    assert (task.head, task.kinds, task.labels, task.metrics) == (TOKEN_LABELS, ("PS", "LC"), (), ("entity_f1",))
    write(tmp_path / "a.txt", content)
    row = read(task, tmp_path).rows[0]
    assert row.spans[0] == Span(0, 1, "PS")
    if "words" not in more:
        assert row.texts == ("박씨 서울",) and row.spans == (Span(0, 1, "PS"), Span(3, 5, "LC"))


def test_words_are_joined_with_spaces(tmp_path: Path) -> None:
    task = own(tmp_path, f"{LABELS}format: words\nfiles: {{train: a.txt}}\n")
    write(tmp_path / "a.txt", "서울\tB-LC\n시청에\tI-LC\n간다\tO\n\n박씨\tB-PS\n")
    assert [(row.texts[0], row.spans) for row in read(task, tmp_path).rows] == [
        ("서울 시청에 간다", (Span(0, 6, "LC"),)),
        ("박씨", (Span(0, 2, "PS"),)),
    ]
    write(tmp_path / "a.txt", "서울 시청에\tB-LC\n")
    assert "where a word, '\\t' and its label are expected" in fault(task, tmp_path)


def test_json_lines_of_classes_and_numbers(tmp_path: Path) -> None:
    task = own(tmp_path, "name: a\nlabels: ['0', 'true', 부정]\nformat: json lines\nfiles: {train: a.jsonl}\n")
    write(
        tmp_path / "a.jsonl",
        '{"text": "가", "label": 0}\n{"text": "나", "label": true}\n{"text": "다", "label": "부정"}\n',
    )
    assert [row.label for row in read(task, tmp_path).rows] == ["0", "true", "부정"]
    for line, told in {
        '{"text": "가"}': "line 1: label is missing",
        '{"text": "가", "label": null}': "line 1: label is missing",
        '{"text": "가", "label": 0.0}': "line 1: the label '0.0' is none of 0, true, 부정",
        '{"label": 0}': "line 1: text is missing",
        '{"text": "가", "label": 0, "label": true}': "line 1: the key 'label' twice in an object",
    }.items():
        write(tmp_path / "a.jsonl", line)
        assert told in fault(task, tmp_path)


def test_spans_of_json_lines_that_are_none(tmp_path: Path) -> None:
    task = own(tmp_path, f"{LABELS}format: json lines\nfiles: {{train: a.jsonl}}\n")
    for spans, told in {
        '"PS"': "label is not a list of [begin, end, kind]",
        '[[0, "1", "PS"]]': '\'[0, "1", "PS"]\' in label is not [begin, end, kind]',
        "[[0, true, 3]]": "is not [begin, end, kind]",
        '[[0, 9, "PS"]]': "a span from 0 to 9 after 0, in a text of 2 characters",
        '[[0, 1, "DT"]]': "the kind 'DT' of a span is none of 'PS, LC'",
    }.items():
        write(tmp_path / "a.jsonl", f'{{"text": "박씨", "label": {spans}}}')
        assert told in fault(task, tmp_path)


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    told = faults(tmp_path, "nmae: a\nhead: sorting\nheader: 3\nfiles: {trian: a.tsv}\nlowest: low\n")
    assert told.startswith(f"task {tmp_path / 'mine.yaml'}: 5 faults:\n")
    for each in (
        "unknown key nmae; did you mean name?",
        "head: 'sorting' is none of classification, regression, token labels",
        "header: expected true or false, got 3",
        "unknown key files.trian; did you mean files.train?",
        "lowest: expected a number, got 'low'",
    ):
        assert f"\n  {each}" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("name: toxicity", ""), "name: is missing"),
        (("train: train.csv, ", ""), "files.train: is missing"),
        (("dev.csv", "train.csv"), "files: one file for two splits"),
        (("dev.csv", "./train.csv"), "files: one file for two splits"),
        (("dev.csv", "/etc/passwd"), "files.dev: /etc/passwd is not below the folder of the data"),
        (("train.csv", "../train.csv"), "files.train: ../train.csv is not below the folder of the data"),
        (("train.csv", "sub/../../train.csv"), "files.train: sub/../../train.csv is not below the folder"),
        (("train.csv", "~/train.csv"), "files.train: ~/train.csv is not below the folder"),
        (("labels: [0, 1]", "labels: [0]"), "labels: 1 label; head=classification needs at least two classes"),
        (("labels: [0, 1]", "labels: [0, 0]"), "labels: names a label twice"),
        (("labels: [0, 1]", "labels: [0, ' ']"), "labels: an empty label"),
        (("labels: [0, 1]", "labels: [yes, no]"), "YAML reads an unquoted word here as true; quote it"),
        (("[깨끗함, 독함]", "[깨끗함]"), "words: 1 for 2 labels"),
        (("label: is_toxic", "label: comment"), "text, text_pair, label: one column twice"),
        (("delimiter: comma", "format: words"), "format=words is for head=token labels, and head is classification"),
        (("delimiter: comma", "lowest: 0"), "lowest: has no effect; it needs head=regression"),
        (("delimiter: comma", "format: json lines\ndelimiter: tab"), "delimiter: has no effect"),
        (
            ("delimiter: comma", "metrics: [spearman]"),
            "mine.yaml: metrics: no metric 'spearman' for the head classification",
        ),
        (("head: classification", "head: token labels"), "labels: has no effect"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    text = CLASSES.replace(*change)
    if told == "labels: has no effect":
        text = CLASSES.replace("head: classification", "head: regression")
    assert re.search(re.escape(told), faults(tmp_path, text))


def test_kinds_are_given_without_their_prefixes(tmp_path: Path) -> None:
    told = faults(tmp_path, "name: a\nhead: token labels\nlabels: [O, B-PS, I-PS]\nfiles: {train: a.tsv}\n")
    assert "these are the kinds, such as PS, without O, B- and I-" in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name: [", "not readable as YAML"),
        ("이름".encode("cp949") + b": a\n", "is not UTF-8; save it as UTF-8"),
        (b"- a\n", "a mapping of sections is expected, not a list"),
        (b"", "name: is missing"),
        (b"files: train.tsv\nname: a\n", "files: expected a section with keys, got 'train.tsv'"),
    ],
)
def test_a_file_that_is_no_task(tmp_path: Path, content: bytes, told: str) -> None:
    path = write(tmp_path / "mine.yaml", content)
    with pytest.raises(RecipeError) as caught:
        open_task(str(path))
    assert told in str(caught.value) and caught.value.exit_code == 2
    with pytest.raises(RecipeError, match="cannot be read"):
        open_task(str(tmp_path / "none.yaml"))
