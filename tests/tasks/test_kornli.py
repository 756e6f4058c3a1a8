"""KorNLI: quotation marks are characters, and train is two files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogpt2_gluon.tasks.public.kornli import KORNLI, MULTINLI, SNLI
from tests.tasks.data_helpers import fault, read, write

HEADER = "sentence1\tsentence2\tgold_label\n"


def test_quotes_join_neither_lines_nor_fields(tmp_path: Path) -> None:
    """So is line 24,426 of the public file, where readers of CSV stop, and in xnli.dev."""
    lines = [
        '"상처! 설명해 주시겠습니까?\t그는 말이 없었다.\tneutral',
        '그가 말했다, "엄마, 저 왔어요."\t그는 왔다.\tentailment',
    ]
    write(tmp_path / "KorNLI/xnli.dev.ko.tsv", HEADER + "\n".join(lines) + "\n")
    rows, _ = read(KORNLI, tmp_path, "dev")
    assert [(row.texts[0], row.label) for row in rows] == [
        ('"상처! 설명해 주시겠습니까?', "neutral"),
        ('그가 말했다, "엄마, 저 왔어요."', "entailment"),
    ]


def test_train_is_both_files_if_both_are_there(tmp_path: Path) -> None:
    write(tmp_path / MULTINLI, f"{HEADER}가\t나\tneutral\n")
    assert read(KORNLI, tmp_path).said[:2] == [
        f"{MULTINLI}: half of train; the other one, {SNLI}, is not there",
        f"train: 1 row of {MULTINLI} (published: 942,854)",
    ]
    snli = write(tmp_path / SNLI, f"{HEADER}다\t라\tcontradiction\n마\t바\tentailment\n")
    rows, said = read(KORNLI, tmp_path)
    assert [row.texts for row in rows] == [("가", "나"), ("다", "라"), ("마", "바")]
    assert rows[1].where == f"{snli}, line 2"
    assert said == [
        f"{MULTINLI}: with 2 rows of {SNLI}",
        f"train: 3 rows of {MULTINLI} (published: 942,854)",
    ]
    (tmp_path / MULTINLI).unlink()
    assert len(read(KORNLI, tmp_path).rows) == 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("가\t나\t다\tneutral", "line 3: 4 fields, where 3 are expected"),
        ("가 나 neutral", "line 3: 1 field, where 3 are expected"),
        ("가\t나\tmaybe", "line 3: the label 'maybe' is none of entailment, neutral, contradiction"),
        ("가\t\tneutral", "line 3: an empty text"),
    ],
)
def test_a_line_that_is_broken_is_named(tmp_path: Path, line: str, told: str) -> None:
    write(tmp_path / "xnli.test.ko.tsv", f"{HEADER}가\t나\tneutral\n{line}\n")
    assert told in fault(KORNLI, tmp_path, "test")
