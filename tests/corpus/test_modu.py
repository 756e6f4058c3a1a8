"""The Modu corpus: each of its layouts, and files that are none of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.corpus.documents import read_documents
from kogpt2_gluon.corpus.records import Document, Rejection
from kogpt2_gluon.errors import DataError

CORPUS = {"title": "국립국어원 신문 말뭉치", "creator": "국립국어원", "distributor": "국립국어원", "year": "2020"}
NEWSPAPER = {
    "id": "NWRW1800000021",
    "metadata": {**CORPUS, "category": "신문 > 인터넷 기반 신문", "annotation_level": ["원시"], "sampling": "전체"},
    "document": [
        {
            "id": "NWRW1800000021.1",
            "metadata": {
                "title": "신문 1면",
                "author": "가나다",
                "publisher": "라마바",
                "date": "20180101",
                "topic": "사회",
            },
            "paragraph": [
                {"id": "NWRW1800000021.1.1", "form": "[제목] 새해 첫날"},
                {"id": "NWRW1800000021.1.2", "form": '새해가 밝았다. 해가 "떴다".'},
                {"id": "NWRW1800000021.1.3", "form": ""},
            ],
        },
        {"id": "NWRW1800000021.2", "metadata": {}, "paragraph": [{"id": "NWRW1800000021.2.1", "form": "둘째 기사"}]},
    ],
}
SPOKEN = {
    "id": "SDRW2000000001",
    "metadata": {**CORPUS, "category": "구어 > 사적 대화 > 일상 대화"},
    "document": [
        {
            "id": "SDRW2000000001.1",
            "metadata": {
                "topic": "여행지",
                "speaker": [{"id": "SD2000001", "age": "20대"}],
                "setting": {"relation": "친구"},
            },
            "utterance": [
                {
                    "id": "SDRW2000000001.1.1.1",
                    "form": "여행 좋아해?",
                    "original_form": "여행 좋아해~?",
                    "speaker_id": "SD2000001",
                    "start": 0.0,
                    "end": 1.25,
                    "note": "",
                },
                {"id": "SDRW2000000001.1.1.2", "form": "응 {laughing} 좋아해", "speaker_id": "SD2000002", "start": 1.3},
            ],
        }
    ],
}
MESSENGER = {
    "id": "MDRW2100000001",
    "metadata": CORPUS,
    "document": [
        {
            "id": "MDRW2100000001.1",
            "metadata": {"speaker": [{"id": "1"}, {"id": "2"}]},
            "utterance": [
                {
                    "id": "MDRW2100000001.1.1",
                    "form": "ㅋㅋㅋ 어디야",
                    "original_form": "ㅋㅋㅋ 어디야",
                    "speaker_id": "1",
                },
                {"id": "MDRW2100000001.1.2", "form": "&name& 집", "speaker_id": "2", "time": "20210801 13:05"},
            ],
        }
    ],
}
PARLIAMENT = {"id": "SBRW1", "metadata": CORPUS, "document": {"id": "SBRW1.1", "utterance": [{"form": "개회합니다."}]}}
ANNOTATED = {
    "id": "NXMP1",
    "document": [{"id": "a", "sentence": [{"form": "문장이다.", "word": [{"form": "문장이다."}]}]}],
}


def read(path: Path, value: Any, indent: int = 4) -> list[str]:
    path.write_bytes(gzip.compress(json.dumps(value, ensure_ascii=False, indent=indent).encode()))
    items = read_documents(path, "modu")
    return [item.reason if isinstance(item, Rejection) else item.text for item in items]


def test_layouts(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    assert read(path, NEWSPAPER) == ['[제목] 새해 첫날\n새해가 밝았다. 해가 "떴다".', "둘째 기사"]
    assert read(path, SPOKEN) == ["여행 좋아해?\n응 {laughing} 좋아해"]
    assert read(path, MESSENGER) == ["ㅋㅋㅋ 어디야\n&name& 집"]
    assert read(path, PARLIAMENT) == ["개회합니다."]
    assert read(path, ANNOTATED) == ["문장이다."]


def test_texts_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    bad = [
        {"id": "a", "metadata": {}},
        {"paragraph": []},
        {"paragraph": [{"form": ""}]},
        {"paragraph": [{"id": "x"}]},
        {"paragraph": [{"form": 7}]},
        {"paragraph": [{"form": None}, {"form": ""}]},
        {"paragraph": ["x"]},
        {"paragraph": {"form": "x"}},
        [1, 2],
        {"utterance": [{"form": "끝"}]},
    ]
    found = read(tmp_path / "a.json.gz", {"document": bad})
    assert found == [
        "missing_field",
        "empty",
        "empty",
        "missing_field",
        "field_not_text",
        "null_field",
        "field_not_text",
        "missing_field",
        "missing_field",
        "끝",
    ]


@pytest.mark.parametrize(
    ("data", "count", "words"),
    [
        (b'{"id": "a"}', 0, 'no JSON object with "document" in 11 bytes'),
        (b"[]", 0, "begins with b'\\['"),
        (b'{"a": {"document": []}, "b": "document"}', 0, 'no JSON object with "document"'),
        (b'{"document": [{"paragraph": [{"form": "a"}]}, {"para', 1, "truncated: a record that begins after byte 44"),
        (b'{"document": [{"paragraph": [{"form": "a"}]}]', 1, "truncated: it ends after the array at byte 44"),
        (
            b'{"document": [{"paragraph": [{"form": "a"}]} x {}]}',
            1,
            "damaged: there is not just one comma between two records, at byte 45",
        ),
    ],
)
def test_broken_files(tmp_path: Path, data: bytes, count: int, words: str) -> None:
    path = tmp_path / "NWRW1.json"
    path.write_bytes(data)
    items = read_documents(path, "modu")
    assert [next(items) for _ in range(count)] == [Document("a", str(path), 1, 14)][:count]
    with pytest.raises(DataError, match=f"NWRW1.json: {words}"):
        next(items)
