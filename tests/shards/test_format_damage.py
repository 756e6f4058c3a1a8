"""Damaged shards: whatever is wrong is named, with its file, and nobody sees half a set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.format import MANIFEST, Manifest, ShardWriter
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.shards.shard_helpers import edit_manifest, empty_manifest, flip, parts_of, read_back, write_set
from tests.storage.crash_helpers import Crash, PowerCut, count_operations, without_clean_up


@pytest.fixture()
def damaged(tmp_path: Path) -> Path:
    """A set of three shards of 8 chunks and one shorter one, still whole."""
    write_set(tmp_path / "set", [100] * 130, chunk_bytes=1024, shard_bytes=8192)
    assert len(Manifest.load(tmp_path / "set").shards) == 4
    return tmp_path / "set"


def check_error(folder: Path, *names: str) -> str:
    """Opening and reading `folder` to its end is a DataError of one line that holds all of `names`."""
    with pytest.raises(DataError) as caught, ShardSet(folder) as shards:
        read_back(shards)
    message = str(caught.value)
    assert "\n" not in message and all(name in message for name in names), message
    return message


SECOND = "train-00001.ktok"


@pytest.mark.parametrize("length", [0, 19, 4096, 8192, -1])
def test_truncated(damaged: Path, length: int) -> None:
    os.truncate(damaged / SECOND, length if length >= 0 else (damaged / SECOND).stat().st_size - 1)
    check_error(damaged, str(damaged / SECOND), "its manifest says")


@pytest.mark.parametrize("length", [0, 19, 4096, 8192, 8300])
def test_truncated_after_it_was_opened(damaged: Path, length: int) -> None:
    with ShardSet(damaged) as shards:
        os.truncate(damaged / SECOND, length)
        for _ in range(2):  # an error leaves nothing half-open
            with pytest.raises(DataError, match=SECOND):
                read_back(shards)


@pytest.mark.parametrize("offset", [0, 1023, 1024, 8191])
def test_flipped_byte_in_the_tokens(damaged: Path, offset: int) -> None:
    flip(damaged / SECOND, offset)
    chunk = offset // 1024
    check_error(damaged, str(damaged / SECOND), f"chunk {chunk} at byte {chunk * 1024}")
    with ShardSet(damaged) as shards:  # the other chunks can be read
        assert len(shards.read_chunk(8 + (chunk + 1) % 8)) == 512


def metadata_places(path: Path) -> dict[str, int]:
    _, ends, hashes, payload = parts_of(path)
    return {
        "document ends": len(payload),
        "last document end": len(payload) + ends.nbytes - 8,
        "hashes": len(payload) + ends.nbytes,
        "footer": len(payload) + ends.nbytes + hashes.nbytes + 5,
        "footer length": path.stat().st_size - 20,
        "trailer hash": path.stat().st_size - 12,
        "magic": path.stat().st_size - 1,
    }


@pytest.mark.parametrize(
    "place",
    ["document ends", "last document end", "hashes", "footer", "footer length", "trailer hash", "magic"],
)
def test_flipped_byte_behind_the_tokens(damaged: Path, place: str) -> None:
    flip(damaged / SECOND, metadata_places(damaged / SECOND)[place])
    check_error(damaged, str(damaged / SECOND), "KTOK0002" if place == "magic" else "")
    with ShardSet(damaged) as shards:
        shards.read_chunk(0)
        for _ in range(2):
            with pytest.raises(DataError, match=SECOND):
                shards.read_chunk(8)
        assert len(shards.read_chunk(16)) == 512  # the other shards can be read


def test_missing_shard(damaged: Path) -> None:
    (damaged / SECOND).unlink()
    check_error(damaged, str(damaged / SECOND), "missing")


def test_missing_shard_after_opening(damaged: Path) -> None:
    with ShardSet(damaged) as shards:
        (damaged / SECOND).unlink()
        with pytest.raises(DataError, match=SECOND):
            shards.read_chunk(8)


def test_swapped_shards(damaged: Path) -> None:
    (damaged / SECOND).rename(damaged / "aside")
    (damaged / "train-00000.ktok").rename(damaged / SECOND)
    (damaged / "aside").rename(damaged / "train-00000.ktok")
    check_error(damaged, str(damaged / "train-0000"), "manifest")


def test_a_shard_of_another_set(damaged: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "other", [100] * 129 + [101], chunk_bytes=1024, shard_bytes=8192)
    shutil.copy(tmp_path / "other" / SECOND, damaged / SECOND)
    check_error(damaged, str(damaged / SECOND), "manifest")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(tokens=plain["tokens"] + 1), "own fingerprint"),
        (lambda plain: plain.update(vocab_size=60000), "own fingerprint"),
        (lambda plain: plain["shards"].reverse(), "own fingerprint"),
        (lambda plain: plain["shards"].pop(), "own fingerprint"),
        (lambda plain: plain.pop("fingerprint"), "fingerprint"),
        (lambda plain: plain.pop("tokens"), "own fingerprint"),
        (lambda plain: plain.pop("split"), "split"),
        (lambda plain: plain.update(more=1), "more"),
        (lambda plain: plain.update(shards=None), "TypeError"),
        (lambda plain: plain.update(shards=[3]), "TypeError"),
        (lambda plain: plain.update(format_version=1), "this program reads 2"),
    ],
)
def test_edited_manifest(damaged: Path, change: Callable[[dict], None], message: str) -> None:
    edit_manifest(damaged, change, sign=False)
    check_error(damaged, str(damaged / MANIFEST), message)


@pytest.mark.parametrize("name", ["../x.ktok", "/etc/passwd", "..", ".", "", "a/b.ktok", "a\0.ktok", ".x.ktok", "x", 5])
def test_a_manifest_names_no_file_outside_its_folder(damaged: Path, name: object) -> None:
    edit_manifest(damaged, lambda plain: plain["shards"][1].update(name=name), sign=True)
    check_error(damaged, str(damaged / MANIFEST))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(tokens=plain["tokens"] + 1), "tokens, but its 4 shards have"),
        (lambda plain: plain.update(dtype="<f4"), ""),
        (lambda plain: plain.update(dtype="object"), ""),
        (lambda plain: plain.update(chunk_bytes=0), ""),
        (lambda plain: plain.update(chunk_bytes=-2), ""),
        (lambda plain: plain.update(chunk_bytes=2048 * 3), ""),
        (lambda plain: plain.update(shards=[], tokens=0), "one shard or more"),
        (lambda plain: plain["shards"][0].update(tokens=0), "each has 1 to"),
        (lambda plain: plain["shards"][0].update(tokens="many"), ""),
    ],
)
def test_a_signed_manifest_that_cannot_be_true(damaged: Path, change: Callable[[dict], None], message: str) -> None:
    edit_manifest(damaged, change, sign=True)
    check_error(damaged, str(damaged / MANIFEST), message)


@pytest.mark.parametrize("key", ["tokens", "documents", "bytes", "hash"])
def test_a_signed_manifest_that_does_not_fit_its_shards(damaged: Path, key: str) -> None:
    def change(plain: dict) -> None:
        last = plain["shards"][-1]
        last[key] = "0" * 16 if key == "hash" else last[key] + 1
        plain["tokens"] = sum(shard["tokens"] for shard in plain["shards"])

    edit_manifest(damaged, change, sign=True)
    check_error(damaged, str(damaged / "train-00003.ktok"))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "\ud800", "{}"])
def test_a_manifest_that_is_none(damaged: Path, text: str) -> None:
    (damaged / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    check_error(damaged, str(damaged / MANIFEST))


def test_no_manifest_says_what_was_meant(damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "all" / "news").mkdir(parents=True)
    damaged.rename(tmp_path / "all" / "news" / "train")
    for folder in (tmp_path / "all", tmp_path / "all" / "news"):
        check_error(folder, f"did you mean {tmp_path / 'all' / 'news' / 'train'}?")
    check_error(tmp_path / "none", "does not exist")
    with pytest.raises(DataError, match=r"^s3://b/x: .*kogpt2 files download s3://b/x DIR"):
        Manifest.load(Path("s3://b/x"))


def test_no_manifest(tmp_path: Path) -> None:
    check_error(tmp_path, str(tmp_path), "kogpt2 shard")
    check_error(tmp_path / "none", str(tmp_path / "none"), "kogpt2 shard")
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    check_error(tmp_path / "file", str(tmp_path / "file"))


def test_an_interrupted_write_leaves_no_manifest(tmp_path: Path) -> None:
    tokens = np.zeros(2000, "<u2")
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, empty_manifest(), 1024) as writer:
        writer.add(tokens, [2000])
        raise KeyboardInterrupt
    assert {path.suffix for path in tmp_path.iterdir()} == {".ktok"}  # whole ones
    with pytest.raises(DataError, match="make shards with"):
        ShardSet(tmp_path)


def test_a_crash_leaves_only_whole_shards_under_their_names(tmp_path: Path) -> None:
    """Without any clean-up, as after a power cut."""
    writer = ShardWriter(tmp_path, empty_manifest(), 1024)
    writer.add(np.zeros(1300, "<u2"), [1300])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "train-00000.ktok",
        "train-00001.ktok",
        "train-00002.tmp",
    ]
    for name in ("train-00000.ktok", "train-00001.ktok"):
        assert parts_of(tmp_path / name)[0]["tokens"] == 512
    with writer:
        pass


@pytest.mark.parametrize("after", [False, True])
def test_a_write_that_fails_anywhere_leaves_whole_shards_and_no_manifest_or_a_whole_set(
    tmp_path: Path, after: bool
) -> None:
    """Every call that touches the disk fails in turn, and nothing is tidied up, as after a power cut."""

    def write(folder: Path) -> None:
        folder.mkdir()
        with ShardWriter(folder, empty_manifest(), 1024) as writer:
            writer.add(np.zeros(1300, "<u2"), [1300])
            writer.finish()

    calls = count_operations(lambda: write(tmp_path / "whole"))
    assert calls >= 15
    for at in range(2, calls + 1):  # the first is the test's own mkdir
        folder = tmp_path / f"at{at}"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCut):
            without_clean_up(patch)
            Crash(patch, at, after, PowerCut)
            write(folder)
        for path in folder.glob("*.ktok"):
            assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
        if (folder / MANIFEST).exists():
            assert len(list(folder.glob("*.ktok"))) == 3
            ShardSet(folder).close()


def test_a_full_disk_leaves_no_half_shard(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, empty_manifest(), 1024)
    with pytest.raises(OSError, match="No space left"), writer:  # from its clean-up
        writer.add(np.zeros(700, "<u2"), [700])  # a whole shard, and some of the next one, not on disk yet
        assert writer._file is not None
        os.dup2(full := os.open("/dev/full", os.O_WRONLY), writer._file.fileno())
        os.close(full)
    assert [path.suffix for path in tmp_path.iterdir()] == [".ktok"]


def test_a_manifest_that_promises_more_than_its_files_hold(damaged: Path) -> None:
    """Such a manifest is refused before memory is allocated for it."""

    def change(plain: dict) -> None:
        plain["shards"][-1]["tokens"] = 1 << 39
        plain["tokens"] = sum(shard["tokens"] for shard in plain["shards"])

    edit_manifest(damaged, change, sign=True)
    check_error(damaged, str(damaged / "train-00003.ktok"), "cannot hold")


def test_a_link_out_of_the_folder_is_not_followed(damaged: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.ktok"
    (damaged / SECOND).rename(outside)
    (damaged / SECOND).symlink_to(outside)
    check_error(damaged, str(damaged / SECOND), "a link out of the folder of its set")
    outside.rename(damaged / "kept")
    (damaged / SECOND).unlink()
    (damaged / SECOND).symlink_to("kept")
    with ShardSet(damaged) as shards:
        assert len(read_back(shards)) == shards.manifest.tokens
