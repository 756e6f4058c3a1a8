"""Copies a folder of shards, or of any files, to S3 and back, compares hashes, and skips what is there already.

Manifests are copied last: where a manifest is, on S3 or on disk, the files that it names are there too.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.check import check_chunks, check_index
from kogpt2_gluon.shards.folders import MANIFEST, TOKENIZER
from kogpt2_gluon.shards.format import Manifest, ShardInfo
from kogpt2_gluon.staging.report import FolderReport
from kogpt2_gluon.staging.restoring import Progress
from kogpt2_gluon.staging.staging import take_inventory
from kogpt2_gluon.storage import s3
from kogpt2_gluon.storage.lustre import prepare_folder, show
from kogpt2_gluon.storage.s3 import S3Object, Transfer, list_objects
from kogpt2_gluon.storage.s3_url import split_s3_url
from kogpt2_gluon.storage.tokenizer_file import NAMES
from kogpt2_gluon.wording import counted, gigabytes


@dataclass
class Copied:
    """Files and bytes that were copied, and those that were there already (`skipped`)."""

    files: int = 0
    bytes: int = 0
    skipped_files: int = 0
    skipped_bytes: int = 0
    note: str = ""

    def add(self, transfer: Transfer) -> None:
        if transfer.skipped:
            self.skipped_files, self.skipped_bytes = self.skipped_files + 1, self.skipped_bytes + transfer.size
        else:
            self.files, self.bytes = self.files + 1, self.bytes + transfer.size

    def summary(self) -> str:
        """Returns the counts in one line."""
        there = f", {counted(self.skipped_files, 'file')} ({gigabytes(self.skipped_bytes)}) already there"
        copied = f"{counted(self.files, 'file')}, {gigabytes(self.bytes)} copied"
        return copied + (there if self.skipped_files else "")


class RemoteSet(NamedTuple):
    """A set on S3: its manifest's folder, and its shards by their name below the prefix."""

    url: str
    shards: dict[str, ShardInfo]


class Remote(NamedTuple):
    """The content of a prefix of S3: its objects by their name below it, and what is wrong with its sets."""

    objects: dict[str, S3Object]
    sets: list[RemoteSet]
    faults: list[str]


class _Meter:
    """Adds up the progress of several threads, and counts every file with exactly its size once it is closed."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._lock = total, progress, threading.Lock()
        self._before = self._now = 0

    def advance(self, count: int) -> None:
        with self._lock:
            self._now += count
            if self._progress is not None:
                self._progress(min(self._before + self._now, self._total), self._total)

    def close_file(self, size: int) -> None:
        self.advance(size - self._now)
        self._before, self._now = self._before + size, 0


def upload_folder(folder: Path, url: str, progress: Progress | None = None) -> Copied:
    """Copies a folder to ``s3://bucket/prefix``. DataError if its sets are not whole, or others are there."""
    bucket, prefix = split_s3_url(url)
    found = take_inventory(folder)
    if found.faults:
        raise DataError(f"{found.faults[0]} ({counted(len(found.faults), 'fault')}); nothing was uploaded")
    root = folder.resolve()
    names: dict[str, tuple[Path, int]] = {}
    for each in found.files:
        if root not in each.path.parents:
            raise DataError(f"{show(each.path)}: a link led out of {show(folder)}; copy the file into that folder")
        names[each.path.relative_to(root).as_posix()] = (each.path, each.size)
    meter, copied = _Meter(found.num_bytes, progress), Copied()
    for name in sorted(names, key=_manifests_last):
        path, size = names[name]
        copied.add(s3.upload(path, bucket, _join(prefix, name), meter.advance, overwrite=False))
        meter.close_file(size)
    return copied


def download_folder(url: str, folder: Path, progress: Progress | None = None) -> Copied:
    """Copies ``s3://bucket/prefix`` to a folder. DataError if its sets are not whole, or others are there."""
    remote = list_remote(url)
    if remote.faults:
        raise DataError(f"{remote.faults[0]} ({counted(len(remote.faults), 'fault')}); nothing was downloaded")
    total = sum(each.size for each in remote.objects.values())
    _check_room(folder, remote, total)
    copied = Copied()
    if not folder.exists():
        folder.mkdir(parents=True)
        largest = max(each.size for each in remote.objects.values())
        copied.note = prepare_folder(folder, largest)  # folders below inherit it
    meter = _Meter(total, progress)
    shards = {name: info for place in remote.sets for name, info in place.shards.items()}
    for name in sorted(remote.objects, key=_manifests_last):
        each = remote.objects[name]
        copied.add(_download_file(each, folder / name, shards.get(name), meter.advance))
        meter.close_file(each.size)
    return copied


def _download_file(item: S3Object, path: Path, info: ShardInfo | None, advance: Callable[[int], None]) -> Transfer:
    """Copies one object. If no hash was stored with a shard, as by other tools, the shard's own hashes are checked."""

    def is_right(there: Path) -> bool:
        return info is not None and not _fault_of(info, there)

    transfer = s3.download(item.bucket, item.key, path, advance, is_right)
    if info is not None and transfer.checked == "size" and not transfer.skipped:
        fault = _fault_of(info, path)
        if fault:
            path.unlink()
            raise DataError(f"{transfer.url}: damaged ({fault}); upload it again")
    return transfer


def _fault_of(info: ShardInfo, path: Path) -> str:
    """Returns what is wrong with a shard, or that it is not the one that its manifest names; "" if it is right."""
    index = check_index(path, None, drop=False)
    faults = [*index.faults, *(fault for task in index.ranges for fault in check_chunks(task))]
    if faults:
        return faults[0].message
    return "" if index.hash == info.hash else "another shard"


def list_remote(url: str) -> Remote:
    """Lists the objects under ``s3://bucket/prefix``, reads its manifests, and compares them with the sizes there."""
    bucket, prefix = split_s3_url(url)
    prefix = prefix.rstrip("/")
    objects: dict[str, S3Object] = {}
    for each in list_objects(bucket, f"{prefix}/" if prefix else ""):
        objects[_checked_name(each, prefix)] = each
    remote = Remote(objects, [], [])
    for name in sorted(name for name in objects if Path(name).name == MANIFEST):
        place = name[: -len(MANIFEST)]
        where = f"s3://{bucket}/{_join(prefix, place)}"
        try:
            manifest = _read_manifest(objects[name])
        except DataError as error:
            remote.faults.append(str(error))
            continue
        remote.sets.append(RemoteSet(where, {place + shard.name: shard for shard in manifest.shards}))
        for shard in manifest.shards:
            found = objects.get(place + shard.name)
            if found is None or found.size != shard.bytes:
                there = "missing" if found is None else f"{found.size:,} bytes"
                remote.faults.append(f"{where}{shard.name}: {there}, its manifest says {shard.bytes:,} bytes")
        if not any(place + name in objects for name in NAMES):
            remote.faults.append(f"{where}{TOKENIZER}: missing")
    return remote


def remote_status(url: str) -> FolderReport:
    """Reports sizes and sets under ``s3://bucket/prefix``."""
    remote = list_remote(url)
    size = sum(each.size for each in remote.objects.values())
    sets = [each.url for each in remote.sets]
    return FolderReport(url, "s3", sets=sets, files=len(remote.objects), bytes=size, faults=remote.faults)


def _read_manifest(item: S3Object) -> Manifest:
    with tempfile.TemporaryDirectory() as place:
        s3.download(item.bucket, item.key, Path(place, MANIFEST))
        try:
            return Manifest.load(Path(place))
        except DataError as error:
            raise DataError(
                f"s3://{item.bucket}/{item.key}{str(error).replace(str(Path(place, MANIFEST)), '')}"
            ) from None


def _checked_name(item: S3Object, prefix: str) -> str:
    """Returns the name below the prefix, as a path below a folder. DataError if it would lead out of the folder."""
    name = item.key[len(prefix) :].removeprefix("/") if prefix else item.key
    if not name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise DataError(f"s3://{item.bucket}/{show(Path(item.key))}: not a name that a file below a folder can have")
    return name


def _check_room(folder: Path, remote: Remote, total: int) -> None:
    """Raises DataError if a file of another set would be overwritten, or the disk is too small."""
    have = 0
    for name, each in remote.objects.items():
        path = folder / name
        if not path.exists():
            continue
        if not path.is_file() or path.stat().st_size != each.size:
            raise DataError(
                f"{show(path)}: differs from s3://{each.bucket}/{each.key}; remove it or name another folder"
            )
        have += each.size
        if path.name == MANIFEST and Manifest.load(path.parent).fingerprint() != _read_manifest(each).fingerprint():
            raise DataError(f"{show(path)}: of another set than s3://{each.bucket}/{each.key}; name another folder")
    existing = next(each for each in (folder.resolve(), *folder.resolve().parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if free < total - have:
        raise DataError(f"{show(folder)}: {free:,} bytes free, but {total - have:,} must be copied; make room")


def _manifests_last(name: str) -> tuple[bool, str]:
    return Path(name).name == MANIFEST, name


def _join(prefix: str, name: str) -> str:
    return f"{prefix.rstrip('/')}/{name}" if prefix.rstrip("/") else name
