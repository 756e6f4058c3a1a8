"""MASSIVE: three splits in a file, and slots as places in the utterance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.tasks.public.massive import INTENTS, MASSIVE, SLOTS
from kogpt2_gluon.tasks.task import Span
from tests.tasks.data_helpers import fault, read, write

NAME = "1.1/data/ko-KR.jsonl"


def record(utt: str, annot_utt: str, **changes: Any) -> dict[str, Any]:
    front = {"id": "1", "locale": "ko-KR", "partition": "train", "scenario": "alarm", "intent": "alarm_set"}
    return {**front, "utt": utt, "annot_utt": annot_utt, "judgments": [], **changes}


def save(path: Path, *records: dict[str, Any]) -> None:
    write(path, "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in records))


def test_the_paper_counts_as_many_names() -> None:
    assert (len(set(INTENTS)), len(set(SLOTS))) == (60, 55)
    assert list(INTENTS) == sorted(INTENTS) and list(SLOTS) == sorted(SLOTS)


def test_splits_intents_and_slots(tmp_path: Path) -> None:
    save(
        tmp_path / NAME,
        record("이번 주 아침 다섯시에 깨워줘", "[date : 이번 주] [time : 아침 다섯시]에 깨워줘"),
        record("오늘 날씨", "[date : 오늘] 날씨", partition="test", intent="weather_query"),
        record("불 꺼줘", "불 꺼줘", partition="dev", intent="iot_hue_lightoff"),
        record("재즈 틀어줘", "[music_genre : 재즈] 틀어줘", intent="play_music"),
    )
    train, said = read(MASSIVE, tmp_path)
    assert [(row.texts[0], row.label) for row in train] == [
        ("이번 주 아침 다섯시에 깨워줘", "alarm_set"),
        ("재즈 틀어줘", "play_music"),
    ]
    assert train[0].spans == (Span(0, 4, "date"), Span(5, 11, "time"))
    assert train[1].where == f"{tmp_path / NAME}, line 4"
    assert said[0] == f"train: 2 rows of {NAME} (published: 11,514)"
    assert [row.label for row in read(MASSIVE, tmp_path, "test").rows] == ["weather_query"]
    assert [row.spans for row in read(MASSIVE, tmp_path, "dev").rows] == [()]
    assert len(list(MASSIVE.read(tmp_path / NAME, print))) == 4


def test_annotations_unlike_the_utterance(tmp_path: Path) -> None:
    save(
        tmp_path / NAME,
        record("내일  아침에 깨워", "[date : 내일 ] [time : 아침]에 깨워"),  # other white space
        record("내일 여섯시에 깨워줘요", "[date : 내일] [time : 여섯시]에 깨워줘"),  # another word
        record("모레 깨워줘", "[date : 내일] 깨워줘"),  # words that are not there
        {"id": "9", "locale": "ko-KR", "partition": "MMNLU-22", "utt": "숨긴 것"},
    )
    rows, said = read(MASSIVE, tmp_path)
    assert [[row.texts[0][span.begin : span.end] for span in row.spans] for row in rows] == [
        ["내일", "아침"],
        ["내일", "여섯시"],
    ]
    assert said[:3] == [
        "ko-KR.jsonl: left out 1 utterance of MMNLU-22, which have no answers",
        "ko-KR.jsonl: 1 annotation unlike its utterance; the slots' words were found in it",
        "ko-KR.jsonl: left out 1 row without the words of its annotation in the utterance, such as "
        f"{tmp_path / NAME}, line 3",
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"locale": "de-DE"}, "line 1: the locale de-DE, where ko-KR is expected"),
        ({"partition": "validation"}, "line 1: the partition 'validation' is none of train, dev, test"),
        ({"intent": 48}, "line 1: intent is a number, where a text is expected"),  # as in the copy on a hub
        ({"intent": "make_coffee"}, "line 1: the label 'make_coffee' is none of alarm_query, alarm_remove"),
        ({"annot_utt": "[day : 내일] 깨워"}, "line 1: the kind 'day' of a span is none of"),
        ({"annot_utt": "[date : 내일 깨워"}, "line 1: a bracket that is not of the form [kind : text]"),
        ({"utt": "", "annot_utt": ""}, "line 1: an empty text"),
    ],
)
def test_a_record_that_does_not_fit_is_one_line(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    save(tmp_path / NAME, {**record("내일 깨워", "[date : 내일] 깨워"), **changes})
    assert told in fault(MASSIVE, tmp_path)
