"""KorSTS: quotation marks are characters, and scores are from 0 to 5."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from kogpt2_gluon.tasks.public.korsts import KORSTS
from tests.tasks.data_helpers import REAL, fault, needs_real, read, write

HEADER = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\n"
FRONT = "main-news\theadlines\t2016\t1495\t"


def test_unbalanced_quotes_lose_no_row(tmp_path: Path) -> None:
    lines = [f'{FRONT}5.000\t"비행기가 이륙한다.\t비행기가 "이륙"한다.\n', f"{FRONT}0\t남자가 춤춘다.\t개가 잔다.\n"]
    write(tmp_path / "KorSTS/sts-train.tsv", HEADER + "".join(lines).rstrip("\n"))
    rows, said = read(KORSTS, tmp_path)
    assert [(row.texts, row.value) for row in rows] == [
        (('"비행기가 이륙한다.', '비행기가 "이륙"한다.'), 5.0),
        (("남자가 춤춘다.", "개가 잔다."), 0.0),
    ]
    assert said == ["train: 2 rows of KorSTS/sts-train.tsv (published: 5,749)"]


@pytest.mark.parametrize(
    ("score", "told"),
    [
        ("5.1", "line 2: the value 5.1 is not from 0 to 5"),
        ("-1", "line 2: the value -1 is not from 0 to 5"),
        ("nan", "line 2: 'nan', where a number is expected"),
        ("1e999", "line 2: '1e999', where a number is expected"),
        ("3_0", "line 2: '3_0', where a number is expected"),
        ("", "line 2: '', where a number is expected"),
        ("높음", "line 2: '높음', where a number is expected"),
    ],
)
def test_a_score_that_is_none_is_one_line(tmp_path: Path, score: str, told: str) -> None:
    write(tmp_path / "sts-train.tsv", f"{HEADER}{FRONT}{score}\t남자가 춤춘다.\t개가 잔다.\n")
    assert told in fault(KORSTS, tmp_path)


def test_nsmc_given_for_korsts_is_named(tmp_path: Path) -> None:
    write(tmp_path / "sts-train.tsv", "id\tdocument\tlabel\n1\t재미있어요\t1\n")
    assert "such columns are those of nsmc; is it another file" in fault(KORSTS, tmp_path)


@needs_real
@pytest.mark.parametrize(
    ("split", "number", "odd", "by_csv"),
    [("train", 5_749, 48, 5_703), ("dev", 1_500, 16, 1_471), ("test", 1_379, 10, 1_379)],
)
def test_real_rows(split: str, number: int, odd: int, by_csv: int) -> None:
    rows, said = read(KORSTS, REAL, split)
    assert len(rows) == number
    assert said == [f"{split}: {number:,} rows of KorSTS/sts-{split}.tsv (as published)"]
    text = (REAL / f"KorSTS/sts-{split}.tsv").read_text(encoding="utf-8")
    assert sum(line.count('"') % 2 for line in text.split("\n")) == odd
    assert sum(1 for _ in csv.reader(text.splitlines(keepends=True), delimiter="\t")) - 1 == by_csv  # what others lose
