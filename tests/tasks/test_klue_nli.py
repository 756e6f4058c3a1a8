"""KLUE-NLI: an array of objects, of which three keys are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.tasks.public.klue_nli import KLUE_NLI
from tests.tasks.data_helpers import fault, read, write

NAME = "klue_benchmark/klue-nli-v1.1/klue-nli-v1.1_dev.json"
ROW = {"guid": "klue-nli-v1_dev_00000", "source": "airbnb", "premise": "방이 넓다.", "hypothesis": "방이 좁다."}
ANSWERS = {"gold_label": "contradiction", "author": "neutral", "label2": "contradiction"}


def test_rows(tmp_path: Path) -> None:
    older = {**ROW, **ANSWERS, "gold_label": "neutral", "genre": "wikinews"}
    write(tmp_path / NAME, json.dumps([{**ROW, **ANSWERS}, older], ensure_ascii=False, indent=4))
    rows, said = read(KLUE_NLI, tmp_path, "dev")
    assert [(row.texts, row.label) for row in rows] == [
        (("방이 넓다.", "방이 좁다."), "contradiction"),
        (("방이 넓다.", "방이 좁다."), "neutral"),
    ]
    assert rows[1].where == f"{tmp_path / NAME}, row 2"
    assert said[0] == f"dev: 2 rows of {NAME} (published: 3,000)"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ROW, "row 1: gold_label is missing"),  # as in the hidden test
        ({**ROW, "gold_label": "-"}, "row 1: the label '-' is none of entailment, neutral, contradiction"),
        ({**ROW, "gold_label": 0}, "row 1: gold_label is a number, where a text is expected"),
        ({**ROW, **ANSWERS, "premise": "\ud800"}, "row 1: half of a surrogate pair"),
        ({**ROW, **ANSWERS, "hypothesis": ""}, "row 1: an empty text"),
        ({"sentence1": "가", "sentence2": "나"}, "row 1: premise is missing"),
    ],
)
def test_a_row_that_does_not_fit_is_one_line(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    write(tmp_path / NAME, json.dumps([row]))
    assert told in fault(KLUE_NLI, tmp_path, "dev")
