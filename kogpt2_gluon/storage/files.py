"""Files written so that a crash never leaves half a file under its name."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: a rename is safe against a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(path: Path) -> Path:
    """A hidden name beside `path` that no other process uses, on this host or on one sharing the file system."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write, which takes the name `path` only when all of it is on disk.

    Missing parent folders are made. If the block raises, `path` is as it was and nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the name `path` only when all of it is on disk.

    Missing parent folders are made. A folder that bears the name already is moved aside, then removed: the caller
    has made sure that it may go. If the block raises, `path` is as it was and nothing else is left.
    """
    path = path.resolve()  # a link to a folder stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, aside = _partial(path), _partial(path)
    partial.mkdir()
    try:
        yield partial
        _fsync_tree(partial)
        if path.exists():
            path.rename(aside)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    fsync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _fsync_tree(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _fsync_tree(entry)
        else:
            with entry.open("rb") as stream:
                os.fsync(stream.fileno())
    fsync_folder(folder)
