"""Uploads that go on where they broke off: parts that are in S3 already, with the right hash, are not sent again.

boto3's own upload forgets its parts when it fails, and leaves them for ever, unseen and paid for, when its process
dies. Here an unfinished upload of the same key is looked for, and each of its parts is compared with the file.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple, TypeVar

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.s3 import explained, head_object, url_of

MARK = "kogpt2-content"  # of an object's metadata: what the caller says that the content is
PART_SIZE = 16 << 20  # bytes of a part, at least; S3's own limit is 5 MiB
MOST_PARTS = 10_000  # S3's limit
THREADS = 4  # parts of one file under way at once, each in memory: a training needs cores and memory more

T = TypeVar("T")


class Content(NamedTuple):
    """A description of what is uploaded.

    Attributes
    ----------
    size : int
        Bytes.
    part_size : int
        Bytes of each part but the last; S3 wants 5 MiB at least.
    mark : str
        Names the content: an object of this size and mark is taken to be this one.
    check : callable
        Is called with the place of the first byte and the bytes of each part before it is sent; raises an error if they
        are not what they should be.
    """

    size: int
    part_size: int
    mark: str
    check: Callable[[int, bytes], None]


def upload_content(file: BinaryIO, content: Content, bucket: str, key: str) -> int:
    """Makes an object of a file; returns the bytes that were sent: 0 if the same content was there already.

    S3 checks a SHA-256 of each part on arrival. What an interrupted call left is used; other unfinished uploads of this
    key are aborted. If this call fails, its parts stay, for the next one. DataError if S3 refuses or the connection
    stays broken, or if the object is another in the end.
    """
    url = url_of(bucket, key)
    with explained(url) as client:
        if _is_there(client, content, bucket, key):
            return 0
        metadata = {MARK: content.mark}
        if content.size <= content.part_size:
            body = _read_part(file, content, 1)
            sha256 = _base64(hashlib.sha256(body))
            client.put_object(Bucket=bucket, Key=key, Body=body, ChecksumSHA256=sha256, Metadata=metadata)
            sent = content.size
        else:
            sent = _send_parts(client, file, content, bucket, key, metadata)
        if not _is_there(client, content, bucket, key):
            client.delete_object(Bucket=bucket, Key=key)
            raise DataError(f"{url}: is not what was uploaded; upload it again")
    return sent


def part_size_for(size: int, block: int) -> int:
    """Returns a multiple of `block`, at least PART_SIZE, with which a file of `size` bytes fits S3's limit of parts."""
    return block * max(-(-PART_SIZE // block), -(-size // (block * MOST_PARTS)))


def unfinished_uploads(bucket: str, prefix: str) -> list[tuple[str, str]]:
    """Lists the unfinished uploads below a prefix: (key, upload's id), the oldest of a key first.

    DataError if S3 refuses; some policies do not allow s3:ListBucketMultipartUploads.
    """
    with explained(url_of(bucket, prefix)) as client:
        return _unfinished(client, bucket, prefix)


def abort_upload(bucket: str, key: str, upload: str) -> None:
    """Removes the parts of an unfinished upload; one that is gone is no error."""
    from botocore.exceptions import ClientError

    with explained(url_of(bucket, key)) as client:
        try:
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                raise


def _is_there(client: Any, content: Content, bucket: str, key: str) -> bool:
    about = head_object(client, bucket, key)
    return about is not None and (about["ContentLength"], about["Metadata"].get(MARK)) == (content.size, content.mark)


def _unfinished(client: Any, bucket: str, prefix: str) -> list[tuple[str, str]]:
    found = []
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
        found += [(each["Initiated"], each["Key"], each["UploadId"]) for each in page.get("Uploads", ())]
    return [(key, upload) for _, key, upload in sorted(found, key=lambda each: each[:2])]


def _send_parts(client: Any, file: BinaryIO, content: Content, bucket: str, key: str, metadata: dict[str, str]) -> int:
    upload, there = _take_up(client, bucket, key)
    if not upload:
        upload = client.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="SHA256", Metadata=metadata)[
            "UploadId"
        ]
    reading, sent = threading.Lock(), [0]

    def send(number: int) -> dict[str, Any]:
        with reading:  # one file position for all threads
            body = _read_part(file, content, number)
        sha256, found = _base64(hashlib.sha256(body)), there.get(number)
        if found is None or not _is_part(found, body, sha256):
            found = client.upload_part(
                Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, ChecksumSHA256=sha256
            )
            sent[0] += len(body)
        return {"PartNumber": number, "ETag": found["ETag"], "ChecksumSHA256": sha256}

    parts = on_threads(send, range(1, -(-content.size // content.part_size) + 1), THREADS)
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    return sent[0]


def _take_up(client: Any, bucket: str, key: str) -> tuple[str, dict[int, dict[str, Any]]]:
    """Returns the last unfinished upload of a key with its parts by number, ("", {}) if there is none."""
    from botocore.exceptions import ClientError

    try:
        uploads = [upload for found, upload in _unfinished(client, bucket, key) if found == key]
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 403:
            raise
        return "", {}  # a policy that does not allow to list them
    for upload in uploads[:-1]:
        abort_upload(bucket, key, upload)
    there: dict[int, dict[str, Any]] = {}
    for upload in uploads[-1:]:
        for page in client.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload):
            there.update({part["PartNumber"]: part for part in page.get("Parts", ())})
    return (uploads[-1] if uploads else ""), there


def _is_part(found: dict[str, Any], body: bytes, sha256: str) -> bool:
    """Compares a part in S3 with the bytes that belong there, by its SHA-256 or, where that is not listed, its MD5."""
    if found["Size"] != len(body):
        return False
    if stored := found.get("ChecksumSHA256"):
        return bool(stored == sha256)
    return bool(found["ETag"].strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest())


def _read_part(file: BinaryIO, content: Content, number: int) -> bytes:
    start = (number - 1) * content.part_size
    file.seek(start)
    body = file.read(min(content.part_size, content.size - start))
    content.check(start, body)
    return body


def _base64(digest: Any) -> str:
    return base64.b64encode(digest.digest()).decode()


def on_threads(work: Callable[[int], T], numbers: Sequence[int], threads: int) -> list[T]:
    """Returns what `work` makes of each number, on several threads; after an error no more are begun, and it is raised.

    The threads do not keep a process from ending, unlike those of concurrent.futures.
    """
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    waiting, lock = iter(numbers), threading.Lock()

    def run() -> None:
        while not errors:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            try:
                results[number] = work(number)
            except BaseException as error:  # raised again below
                errors.append(error)

    running = [threading.Thread(target=run, daemon=True) for _ in range(min(threads, len(numbers)))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in numbers]
