"""MASSIVE: what does somebody want of a voice assistant, and which words of it are the details? In 52 languages.

Each locale has a file of its own with the same utterances, translated: an object a line. ``partition`` names its split,
``intent`` its class, and ``annot_utt`` is the utterance ``utt`` with ``[slot : words]`` in it. The spans are places in
``utt``. The annotation may have other white space; of a row where it has other characters too, the words of the slots
are looked up in their order.

There are no published scores here. The repository has none (alexa/massive, README.md, revision f966f21), and its own
evaluation counted slots and exact matches wrongly until 3932705 of June 2022, which metrics.py follows: a score from
before, such as those of the paper's first version (arXiv 2204.08582v1), is of another measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.answers import class_of
from kogpt2_gluon.tasks.public.json_records import read_json_lines, text_of
from kogpt2_gluon.tasks.public.partitions import PartitionedReader
from kogpt2_gluon.tasks.public.spans import moved_to, spans_of_brackets
from kogpt2_gluon.tasks.task import JOINT, SPLITS, Row, Span, Split, Task
from kogpt2_gluon.wording import counted

LOCALE = "ko-KR"  # without task.locales
HIDDEN = "MMNLU-22"  # the partition of the contest's utterances, which have no answers
FOLDERS = ("amazon-massive-dataset-1.1/1.1/data", "amazon-massive-dataset-1.0/1.0/data", "data")
_LOCALES = """
af-ZA am-ET ar-SA az-AZ bn-BD ca-ES cy-GB da-DK de-DE el-GR en-US es-ES fa-IR fi-FI fr-FR he-IL hi-IN hu-HU hy-AM id-ID
is-IS it-IT ja-JP jv-ID ka-GE km-KH kn-IN ko-KR lv-LV ml-IN mn-MN ms-MY my-MM nb-NO nl-NL pl-PL pt-PT ro-RO ru-RU sl-SL
sq-AL sv-SE sw-KE ta-IN te-IN th-TH tl-PH tr-TR ur-PK vi-VN zh-CN zh-TW
"""
LOCALES = tuple(_LOCALES.split())  # of version 1.1; 1.0 has no ca-ES

# 60 intents and 55 slots, as the paper counts them (FitzGerald et al., 2022), in the order of their names.
_INTENTS = """
alarm_query alarm_remove alarm_set audio_volume_down audio_volume_mute audio_volume_other audio_volume_up
calendar_query calendar_remove calendar_set cooking_query cooking_recipe datetime_convert datetime_query
email_addcontact email_query email_querycontact email_sendemail general_greet general_joke general_quirky
iot_cleaning iot_coffee iot_hue_lightchange iot_hue_lightdim iot_hue_lightoff iot_hue_lighton iot_hue_lightup
iot_wemo_off iot_wemo_on lists_createoradd lists_query lists_remove music_dislikeness music_likeness music_query
music_settings news_query play_audiobook play_game play_music play_podcasts play_radio qa_currency qa_definition
qa_factoid qa_maths qa_stock recommendation_events recommendation_locations recommendation_movies social_post
social_query takeaway_order takeaway_query transport_query transport_taxi transport_ticket transport_traffic
weather_query
"""
_SLOTS = """
alarm_type app_name artist_name audiobook_author audiobook_name business_name business_type change_amount
coffee_type color_type cooking_type currency_name date definition_word device_type drink_type email_address
email_folder event_name food_type game_name game_type general_frequency house_place ingredient joke_type list_name
meal_type media_type movie_name movie_type music_album music_descriptor music_genre news_topic order_type person
personal_info place_name player_setting playlist_name podcast_descriptor podcast_name radio_name relation song_name
sport_type time time_zone timeofday transport_agency transport_descriptor transport_name transport_type
weather_descriptor
"""
INTENTS, SLOTS = tuple(_INTENTS.split()), tuple(_SLOTS.split())
_CLASSES = {intent: intent for intent in INTENTS}


def _rows(locale: str, path: Path, say: Callable[[str], None]) -> Iterator[tuple[str, Row]]:
    """Yields the rows of the file of a locale with their splits."""
    hidden = looked_up = 0
    unlike: list[str] = []
    for where, record in read_json_lines(path):
        partition = text_of(where, record, "partition")
        if partition == HIDDEN:
            hidden += 1
            continue
        _check(where, record, partition, locale)
        utterance = text_of(where, record, "utt")
        annotated, spans = spans_of_brackets(where, text_of(where, record, "annot_utt"))
        placed = moved_to(utterance, annotated, spans)
        if placed is None:
            placed = _found_in(utterance, [annotated[span.begin : span.end] for span in spans], spans)
            looked_up += placed is not None
        if placed is None:
            unlike.append(where)
            continue
        intent = class_of(where, text_of(where, record, "intent"), _CLASSES)
        yield partition, Row((utterance,), intent, spans=placed, where=where, locale=locale)
    if hidden:
        say(f"{path.name}: left out {counted(hidden, 'utterance')} of {HIDDEN}, which have no answers")
    if looked_up:
        say(f"{path.name}: {counted(looked_up, 'annotation')} unlike its utterance; the slots' words were found in it")
    if unlike:
        rows = counted(len(unlike), "row")
        say(f"{path.name}: left out {rows} without the words of its annotation in the utterance, such as {unlike[0]}")


def _check(where: str, record: dict[str, Any], partition: str, expected: str) -> None:
    if partition not in SPLITS:
        raise DataError(f"{where}: the partition {partition!r} is none of {', '.join(SPLITS)}")
    locale = text_of(where, record, "locale")
    if locale != expected:
        raise DataError(f"{where}: the locale {locale}, where {expected} is expected; this is another language's file")


def _found_in(text: str, words: Sequence[str], spans: Sequence[Span]) -> tuple[Span, ...] | None:
    """Returns the spans where the words are in the text, one after another; None if one is not there."""
    found, place = [], 0
    for each, span in zip(words, spans):
        begin = text.find(each, place)
        if begin < 0:
            return None
        place = begin + len(each)
        found.append(Span(begin, place, span.kind))
    return tuple(found)


def massive_in(locale: str) -> Task:
    """Returns the task in one of LOCALES."""
    files = tuple(f"{folder}/{locale}.jsonl" for folder in FOLDERS)
    return Task(
        name="massive",
        about="MASSIVE: the intent of an utterance to a voice assistant, and its slots",
        head=JOINT,
        read=PartitionedReader(partial(_rows, locale)),
        splits={"train": Split(files, 11_514), "dev": Split(files, 2_033), "test": Split(files, 2_974)},
        metrics=("exact_match", "intent_accuracy", "slot_f1"),
        labels=INTENTS,
        kinds=SLOTS,
        source="https://github.com/alexa/massive, version 1.0 or 1.1 (the same for ko-KR), CC BY 4.0",
        in_locale=massive_in,
        locales=LOCALES,
    )


MASSIVE = massive_in(LOCALE)
