"""A cleaning that is run again: parts that are still valid are kept, and a full disk is named."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Callable

import pytest

from kogpt2_gluon.corpus.cleaning import clean, load_options
from kogpt2_gluon.errors import DataError, DiskFullError
from tests.corpus.cleaning.cleaning_helpers import contents, interrupt, small_parts, write, write_documents
from tests.helpers import enlarge, small_disk


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sources a.txt and b.txt and the work folder of an interrupted cleaning."""
    return interrupt(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda f: write_documents(f / "a.txt", 100, 7) and "ab", "none"),
        (lambda f: write_documents(f / "b.txt", 100, 7) and "ab", "some"),
        (lambda f: write(f / "b.txt", b"") and "ab", "some"),
        (lambda f: write_documents(f / "c.txt", 100, 7) and "abc", "all"),
    ],
    ids=["first source repaired", "second source repaired", "second source emptied", "third source added"],
)
def test_parts_before_a_repaired_source_are_kept(interrupted: Path, change: Callable[[Path], str], kept: str) -> None:
    sources = [interrupted / f"{name}.txt" for name in change(interrupted)]
    parts = len(list((interrupted / "out.work").glob("part-*")))
    said: list[str] = []
    clean(sources, interrupted / "out", "blank-line", say=said.append)
    found = re.fullmatch(r"(\S+): not as it was when .*; (\d+) of (\d+) finished parts are kept", said[0])
    assert found is not None and int(found[3]) == parts > 4
    assert {"none": int(found[2]) == 0, "some": 0 < int(found[2]) < parts, "all": int(found[2]) == parts}[kept]
    clean(sources, interrupted / "fresh", "blank-line")
    assert contents(interrupted / "out") == contents(interrupted / "fresh")


def test_a_damaged_source_is_repaired_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In real life the second of three archives was cut off while it was copied."""
    small_parts(monkeypatch)
    sources = []
    for name in "abc":
        # The damage lies after what is looked at before the first part.
        text = write_documents(tmp_path / f"{name}.txt", 1500 if name == "b" else 100, ord(name))
        sources.append(write(tmp_path / f"{name}.gz", gzip.compress(text.read_bytes())))
    whole = sources[1].read_bytes()
    sources[1].write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(DataError, match=r"b\.gz: truncated"):
        clean(sources, tmp_path / "out", "blank-line")
    sources[1].write_bytes(whole)
    said: list[str] = []
    clean(sources, tmp_path / "out", "blank-line", say=said.append)
    assert "b.gz: not as it was" in said[0] and " 0 of" not in said[0] and said[1].startswith("resuming after")
    clean(sources, tmp_path / "fresh", "blank-line")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("kilobytes", [200, 1000, 1800, 2600, 3400])
def test_a_full_disk_is_named_and_the_same_command_resumes(
    tmp_path: Path, kilobytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in every stage: one line names folder, room and need; with room, nothing is done twice."""
    small_parts(monkeypatch, 100_000, 200_000)
    source = write_documents(tmp_path / "a.txt", 4000)
    options = load_options(None, ["near_duplicates=true", "duplicate_lines=true"])
    clean([source], tmp_path / "whole", "blank-line", options=options)
    with small_disk(tmp_path / "disk", kilobytes << 10) as disk:
        with pytest.raises(DiskFullError) as caught:
            clean([source], disk / "out", "blank-line", options=options)
        message, kept = str(caught.value), len(list(disk.glob("out.work/part-*")))
        assert re.match(
            rf"{disk}/\S*: the disk is full \([\d.]+ MB free of {kilobytes * 1024 / 1e6:.1f} MB\); ", message
        )
        assert "a cleaning needs up to twice its unpacked text (0.9 MB of sources); make room, then" in message
        assert (f"resumes after {kept:,} finished part" in message) == (kept > 0), message
        assert [path.name for path in disk.iterdir()] == ["out.work"] * (kept > 0)
        enlarge(disk, 64 << 20)
        said: list[str] = []
        clean([source], disk / "out", "blank-line", options=options, say=said.append)
        assert said[0].startswith(f"resuming after {kept} finished parts") or not kept
        assert contents(disk / "out") == contents(tmp_path / "whole")
