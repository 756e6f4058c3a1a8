"""PAWS-X: sentences that are not there, and a character that ends no line."""

from __future__ import annotations

from pathlib import Path

from kogpt2_gluon.tasks.public.pawsx import PAWSX
from tests.tasks.data_helpers import fault, read, write

HEADER = "id\tsentence1\tsentence2\tlabel\n"


def test_rows_without_two_sentences_are_left_out_and_said(tmp_path: Path) -> None:
    lines = [
        "1\t가나\t가다\t1",
        "2\tNS\t가다\t0",
        "3\t가나\tNS\t0",
        "4\tns\tNS\t0",
        "5\t\t가다\t1",
        "6\t가나\t \t0",
        "7\t마\x1c바\t사\t0",
    ]
    write(tmp_path / "ko/dev_2k.tsv", HEADER + "\n".join(lines) + "\n")
    rows, said = read(PAWSX, tmp_path, "dev")
    assert [(row.texts, row.label) for row in rows] == [(("가나", "가다"), "same"), (("마\x1c바", "사"), "different")]
    assert said == [
        "dev_2k.tsv: left out 3 rows with NS for a sentence",
        "dev_2k.tsv: left out 2 rows with an empty sentence",
        "dev: 2 rows of ko/dev_2k.tsv (published: 1,965)",
    ]


def test_only_a_whole_sentence_is_a_placeholder(tmp_path: Path) -> None:
    write(tmp_path / "test_2k.tsv", f"{HEADER}1\tNS 그룹은 회사이다.\tNSNS\t0\n2\t가\t나\t1\n")
    assert len(read(PAWSX, tmp_path, "test").rows) == 2


def test_a_file_of_placeholders_has_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "test_2k.tsv", f"{HEADER}1\tNS\t가나다\t0\n")
    assert "no rows for test" in fault(PAWSX, tmp_path, "test")


def test_kornli_given_for_pawsx_is_named(tmp_path: Path) -> None:
    write(tmp_path / "dev_2k.tsv", "sentence1\tsentence2\tgold_label\n가\t나\tneutral\n")
    assert "no columns label, id" in (told := fault(PAWSX, tmp_path, "dev"))
    assert "such columns are those of kornli" in told
