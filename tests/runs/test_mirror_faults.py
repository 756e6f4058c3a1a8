"""Mirrors of checkpoints, when a machine dies, a connection breaks, a disk is full or goes: one whole copy stays."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.errors import DataError, DiskFullError, KoGPT2Error
from kogpt2_gluon.runs import mirror_places
from kogpt2_gluon.runs.mirror import Mirror
from tests.helpers import enlarge, small_disk
from tests.runs.checkpoint_helpers import save_best
from tests.runs.mirror_helpers import Shelf, fetched, requests, update
from tests.storage.crash_helpers import FILE_OPERATIONS, Crash, PowerCut, count_operations, without_clean_up

pytest.importorskip("boto3", reason="reads from S3")

from botocore.exceptions import EndpointConnectionError

OPERATIONS = [*FILE_OPERATIONS, (shutil, "rmtree")]


EVERY = pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
AFTER = pytest.mark.parametrize("after", [False, True])


def prepare(ckpt_dir: Path, shelf: Shelf) -> dict[str, bytes]:
    """Makes a mirror with steps 10, the best one, and 20, and a run with a better step 30; returns the mirror."""
    for step in (10, 20):
        save_best(ckpt_dir, step, best=10)
        update(Mirror(shelf.address), ckpt_dir)
    save_best(ckpt_dir, 30, best=30)
    return shelf.content()


def check_whole(shelf: Shelf, ckpt_dir: Path, folder: Path) -> int:
    """Checks what a crash left, and that the next update completes it; returns the step that can be fetched."""
    step, faults = fetched(shelf.address, folder)
    assert faults == [] and Mirror(shelf.address).best() in ("step-00000010", "step-00000030")
    update(Mirror(shelf.address), ckpt_dir)
    assert shelf.steps() == [20, 30] and shelf.unfinished() == []
    assert fetched(shelf.address, folder) == (30, [])
    return step


@EVERY
@AFTER
@pytest.mark.parametrize("clean_up", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_crash_at_any_file_operation_leaves_a_whole_one(
    tmp_path: Path, after: bool, clean_up: bool, every: int
) -> None:
    ckpt_dir, made = tmp_path / "run" / "checkpoints", tmp_path / "made"
    prepare(ckpt_dir, Shelf(made, None))
    error, counted = (OSError, KoGPT2Error) if clean_up else (PowerCut, PowerCut), tmp_path / "count"
    shutil.copytree(made, counted)
    calls, found = count_operations(lambda: update(Mirror(str(counted)), ckpt_dir), OPERATIONS), set()
    for at in range(1, calls + 1, every):
        folder = Path(shutil.copytree(made, tmp_path / f"at{at}"))
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(*error):
            Crash(patch, at, after, error[0], OPERATIONS)
            if not clean_up:
                without_clean_up(patch)
            update(Mirror(str(folder)), ckpt_dir)
        found.add(check_whole(Shelf(folder, None), ckpt_dir, tmp_path / "new"))
    assert found == {20, 30} and calls > 30


@EVERY
@pytest.mark.parametrize("after", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_connection_lost_at_any_request_leaves_a_whole_one(
    tmp_path: Path, store: Any, after: bool, every: int
) -> None:
    shelf, ckpt_dir = Shelf(None, store), tmp_path / "run" / "checkpoints"
    made = prepare(ckpt_dir, shelf)
    with requests(lambda name, number: None, lambda name, number: None) as asked:
        update(Mirror(shelf.address), ckpt_dir)
    calls, found = len(asked), set()
    for at in range(1, calls + 1, every):
        for name in shelf.content():
            shelf.remove(name)
        for name, content in made.items():
            shelf.write(name, content)

        def lose(name: str, number: int, at: int = at) -> None:
            if number >= at:  # and it stays lost
                raise EndpointConnectionError(endpoint_url="https://backup")

        ways = (lambda name, number: None, lose)
        with requests(*(ways if after else reversed(ways))), contextlib.suppress(DataError):
            update(Mirror(shelf.address), ckpt_dir)
        found.add(check_whole(shelf, ckpt_dir, tmp_path / "new"))
    assert found == {20, 30} and calls > 20


def test_a_full_disk_keeps_what_was_there(ckpt_dir: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200_000) as disk:
        mirror = Mirror(str(disk / "mirror"))
        save_best(ckpt_dir, 10, best=None)
        update(mirror, ckpt_dir)
        (disk / "ballast").write_bytes(bytes(100_000))
        with contextlib.suppress(OSError), (disk / "ballast2").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        save_best(ckpt_dir, 20, best=None)
        with pytest.raises((DiskFullError, OSError)):
            update(mirror, ckpt_dir)
        assert fetched(str(disk / "mirror"), tmp_path / "new") == (10, [])
        enlarge(disk, 400_000)
        update(mirror, ckpt_dir)
        assert fetched(str(disk / "mirror"), tmp_path / "new") == (20, [])
        assert Shelf(disk / "mirror", None).unfinished() == []


def test_too_little_room_is_known_before_anything_is_written(
    ckpt_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_best(ckpt_dir, 10, best=None)
    monkeypatch.setattr(mirror_places, "free_bytes", lambda path: 5)
    with pytest.raises(DiskFullError, match=r"mirror: step-00000010 needs 0\.0 MB more, and 0\.0 MB are free there"):
        update(Mirror(str(tmp_path / "mirror")), ckpt_dir)
    assert not any(path.is_file() for path in (tmp_path / "mirror").rglob(".step-*/*"))


def test_a_mirror_that_is_unmounted_is_not_made_again(ckpt_dir: Path, tmp_path: Path) -> None:
    """Otherwise the copies would fill the disk below the mount point."""
    mount = tmp_path / "mount"
    mirror = Mirror(str(mount / "run"))
    save_best(ckpt_dir, 10, best=None)
    update(mirror, ckpt_dir)
    mount.rename(tmp_path / "elsewhere")
    mount.mkdir()
    save_best(ckpt_dir, 20, best=None)
    with pytest.raises(DataError, match="its checkpoints are gone; is it still mounted"):
        update(mirror, ckpt_dir)
    assert list(mount.iterdir()) == []
    mount.rmdir()
    (tmp_path / "elsewhere").rename(mount)
    update(mirror, ckpt_dir)
    assert Shelf(mount / "run", None).steps() == [10, 20]


def test_only_what_is_missing_is_copied_again(ckpt_dir: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_best(ckpt_dir, 10, best=None)
    whole, sizes = sum(file.stat().st_size for file in path.iterdir()), (path / "optimizer.params").stat().st_size
    manifest = (path / "manifest.json").stat().st_size
    write, broken = type(Mirror(shelf.address)._place), [True]
    method = "copy_file" if write is mirror_places.FolderPlace else "_content_of"
    real = getattr(mirror_places, method)

    def breaks(source: Path, *arguments: Any) -> Any:
        if broken and source.name == "optimizer.params":
            raise DataError("the connection broke")
        return real(source, *arguments)

    monkeypatch.setattr(mirror_places, method, breaks)
    with pytest.raises(DataError, match="the connection broke"):
        update(Mirror(shelf.address), ckpt_dir)
    assert Mirror(shelf.address).checkpoints() == []
    broken.clear()
    sent = update(Mirror(shelf.address), ckpt_dir)
    assert sizes <= sent < whole - manifest  # model.params was there
    assert shelf.steps() == [10] and shelf.unfinished() == []
