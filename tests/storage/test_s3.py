"""S3, without a network: a store in this process (moto), and answers made to go wrong (botocore's Stubber)."""

from __future__ import annotations

import gzip
import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.documents import read_blocks, read_documents
from kogpt2_gluon.corpus.formats import KINDS, kind_of
from kogpt2_gluon.corpus.sources import list_sources
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.storage import s3
from kogpt2_gluon.storage.s3 import S3Stream, download, file_hash, list_objects, upload
from tests.corpus.test_containers import CONTAINERS, rows_of

boto3 = pytest.importorskip("boto3", reason="reads from S3")
moto = pytest.importorskip("moto", reason="plays S3")

from botocore.exceptions import (  # noqa: E402
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ReadTimeoutError,
)
from botocore.response import StreamingBody  # noqa: E402
from botocore.stub import Stubber  # noqa: E402
from urllib3.exceptions import ProtocolError  # noqa: E402

BUCKET = "korean-corpus"


@pytest.fixture(autouse=True)
def no_real_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no credentials"))
    monkeypatch.setattr(s3, "FIRST_WAIT", 0.0)
    s3._make_client.cache_clear()
    yield
    s3._make_client.cache_clear()


@pytest.fixture
def store() -> Iterator[Any]:
    """An empty bucket."""
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """The client that the code uses, whose answers a test lays down."""
    client = boto3.client("s3")
    monkeypatch.setattr(s3, "_client", lambda: client)
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


# --- listing and reading


def test_a_prefix_is_listed_as_a_folder(store: Any) -> None:
    for key in ("a/2.txt", "a/1.txt", "a/", "a/.hidden", "a/.x/y.txt", "a/b/3.txt", "ab.txt", "a2/4.txt"):
        store.put_object(Bucket=BUCKET, Key=key, Body=key.encode())

    def names(url: str) -> list[str]:
        return [source.name.split("/", 3)[3] for source in list_sources([url])]

    assert names(f"s3://{BUCKET}/a") == names(f"s3://{BUCKET}/a/") == ["a/1.txt", "a/2.txt", "a/b/3.txt"]
    assert names(f"s3://{BUCKET}/a*") == ["a/1.txt", "a/2.txt", "a/b/3.txt", "a2/4.txt", "ab.txt"]
    assert names(f"s3://{BUCKET}") == ["a/1.txt", "a/2.txt", "a/b/3.txt", "a2/4.txt", "ab.txt"]
    assert names(f"s3://{BUCKET}/ab.txt") == ["ab.txt"]
    assert names(f"s3://{BUCKET}/a/.hidden") == ["a/.hidden"]
    (source,) = list_sources([f"s3://{BUCKET}/ab.txt"])
    assert (source.size, source.path, source.suffix) == (6, None, ".txt")
    with pytest.raises(DataError, match="s3://korean-corpus/nowhere: no such object, and none below it"):
        list_sources([f"s3://{BUCKET}/nowhere"])


def test_all_pages_of_a_long_list_are_read(stubbed: Stubber) -> None:
    entry = {"Size": 1, "ETag": '"e"'}
    first = {"IsTruncated": True, "NextContinuationToken": "next", "Contents": [{**entry, "Key": "p/b"}]}
    stubbed.add_response("list_objects_v2", first, {"Bucket": BUCKET, "Prefix": "p"})
    last = {"IsTruncated": False, "Contents": [{**entry, "Key": "p/a"}]}
    stubbed.add_response("list_objects_v2", last, {"Bucket": BUCKET, "Prefix": "p", "ContinuationToken": "next"})
    assert [item.key for item in list_objects(BUCKET, "p")] == ["p/a", "p/b"]


@pytest.mark.parametrize("packed", [False, True])
def test_documents_from_s3_and_going_on(store: Any, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 100)
    data = "".join(f"{number}번째 줄\n" for number in range(200)).encode()
    name = "wiki_news_corpus_aa" + (".gz" if packed else "")
    store.put_object(Bucket=BUCKET, Key=name, Body=gzip.compress(data) if packed else data)
    (source,) = list_sources([f"s3://{BUCKET}/{name}"])
    read: list[int] = []
    blocks = list(read_blocks(source, KINDS["line"], read.append))
    assert b"".join(block.data for block in blocks) == data
    assert sum(read) == source.size
    for place in (0, 7, len(blocks) - 1):
        assert list(read_blocks(source, KINDS["line"], start=blocks[place].next_start)) == blocks[place + 1 :]
    assert [item.text for item in read_documents(source, "line")] == data.decode().splitlines()


@pytest.mark.parametrize("container", ["array", "csv", "parquet", "feather", "arrow stream"])
def test_records_of_any_container_from_s3(store: Any, monkeypatch: pytest.MonkeyPatch, container: str) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 300)
    suffix, documents, make = CONTAINERS[container]
    texts = [f"{number}번째 글, 그리고 끝" for number in range(60)]
    store.put_object(Bucket=BUCKET, Key=f"a{suffix}", Body=make(rows_of(texts)))
    (source,) = list_sources([f"s3://{BUCKET}"])
    assert [item.text for item in read_documents(source, documents)] == texts
    kind = kind_of(documents)
    blocks = list(read_blocks(source, kind))
    assert list(read_blocks(source, kind, start=blocks[3].next_start)) == blocks[4:]


class Cut(io.BytesIO):
    """A body that gives `size` bytes and then breaks, or ends."""

    def __init__(self, data: bytes, size: int, error: Exception | None) -> None:
        super().__init__(data[:size])
        self._error = error

    def read(self, count: int | None = -1) -> bytes:
        data = super().read(count)
        if not data and self._error is not None:
            raise self._error
        return data


def answer(data: bytes, begin: int, size: int, error: Exception | None) -> dict[str, Any]:
    rest = data[begin:]
    return {"Body": StreamingBody(Cut(rest, size, error), None), "ContentLength": len(rest)}


def test_a_broken_connection_is_opened_again_where_it_broke(stubbed: Stubber) -> None:
    data = bytes(range(200))
    broken = [
        (0, 50, ReadTimeoutError(endpoint_url="x")),
        (50, 0, ConnectionResetError("reset")),
        (50, 30, None),  # ends too early, without an error
        (80, 120, None),
    ]
    for begin, size, error in broken:
        expected = {"Bucket": BUCKET, "Key": "a", "Range": f"bytes={begin}-", "IfMatch": '"e"'}
        stubbed.add_response("get_object", answer(data, begin, size, error), expected)
    read: list[int] = []
    assert io.BufferedReader(S3Stream(BUCKET, "a", 200, '"e"', read.append), 64).read(200) == data
    assert sum(read) == 200


def test_a_connection_that_stays_broken_is_given_up(stubbed: Stubber) -> None:
    for _ in range(s3.ATTEMPTS):
        stubbed.add_response("get_object", answer(b"abc", 0, 0, ConnectionResetError("reset by peer")))
    with pytest.raises(DataError, match="s3://korean-corpus/a: cannot be read on from byte 0: reset by peer"):
        S3Stream(BUCKET, "a", 3, '"e"').read(3)


def test_an_object_that_changes_while_it_is_read(store: Any) -> None:
    store.put_object(Bucket=BUCKET, Key="a.txt", Body=b"x" * 100)
    (source,) = list_sources([f"s3://{BUCKET}/a.txt"])
    stream = source.open()
    assert stream.read(1) == b"x"
    store.put_object(Bucket=BUCKET, Key="a.txt", Body=b"y" * 100)
    with pytest.raises(DataError, match=r"s3://korean-corpus/a\.txt: was replaced while it was read"):
        source.open().read(1)
    store.delete_object(Bucket=BUCKET, Key="a.txt")
    with pytest.raises(DataError, match="no such object"):
        source.open().read(1)


def test_seeking(store: Any) -> None:
    store.put_object(Bucket=BUCKET, Key="a", Body=bytes(range(100)))
    (item,) = list_objects(BUCKET, "a")
    with io.BufferedReader(S3Stream(*item), 16) as stream:
        assert stream.read(3) == bytes([0, 1, 2])
        stream.seek(90)
        assert stream.read() == bytes(range(90, 100))
        assert stream.seek(-5, io.SEEK_END) == 95
        assert stream.read(2) == bytes([95, 96])
        assert stream.seek(500) == 500
        assert stream.read(2) == b""
    store.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    (item,) = list_objects(BUCKET, "empty")
    assert S3Stream(*item).read() == b""


# --- copying


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


# --- what goes wrong


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("NoSuchBucket", "no such bucket"),
        ("AccessDenied", r"access denied \(403\).*s3:ListBucket"),
        ("InvalidAccessKeyId", "access key is not known.*AWS_PROFILE"),
        ("SignatureDoesNotMatch", "secret key is wrong"),
        ("ExpiredToken", "expired; log in again"),
        ("PermanentRedirect", "another region; set AWS_DEFAULT_REGION"),
        ("Teapot", "An error occurred .Teapot."),
    ],
)
def test_refusals_name_the_way_out(stubbed: Stubber, code: str, words: str) -> None:
    stubbed.add_client_error("list_objects_v2", code)
    with pytest.raises(DataError, match=f"^s3://korean-corpus/a: .*{words}") as caught:
        list_objects(BUCKET, "a")
    assert "\n" not in str(caught.value)


def test_archived_objects(stubbed: Stubber) -> None:
    stubbed.add_client_error("get_object", "InvalidObjectState", http_status_code=403)
    with pytest.raises(DataError, match=r"archived \(Glacier\); restore it first"):
        S3Stream(BUCKET, "a", 3, '"e"').read(3)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (NoCredentialsError(), RecipeError, "no AWS credentials: set AWS_PROFILE"),
        (NoRegionError(), RecipeError, "no region is set; set AWS_DEFAULT_REGION"),
        (EndpointConnectionError(endpoint_url="https://x"), DataError, "https://x.*AWS_ENDPOINT_URL"),
    ],
)
def test_no_way_there(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[KoGPT2Error], words: str) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(s3, "_client", fail)
    with pytest.raises(kind, match=f"^s3://korean-corpus/a: .*{words}"):
        list_objects(BUCKET, "a")


def test_missing_credentials_and_bad_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(RecipeError, match="no AWS credentials"):
        list_objects(BUCKET)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(RecipeError, match=r"nobody.*check AWS_PROFILE"):
        list_objects(BUCKET)
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no url")
    with pytest.raises(RecipeError, match=r"AWS_ENDPOINT_URL: .*give a URL"):
        list_objects(BUCKET)


def test_names_that_s3_cannot_have(store: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a valid name of a bucket or key"):
        list_objects("a bucket?", "a")
    with pytest.raises(DataError, match="s3://no-such-bucket/a: no such bucket"):
        list_objects("no-such-bucket", "a")
    with pytest.raises(DataError, match="s3://korean-corpus/a: no such object"):
        download(BUCKET, "a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_store_are_not_swallowed(stubbed: Stubber, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    stubbed.add_client_error("head_object", "404", http_status_code=404)
    stubbed.add_client_error("put_object", "AccessDenied", http_status_code=403)
    with pytest.raises(DataError, match="access denied"):
        upload(path, BUCKET, "a")
