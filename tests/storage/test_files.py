"""Durable writes: whatever fails, and wherever, a name holds all of the old or all of the new, and it can be redone."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Callable

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage import files
from kogpt2_gluon.storage.files import (
    commit_file,
    commit_folder,
    move,
    new_folder,
    remove_folder,
    remove_partials,
    replace_file,
    replace_folder,
    write_file,
)
from tests.storage.crash_helpers import Crash, PowerCut, count_operations, recorded, without_clean_up

Action = Callable[[Path], None]


def content(path: Path) -> object:
    """The bytes of a file, or of all files of a folder by their names; None if there is nothing."""
    if path.is_dir():
        return {each.relative_to(path).as_posix(): each.read_bytes() for each in path.rglob("*") if each.is_file()}
    return path.read_bytes() if path.exists() else None


def fill(folder: Path) -> None:
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "a").write_bytes(b"new")
    (folder / "b").write_bytes(b"new too")


def nothing(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)


def old_file(path: Path) -> None:
    nothing(path)
    path.write_bytes(b"old")


def old_folder(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "a").write_bytes(b"old")


def empty_folder(path: Path) -> None:
    path.mkdir(parents=True)


def by_write_file(path: Path) -> None:
    write_file(path, b"new")


def by_commit_file(path: Path) -> None:
    with path.with_name(".tmp").open("wb") as stream:
        stream.write(b"new")
        commit_file(stream, path)


def by_replace_folder(path: Path) -> None:
    with replace_folder(path) as folder:
        fill(folder)


def by_two_renames(path: Path) -> None:
    """Replaces a folder on a file system that cannot exchange two names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "exchange", lambda one, other: False)
        by_replace_folder(path)


def by_new_folder(path: Path) -> None:
    with new_folder(path) as folder:
        fill(folder)


def by_commit_folder(path: Path) -> None:
    folder = path.with_name(".tmp")
    folder.mkdir(exist_ok=True)
    fill(folder)
    commit_folder(folder, path)


WAYS = [
    (by_write_file, nothing),
    (by_write_file, old_file),
    (by_commit_file, nothing),
    (by_commit_file, old_file),
    (by_replace_folder, nothing),
    (by_replace_folder, old_folder),
    (by_two_renames, old_folder),
    (by_new_folder, nothing),
    (by_new_folder, empty_folder),
    (by_commit_folder, nothing),
]


@pytest.mark.parametrize(("error", "clean_up"), [(OSError, True), (PowerCut, False)])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("write", "before"), WAYS)
def test_a_write_that_fails_anywhere_leaves_the_old_or_the_new(
    tmp_path: Path, write: Action, before: Action, after: bool, error: type[BaseException], clean_up: bool
) -> None:
    before(tmp_path / "count" / "it")
    calls = count_operations(lambda: write(tmp_path / "count" / "it"))
    new = content(tmp_path / "count" / "it")
    assert calls >= 4
    for at in range(1, calls + 1):
        path = tmp_path / f"at{at}" / "it"
        before(path)
        old = content(path)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
            if not clean_up:
                without_clean_up(patch)
            Crash(patch, at, after, error)
            write(path)
        found = content(path)
        if write is by_two_renames and found is None and not clean_up:
            remove_partials(path.parent)  # between the renames the old folder has a temporary name
            found = content(path)
        assert found in (old, new)
        if not clean_up and write not in (by_commit_file, by_commit_folder):
            remove_partials(path.parent)
            assert [each.name for each in path.parent.iterdir()] == ([] if found is None else ["it"])
        if clean_up and found != new and write not in (by_commit_file, by_commit_folder):  # their callers tidy up
            assert [each.name for each in path.parent.iterdir()] == ([] if old is None else ["it"])
        if write not in (by_new_folder, by_commit_folder) or found != new:
            write(path)
        assert content(path) == new


@pytest.mark.parametrize(
    ("write", "before", "expected"),
    [
        (by_write_file, nothing, ["sync *", "name it", "sync ."]),
        (by_commit_file, old_file, ["sync *", "name it", "sync ."]),
        (by_new_folder, nothing, ["sync */b", "sync */sub/a", "sync */sub", "sync *", "name it", "sync ."]),
        (by_commit_folder, nothing, ["sync *", "sync */b", "sync */sub", "sync */sub/a", "name it", "sync ."]),
        (by_replace_folder, old_folder, ["sync *", "sync */b", "sync */sub", "sync */sub/a", "name it", "sync ."]),
        (by_two_renames, old_folder, ["sync *", "sync */b", "sync */sub", "sync */sub/a", "name it", "sync ."]),
    ],
)
def test_content_is_on_disk_before_its_name_and_the_name_after(
    tmp_path: Path, write: Action, before: Action, expected: list[str]
) -> None:
    folder = tmp_path / "folder"
    before(folder / "it")
    with recorded(folder) as done:
        write(folder / "it")
    named = done.index("name it")
    assert sorted(each for each in done[:named] if each != "name *") == sorted(expected[:-2])
    assert done[named:] == ["name it", "sync ."]


def test_a_move_makes_both_folders_durable(tmp_path: Path) -> None:
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    (tmp_path / "from" / "it").write_bytes(b"it")
    with recorded(tmp_path) as done:
        move(tmp_path / "from" / "it", tmp_path / "to" / "it")
    assert done == ["name to/it", "sync to", "sync from"]


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    old_file(tmp_path / "file")
    old_folder(tmp_path / "folder")
    with pytest.raises(KeyboardInterrupt), replace_file(tmp_path / "file") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    for way, name in ((replace_folder, "folder"), (new_folder, "new")):
        with pytest.raises(ValueError, match="stop"), way(tmp_path / name) as partial:
            fill(partial)
            raise ValueError("stop")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["a", "file", "folder"]


def test_parents_are_made_and_a_link_stays_a_link(tmp_path: Path) -> None:
    write_file(tmp_path / "new" / "deep", b"whole")
    assert (tmp_path / "new" / "deep").read_bytes() == b"whole"
    old_folder(tmp_path / "folder")
    (tmp_path / "link").symlink_to("folder")
    by_replace_folder(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "folder") == {"sub/a": b"new", "b": b"new too"}


def test_a_new_folder_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "it"
    with pytest.raises(OSError), new_folder(path) as folder:
        fill(folder)
        old_folder(path)  # somebody was faster
    assert content(path) == {"a": b"old"}
    assert [each.name for each in tmp_path.iterdir()] == ["it"]


def test_only_what_this_module_left_is_removed(tmp_path: Path) -> None:
    for name in (".it.0123456789ab.partial", ".old.0123456789ab.aside", ".lost.0123456789ab.aside"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    old_folder(tmp_path / "old")
    (tmp_path / ".file.0123456789ab.partial").write_bytes(b"")
    (tmp_path / ".link.0123456789ab.partial").symlink_to(tmp_path / "old")
    (tmp_path / ".step-00000007.removed").mkdir()
    mine = [".it.partial", "it.0123456789ab.partial", ".it.0123456789AB.partial", ".removed", ".aside"]
    for name in mine:
        (tmp_path / name).touch()
    remove_partials(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([*mine, "lost", "old"])
    assert content(tmp_path / "old") == {"a": b"old"} and content(tmp_path / "lost") == {
        "sub/a": b"new",
        "b": b"new too",
    }
    remove_partials(tmp_path / "missing")


def test_a_folder_that_is_being_removed_has_lost_its_name(tmp_path: Path) -> None:
    old_folder(tmp_path / "it")
    with pytest.MonkeyPatch.context() as patch:
        without_clean_up(patch)
        remove_folder(tmp_path / "it")
    assert not (tmp_path / "it").exists() and len(list(tmp_path.iterdir())) == 1
    remove_partials(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_removed_now_is_removed_later(tmp_path: Path) -> None:
    """NFS keeps a file that somebody reads under another name, so the folder that it is in is not empty."""
    old_folder(tmp_path / "it")
    with pytest.MonkeyPatch.context() as patch:
        Crash(patch, at=1, after=False, error=OSError, operations=[(os, "rmdir")])
        remove_folder(tmp_path / "it")
    (hidden,) = tmp_path.iterdir()
    for name in ("rmdir", "unlink"):
        with pytest.MonkeyPatch.context() as patch:
            Crash(patch, at=1, after=False, error=OSError, operations=[(os, name)])
            (hidden / "a").touch()
            remove_partials(tmp_path)
        assert hidden.exists()
    remove_partials(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(RecipeError, match="not an ordinary file"):
            write_file(path, b"x")
    assert stat.S_ISFIFO(pipe.stat().st_mode) and sorted(each.name for each in tmp_path.iterdir()) == ["link", "pipe"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_an_error_names_what_the_user_knows(number: int, tmp_path: Path) -> None:
    """Not the temporary name, and of a full disk not none; another fault in the block may be about another file."""
    for write, inner in ((replace_file, ""), (new_folder, "/a"), (replace_folder, "/sub/a")):
        for name in ("", "partial", "/elsewhere"):
            with pytest.raises(OSError) as caught, write(tmp_path / "out") as place:
                partial = place if isinstance(place, Path) else place.name
                shown = {"": [], "partial": [f"{partial}{inner}"]}.get(name, [name])
                raise OSError(number, os.strerror(number), *shown)
            known = {"": None if number == errno.EIO else f"{tmp_path}/out", "partial": f"{tmp_path}/out{inner}"}
            assert caught.value.filename == known.get(name, name)
            assert list(tmp_path.iterdir()) == []
    long = tmp_path / ("x" * 250)
    with pytest.raises(OSError, match="name too long") as caught:
        write_file(long, b"")
    assert caught.value.filename == str(long)
