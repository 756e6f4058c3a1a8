"""KLUE-NER: remarks, a character and its label a line, spaces, and spans of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.tasks.public import labelled_lines
from kogpt2_gluon.tasks.public.klue_ner import KLUE_NER
from kogpt2_gluon.tasks.task import Span
from tests.tasks.data_helpers import fault, read, write

TOP = (
    "## 토큰, 레이블 구분자 : \\t\n## 토큰 구분자 : \\n\n## 문장 구분자 : \\n\\n\n"
    "## 주석 : ##\n## 컬럼명 : CHAR\tNE_TAG\n"
)


def lines_of(text: str, labels: list[str]) -> str:
    return "".join(f"{character}\t{label}\n" for character, label in zip(text, labels))


def test_sentences_spaces_and_spans(tmp_path: Path) -> None:
    first = lines_of("박씨의 딸(32)", ["B-PS", "O", "O", "O", "O", "O", "B-QT", "I-QT", "O"])
    second = lines_of("서울 시청#1", ["B-LC", "I-LC", "I-LC", "I-LC", "I-LC", "O", "O"])
    header = "## klue-ner-v1_dev_00000-wikitree\t<<박:PS>씨의 딸(<32:QT>)\n"
    write(tmp_path / "klue-ner-v1.1_dev.tsv", f"{TOP}{header}{first}\n## klue-ner-v1_dev_00001-nsmc\t...\n{second}")
    rows, said = read(KLUE_NER, tmp_path, "dev")
    assert [row.texts for row in rows] == [("박씨의 딸(32)",), ("서울 시청#1",)]
    assert rows[0].spans == (Span(0, 1, "PS"), Span(6, 8, "QT"))
    assert rows[1].spans == (Span(0, 5, "LC"),)
    assert rows[0].where.endswith("_dev.tsv, line 7")
    assert said == ["dev: 2 rows of klue-ner-v1.1_dev.tsv (published: 5,000)"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(st.text("가나 다#.", min_size=1, max_size=9).filter(str.strip), min_size=1, max_size=4), st.data())
def test_any_sentences_come_back(tmp_path: Path, texts: list[str], data: st.DataObject) -> None:
    content = TOP
    for text in texts:
        labels = [data.draw(st.sampled_from(["O", "B-PS", "I-PS", "B-DT"])) for _ in text]
        separator = data.draw(st.sampled_from(["\n", "\t\n", "\n\n"]))  # KLUE's own reader takes a tab there
        content += lines_of(text, labels) + separator
    write(tmp_path / "klue-ner-v1.1_train.tsv", content)
    assert [row.texts[0] for row in read(KLUE_NER, tmp_path).rows] == texts


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    content = lines_of("가나", ["I-PS", "I-PS"]) + "\n" + lines_of("  ", ["O", "O"]) + "\n" + lines_of("다", ["O"])
    write(tmp_path / "klue-ner-v1.1_dev.tsv", TOP + content)
    rows, said = read(KLUE_NER, tmp_path, "dev")
    assert [row.spans for row in rows] == [(Span(0, 2, "PS"),), ()]
    assert said[:2] == [
        "klue-ner-v1.1_dev.tsv: 1 label I- where a span begins, which are taken as B-",
        "klue-ner-v1.1_dev.tsv: left out 1 text of white space alone",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "id\tdocument\tlabel\n",
            "line 6: 'id\\tdocument\\tlabel', where a character, '\\t' and its label are expected",
        ),
        ("서울\tB-LC\n", "line 6: '서울\\tB-LC', where a character"),
        ("\tO\n", "line 6: '\\tO', where a character"),
        ("가\tB\n", "line 6: the label 'B', where O, B-KIND or I-KIND is expected"),
        ("가\tB-XX\n", "line 6: the kind 'XX' of a span is none of 'PS, LC, OG, DT, TI, QT'"),
        ("", "no rows for dev"),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, content: str, told: str) -> None:
    write(tmp_path / "klue-ner-v1.1_dev.tsv", TOP + content)
    assert told in fault(KLUE_NER, tmp_path, "dev")


def test_a_text_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_lines, "LONGEST_TEXT", 50)
    write(tmp_path / "klue-ner-v1.1_dev.tsv", TOP + "가\tO\n" * 51)
    assert "a text of more than 50 lines; is the empty line after it missing?" in fault(KLUE_NER, tmp_path, "dev")
