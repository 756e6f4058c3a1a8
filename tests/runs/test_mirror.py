"""Mirrors of checkpoints: whole or absent, checked by hash, never another run's, and pruned as the run's folder is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.errors import DamagedError, DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.mirror import Mirror, held, newest_first
from kogpt2_gluon.storage.s3 import explained
from tests.runs.checkpoint_helpers import save_best
from tests.runs.mirror_helpers import PREFIX, Shelf, fetched, update
from tests.storage.s3_helpers import BUCKET

pytest.importorskip("boto3", reason="reads from S3")

from botocore.exceptions import EndpointConnectionError

# --- there and back


def test_it_gets_what_the_folder_keeps(ckpt_dir: Path, shelf: Shelf, tmp_path: Path) -> None:
    mirror = Mirror(shelf.address)
    for step in (10, 20, 30, 40):
        save_best(ckpt_dir, step, best=10)
        assert update(mirror, ckpt_dir) > 0
    mine = {path.relative_to(ckpt_dir).as_posix(): path.read_bytes() for path in ckpt_dir.rglob("*") if path.is_file()}
    assert (
        shelf.content() == {**mine, "owner": f"{ckpt_dir}\n".encode()}
        and shelf.steps() == [10, 30, 40]
        and shelf.unfinished() == []
    )
    assert mirror.checkpoints()[0] == "step-00000040" and mirror.best() == "step-00000010"
    assert update(mirror, ckpt_dir) == 0 and update(Mirror(shelf.address), ckpt_dir) == 0  # nothing is sent again
    assert fetched(shelf.address, tmp_path / "new") == (40, [])
    save_best(ckpt_dir, 50, best=None, keep=1)
    update(mirror, ckpt_dir, keep=1)
    assert shelf.steps() == [50] and mirror.best() is None and "best" not in shelf.content()


def test_what_it_left_out_does_not_change_what_it_keeps(ckpt_dir: Path, shelf: Shelf) -> None:
    """A mirror that was away keeps its own newest ones until it has newer ones, but no old ones for the best alone."""
    mirror = Mirror(shelf.address)
    for step in (10, 15, 20):
        save_best(ckpt_dir, step, best=step, only=step == 15, keep=2)
        update(mirror, ckpt_dir)
    for step in (30, 40, 50, 60):
        save_best(ckpt_dir, step, best=60)
    update(mirror, ckpt_dir)
    assert shelf.steps() == [20, 60]  # 15 was saved only as the best
    save_best(ckpt_dir, 70, best=60)
    update(mirror, ckpt_dir, every=20)
    assert shelf.steps() == [20, 60, 70]
    update(mirror, ckpt_dir, keep=0)
    assert shelf.steps() == [20, 60, 70]


def test_a_folder_mirror_is_a_folder_of_checkpoints(ckpt_dir: Path, tmp_path: Path) -> None:
    save_best(ckpt_dir, 10, best=10)
    save_best(ckpt_dir, 20, best=10)
    update(Mirror(str(tmp_path / "mirror")), ckpt_dir)
    assert open_checkpoint(tmp_path / "mirror").state()["step"] == 20
    assert open_checkpoint(tmp_path / "mirror" / "best").state()["step"] == 10


def test_going_back_deletes_nothing(ckpt_dir: Path, shelf: Shelf, tmp_path: Path) -> None:
    mirror = Mirror(shelf.address)
    for step in (10, 20, 30):
        save_best(ckpt_dir, step, best=None, keep=0)
        update(mirror, ckpt_dir)
    before = shelf.content()
    for step in (20, 30):
        shutil.rmtree(ckpt_dir / f"step-000000{step}")
    save_best(ckpt_dir, 15, best=None, keep=0, course=1)
    update(mirror, ckpt_dir)
    assert shelf.steps() == [10, 15] and shelf.unfinished() == []
    aside = {name.partition("/")[2]: content for name, content in shelf.content().items() if name.startswith("before-")}
    assert aside == {
        name: content for name, content in before.items() if name.startswith(("step-00000020", "step-00000030"))
    }
    assert fetched(shelf.address, tmp_path / "new") == (15, [])


def test_a_mirror_that_was_away_while_the_run_went_back(ckpt_dir: Path, shelf: Shelf, tmp_path: Path) -> None:
    """Its checkpoints of the same steps are others; they move aside."""
    for step in (10, 20, 30):
        save_best(ckpt_dir, step, best=None, keep=0)
        update(Mirror(shelf.address), ckpt_dir, keep=0)
    other = tmp_path / "other"
    shutil.copytree(ckpt_dir / "step-00000010", other / "step-00000010")
    for step, content in ((20, 21), (30, 31)):  # the same steps, with other arrays
        made = save_best(tmp_path / "made", content, best=None)
        made.rename(other / f"step-000000{step}")
    (other / "best").write_text("step-00000020\n")
    shutil.rmtree(ckpt_dir)
    update(Mirror(shelf.address), other, keep=0)
    assert shelf.steps() == [10, 20, 30]
    content = shelf.content()
    for name in ("step-00000010", "step-00000020", "step-00000030"):
        assert {file.name: file.read_bytes() for file in (other / name).iterdir()} == {
            path.rpartition("/")[2]: content[path] for path in content if path.startswith(f"{name}/")
        }
    assert len([name for name in shelf.names() if name.startswith("before-step-00000030-")]) == 2


def test_the_same_step_saved_again_stays(ckpt_dir: Path, shelf: Shelf) -> None:
    save_best(ckpt_dir, 10, best=None)
    update(Mirror(shelf.address), ckpt_dir)
    save_best(ckpt_dir, 10, best=10, course=1)  # after an evaluation: the arrays are the same
    assert update(Mirror(shelf.address), ckpt_dir) == 0
    assert shelf.names() == ["step-00000010"] and Mirror(shelf.address).best() == "step-00000010"


def test_the_newest_of_several_mirrors(ckpt_dir: Path, shelf: Shelf, tmp_path: Path) -> None:
    folder = Mirror(str(tmp_path / "second"))
    save_best(ckpt_dir, 10, best=None)
    update(folder, ckpt_dir)
    update(Mirror(shelf.address), ckpt_dir)
    save_best(ckpt_dir, 20, best=None)
    update(folder, ckpt_dir)
    found = newest_first([Mirror(shelf.address), folder])
    assert [(mirror.name, name) for mirror, name in found] == [
        *((folder.name, "step-00000020"), (shelf.address, "step-00000010"), (folder.name, "step-00000010"))
    ]


def test_a_best_that_cannot_be_read_stays_the_best(ckpt_dir: Path, shelf: Shelf) -> None:
    save_best(ckpt_dir, 10, best=10)
    update(Mirror(shelf.address), ckpt_dir)
    (ckpt_dir / "best").write_bytes(b"\xff\xfe")
    update(Mirror(shelf.address), ckpt_dir)
    assert Mirror(shelf.address).best() == "step-00000010"
    (ckpt_dir / "best").unlink()
    update(Mirror(shelf.address), ckpt_dir)
    assert Mirror(shelf.address).best() is None


# --- damage and strangers


@pytest.mark.parametrize("file", ["model.params", "optimizer.params", "state.json", "recipe.yaml", "tokenizer.model"])
def test_a_flipped_byte_is_named_and_an_older_one_taken(
    ckpt_dir: Path, shelf: Shelf, tmp_path: Path, file: str
) -> None:
    for step in (10, 20):
        save_best(ckpt_dir, step, best=None)
        update(Mirror(shelf.address), ckpt_dir)
    shelf.flip(f"step-00000020/{file}")
    step, (fault,) = fetched(shelf.address, tmp_path / "new")
    assert (
        step == 10
        and fault
        == f"{shelf.address}/step-00000020/{file}: missing, truncated or damaged; an older checkpoint may be whole"
    )


def test_a_file_that_is_cut_or_gone(ckpt_dir: Path, shelf: Shelf, tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save_best(ckpt_dir, step, best=None)
        update(Mirror(shelf.address), ckpt_dir, keep=0)
    shelf.write("step-00000040/manifest.json", b"{")
    shelf.write("step-00000030/model.params", shelf.content()["step-00000030/model.params"][:-1])
    shelf.remove("step-00000020/state.json")
    step, faults = fetched(shelf.address, tmp_path / "new")
    assert step == 10
    assert [fault.rpartition("/step-")[2].split(":")[0] for fault in faults] == [
        "00000040/manifest.json",
        "00000030/model.params",
        "00000020/state.json",
    ]
    with pytest.raises(DamagedError, match=r"step-00000020/state\.json: missing, truncated or damaged"):
        Mirror(shelf.address).state("step-00000020")


def test_a_manifest_cannot_lead_out_of_the_folder(ckpt_dir: Path, shelf: Shelf, tmp_path: Path) -> None:
    save_best(ckpt_dir, 10, best=None)
    update(Mirror(shelf.address), ckpt_dir)
    manifest = shelf.content()["step-00000010/manifest.json"]
    shelf.write("step-00000010/manifest.json", manifest.replace(b'"recipe.yaml"', b'"../../../victim"'))
    with pytest.raises(DamagedError, match="does not list a checkpoint's files"):
        Mirror(shelf.address).fetch("step-00000010", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_checkpoint_without_a_manifest_does_not_count(ckpt_dir: Path, store: Any, tmp_path: Path) -> None:
    shelf = Shelf(None, store)
    for step in (10, 20):
        save_best(ckpt_dir, step, best=None)
        update(Mirror(shelf.address), ckpt_dir)
    shelf.remove("step-00000020/manifest.json")
    assert Mirror(shelf.address).checkpoints() == ["step-00000010"]
    assert fetched(shelf.address, tmp_path / "new") == (10, [])
    assert update(Mirror(shelf.address), ckpt_dir) == 0  # the manifest alone was missing
    assert shelf.steps() == [10, 20]


def test_damage_on_the_runs_own_disk_does_not_spread(ckpt_dir: Path, shelf: Shelf) -> None:
    save_best(ckpt_dir, 10, best=None)
    update(Mirror(shelf.address), ckpt_dir)
    path = save_best(ckpt_dir, 20, best=None) / "model.params"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"model\.params.*differs from its hash"):
        update(Mirror(shelf.address), ckpt_dir)
    assert Mirror(shelf.address).checkpoints() == ["step-00000010"] and shelf.content()["latest"] == b"step-00000010\n"


def test_another_runs_mirror_is_left_alone(
    ckpt_dir: Path, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_best(ckpt_dir, 10, best=None)
    update(Mirror(shelf.address), ckpt_dir)
    before = shelf.content()
    mirror, other = Mirror(shelf.address), tmp_path / "other"
    save_best(other, 20, best=None)
    for _ in range(2):
        with pytest.raises(RecipeError, match="step-00000010 is of another run; nothing was written there"):
            update(mirror, other, begun_as="another")
    assert shelf.content() == before
    shelf.flip("step-00000010/state.json")
    with pytest.raises(DataError, match="no checkpoint is whole, so nobody can tell of which run"):
        update(Mirror(shelf.address), other)


def test_a_copy_of_a_run_does_not_write_into_its_mirror(ckpt_dir: Path, shelf: Shelf, tmp_path: Path) -> None:
    """It has the same recipe, so the same mirrors; a run that moved, or whose folder is lost, keeps them."""
    save_best(ckpt_dir, 10, best=None)
    update(Mirror(shelf.address), ckpt_dir)
    copy, before = Path(shutil.copytree(ckpt_dir, tmp_path / "copy")), shelf.content()
    save_best(copy, 20, best=None)
    with pytest.raises(RecipeError, match=f"is the mirror of {ckpt_dir}, which is still there; name another"):
        update(Mirror(shelf.address), copy)
    assert shelf.content() == before
    (tmp_path / "link").symlink_to(ckpt_dir)
    Mirror(shelf.address).check_folder(tmp_path / "link")
    shutil.rmtree(ckpt_dir)
    update(Mirror(shelf.address), copy)
    assert shelf.steps() == [10, 20] and shelf.content()["owner"] == f"{copy}\n".encode()


def test_two_runs_that_begin_at_the_same_time(ckpt_dir: Path, shelf: Shelf, tmp_path: Path) -> None:
    """Both saw an empty mirror; the second one to write stops there."""
    first, second = Mirror(shelf.address), Mirror(shelf.address)
    for mirror in (first, second):
        mirror.check_owner("anything")
    save_best(ckpt_dir, 10, best=None)
    update(first, ckpt_dir)
    save_best(tmp_path / "other", 10, best=None)
    with pytest.raises(RecipeError, match="of another run"):
        update(second, tmp_path / "other", begun_as="another")


# --- what is copied stays


def test_a_checkpoint_that_is_removed_meanwhile_is_copied_all_the_same(
    ckpt_dir: Path, shelf: Shelf, tmp_path: Path
) -> None:
    save_best(ckpt_dir, 10, best=None)
    with held(ckpt_dir / "step-00000010", ckpt_dir / ".mirror-1") as source:
        shutil.rmtree(ckpt_dir / "step-00000010")
        Mirror(shelf.address).add(source, ckpt_dir, "")
    assert list(ckpt_dir.glob(".*")) == [] and fetched(shelf.address, tmp_path / "new") == (10, [])
    with pytest.raises(FileNotFoundError), held(ckpt_dir / "step-00000010", ckpt_dir / ".mirror-1"):
        pass
    assert list(ckpt_dir.glob(".*")) == []


def test_where_there_are_no_hard_links(ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = save_best(ckpt_dir, 10, best=None)
    with held(path, ckpt_dir / ".mirror-1") as source:
        assert source == path


# --- before the start


def test_the_check_leaves_nothing(shelf: Shelf, store: Any) -> None:
    Mirror(shelf.address).check_writable()
    assert Mirror(shelf.address).checkpoints() == []
    assert not Path(shelf.address).exists()
    assert Shelf(None, store).content() == {} and Shelf(None, store).unfinished() == []


def test_a_check_that_was_killed_is_cleared_away(ckpt_dir: Path, shelf: Shelf, store: Any, tmp_path: Path) -> None:
    store.create_multipart_upload(Bucket=BUCKET, Key=f"{PREFIX}/.kogpt2-1")
    (tmp_path / "mirror" / ".kogpt2-1").mkdir(parents=True)
    save_best(ckpt_dir, 10, best=None)
    update(Mirror(shelf.address), ckpt_dir)
    assert shelf.unfinished() == [] and not list(Path(shelf.address).glob(".*"))


def test_places_that_cannot_be_written_to(store: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for address, words in (
        ("/proc/mirror", "/proc/mirror: cannot be written to"),
        (str(tmp_path / "file" / "mirror"), "cannot be written to"),
        ("s3://no-such-bucket-here/x", "s3://no-such-bucket-here/x: no such bucket"),
    ):
        with pytest.raises(KoGPT2Error, match=words) as caught:
            Mirror(address).check_writable()
        assert "\n" not in str(caught.value)


def test_no_secret_is_in_a_message(monkeypatch: pytest.MonkeyPatch, no_real_account: None) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://somebody:hunter2@127.0.0.1:9")
    with pytest.raises(KoGPT2Error) as caught, explained("s3://backup/x"):
        raise EndpointConnectionError(endpoint_url="http://somebody:hunter2@127.0.0.1:9/backup")
    assert "hunter2" not in str(caught.value) and "127.0.0.1:9/backup" in str(caught.value)
