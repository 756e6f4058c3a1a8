"""Tables: columns by their names, quotation marks, rows that do not fit, and whose file it is."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.tables import read_table
from tests.tasks.data_helpers import write

COLUMNS = {"text": ("document", "text"), "label": ("label",)}
TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufeff"), min_size=1, max_size=12)


def table(path: Path, **arguments: object) -> tuple[list[tuple[str, str]], list[str]]:
    said: list[str] = []
    found = read_table(path, said.append, COLUMNS, **arguments)  # type: ignore[arg-type]
    return [(fields["text"], fields["label"]) for _, fields in found], said


def fault(path: Path, **arguments: object) -> str:
    with pytest.raises(DataError) as caught:
        table(path, **arguments)
    return str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_what_pandas_writes_comes_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    for delimiter in "\t,":
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(
            [("label", "document"), *(r[::-1] for r in rows)]
        )
        assert table(write(tmp_path / "a", "\ufeff" + out.getvalue()), delimiter=delimiter)[0] == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(st.lists(st.tuples(TEXT.filter(lambda text: '""' not in text), st.sampled_from("01")), min_size=1, max_size=8))
def test_quotation_marks_of_a_plain_table_are_characters(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    content = "document\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    assert table(write(tmp_path / "a", content))[0] == rows


def test_a_quote_that_is_never_closed_takes_no_other_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'document\tlabel\n"열린 따옴표\t0\n닫힌" 따옴표\t1\n보통 줄\t0\n')
    assert table(path) == ([('"열린 따옴표', "0"), ('닫힌" 따옴표', "1"), ("보통 줄", "0")], [])
    told = fault(write(tmp_path / "a.csv", 'document,label\n보통 줄,0\n"열린 따옴표,0\n줄,1\n'), delimiter=",")
    assert "line 3: not CSV (unexpected end of data); is a quotation mark not closed?" in told


def test_quotes_of_csv_are_taken_off_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'document\tlabel\n"그는 ""네""라고 했다"\t1\n"""네"""\t1\n"인용문"\t0\n')
    rows, said = table(path)
    assert [text for text, _ in rows] == ['그는 "네"라고 했다', '"네"', '"인용문"']
    assert said == ["a.tsv: 2 texts in the quotes of CSV, which are taken off"]


def test_a_tab_in_quotes_does_not_make_a_column(tmp_path: Path) -> None:
    """So it was in Question Pair's train.txt before its pull request 2."""
    rows, _ = table(write(tmp_path / "a.tsv", 'document\tlabel\n"가족끼리, ""사랑해""라는 말\t"\t1\n'))
    assert rows == [('가족끼리, "사랑해"라는 말\t', "1")]


def test_places_in_csv_are_where_the_row_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'label,document\n0,"두\n줄"\n\n1,셋째\n')
    found = list(read_table(path, print, COLUMNS, ","))
    assert [(record.where, record.fields["text"]) for record in found] == [
        (f"{path}, line 2", "두\n줄"),
        (f"{path}, line 5", "셋째"),
    ]


def test_columns_without_a_name_and_empty_fields_at_the_end(tmp_path: Path) -> None:
    rows, said = table(write(tmp_path / "a.csv", "text,label,\n하나,0,\n둘,1,7\n셋,1,,\n"), delimiter=",")
    assert rows == [("하나", "0"), ("둘", "1"), ("셋", "1")]
    assert said == ["a.csv: 1 field in a column without a name, which no one asks for"]


def test_blank_lines_are_said_unless_the_file_ends_in_them(tmp_path: Path) -> None:
    assert table(write(tmp_path / "a.tsv", "text\tlabel\n하나\t0\n\n\n둘\t1\n\n")) == (
        [("하나", "0"), ("둘", "1")],
        ["a.tsv: left out 2 lines without text"],
    )
    assert table(write(tmp_path / "b.tsv", "text\tlabel\n하나\t0\n\n\n"))[1] == []


def test_columns_by_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "0\t하나\n1\t둘\n")
    found = list(read_table(path, print, {"text": ("2",), "label": ("1",)}, numbered=True))
    assert [record.fields for record in found] == [{"text": "하나", "label": "0"}, {"text": "둘", "label": "1"}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "9976970\t아 더빙 진짜 짜증나네요\t0\n",
            "its first line, '9976970\\t아 더빙 진짜 짜증나네요\\t0', has none of the columns",
        ),
        ("document\tscore\n가\t1\n", "no column label (it has 'document, score')"),
        ("document\tlabel\tlabel\n가\t1\t1\n", "has the column label twice"),
        ("document,label\n가,1\n", "has none of the columns document, label (separated by tabs)"),
        ("document\tlabel\n가\t1\n나\n", "line 3: 1 field, where 2 are expected: '나'"),
        ("document\tlabel\n가\t나\t1\n", "line 2: 3 fields, where 2 are expected"),
        ("sentence1\tsentence2\tgold_label\n가\t나\tneutral\n", "such columns are those of kornli; is it another file"),
        ("question1\tquestion2\tis_duplicate\n가\t나\t0\n", "such columns are those of question-pair"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(tmp_path: Path, content: str, told: str) -> None:
    path = write(tmp_path / "a.tsv", content)
    message = fault(path)
    assert message.startswith(str(path)) and told in message and "\n" not in message


def test_a_field_of_csv_without_end_is_refused_in_time(tmp_path: Path) -> None:
    csv.field_size_limit(1 << 30)  # as a reader of corpora leaves it in the process
    path = write(tmp_path / "a.csv", 'document,label\n"' + "가나다라,1\n" * 40_000)
    assert "field larger than field limit" in fault(path, delimiter=",")


def test_many_quotes_take_no_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "document\tlabel\n" + '"' * 300_001 + "\t1\n")
    assert len(table(path)[0][0][0]) in (300_001, 149_999)
