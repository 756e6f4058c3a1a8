"""NSMC: three columns or two, reviews without text, and other data under its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogpt2_gluon.tasks.public.nsmc import NSMC
from tests.tasks.data_helpers import REAL, fault, needs_real, read, write

ROWS = "9976970\t아 더빙.. 진짜 짜증나네요\t0\n3819312\t흠...포스터보고 초딩영화줄\t1\n"


def test_the_public_form_and_copies_of_it(tmp_path: Path) -> None:
    expected = [(("아 더빙.. 진짜 짜증나네요",), "negative"), (("흠...포스터보고 초딩영화줄",), "positive")]
    forms = {
        "public": f"id\tdocument\tlabel\n{ROWS}",
        "two columns": "document\tlabel\n아 더빙.. 진짜 짜증나네요\t0\n흠...포스터보고 초딩영화줄\t1\n",
        "another order": "label\tdocument\n0\t아 더빙.. 진짜 짜증나네요\n1\t흠...포스터보고 초딩영화줄\n",
        "windows": "\ufeffid\tdocument\tlabel\r\n" + ROWS.replace("\n", "\r\n"),
    }
    for name, content in forms.items():
        path = write(tmp_path / name / "ratings_train.txt", content)
        rows, said = read(NSMC, path.parent)
        assert [(row.texts, row.label) for row in rows] == expected
        assert rows[1].where == f"{path}, line 3"
        assert said == ["train: 2 rows of ratings_train.txt (published: 150,000)"]


def test_reviews_without_text_are_rows(tmp_path: Path) -> None:
    write(tmp_path / "nsmc/ratings_test.txt", f"id\tdocument\tlabel\n{ROWS}6369843\t\t1\n511097\t \t1\n")
    rows, said = read(NSMC, tmp_path, "test")
    assert [row.texts for row in rows[2:]] == [("",), (" ",)]
    assert said == [
        "test: 4 rows of nsmc/ratings_test.txt (published: 50,000)",
        "test: 2 rows without text among them",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (ROWS, "none of the columns document, label (separated by tabs)"),
        (f"id\tdocument\tlabel\n{ROWS}1\t좋아요\t2\n", "line 4: the label '2' is none of 0, 1"),
        (f"id\tdocument\tlabel\n{ROWS}1\t좋아요\n", "line 4: 2 fields, where 3 are expected"),
        ("id\tdocument\tlabel\n", "no rows for train"),
        ("id\tdocument\n1\t좋아요\n", "no column label (it has 'id, document')"),
        ("genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\n", "such columns are those of korsts"),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, content: str, told: str) -> None:
    path = write(tmp_path / "ratings_train.txt", content)
    message = fault(NSMC, tmp_path)
    assert message.startswith(str(path)) and told in message


@needs_real
def test_real_rows() -> None:
    train, said = read(NSMC, REAL)
    assert (len(train), said) == (60_000, ["train: 60,000 rows of nsmc/rebuilt_ratings_train.txt (published: 150,000)"])
    test, _ = read(NSMC, REAL / "nsmc", "test")
    assert (len(test), sum(row.label == "positive" for row in test)) == (10_000, 5_000)
    lines: list[str] = []
    rows = list(NSMC.read(REAL / "nsmc/official_train_subset_30k.txt", lines.append))
    assert len(rows) == 29_999  # SOURCES.md says 30,000; the file has 30,000 lines with its header
    assert sum(row.label == "negative" for row in rows) == 15_088
    assert lines == ["official_train_subset_30k.txt: 129 texts in the quotes of CSV, which are taken off"]
