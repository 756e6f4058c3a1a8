"""Objects below a prefix of S3, handled like the files of a folder."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.s3 import explained, transfer_config, url_of
from kogpt2_gluon.storage.s3_parts import MARK, Content, abort_upload, unfinished_uploads, upload_content
from kogpt2_gluon.storage.s3_url import split_s3_url

CHECK = ".kogpt2-"  # begins the name of an upload that only checks if one can be made


class S3Prefix:
    """Reads, writes, copies and removes the objects of ``s3://bucket/prefix``, by their names below it.

    DataError or RecipeError, in one line that names the object, if S3 refuses or cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._bucket, prefix = split_s3_url(url)
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = url_of(self._bucket, self._prefix).rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Lists all objects: {name: bytes}."""
        found: dict[str, int] = {}
        with explained(self.url) as client:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
                for entry in page.get("Contents", ()):
                    found[entry["Key"][len(self._prefix) :]] = int(entry["Size"])
        return found

    def read(self, name: str, most: int) -> bytes | None:
        """Reads an object; None if there is none. DataError if it has more than `most` bytes."""
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        with explained(self._url(name)) as client:
            try:
                answer = client.get_object(Bucket=self._bucket, Key=self._key(name))
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "NoSuchKey":
                    return None
                raise
            if answer["ContentLength"] > most:
                raise DataError(
                    f"{self._url(name)}: {answer['ContentLength']:,} bytes, and {most:,} at most belong there"
                )
            try:
                return bytes(answer["Body"].read())
            except (BotoCoreError, HTTPError, OSError) as error:
                raise DataError(f"{self._url(name)}: cannot be read: {error}; try again later") from None

    def write(self, name: str, content: bytes) -> None:
        """Writes a small object, in place of one of the same name."""
        with explained(self._url(name)) as client:
            client.put_object(Bucket=self._bucket, Key=self._key(name), Body=content, ChecksumAlgorithm="SHA256")

    def upload(self, file: BinaryIO, content: Content, name: str) -> int:
        """Makes an object of a file; see :func:`.s3_parts.upload_content`. Returns the bytes that were sent."""
        return upload_content(file, content, self._bucket, self._key(name))

    def download(self, name: str, path: Path) -> None:
        """Copies an object to a new file; several parts at once. The caller compares its content."""
        with explained(self._url(name)) as client:
            client.download_file(self._bucket, self._key(name), str(path), Config=transfer_config())

    def copy(self, name: str, new: str) -> None:
        """Makes a second object of the same content and mark inside S3."""
        with explained(self._url(name)) as client:
            about = client.head_object(Bucket=self._bucket, Key=self._key(name))
            metadata = {key: value for key, value in about["Metadata"].items() if key == MARK}
            # A copy in parts, as large ones are, does not take the metadata along by itself.
            extra = {"Metadata": metadata, "MetadataDirective": "REPLACE", "ChecksumAlgorithm": "SHA256"}
            source = {"Bucket": self._bucket, "Key": self._key(name)}
            client.copy(source, self._bucket, self._key(new), ExtraArgs=extra)

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects; those that are not there are no error. In the order given, one by one."""
        for name in names:
            with explained(self._url(name)) as client:
                client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def unfinished(self) -> list[tuple[str, str]]:
        """Lists the unfinished uploads: (name, upload's id)."""
        found = unfinished_uploads(self._bucket, self._prefix)
        return [(key[len(self._prefix) :], upload) for key, upload in found]

    def abort(self, name: str, upload: str) -> None:
        """Removes the parts of an unfinished upload."""
        abort_upload(self._bucket, self._key(name), upload)

    def check_writable(self) -> None:
        """Begins an upload and aborts it: nothing is left, not even a deleted version in a bucket that keeps those."""
        key = self._key(f"{CHECK}{uuid.uuid4().hex}")
        with explained(self.url) as client:
            upload = client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
            client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _url(self, name: str) -> str:
        return url_of(self._bucket, self._key(name))
