"""JSON of tasks: arrays and lines of objects, and one clear line for anything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public import json_records
from kogpt2_gluon.tasks.public.json_records import number_of, read_json_array, read_json_lines, text_of
from tests.tasks.data_helpers import write

OBJECTS = st.lists(
    st.dictionaries(st.text(max_size=4), st.text(max_size=8) | st.integers() | st.none(), max_size=3),
    min_size=1,
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(OBJECTS, st.booleans())
def test_objects_come_back(tmp_path: Path, objects: list[dict[str, Any]], is_pretty: bool) -> None:
    array = json.dumps([{"문장": "가나다"}, *objects], indent=4 if is_pretty else None)
    assert [each for _, each in read_json_array(write(tmp_path / "a.json", array))][1:] == objects
    lines = "".join(f"{json.dumps(each)}\r\n" for each in [{"문장": "가나다"}, *objects])
    assert [each for _, each in read_json_lines(write(tmp_path / "a.jsonl", lines))][1:] == objects


@pytest.mark.parametrize(
    ("reader", "content", "told"),
    [
        (read_json_array, '[{"a": 1},\n{"a": }]', ", line 2: not JSON (Expecting value): '}]'"),
        (read_json_array, '{"a": "가"}', "a JSON object, where an array is expected"),
        (read_json_array, '[{"a": "가"}, ["나"]]', "row 2: a JSON array, where an object is expected"),
        (read_json_array, '[{"a": NaN}]', "not JSON (NaN is not a number in JSON)"),
        (read_json_array, f'[{{"a": {"9" * 5000}}}]', "not JSON (Exceeds the limit"),
        (read_json_array, f'{{"a": {"[" * 200_000}', "nested too deeply"),
        (
            read_json_array,
            '[{"a": "가"}, {"b": {"a": 1, "a": 2}}]',
            "the key 'a' twice in an object, with the values '1, 2'",
        ),
        (read_json_lines, '{"a": "가"}\n{"a": "나"\n', "line 2: not JSON"),
        (read_json_lines, '{"a": "가"}\n{"a": "나", "a": "다"}\n', "line 2: the key 'a' twice"),
        (
            read_json_lines,
            '{"a": "가"}\n{"a": 1, "\\u0061": 1}\n',
            "line 2: the key 'a' twice",
        ),  # one name, spelt in two ways
        (read_json_lines, '{"a": "가"}\n\n7\n', "line 3: a number, where an object is expected"),
    ],
)
def test_what_is_not_such_json_is_one_line(
    tmp_path: Path, reader: Callable[[Path], Iterator[Any]], content: str, told: str
) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(DataError) as caught:
        list(reader(path))
    assert str(caught.value).startswith(str(path)) and told in str(caught.value)


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    record = json.loads('{"a": "\\ud83d", "b": "\\ud83d\\ude00", "c": "\\u0000", "d": 3, "e": "1"}')
    assert text_of("a.json, row 1", record, "b") == "😀"
    for key, told in {
        "a": "a.json, row 1: half of a surrogate pair in '\\ud83d'",
        "c": "a.json, row 1: a zero byte",
        "d": "a.json, row 1: d is a number, where a text is expected",
        "z": "a.json, row 1: z is missing",
    }.items():
        with pytest.raises(DataError) as caught:
            text_of("a.json, row 1", record, key)
        assert told in str(caught.value)
    assert number_of("row 1", record, "d") == 3.0
    for bad in ({"d": "3"}, {"d": True}, {}, {"d": 10**400}):
        with pytest.raises(DataError, match="row 1: d is"):
            number_of("row 1", bad, "d")


def test_an_array_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="above 0 MiB"):
        list(read_json_array(write(tmp_path / "a.json", json.dumps([{"a": "가" * 400}]))))
