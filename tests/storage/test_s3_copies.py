"""Copies to and from S3: in parts, broken off, checked by hash. S3 is played by moto and botocore's Stubber."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.corpus.sources import list_sources
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage import s3
from kogpt2_gluon.storage.s3 import S3Stream, download, file_hash, upload
from tests.storage.s3_helpers import BUCKET, answer

boto3 = pytest.importorskip("boto3", reason="reads from S3")
moto = pytest.importorskip("moto", reason="plays S3")

from botocore.exceptions import (  # noqa: E402
    ReadTimeoutError,
)
from botocore.stub import Stubber  # noqa: E402
from urllib3.exceptions import ProtocolError  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_real_account")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_SIZE", 5 << 20)  # the least that S3 allows


def test_up_and_down_in_parts(store: Any, small_parts: None, tmp_path: Path) -> None:
    path = tmp_path / "shard.ktok"
    path.write_bytes(bytes(range(256)) * (13 << 12))  # 13 MiB
    sent: list[int] = []
    done = upload(path, BUCKET, "shards/shard.ktok", sent.append)
    assert sum(sent) == done.size == path.stat().st_size
    assert (done.url, done.sha256, done.skipped) == (f"s3://{BUCKET}/shards/shard.ktok", file_hash(path), False)
    about = store.head_object(Bucket=BUCKET, Key="shards/shard.ktok")
    assert about["ETag"].endswith('-3"')
    assert about["Metadata"] == {"sha256": done.sha256}
    came: list[int] = []
    back = download(BUCKET, "shards/shard.ktok", tmp_path / "new" / "shard.ktok", came.append)
    assert sum(came) == back.size
    assert (tmp_path / "new" / "shard.ktok").read_bytes() == path.read_bytes()
    assert (back.checked, back.sha256) == ("sha256", done.sha256)


def test_what_is_there_already_is_left(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert not upload(path, BUCKET, "a").skipped
    sent: list[int] = []
    assert upload(path, BUCKET, "a", sent.append).skipped
    assert download(BUCKET, "a", path, sent.append).skipped
    assert sent == []
    path.write_bytes(b"two")
    with pytest.raises(DataError, match="s3://korean-corpus/a: another object is there"):
        upload(path, BUCKET, "a", overwrite=False)
    assert not download(BUCKET, "a", path).skipped
    assert path.read_bytes() == b"one"


def test_objects_of_others_are_checked_by_what_they_have(store: Any, small_parts: None, tmp_path: Path) -> None:
    store.put_object(Bucket=BUCKET, Key="plain", Body=b"text")
    assert download(BUCKET, "plain", tmp_path / "a").checked == "md5"
    begun = store.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    part = {"Bucket": BUCKET, "Key": "parts", "UploadId": begun, "PartNumber": 1}
    tag = store.upload_part(**part, Body=b"text")["ETag"]
    store.complete_multipart_upload(
        Bucket=BUCKET, Key="parts", UploadId=begun, MultipartUpload={"Parts": [{"ETag": tag, "PartNumber": 1}]}
    )
    done = download(BUCKET, "parts", tmp_path / "b")
    assert (done.checked, done.sha256) == ("size", file_hash(tmp_path / "b"))


def test_a_wrong_hash_leaves_the_old_file(store: Any, tmp_path: Path) -> None:
    store.put_object(Bucket=BUCKET, Key="a", Body=b"new", Metadata={"sha256": "0" * 64})
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(DataError, match="s3://korean-corpus/a: arrived with another sha256"):
        download(BUCKET, "a", path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_file_that_changes_while_it_is_sent(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")

    def hash_then_change(changed: Path) -> str:
        found = file_hash(changed)
        changed.write_bytes(b"longer")
        return found

    monkeypatch.setattr(s3, "file_hash", hash_then_change)
    with pytest.raises(DataError, match="a: changed while it was uploaded"):
        upload(path, BUCKET, "a")
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        upload(tmp_path / "nowhere", BUCKET, "a")


def test_what_arrives_otherwise_than_it_was_sent(stubbed: Stubber, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    stubbed.add_client_error("head_object", "404", http_status_code=404)
    stubbed.add_response("put_object", {})
    stubbed.add_response("head_object", {"ContentLength": 2, "Metadata": {"sha256": file_hash(path)}})
    with pytest.raises(DataError, match=r"s3://korean-corpus/a: arrived damaged \(2 bytes\)"):
        upload(path, BUCKET, "a")


def lay_down(stubbed: Stubber, body: bytes, times: int = 2, **stored: Any) -> None:
    """Stubs the questions that a download asks first; boto3 asks again when it copies."""
    about = {"ContentLength": len(body), "ETag": '"e"', "Metadata": {}, **stored}
    for _ in range(times):
        stubbed.add_response("head_object", about)


def check_nothing_is_left(tmp_path: Path) -> None:
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a", b"old")]


def test_a_download_that_breaks_goes_on(stubbed: Stubber, tmp_path: Path) -> None:
    data = bytes(range(200))
    lay_down(stubbed, data, Metadata={"sha256": hashlib.sha256(data).hexdigest()})
    for size, error in ((50, ReadTimeoutError(endpoint_url="x")), (0, ConnectionResetError("reset")), (200, None)):
        stubbed.add_response("get_object", answer(data, 0, size, error))
    came: list[int] = []
    assert download(BUCKET, "a", tmp_path / "a", came.append).checked == "sha256"
    assert (tmp_path / "a").read_bytes() == data
    assert sum(came) == 200  # bytes that came in vain were subtracted again


@pytest.mark.parametrize(
    "error", [ReadTimeoutError(endpoint_url="x"), ConnectionResetError("reset by peer"), ProtocolError("broken")]
)
def test_a_download_that_stays_broken_is_given_up(stubbed: Stubber, tmp_path: Path, error: Exception) -> None:
    (tmp_path / "a").write_bytes(b"old")
    lay_down(stubbed, bytes(100))
    for _ in range(s3.ATTEMPTS):
        stubbed.add_response("get_object", answer(bytes(100), 0, 3, error))
    with pytest.raises(
        DataError, match=r"^s3://korean-corpus/a: the connection broke 6 times \(.+\); try again later$"
    ) as caught:
        download(BUCKET, "a", tmp_path / "a")
    assert "\n" not in str(caught.value)
    check_nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("AccessDenied", 403, r"access denied \(403\)"),
        ("NoSuchKey", 404, "no such object"),
        ("PreconditionFailed", 412, "was replaced while it was read"),
        ("InvalidObjectState", 403, r"archived \(Glacier\)"),
        ("SlowDown", 503, "SlowDown"),
    ],
)
def test_a_download_that_is_refused(stubbed: Stubber, tmp_path: Path, code: str, status: int, words: str) -> None:
    (tmp_path / "a").write_bytes(b"old")
    lay_down(stubbed, bytes(100))
    stubbed.add_client_error("get_object", code, http_status_code=status)
    with pytest.raises(DataError, match=f"^s3://korean-corpus/a: .*{words}"):
        download(BUCKET, "a", tmp_path / "a")
    check_nothing_is_left(tmp_path)


def test_a_download_of_another_size_or_content(stubbed: Stubber, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    lay_down(stubbed, bytes(100))
    stubbed.add_response("get_object", answer(bytes(90), 0, 90, None))
    with pytest.raises(DataError, match="only 90 of 100 bytes arrived"):
        download(BUCKET, "a", tmp_path / "a")
    lay_down(stubbed, bytes(100), ETag=f'"{"0" * 32}"')
    stubbed.add_response("get_object", answer(bytes(100), 0, 100, None))
    with pytest.raises(DataError, match="another md5 than was stored"):
        download(BUCKET, "a", tmp_path / "a")
    check_nothing_is_left(tmp_path)


def test_a_file_without_a_stored_hash_is_judged_by_the_caller(stubbed: Stubber, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    lay_down(stubbed, b"new", times=1)
    assert download(BUCKET, "a", tmp_path / "a", None, lambda path: path.read_bytes() == b"old").skipped
    lay_down(stubbed, b"new")
    stubbed.add_response("get_object", answer(b"new", 0, 3, None))
    assert not download(BUCKET, "a", tmp_path / "a", None, lambda path: False).skipped
    assert (tmp_path / "a").read_bytes() == b"new"


CONTENT = "가나다 라마바\n".encode() * 20_000


class BreakingStore(BaseHTTPRequestHandler):
    """One object, over HTTP; each answer ends after 100 kB, whatever length it promised."""

    def do_GET(self) -> None:
        if "list-type=2" in self.path:
            entry = f'<Key>a.txt</Key><Size>{len(CONTENT)}</Size><ETag>"e"</ETag>'
            xml = f"<ListBucketResult><Contents>{entry}</Contents><IsTruncated>false</IsTruncated></ListBucketResult>"
            self._answer(200, xml.encode())
        elif self.headers["If-Match"] != '"e"':
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self._answer(206, CONTENT[begin:])

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:100_000])

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_store_of_another_maker_that_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reached at AWS_ENDPOINT_URL over a real connection, as MinIO, Ceph and others are."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BreakingStore) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        (source,) = list_sources([f"s3://{BUCKET}"])
        read: list[int] = []
        with source.open(read.append) as stream:
            assert stream.read() == CONTENT
        assert sum(read) == len(CONTENT) > 300_000
        with pytest.raises(DataError, match="was replaced while it was read"):
            S3Stream(BUCKET, "a.txt", 9, '"older"').read(9)
        server.shutdown()
        thread.join()
