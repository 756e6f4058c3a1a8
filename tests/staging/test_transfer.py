"""Copies of shards to and from S3, which is played by moto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.format import MANIFEST, TOKENIZER
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.staging import transfer
from kogpt2_gluon.storage import s3
from tests.shards.shard_helpers import flip, read_back, write_documents
from tests.storage.lustre_helpers import FakeLustre
from tests.storage.s3_helpers import no_account

BUCKET = "kogpt2-shards"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty bucket."""
    boto3 = pytest.importorskip("boto3", reason="copies to S3")
    moto = pytest.importorskip("moto", reason="plays S3")
    with no_account(monkeypatch, tmp_path), moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


URL = f"s3://{BUCKET}/sets/one"


def keys(store: Any) -> list[str]:
    return [entry["Key"] for entry in store.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def test_there_and_back(store: Any, shards: Path, tmp_path: Path) -> None:
    shown: list[tuple[int, int]] = []
    sent = transfer.upload_folder(shards, URL, lambda *now: shown.append(now))
    total = sum(path.stat().st_size for path in shards.rglob("*") if path.is_file())
    assert (sent.files, sent.bytes, sent.skipped_files) == (12, total, 0) and shown[-1] == (total, total)
    assert sorted(keys(store)) == sorted(f"sets/one/{p.relative_to(shards)}" for p in shards.rglob("*") if p.is_file())
    assert transfer.upload_folder(shards, URL + "/").skipped_files == 12
    back = tmp_path / "back"
    assert transfer.download_folder(URL, back).files == 12
    assert (read_back(ShardSet(back / "train")) == read_back(ShardSet(shards / "train"))).all()
    (back / "train" / "train-00001.ktok").unlink()  # as if interrupted
    (back / "train" / MANIFEST).unlink()
    again = transfer.download_folder(URL, back)
    assert (again.files, again.skipped_files) == (2, 10)
    assert not [path for path in back.rglob("*") if path.name.startswith(".")]


def test_manifests_go_last_both_ways(store: Any, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_upload, real_download = s3.upload, s3.download
    monkeypatch.setattr(
        s3, "upload", lambda path, *rest, **more: order.append(path.name) or real_upload(path, *rest, **more)
    )
    transfer.upload_folder(shards, URL)
    assert order[-2:] == [MANIFEST] * 2 and MANIFEST not in order[:-2]
    order.clear()

    def download(bucket: str, key: str, path: Path, *rest: Any) -> Any:
        if path.is_relative_to(tmp_path / "back"):
            order.append(path.name)
            if len(order) == 6:
                raise DataError("the network is gone")
        return real_download(bucket, key, path, *rest)

    monkeypatch.setattr(s3, "download", download)
    with pytest.raises(DataError, match="the network is gone"):
        transfer.download_folder(URL, tmp_path / "back")
    assert not list((tmp_path / "back").rglob(MANIFEST))
    assert transfer.download_folder(URL, tmp_path / "back").skipped_files == 5
    assert order[-2:] == [MANIFEST] * 2


def test_another_set_is_never_mixed_in(store: Any, shards: Path, tmp_path: Path) -> None:
    transfer.upload_folder(shards, URL)
    other = tmp_path / "other" / "train"
    write_documents(other, [700] * 19 + [701], shard_bytes=4096)
    with pytest.raises(DataError, match="another object is there"):
        transfer.upload_folder(other.parent, URL)
    with pytest.raises(DataError, match="name another folder"):
        transfer.download_folder(URL, other.parent)
    assert transfer.list_remote(URL).faults == []


def test_a_set_that_is_not_whole_stays_where_it_is(store: Any, shards: Path, tmp_path: Path) -> None:
    transfer.upload_folder(shards, URL)
    store.delete_object(Bucket=BUCKET, Key="sets/one/train/train-00002.ktok")
    store.delete_object(Bucket=BUCKET, Key=f"sets/one/test/{TOKENIZER}")
    with pytest.raises(DataError, match=r"test/tokenizer.model: missing \(2 faults\); nothing was downloaded"):
        transfer.download_folder(URL, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    (shards / "test" / TOKENIZER).unlink()
    with pytest.raises(DataError, match="nothing was uploaded"):
        transfer.upload_folder(shards, f"s3://{BUCKET}/two")
    assert not [key for key in keys(store) if key.startswith("two")]
    with pytest.raises(DataError, match="no such object"):
        transfer.download_folder(f"s3://{BUCKET}/nothing", tmp_path / "back")


def test_objects_without_a_stored_hash_are_checked_by_the_shards_own(store: Any, shards: Path, tmp_path: Path) -> None:
    """Another tool uploads them in parts, so that the ETag is not a hash of the content."""
    for path in shards.rglob("*"):
        if path.is_file():
            key, body = f"sets/one/{path.relative_to(shards)}", path.read_bytes()
            if path.name == "train-00001.ktok":
                body = body[:100] + bytes([body[100] ^ 1]) + body[101:]
            upload = store.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
            part = store.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=body)
            parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
            store.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=parts)
    with pytest.raises(DataError, match=r"train-00001\.ktok: damaged"):
        transfer.download_folder(URL, tmp_path / "back")
    assert not (tmp_path / "back" / "train" / "train-00001.ktok").exists()
    assert not list((tmp_path / "back").rglob(MANIFEST))
    whole = (shards / "train" / "train-00001.ktok").read_bytes()
    store.put_object(Bucket=BUCKET, Key="sets/one/train/train-00001.ktok", Body=whole)
    again = transfer.download_folder(URL, tmp_path / "back")  # whole shards are left, hash or no hash
    assert again.skipped_files == len(list((shards / "test").glob("*.ktok"))) + 1
    flip(tmp_path / "back" / "train" / "train-00000.ktok", 5)
    there = len(list(shards.rglob("*.ktok")))
    assert transfer.download_folder(URL, tmp_path / "back").skipped_files == there - 1
    assert (read_back(ShardSet(tmp_path / "back" / "train")) == read_back(ShardSet(shards / "train"))).all()


@pytest.mark.parametrize("name", ["../out", "a/../../out", "a//b", "./a", "a/.."])
def test_names_that_lead_out_are_refused(store: Any, tmp_path: Path, name: str) -> None:
    found = s3.S3Object(BUCKET, f"sets/one/{name}", 1, "e")
    with pytest.raises(DataError, match="not a name that a file below a folder can have"):
        transfer._checked_name(found, "sets/one")


def test_links_out_of_the_folder_are_refused(store: Any, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "text" / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="a link led out"):
        transfer.upload_folder(tmp_path / "text", URL)
    assert keys(store) == []


def test_a_full_disk_is_seen_before_anything_is_copied(
    store: Any, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer.upload_folder(shards, URL)
    usage = transfer.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match="1,000 bytes free"):
        transfer.download_folder(URL, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_new_folder_on_lustre_gets_its_layout(store: Any, fake: FakeLustre, shards: Path, tmp_path: Path) -> None:
    transfer.upload_folder(shards, URL)
    copied = transfer.download_folder(URL, tmp_path / "back")
    assert "new files on 1 OST x 4 MiB" in copied.note
    assert [call[-1] for call in fake.calls("setstripe")] == [str(tmp_path / "back")]


def test_what_s3_refuses_is_one_line(shards: Path, monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
    from botocore.stub import Stubber

    monkeypatch.setattr(s3, "_client", lambda: store)
    with Stubber(store) as stubber:
        stubber.add_client_error("head_object", "404", http_status_code=404)
        stubber.add_client_error("put_object", "AccessDenied", http_status_code=403)
        with pytest.raises(DataError, match=r"^s3://kogpt2-shards/sets/one/.*: access denied"):
            transfer.upload_folder(shards, URL)
        stubber.add_client_error("list_objects_v2", "NoSuchBucket", http_status_code=404)
        with pytest.raises(DataError, match="no such bucket"):
            transfer.list_remote(URL)
