"""Tables of tabs without a header are tables; prose that has tabs is prose."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.first_look import look
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.errors import DataError
from tests.corpus.cleaning.cleaning_helpers import sentence


def draw(form: str, seed: int) -> list[str]:
    """Lines of a file as people publish or write them."""
    words = random.Random(seed)
    text = [sentence(words) for _ in range(60)]
    forms = {
        "reviews and stars": [f"{line}\t{words.randint(1, 10)}" for line in text],
        "labels first": [f"{number % 3}\t{number % 7}\t{line}" for number, line in enumerate(text)],
        "words and counts": [f"{line.split()[0]}\t{900 - number}" for number, line in enumerate(text)],
        "letters and tags": [
            each
            for line in text
            for each in [f"## sentence {len(line)}", *(f"{letter}\tO" for letter in line[:20]), ""]
        ],
        "some without a label": [line if number % 9 == 4 else f"{line}\tgood" for number, line in enumerate(text)],
        "an empty column": [f"{line}\t\t{line}" for line in text],
        "indented prose": [f"\t{line}" for line in text],
        "a tab now and then": [
            line.replace(" ", "\t", 1) if number % 4 == 0 else line for number, line in enumerate(text)
        ],
        "tabs at the end": [f"{line}\t" for line in text],
        "speakers": [f"{'가나'[number % 2]}: {line}" for number, line in enumerate(text)],
    }
    return forms[form]


TABLES = [
    "reviews and stars",
    "labels first",
    "words and counts",
    "letters and tags",
    "some without a label",
    "an empty column",
]
PROSE = ["indented prose", "a tab now and then", "tabs at the end", "speakers"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", [*TABLES, *PROSE])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_columns_are_seen(tmp_path: Path, form: str, seed: int, end: str) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes((end.join(draw(form, seed)) + end).encode())
    assert look(local_source(path)).form == ("tsv" if form in TABLES else "text")


def test_labels_do_not_become_text_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "reviews.txt"
    path.write_text("\n".join(draw("reviews and stars", 1)) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a table \(TSV\); --documents line does not read it .*COLUMN"):
        clean([path], tmp_path / "out", "line")
    report = clean([path], tmp_path / "out", "#1", test_share=0)
    assert report.documents.kept["train"] > 50
    assert "\t" not in (tmp_path / "out" / "train" / "corpus-00000.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t"), ("csv", ";")])
@pytest.mark.parametrize("damaged", [["a{0}b{0}c{0}d"], ["7"] * 5, ['8{0}"a"b', "9{0}x"], ["9{0}x{0}"] * 6])
def test_a_file_named_as_a_table_may_have_damaged_rows(
    tmp_path: Path, suffix: str, delimiter: str, damaged: list[str]
) -> None:
    words = random.Random(5)
    rows = [delimiter.join((str(number), f'"{sentence(words)}{delimiter} x"')) for number in range(60)]
    rows[8:8] = [row.format(delimiter) for row in damaged]
    path = tmp_path / f"file.{suffix}"
    path.write_text("\n".join([f"id{delimiter}text", *rows]) + "\n", encoding="utf-8")
    assert look(local_source(path)).form == suffix
