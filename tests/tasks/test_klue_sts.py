"""KLUE-STS: the value is the real-label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.tasks.public.klue_sts import KLUE_STS
from tests.tasks.data_helpers import fault, read, write

NAME = "klue-sts-v1.1_dev.json"
LABELS = {"label": 4.9, "real-label": 4.857142857142857, "binary-label": 1}
ROW = {
    "guid": "0",
    "source": "airbnb-rtt",
    "sentence1": "친절하셨습니다.",
    "sentence2": "친절했습니다.",
    "labels": LABELS,
}


def test_rows(tmp_path: Path) -> None:
    write(tmp_path / NAME, json.dumps([ROW, {**ROW, "labels": {**LABELS, "real-label": 0}}]))
    rows, _ = read(KLUE_STS, tmp_path, "dev")
    assert [(row.texts, row.value) for row in rows] == [
        (("친절하셨습니다.", "친절했습니다."), 4.857142857142857),
        (("친절하셨습니다.", "친절했습니다."), 0.0),
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": None}, "row 1: labels is missing; an object with real-label is expected"),
        ({"labels": {"label": 4.9}}, "row 1: labels: real-label is missing"),
        ({"labels": {"real-label": "4.9"}}, "row 1: labels: real-label is a text, where a number is expected"),
        ({"labels": {"real-label": 5.2}}, "row 1: the value 5.2 is not from 0 to 5"),
        ({"sentence2": ["친절했습니다."]}, "row 1: sentence2 is a JSON array, where a text is expected"),
    ],
)
def test_a_row_that_does_not_fit_is_one_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    write(tmp_path / NAME, json.dumps([{**ROW, **change}]))
    assert told in fault(KLUE_STS, tmp_path, "dev")
