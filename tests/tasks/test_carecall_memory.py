"""CareCall-memory: made sessions, and which operations follow from the memories before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.tasks.public.carecall_memory import CARECALL_MEMORY
from tests.tasks.data_helpers import fault, read, write

SLEEPS, ACHES, HEALED, WALKS = "잠을 잘 잠", "허리가 아픔", "허리가 다 나음", "산책을 다님"


def session(number: int, memory: list[str], summary: list[str], guid: str = "made-1") -> dict[str, Any]:
    talk = [{"role": "system", "text": "안녕하세요"}, {"role": "user", "text": "네"}]
    return {"guid": f"{guid}-S{number}", "dialogue": talk, "memory": memory, "summary": summary}


def made(tmp_path: Path, *episodes: list[dict[str, Any]]) -> Path:
    write(tmp_path / "data/carecall-memory-sample.json", json.dumps(episodes, ensure_ascii=False))
    return tmp_path


@pytest.mark.parametrize(
    ("after", "operation"),
    [([ACHES], "pass"), ([ACHES, HEALED], "append"), ([HEALED], "replace"), ([], "delete")],
)
def test_the_operation_of_a_single_pair(tmp_path: Path, after: list[str], operation: str) -> None:
    rows, said = read(CARECALL_MEMORY, made(tmp_path, [session(1, [ACHES], [HEALED]), session(2, after, [])]))
    assert [(row.texts, row.label) for row in rows] == [((ACHES, HEALED), operation)]
    assert "(made-1-S1)" in rows[0].where
    assert said[0] == "train: 1 row of data/carecall-memory-sample.json"


def test_pairs_whose_operation_does_not_follow_are_left_out(tmp_path: Path) -> None:
    # WALKS and SLEEPS stay, HEALED took the place of ACHES: of (ACHES, WALKS) nobody knows what was said.
    before = session(1, [SLEEPS, ACHES], [HEALED, WALKS])
    rows, said = read(CARECALL_MEMORY, made(tmp_path, [before, session(2, [SLEEPS, HEALED, WALKS], [])]))
    assert [(row.texts, row.label) for row in rows] == [
        ((SLEEPS, HEALED), "append"),
        ((SLEEPS, WALKS), "append"),
    ]
    assert said[0].endswith("left out 2 pairs whose operation does not follow from the memories")


def test_sessions_that_do_not_join_are_left_out(tmp_path: Path) -> None:
    rewritten = [session(1, [ACHES], [HEALED]), session(2, ["허리가 나아짐"], [])]
    missing = [session(1, [ACHES], [HEALED]), session(3, [HEALED], [])]
    good = [session(1, [ACHES], [WALKS]), session(2, [ACHES, WALKS], [HEALED]), session(3, [WALKS, HEALED], [])]
    rows, said = read(CARECALL_MEMORY, made(tmp_path, rewritten, missing, good))
    assert [(row.texts, row.label) for row in rows] == [
        ((ACHES, WALKS), "append"),
        ((ACHES, HEALED), "replace"),
        ((WALKS, HEALED), "append"),
    ]
    assert said[:2] == [
        "carecall-memory-sample.json: left out 1 pair of a session whose sentences were rewritten",
        "carecall-memory-sample.json: left out 1 pair of a session that the next one is missing of",
    ]


def test_a_table_of_own_pairs(tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", f"memory\tsummary\toperation\n{ACHES}\t{HEALED}\tREPLACE\n{SLEEPS}\t{WALKS}\tappend\n")
    assert [row.label for row in read(CARECALL_MEMORY, tmp_path, "dev").rows] == ["replace", "append"]
    write(tmp_path / "dev.tsv", f"memory\tsummary\toperation\n{ACHES}\t{HEALED}\tkeep\n")
    assert "line 2: the label 'keep' is none of pass" in fault(CARECALL_MEMORY, tmp_path, "dev")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[{"guid": "a-S1"}]', "row 1: a JSON object, where an array of objects is expected"),
        ('[[{"guid": "a-S1", "memory": "가"}, {"guid": "a-S2"}]]', "row 1 (a-S1): memory is not a list of texts"),
        ('[[{"memory": []}, {}]]', "row 1: guid is missing"),
        ("[]", "no rows for train"),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, content: str, told: str) -> None:
    write(tmp_path / "carecall-memory-sample.json", content)
    assert told in fault(CARECALL_MEMORY, tmp_path)
