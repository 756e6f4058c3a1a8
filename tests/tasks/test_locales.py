"""MASSIVE in several languages: which are trained, which are left out, and the scores of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from seqeval.metrics import f1_score

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.recipe_sections import TaskRecipe
from kogpt2_gluon.tasks.loading import find_split, read_split
from kogpt2_gluon.tasks.locales import rows_by_locale, task_of_recipe
from kogpt2_gluon.tasks.metrics import Predictions, evaluate_predictions, word_starts, word_tags
from kogpt2_gluon.tasks.public.massive import LOCALES, MASSIVE
from kogpt2_gluon.tasks.task import Row, Span, Task
from tests.tasks.test_massive import record, save

# The same utterances in three languages, in the form of MASSIVE's files: (partition, intent, annotation).
UTTERANCES = {
    "ko-KR": [
        ("train", "alarm_set", "[date : 내일] [time : 아침 일곱시]에 깨워줘"),
        ("train", "weather_query", "[place_name : 부산] 날씨 알려줘"),
        ("dev", "play_music", "[artist_name : 아이유] 노래 틀어줘"),
        ("test", "alarm_set", "[date : 금요일] [time : 밤 열시]에 알람 맞춰줘"),
        ("test", "iot_hue_lightoff", "[house_place : 거실] 불 꺼줘"),
    ],
    "en-US": [
        ("train", "alarm_set", "wake me up at [time : seven am] [date : tomorrow]"),
        ("train", "weather_query", "what is the weather in [place_name : busan]"),
        ("dev", "play_music", "play a song by [artist_name : iu]"),
        ("test", "alarm_set", "set an alarm for [time : ten pm] [date : friday]"),
        ("test", "iot_hue_lightoff", "turn off the light in the [house_place : living room]"),
    ],
    "ja-JP": [
        ("train", "alarm_set", "[date : 明日] の [time : 朝七時] に起こして"),
        ("train", "weather_query", "[place_name : 釜山] の天気を教えて"),
        ("dev", "play_music", "[artist_name : IU] の歌をかけて"),
        ("test", "alarm_set", "[date : 金曜日] の [time : 夜十時] にアラームをセットして"),
        ("test", "iot_hue_lightoff", "[house_place : 居間] の電気を消して"),
    ],
}


def records_of(locale: str) -> list[dict[str, Any]]:
    found = []
    for number, (partition, intent, annotated) in enumerate(UTTERANCES[locale]):
        plain = "".join(
            part.partition(" : ")[2] if " : " in part else part for part in annotated.replace("]", "[").split("[")
        )
        utt = plain.replace(" ", "") if locale == "ja-JP" else plain
        found.append(record(utt, annotated, locale=locale, partition=partition, intent=intent, id=str(number)))
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for locale in UTTERANCES:
        save(tmp_path / f"1.1/data/{locale}.jsonl", *records_of(locale))
    return tmp_path


def task_in(data: Path, locales: list[str], zero_shot: list[str] | None = None) -> Task:
    return task_of_recipe(TaskRecipe("massive", str(data), locales=locales, zero_shot=zero_shot or []))


def counts(task: Task, data: Path) -> dict[str, list[str]]:
    return {split: [row.locale for row in read_split(task, data, split, print)] for split in ("train", "dev", "test")}


def test_there_are_52_locales() -> None:
    assert len(set(LOCALES)) == 52 and list(LOCALES) == sorted(LOCALES)


def test_locales_left_out_have_test_rows_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = task_in(data, ["ko-KR", "en-US"], ["ja-JP"])
    assert counts(task, data) == {
        "train": ["ko-KR"] * 2 + ["en-US"] * 2,
        "dev": ["ko-KR", "en-US"],
        "test": ["ko-KR"] * 2 + ["en-US"] * 2 + ["ja-JP"] * 2,
    }
    assert "test: 2 rows of 1.1/data/ja-JP.jsonl (published: 2,974)" in capsys.readouterr().out
    assert find_split(task, data, "dev") == data / "1.1/data/ko-KR.jsonl"
    rows = read_split(task, data, "test", print)
    assert dict(rows_by_locale(task, "test", rows)) == {
        "test, ko-KR": [0, 1],
        "test, en-US": [2, 3],
        "test, ja-JP, zero-shot": [4, 5],
    }
    assert [[row.texts[0][begin:end] for begin, end, _ in row.spans] for row in rows] == [
        *(["금요일", "밤 열시"], ["거실"], ["ten pm", "friday"], ["living room"], ["金曜日", "夜十時"], ["居間"]),
    ]


def test_all_are_those_with_a_file(data: Path) -> None:
    assert task_in(data, ["all"]).locales == ("en-US", "ja-JP", "ko-KR")
    task = task_in(data, ["all"], ["en-US"])
    assert (task.locales, task.zero_shot) == (("ja-JP", "ko-KR", "en-US"), ("en-US",))
    task = task_in(data, ["ko-KR"], ["all"])
    assert (task.locales, task.zero_shot) == (("ko-KR", "en-US", "ja-JP"), ("en-US", "ja-JP"))
    alone = task_in(data, [])
    assert alone is MASSIVE and set(counts(alone, data)["train"]) == {"ko-KR"}
    assert list(rows_by_locale(alone, "test", read_split(alone, data, "test", print))) == []


@pytest.mark.parametrize(
    ("locales", "zero_shot", "error", "words"),
    [
        (["ko-KO"], [], DataError, "massive has no 'ko-KO'; it has en-US, ja-JP, ko-KR"),
        (["ko-KR"], ["tlh"], DataError, "massive has no 'tlh'"),
        (["de-DE"], [], DataError, "has no file of the locale de-DE; it has en-US, ja-JP, ko-KR"),
        (["ko-KR", "ko-KR"], [], RecipeError, "name ko-KR twice"),
        (["ko-KR"], ["ko-KR"], RecipeError, "name ko-KR twice"),
        ([], ["ja-JP"], RecipeError, "leaves no locale to train"),
        (["all"], ["all"], RecipeError, "leaves no locale to train"),
        (["all", "ko-KR"], [], RecipeError, r"\[all\] is by itself"),
    ],
)
def test_what_does_not_fit(data: Path, locales: list[str], zero_shot: list[str], error: type, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        task_in(data, locales, zero_shot)
    assert "\n" not in str(caught.value)


def test_a_task_of_one_language_has_no_locales(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="nsmc has one language"):
        task_of_recipe(TaskRecipe("nsmc", str(tmp_path), locales=["ko-KR"]))
    with pytest.raises(RecipeError, match=r"task\.locales is set, and task\.name, which needs it, is empty"):
        parse_recipe({}, ["task.locales=[ko-KR]"])


def test_files_that_are_wrong(data: Path) -> None:
    task, path = task_in(data, ["ko-KR"], ["ja-JP"]), data / "1.1/data/ja-JP.jsonl"
    rows = records_of("ja-JP")
    save(path, *(row for row in rows if row["partition"] != "test"))
    with pytest.raises(DataError, match=r"ja-JP.jsonl: no rows for test") as caught:
        read_split(task, data, "test", print)
    assert caught.value.exit_code == 3
    save(path, *rows[:3], *records_of("en-US")[3:])  # mixed up
    with pytest.raises(DataError, match="line 4: the locale en-US, where ja-JP is expected"):
        read_split(task, data, "test", print)
    path.unlink()
    with pytest.raises(DataError, match="has no file of the locale ja-JP; it has en-US, ko-KR"):
        task_in(data, ["ko-KR"], ["ja-JP"])


def test_a_recipe_of_other_locales_is_another_training() -> None:
    def fingerprint(*more: str) -> str:
        given: dict[str, Any] = {"task": {"name": "massive", "data": "m"}}
        return parse_recipe(given, list(more)).fingerprint()

    assert fingerprint("task.locales=[ko-KR,en-US]") != fingerprint() == fingerprint("task.zero_shot=[ja-JP]")
    assert Recipe().task.locales == []


# ---- slots of languages without spaces ---------------------------------------------------------


def test_words_of_languages_without_spaces() -> None:
    text, spans = "IUの歌をかけて", (Span(0, 2, "artist_name"),)
    assert word_starts(text, spans, "ja-JP") == [0, 2, 3, 4, 5, 6, 7]
    assert word_starts("play a song", (), "ja-JP") == word_starts("play a song") == [0, 5, 7]
    assert word_starts("내일 깨워", (Span(0, 1, "date"),), "ko-KR") == [0, 3]
    assert word_starts(" 明日 の朝", (), "zh-TW") == [1, 2, 4, 5]


def test_a_slot_that_is_too_short_is_wrong_in_japanese() -> None:
    """By white space it would be the same word, and so the same slot."""
    text = "明日の朝七時に起こして"
    row = Row((text,), "alarm_set", spans=(Span(3, 6, "time"),), locale="ja-JP")
    right, short = (
        Predictions(["alarm_set"], spans=[row.spans]),
        Predictions(["alarm_set"], spans=[(Span(3, 5, "time"),)]),
    )
    assert evaluate_predictions(MASSIVE, [row], right) == {"exact_match": 1, "intent_accuracy": 1, "slot_f1": 1}
    assert evaluate_predictions(MASSIVE, [row], short) == {"exact_match": 0, "intent_accuracy": 1, "slot_f1": 0}
    tags = ["O", "O", "O", "B-time", "I-time", "I-time", "O", "O", "O", "O", "O"]
    assert word_tags(text, row.spans, word_starts(text, row.spans, "ja-JP")) == tags
    assert f1_score([tags], [tags[:5] + ["O"] * 6]) == 0
