"""Durable writes: after a crash or a power cut, a name holds all of its old content or all of its new content.

Every durable write of the package goes through this module. Content is forced onto the disk before the rename that
gives it its name, and the folder is forced onto it after the rename. A folder that replaces another changes names with
it at once. Where the file system cannot do that (NFS, older Lustre) it takes two renames: a crash between them leaves
the old folder whole under a temporary name, and :func:`remove_partials` gives it its name back.

Use :func:`write_file`, :func:`replace_file`, :func:`replace_folder` or :func:`new_folder` for what is written in one
go, and :func:`commit_file` or :func:`commit_folder` at the end of a temporary file or folder that was open for long.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kogpt2_gluon.errors import RecipeError

# What a crash leaves: a file or folder that was being written or removed (.NAME.removed: by an earlier version), and
# one that was about to be replaced.
PARTIAL = re.compile(r"\..+\.[0-9a-f]{12}\.partial|\.step-\d+\.removed")
ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{12}\.aside")
_NAMELESS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))  # errors of writes; Python names no file in them
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>


def fsync_stream(stream: BinaryIO) -> None:
    """Forces onto the disk what was written to a file so far."""
    stream.flush()
    os.fsync(stream.fileno())


def fsync_folder(folder: Path) -> None:
    """Forces the names in a folder onto the disk: a rename is safe against a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(path: Path, target: Path) -> None:
    """Renames a file or folder whose content is on disk already; the new name is on disk when this returns."""
    path.rename(target)
    fsync_folder(target.parent)
    if target.parent != path.parent:
        fsync_folder(path.parent)


def remove_file(path: Path) -> None:
    """Removes a file, if it is one and there; its name is gone from the disk when this returns."""
    if path.is_file():
        path.unlink(missing_ok=True)
        fsync_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Removes a folder with all that is in it. It gets a hidden name first, so that half of it never has its name.

    What cannot be removed now stays under that name, for :func:`remove_partials`: on NFS, a file that somebody reads.
    """
    hidden = _partial(folder)
    move(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def remove_partials(folder: Path) -> None:
    """Removes what a process that was killed left in `folder` under the temporary names of this module.

    A folder that was about to be replaced gets its name back if nothing has it. Call it only where no other process
    writes. Folders below are not looked into; `folder` need not exist. What cannot be removed now stays.
    """
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        aside = ASIDE.fullmatch(path.name)
        if aside and not os.path.lexists(folder / aside[1]):
            move(path, folder / aside[1])
        elif not aside and not PARTIAL.fullmatch(path.name):
            continue
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def make_folder(folder: Path) -> list[Path]:
    """Makes a folder and those above it. Returns the ones that were not there before, the deepest first."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes what :func:`make_folder` returned, as far as nothing has been put there since."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def try_to_make(folder: Path) -> None:
    """Makes something in a folder and removes it: OSError if that is not possible. Permissions alone do not say so."""
    made = _partial(folder / "made")
    made.mkdir()
    made.rmdir()


def commit_file(stream: BinaryIO, path: Path) -> None:
    """Closes a file that was written under a temporary name on the same file system, and gives it the name `path`.

    All of the file is on disk before it is renamed. A file that has the name already is replaced.
    """
    fsync_stream(stream)
    stream.close()
    move(Path(stream.name), path)


def commit_folder(folder: Path, path: Path) -> None:
    """Gives a folder, filled under a temporary name next to it, the name `path`: all files in it are on disk before.

    Its files must be closed. OSError if `path` exists and is not an empty folder.
    """
    _fsync_tree(folder)
    move(folder, path)


def write_file(path: Path, content: bytes) -> None:
    """Writes a whole file, which is on disk under its name when this returns; see :func:`replace_file`."""
    with replace_file(path) as stream:
        stream.write(content)


def copy_file(source: Path, copy: Path) -> None:
    """Copies a file's content into a folder that gets its name later; it is on disk when this returns.

    It is also gone from the system's memory, where that can be asked for, so that a reader sees what the disk has.
    """
    shutil.copyfile(source, copy)
    with copy.open("rb") as stream:
        os.fsync(stream.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Yields a binary file to write, which takes the name `path` when the block ends and all of it is on disk.

    Missing parent folders are made. If the block raises, `path` is as it was and nothing else is left; an OSError
    about the file names `path`. RecipeError if `path` is a device, a pipe or a socket, which a file in its place would
    end for all who use it.
    """
    _check_ordinary(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with partial.open("xb") as stream:
            yield stream
            fsync_stream(stream)
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):  # of a name that is too long, too
            partial.unlink()
        _name(error, partial, path)
        raise
    fsync_folder(path.parent)


def _check_ordinary(path: Path) -> None:
    try:
        kind = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise RecipeError(f"{path}: a device, a pipe or a socket, not an ordinary file; name a file")


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill, which takes the name `path` when the block ends and all of it is on disk.

    Missing parent folders are made. A folder that has the name already is removed: the caller has made sure that it may
    go. If the block raises, `path` is as it was and nothing else is left.
    """
    path = path.resolve()  # a link to a folder stays a link
    with _partial_folder(path) as partial:
        yield partial
        _fsync_tree(partial)
        aside = _put_in_place(partial, path)
    fsync_folder(path.parent)
    if aside:
        shutil.rmtree(aside, ignore_errors=True)


def _put_in_place(folder: Path, path: Path) -> Path | None:
    """Gives a folder the name `path`; returns the temporary name of the one that had it, None if none did."""
    if not path.exists():
        folder.rename(path)
        return None
    if exchange(folder, path):
        return folder
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.aside")
    try:
        path.rename(aside)
        folder.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    return aside


def exchange(one: Path, other: Path) -> bool:
    """Makes two folders change names at once; False, and nothing is changed, where the system does not do that."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2  # glibc 2.28
    except AttributeError:
        return False
    return not rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill, which takes the name `path` when the block ends and all of it is on disk.

    Unlike :func:`replace_folder` it never removes anything: OSError if by then `path` is more than an empty folder.
    Missing parent folders are made. If the block raises, `path` is as it was and nothing else is left.
    """
    path = path.resolve()
    with _partial_folder(path) as partial:
        yield partial
        commit_folder(partial, path)


@contextmanager
def _partial_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder with a temporary name next to `path`, which is removed if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        partial.mkdir()
        yield partial
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        _name(error, partial, path)
        raise


def _name(error: BaseException, partial: Path, path: Path) -> None:
    """Puts the name that the user knows into an OSError with the temporary name, or of a write, which has none."""
    if not isinstance(error, OSError):
        return
    if error.filename is None and error.errno in _NAMELESS:
        error.filename = str(path)
    for name in ("filename", "filename2"):
        place = getattr(error, name)
        if isinstance(place, str) and (place == str(partial) or place.startswith(f"{partial}{os.sep}")):
            setattr(error, name, f"{path}{place[len(str(partial)) :]}")


def _partial(path: Path) -> Path:
    """A hidden name next to `path` that no other process uses, on this host or on one that shares the file system."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


def _fsync_tree(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _fsync_tree(entry)
        else:
            with entry.open("rb") as stream:
                os.fsync(stream.fileno())
    fsync_folder(folder)
