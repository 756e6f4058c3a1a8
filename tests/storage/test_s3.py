"""S3, without a network: a store in this process (moto), and answers made to go wrong (botocore's Stubber)."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.documents import read_blocks, read_documents
from kogpt2_gluon.corpus.formats import KINDS, kind_of
from kogpt2_gluon.corpus.sources import list_sources
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.storage import s3
from kogpt2_gluon.storage.s3 import S3Stream, download, list_objects, upload
from tests.corpus.test_containers import CONTAINERS, rows_of
from tests.storage.s3_helpers import BUCKET, answer

boto3 = pytest.importorskip("boto3", reason="reads from S3")
moto = pytest.importorskip("moto", reason="plays S3")

from botocore.exceptions import (  # noqa: E402
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ReadTimeoutError,
)
from botocore.stub import Stubber  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_real_account")


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


def test_expired_credentials_are_read_again(stubbed: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of days outlives them, and somebody logs in meanwhile."""
    forgotten: list[bool] = []
    monkeypatch.setattr(s3._make_client, "cache_clear", lambda: forgotten.append(True), raising=False)
    for code, times in (("NoSuchBucket", 0), ("ExpiredToken", 1), ("InvalidAccessKeyId", 2)):
        stubbed.add_client_error("list_objects_v2", code)
        with pytest.raises(DataError):
            list_objects(BUCKET, "a")
        assert len(forgotten) == times


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
