"""Lists, streams, copies and checks objects of S3, or of any store with its protocol (AWS_ENDPOINT_URL).

boto3 is optional, so it is imported where it is used. Credentials and region are those of every AWS tool: from the
environment, ``~/.aws``, or the role of the instance.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.storage.files import replace_file

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig

ATTEMPTS = 6  # at reading on after a broken connection, without a byte in between
TRIES = 6  # of one request
FIRST_WAIT = 0.5  # seconds before the second attempt; every later one waits twice as long
PART_SIZE = 16 << 20  # bytes of one part of a large upload or download
THREADS = 8  # parts under way at once
SHA256_KEY = "sha256"  # of an object's metadata (x-amz-meta-sha256): the hash of the whole file, in hex
CONNECT_SECONDS, READ_SECONDS = 15, 30  # of each attempt; a store that does not answer is given up after minutes
_READ_SIZE = 1 << 20
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")

_NO_CREDENTIALS = (
    "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the instance a role"
)
_REFUSALS = {  # an error code of S3 -> its meaning, and the way out
    "NoSuchBucket": "no such bucket; check its name and your account",
    "NoSuchKey": "no such object",
    "404": "no such object or bucket",
    "NotFound": "no such object or bucket",
    "AccessDenied": "access denied (403); its policy or yours must allow s3:GetObject, s3:ListBucket or s3:PutObject",
    "403": "access denied (403); its policy or yours must allow s3:GetObject, s3:ListBucket or s3:PutObject",
    "Forbidden": "access denied (403); its policy or yours must allow s3:GetObject, s3:ListBucket or s3:PutObject",
    "InvalidAccessKeyId": "the access key is not known there; check AWS_PROFILE and AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session's credentials have expired; log in again",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION to it",
    "301": "the bucket is in another region; set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION to it",
    "PreconditionFailed": "was replaced while it was read; start again",
    "412": "was replaced while it was read; start again",
    "InvalidObjectState": "archived (Glacier); restore it first",
    "BadDigest": "arrived damaged; try again",
}
_STALE = ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestExpired")  # codes of credentials that were good


class S3Object(NamedTuple):
    """An object in a listing: `size` in bytes; `etag` changes with its content."""

    bucket: str
    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Transfer:
    """A finished upload or download. `checked` says which was compared: ``sha256``, ``md5`` or only the ``size``."""

    url: str
    size: int
    sha256: str
    checked: str
    skipped: bool = False  # the same content was there already


@functools.lru_cache(maxsize=4)
def _make_client(process: int, settings: tuple[str | None, ...]) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise RecipeError("s3:// needs boto3: pip install 'kogpt2-gluon[aws]'") from None
    # Older stores with S3's protocol refuse checksums that were not asked for.
    config = Config(
        retries={"mode": "standard", "max_attempts": TRIES},
        max_pool_connections=2 * THREADS,
        tcp_keepalive=True,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except ValueError as error:
        raise RecipeError(f"AWS_ENDPOINT_URL: {_one_line(error)}; give a URL such as https://host:9000") from None


def _client() -> Any:
    """Returns the client of this process (a client does not survive a fork) and of these settings."""
    names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION")
    return _make_client(os.getpid(), tuple(os.environ.get(name) for name in names))


@contextmanager
def explained(url: str) -> Iterator[Any]:
    """Yields the client; its errors become one line that names `url` and the way out.

    After an error of the credentials the next client reads them again: somebody may have logged in meanwhile.
    """
    try:
        import botocore.exceptions as errors
        import s3transfer.exceptions as transfer_errors  # type: ignore[import-untyped]
    except ImportError:
        raise RecipeError("s3:// needs boto3: pip install 'kogpt2-gluon[aws]'") from None
    try:
        yield _client()
    except errors.ClientError as error:
        if _code(error) in _STALE:
            _make_client.cache_clear()
        raise _refusal(url, error) from None
    except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.CredentialRetrievalError):
        raise RecipeError(f"{url}: {_NO_CREDENTIALS}") from None
    except errors.ProfileNotFound as error:
        raise RecipeError(f"{url}: {error}; check AWS_PROFILE") from None
    except errors.NoRegionError:
        raise RecipeError(f"{url}: no region is set; set AWS_DEFAULT_REGION") from None
    except (errors.ParamValidationError, UnicodeEncodeError) as error:
        raise RecipeError(f"{url}: not a valid name of a bucket or key ({_one_line(error)})") from None
    except transfer_errors.RetriesExceededError as error:
        problem = _one_line(error.last_exception)
        raise DataError(f"{url}: the connection broke {ATTEMPTS} times ({problem}); try again later") from None
    except (transfer_errors.S3DownloadFailedError, transfer_errors.S3ValidationError):
        raise DataError(f"{url}: {_REFUSALS['PreconditionFailed']}") from None
    except errors.BotoCoreError as error:
        hint = "check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"
        raise DataError(f"{url}: {_one_line(error)}; {hint}") from None


def _one_line(error: Exception) -> str:
    """Returns an error's words without the user and password that an address in them may have."""
    return _USER_IN_URL.sub("", " ".join(str(error).split()))[:300]


def _refusal(url: str, error: Any) -> KoGPT2Error:
    """Returns the error for a person that explains S3's answer."""
    return DataError(f"{url}: {_REFUSALS.get(_code(error)) or _one_line(error)}")


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def url_of(bucket: str, key: str) -> str:
    """Returns ``s3://bucket/key``."""
    return f"s3://{bucket}/{key}"


def list_objects(bucket: str, prefix: str = "", hidden: bool = False) -> list[S3Object]:
    """Lists the object named `prefix`, or all objects below it as below a folder, sorted by key.

    A `prefix` that ends with ``*`` means every key that begins so. Folder markers, and names that begin with a dot
    unless `hidden`, are skipped if they are not named in full. Raises DataError if there is no object.
    """
    begins, is_open = (prefix[:-1], True) if prefix.endswith("*") else (prefix, prefix == "" or prefix.endswith("/"))
    found: list[S3Object] = []
    with explained(url_of(bucket, prefix)) as client:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=begins):
            for entry in page.get("Contents", ()):
                key: str = entry["Key"]
                below = key[len(begins) :]
                meant = is_open or below == "" or below.startswith("/")
                is_hidden = any(part.startswith(".") for part in below.split("/"))
                if meant and (hidden or not is_hidden) and not key.endswith("/"):
                    found.append(S3Object(bucket, key, int(entry["Size"]), str(entry["ETag"])))
    if not found:
        raise DataError(f"{url_of(bucket, prefix)}: no such object, and none below it")
    return sorted(found, key=lambda item: item.key)


class S3Stream(io.RawIOBase):
    """A binary stream of an object's bytes, which can seek.

    A connection that breaks, or ends too early, is opened again at the byte where it broke; the ETag makes sure that it
    is still the same object. `on_read` is called with the bytes of each read. Raises DataError if the object was
    replaced or is gone, or if ATTEMPTS in a row brought nothing.
    """

    def __init__(
        self, bucket: str, key: str, size: int, etag: str, on_read: Callable[[int], None] | None = None
    ) -> None:
        self._bucket, self._key, self._size, self._etag, self._on_read = bucket, key, size, etag, on_read
        self._url = url_of(bucket, key)
        self._position = 0
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        position = max(0, base + offset)
        if position != self._position:
            self._drop_body()
            self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._position)
        if count <= 0:
            return 0
        data = self._read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        if self._on_read is not None:
            self._on_read(len(data))
        return len(data)

    def _read(self, count: int) -> bytes:
        """Reads at least one byte and at most `count`."""
        from botocore.exceptions import BotoCoreError, HTTPClientError
        from urllib3.exceptions import HTTPError

        problem = "the connection ended too early"
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
            if self._body is None:
                self._body = self._open()
            try:
                data: bytes = self._body.read(count)
            except (BotoCoreError, HTTPClientError, HTTPError, OSError) as error:
                problem, data = _one_line(error), b""
            if data:
                return data
            self._drop_body()
        raise DataError(f"{self._url}: cannot be read on from byte {self._position:,}: {problem}; try again later")

    def _open(self) -> Any:
        with explained(self._url) as client:
            answer = client.get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={self._position}-", IfMatch=self._etag
            )
        return answer["Body"]

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        self._drop_body()
        super().close()


def file_hash(path: Path, kind: str = "sha256") -> str:
    """Returns the hash of a file's content, in hex."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(_READ_SIZE):
            digest.update(block)
    return digest.hexdigest()


def upload(
    path: Path, bucket: str, key: str, progress: Callable[[int], None] | None = None, overwrite: bool = True
) -> Transfer:
    """Copies a file to S3: large ones in parts, THREADS at once, each part with a SHA-256 that S3 checks on arrival.

    The hash of the whole file is stored with the object, for `download` to check. An object that already has this hash
    is left as it is, so that a folder's upload goes on where it stopped. `progress` is called with the bytes of each
    piece that was sent. Raises DataError if the file is missing or changes meanwhile, if S3 refuses, if another object
    is in the way and `overwrite` is false, or if the object that arrived differs from the file.
    """
    url = url_of(bucket, key)
    try:
        before = path.stat()
        sha256 = file_hash(path)
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with stream, explained(url) as client:
        present = head_object(client, bucket, key)
        if present is not None:
            if present["ContentLength"] == before.st_size and present["Metadata"].get(SHA256_KEY) == sha256:
                return Transfer(url, before.st_size, sha256, "sha256", skipped=True)
            if not overwrite:
                raise DataError(f"{url}: another object is there; name another key, or remove it first")
        client.upload_fileobj(
            stream,
            bucket,
            key,
            ExtraArgs={"Metadata": {SHA256_KEY: sha256}, "ChecksumAlgorithm": "SHA256"},
            Callback=progress,
            Config=transfer_config(),
        )
        arrived = client.head_object(Bucket=bucket, Key=key)
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise DataError(f"{path}: changed while it was uploaded; upload it again")
    if arrived["ContentLength"] != before.st_size or arrived["Metadata"].get(SHA256_KEY) != sha256:
        raise DataError(f"{url}: arrived damaged ({arrived['ContentLength']:,} bytes); upload it again")
    return Transfer(url, before.st_size, sha256, "sha256")


def download(
    bucket: str,
    key: str,
    path: Path,
    progress: Callable[[int], None] | None = None,
    is_right: Callable[[Path], bool] | None = None,
) -> Transfer:
    """Copies an object to a file, which takes its name only when all of it is there and its hash is right.

    Large objects come in parts, THREADS at once. The SHA-256 that `upload` stored is compared; without it the MD5, if
    the ETag is one; else only the size. A file that already agrees is left as it is, and so is, if there is no hash,
    one for which `is_right` returns True. `progress` is called with the bytes of each piece that was received. Raises
    DataError if S3 refuses or the content is wrong.
    """
    url = url_of(bucket, key)
    with explained(url) as client:
        about = client.head_object(Bucket=bucket, Key=key)
        size = int(about["ContentLength"])
        kind, expected = _expected_hash(about)
        if path.is_file() and path.stat().st_size == size:
            there = is_right is not None and is_right(path) if kind == "size" else file_hash(path, kind) == expected
            if there:
                return Transfer(url, size, expected if kind == "sha256" else file_hash(path), kind, skipped=True)
        with replace_file(path) as stream:
            client.download_fileobj(bucket, key, stream, Callback=progress, Config=transfer_config())
            stream.flush()
            partial = Path(stream.name)
            found = partial.stat().st_size
            if found != size:
                raise DataError(f"{url}: only {found:,} of {size:,} bytes arrived; download it again")
            if kind != "size" and file_hash(partial, kind) != expected:
                raise DataError(f"{url}: arrived with another {kind} than was stored; download it again")
            sha256 = expected if kind == "sha256" else file_hash(partial)
    return Transfer(url, size, sha256, kind)


def _expected_hash(about: dict[str, Any]) -> tuple[str, str]:
    """Returns the hash in the answer of `head_object`: (``sha256``, ``md5`` or ``size``, the hash in hex or "")."""
    stored = about["Metadata"].get(SHA256_KEY, "")
    if stored:
        return "sha256", stored
    etag = str(about["ETag"]).strip('"')
    # An ETag is the MD5 of the content, unless it came in parts ("...-12") or is encrypted with a key of KMS.
    if len(etag) == 32 and "aws:kms" not in str(about.get("ServerSideEncryption", "")):
        return "md5", etag
    return "size", ""


def head_object(client: Any, bucket: str, key: str) -> dict[str, Any] | None:
    """Returns the answer of `head_object`, None if there is no such object."""
    from botocore.exceptions import ClientError

    try:
        about: dict[str, Any] = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        # S3 answers 403 for an object that does not exist to a user who may write but not list.
        if _code(error) in ("404", "NoSuchKey", "NotFound", "403"):
            return None
        raise
    return about


def transfer_config() -> TransferConfig:
    """Returns how boto3 copies: in parts of PART_SIZE, THREADS at once."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=PART_SIZE,
        multipart_chunksize=PART_SIZE,
        max_concurrency=THREADS,
        num_download_attempts=ATTEMPTS,
    )
