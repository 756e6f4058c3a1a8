"""Mirrors for the tests: a folder, or a prefix of the S3 that moto plays, and what is in them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from kogpt2_gluon.errors import DamagedError
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import committed, newest_in
from kogpt2_gluon.runs.mirror import Mirror, Rules
from tests.storage.s3_helpers import BUCKET

PREFIX = "backup/run"


class Shelf:
    """The content of a mirror, seen from outside."""

    def __init__(self, folder: Path | None, client: Any) -> None:
        self._folder, self._client = folder, client
        self.address = str(folder) if folder else f"s3://{BUCKET}/{PREFIX}"

    def content(self) -> dict[str, bytes]:
        """All files: {name: content}."""
        if self._folder:
            files = [path for path in self._folder.rglob("*") if path.is_file()]
            return {path.relative_to(self._folder).as_posix(): path.read_bytes() for path in files}
        keys = [entry["Key"] for entry in self._client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]
        return {
            key.removeprefix(f"{PREFIX}/"): self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key in keys
        }

    def names(self) -> list[str]:
        """The checkpoints, with those aside, as paths."""
        return sorted(name.removesuffix("/manifest.json") for name in self.content() if name.endswith("manifest.json"))

    def steps(self) -> list[int]:
        return [int(name[5:]) for name in self.names() if name.startswith("step-")]

    def write(self, name: str, content: bytes) -> None:
        if self._folder:
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_bytes(content)
        else:
            self._client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}", Body=content)

    def remove(self, name: str) -> None:
        if self._folder:
            (self._folder / name).unlink()
        else:
            self._client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}")

    def flip(self, name: str) -> None:
        data = bytearray(self.content()[name])
        data[len(data) // 2] ^= 1
        self.write(name, bytes(data))

    def unfinished(self) -> list[str]:
        """Traces of interrupted calls: hidden names, uploads that did not end, files without a manifest."""
        content, names = self.content(), self.names()
        stray = [name for name in content if "/" in name and name.rpartition("/")[0] not in names]
        if self._folder:
            return [*stray, *(path.name for path in self._folder.iterdir() if path.name.startswith("."))]
        uploads = self._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        return [*stray, *(each["Key"] for each in uploads)]


def update(mirror: Mirror, ckpt_dir: Path, begun_as: str = "", keep: int = 2, every: int = 0) -> int:
    """Does what a run does after a save; returns the bytes sent."""
    newest = newest_in(ckpt_dir)
    assert newest is not None
    sent = mirror.add(newest, ckpt_dir, begun_as)
    sent += mirror.add_best(ckpt_dir, ckpt_dir / ".mirror-test")
    mirror.prune({path.name for path in committed(ckpt_dir)}, Rules(keep, every))
    return sent


@contextmanager
def requests(before: Callable[[str, int], None], after: Callable[[str, int], None]) -> Iterator[list[str]]:
    """Calls `before` and `after` around each request to S3, with its name and number; yields the names so far."""
    asked: list[str] = []
    make = BaseClient._make_api_call

    def wrapped(client: Any, operation: str, arguments: Any) -> Any:
        asked.append(operation)
        number = len(asked)
        before(operation, number)
        answer = make(client, operation, arguments)
        after(operation, number)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", wrapped)
        yield asked


def fetched(address: str, folder: Path) -> tuple[int, list[str]]:
    """Fetches the newest whole checkpoint as a run does; returns its step and what was wrong with newer ones."""
    mirror, faults = Mirror(address), []
    for name in mirror.checkpoints():
        try:
            mirror.fetch(name, folder)
        except DamagedError as error:
            faults.append(str(error))
            continue
        checkpoint = open_checkpoint(folder / name)
        checkpoint.verify()
        shutil.rmtree(folder)
        return int(checkpoint.path.name[5:]), faults
    raise AssertionError(faults)
