"""Uploads that go on where they broke off. S3 is played by moto, with parts of 1 KiB."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage import s3_parts
from kogpt2_gluon.storage.s3_parts import Content, on_threads, part_size_for, unfinished_uploads, upload_content
from kogpt2_gluon.storage.s3_prefix import S3Prefix
from tests.runs.mirror_helpers import requests
from tests.storage.s3_helpers import BUCKET

pytest.importorskip("boto3", reason="reads from S3")
pytest.importorskip("moto", reason="plays S3")

from botocore.exceptions import EndpointConnectionError

PART, KEY = 1024, "run/model.params"
DATA = bytes(range(256)) * 40  # 10 parts
OTHER = DATA[:-1] + b"x"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART)


def content(data: bytes, check: Callable[[int, bytes], None] = lambda start, body: None) -> Content:
    return Content(len(data), PART, f"mark {hash(data)}", check)


def send(data: bytes) -> int:
    return upload_content(io.BytesIO(data), content(data), BUCKET, KEY)


def stored(store: Any, key: str = KEY) -> bytes:
    body: bytes = store.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return body


def broken_after(parts: int, data: bytes = DATA) -> None:
    """Loses the connection once so many parts have arrived."""
    arrived = []

    def lose(operation: str, number: int) -> None:
        if operation == "UploadPart":
            if len(arrived) >= parts:
                raise EndpointConnectionError(endpoint_url="https://x")
            arrived.append(number)

    with requests(lose, lambda operation, number: None), pytest.raises(DataError, match=f"{KEY}: "):
        send(data)


def test_in_parts_and_once(store: Any) -> None:
    assert send(DATA) == len(DATA) and stored(store) == DATA
    about = store.head_object(Bucket=BUCKET, Key=KEY)
    assert about["ETag"].endswith('-10"') and about["Metadata"] == {"kogpt2-content": content(DATA).mark}
    assert send(DATA) == 0
    assert send(OTHER) == len(OTHER) and stored(store) == OTHER
    assert send(b"small") == 5 and stored(store) == b"small"
    assert send(b"") == 0 and stored(store) == b""
    assert unfinished_uploads(BUCKET, "") == []


@pytest.mark.parametrize("parts", [0, 1, 9])
def test_it_goes_on_where_it_broke_off(store: Any, parts: int) -> None:
    broken_after(parts)
    ((key, _),) = unfinished_uploads(BUCKET, "run")
    assert key == KEY
    assert send(DATA) == len(DATA) - parts * PART
    assert stored(store) == DATA and unfinished_uploads(BUCKET, "") == []


def test_parts_of_another_content_are_sent_again(store: Any) -> None:
    """The object is not what the interrupted call described, so it does not stay."""
    broken_after(9, OTHER)
    with pytest.raises(DataError, match=f"s3://{BUCKET}/{KEY}: is not what was uploaded; upload it again"):
        send(DATA)
    assert "Contents" not in store.list_objects_v2(Bucket=BUCKET)
    assert send(DATA) == len(DATA) and stored(store) == DATA


def test_a_part_that_is_damaged_there_is_sent_again(store: Any) -> None:
    broken_after(9)
    ((_, upload),) = unfinished_uploads(BUCKET, "")
    numbers = [part["PartNumber"] for part in store.list_parts(Bucket=BUCKET, Key=KEY, UploadId=upload)["Parts"]]
    store.upload_part(Bucket=BUCKET, Key=KEY, UploadId=upload, PartNumber=numbers[0], Body=bytes(PART))
    assert send(DATA) == 2 * PART and stored(store) == DATA


def test_older_uploads_of_the_same_file_are_aborted(store: Any) -> None:
    for _ in range(3):
        store.create_multipart_upload(Bucket=BUCKET, Key=KEY)
    store.create_multipart_upload(Bucket=BUCKET, Key=f"{KEY}.other")
    with pytest.raises(DataError, match="is not what was uploaded"):  # the last one has no mark
        send(DATA)
    assert [key for key, _ in unfinished_uploads(BUCKET, "")] == [f"{KEY}.other"]
    assert send(DATA) == len(DATA)


def test_an_upload_that_a_rule_of_the_bucket_aborted(store: Any) -> None:
    broken_after(5)
    ((_, upload),) = unfinished_uploads(BUCKET, "")
    store.abort_multipart_upload(Bucket=BUCKET, Key=KEY, UploadId=upload)
    s3_parts.abort_upload(BUCKET, KEY, upload)
    assert send(DATA) == len(DATA) and stored(store) == DATA


def test_an_answer_that_is_lost(store: Any) -> None:
    """S3 has completed the object; the next call sees it."""

    with requests(lambda operation, number: None, lose_at("CompleteMultipartUpload")), pytest.raises(DataError):
        send(DATA)
    assert send(DATA) == 0 and stored(store) == DATA


def test_a_policy_that_does_not_let_uploads_be_listed(store: Any) -> None:
    from botocore.exceptions import ClientError

    def refuse(operation: str, number: int) -> None:
        if operation == "ListMultipartUploads":
            answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(answer, operation)  # type: ignore[arg-type]

    with requests(refuse, lambda operation, number: None):
        assert send(DATA) == len(DATA)
    assert stored(store) == DATA


def test_a_file_that_is_not_what_it_should_be_is_not_sent(store: Any) -> None:
    def check(start: int, body: bytes) -> None:
        if start == 3 * PART:
            raise DataError("its hash differs")

    with pytest.raises(DataError, match="its hash differs"):
        upload_content(io.BytesIO(DATA), content(DATA, check), BUCKET, KEY)
    assert "Contents" not in store.list_objects_v2(Bucket=BUCKET)


def test_parts_for_files_of_any_size() -> None:
    block = 16 << 20
    assert part_size_for(0, block) == part_size_for(160 << 30 >> 1, block) == block
    assert part_size_for(1 << 40, block) * 10_000 >= 1 << 40
    assert part_size_for(5, 1) == 16 << 20 and part_size_for(5, 3 << 20) == 18 << 20


def test_threads_stop_at_the_first_error() -> None:
    assert on_threads(lambda number: number * number, range(1, 20), 4) == [number * number for number in range(1, 20)]
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    with pytest.raises(ValueError, match="three"):
        on_threads(work, range(1, 100_000), 2)
    assert len(begun) < 100_000
    assert not [thread for thread in threading.enumerate() if thread.daemon and "on_threads" in thread.name]


def test_names_as_people_give_them(store: Any, tmp_path: Any) -> None:
    prefix = S3Prefix(f"s3://{BUCKET}/한국어 모델/a+b=c & d%20e/#1")
    with pytest.raises(DataError), requests(lose_at("UploadPart"), lambda operation, number: None):
        prefix.upload(io.BytesIO(DATA), content(DATA), "step-1/model.params")
    assert [name for name, _ in prefix.unfinished()] == ["step-1/model.params"]
    assert prefix.upload(io.BytesIO(DATA), content(DATA), "step-1/model.params") == len(DATA)
    prefix.copy("step-1/model.params", "step-2/model.params")
    assert prefix.sizes() == {"step-1/model.params": len(DATA), "step-2/model.params": len(DATA)}
    prefix.download("step-2/model.params", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == DATA and prefix.unfinished() == []


def lose_at(name: str) -> Callable[[str, int], None]:
    def lose(operation: str, number: int) -> None:
        if operation == name:
            raise EndpointConnectionError(endpoint_url="https://x")

    return lose


def test_objects_below_a_prefix(store: Any, tmp_path: Any) -> None:
    prefix = S3Prefix(f"s3://{BUCKET}//run/")
    assert prefix.url == f"s3://{BUCKET}/run" and prefix.sizes() == {} and prefix.read("a", 10) is None
    prefix.write("a/b", b"text")
    store.put_object(Bucket=BUCKET, Key="runner/a", Body=b"another's")
    assert prefix.sizes() == {"a/b": 4} and prefix.read("a/b", 4) == b"text"
    with pytest.raises(DataError, match="4 bytes, and 3 at most belong there"):
        prefix.read("a/b", 3)
    prefix.upload(io.BytesIO(DATA), content(DATA), "model.params")
    prefix.copy("model.params", "aside/model.params")
    assert stored(store, "run/aside/model.params") == DATA
    assert prefix.upload(io.BytesIO(DATA), content(DATA), "aside/model.params") == 0  # the mark went along
    prefix.download("aside/model.params", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == DATA
    prefix.remove(["a/b", "never there"])
    assert sorted(prefix.sizes()) == ["aside/model.params", "model.params"]
    assert S3Prefix(f"s3://{BUCKET}").sizes()["runner/a"] == 9
