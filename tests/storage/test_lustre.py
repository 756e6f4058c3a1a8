"""Lustre, as far as it goes without one: the tool `lfs` is played by a script, /proc/mounts is a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.format import MAX_CHUNK_BYTES
from kogpt2_gluon.storage import lustre as module
from kogpt2_gluon.storage.lustre import (
    HsmAction,
    Lustre,
    Mount,
    Stripes,
    choose_stripe_count,
    find_mount,
    is_lustre,
    mount_advice,
    prepare_folder,
)
from tests.storage.lustre_helpers import FakeLustre

MIB = 1 << 20


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLustre:
    return FakeLustre.install(tmp_path, monkeypatch)


def found_lfs() -> Lustre:
    found = Lustre.find()
    assert found is not None
    return found


# --- mounts


def test_the_nearest_mount_counts_and_the_later_one_hides(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    odd = tmp_path / "a b\tc"
    mounts.write_bytes(
        b"/dev/root / ext4 rw,relatime 0 0\n"
        + b"10.0.0.1@tcp:/abc %s lustre rw,noatime,flock 0 0\n" % os.fsencode(tmp_path)
        + b"tmpfs %s/inner tmpfs rw 0 0\n" % os.fsencode(tmp_path)
        + b"x %s lustre rw 0 0\n" % os.fsencode(str(odd).replace(" ", "\\040").replace("\t", "\\011"))
        + b"old %s/twice ext4 rw 0 0\nnew %s/twice lustre rw 0 0\n" % ((os.fsencode(tmp_path),) * 2)
        + b"broken line\n\xff\xfe\n"
    )

    def kind(path: Path) -> str:
        mount = find_mount(path, mounts)
        assert mount is not None
        return mount.kind

    assert kind(Path("/")) == "ext4"
    assert kind(tmp_path / "not" / "made" / "yet") == kind(tmp_path) == "lustre"
    assert kind(tmp_path / "inner") == "tmpfs" and kind(tmp_path / "innermost") == "lustre"
    assert kind(odd / "x") == "lustre" and kind(tmp_path / "twice") == "lustre"
    (tmp_path / "link").symlink_to("/")
    assert kind(tmp_path / "link" / "etc") == "ext4"
    assert find_mount(tmp_path, mounts) == Mount(
        "10.0.0.1@tcp:/abc", tmp_path.resolve(), "lustre", ("rw", "noatime", "flock")
    )
    assert find_mount(tmp_path, tmp_path / "missing") is None


def test_advice_on_mount_options() -> None:
    def advice(options: str) -> str:
        return " ".join(mount_advice(Mount("d", Path("/"), "lustre", tuple(options.split(",")))))

    assert advice("rw,noatime,flock,lazystatfs") == "" == advice("rw,noatime,localflock")
    assert "noatime" in advice("rw,relatime,flock")
    assert "without flock" in advice("rw,noatime") and "lazystatfs" in advice("noatime,flock,nolazystatfs")


def test_here_there_is_no_lustre(tmp_path: Path) -> None:
    if is_lustre(tmp_path):
        pytest.skip("the temporary folder is on Lustre")
    assert prepare_folder(tmp_path) == ""


# --- layout


@pytest.mark.parametrize(
    ("size", "osts", "count"),
    [
        (0, 8, 1),
        (1, 8, 1),
        (256 * MIB, 8, 1),
        (257 * MIB, 8, 2),
        (1024 * MIB, 8, 4),
        (1024 * MIB, 2, 2),
        (1 << 40, 5, 5),
    ],
)
def test_stripes_for_a_shard(size: int, osts: int, count: int) -> None:
    assert choose_stripe_count(size, osts) == count


def test_a_folder_gets_its_layout_and_shows_it(fake: FakeLustre, tmp_path: Path) -> None:
    assert found_lfs().layout(tmp_path) == []
    assert found_lfs().num_osts(tmp_path) == 5
    said = prepare_folder(tmp_path)
    assert "1 OST x 4 MiB up to 64 MiB, then 4 OSTs x 4 MiB" in said
    assert fake.calls("setstripe") == [
        ["-E", "67108864", "-c", "1", "-S", "4194304", "-E", "-1", "-c", "4", "-S", "4194304", str(tmp_path)]
    ]
    assert found_lfs().layout(tmp_path) == [Stripes(64 * MIB, 1, 4 * MIB), Stripes(None, 4, 4 * MIB)]
    small = tmp_path / "small"
    small.mkdir()
    prepare_folder(small, 100 * MIB)
    assert fake.calls("setstripe")[-1] == ["-c", "1", "-S", "4194304", str(small)]
    assert found_lfs().layout(small) == [Stripes(None, 1, 4 * MIB)]


@pytest.mark.parametrize(
    ("text", "stripes"),
    [
        ("stripe_count:  2 stripe_size:   4194304 pattern:       0 stripe_offset: -1\n", [Stripes(None, 2, 4 * MIB)]),
        ("PATH\nstripe_count:  -1 stripe_size:   1048576 stripe_offset: -1\n", [Stripes(None, -1, MIB)]),
        (
            "PATH\nlmm_stripe_count:  3\nlmm_stripe_size:   4194304\nlmm_pattern:       raid0\nlmm_layout_gen:    0\n"
            "lmm_stripe_offset: 1\n\tobdidx\t\t objid\n\t     1\t            12\n",
            [Stripes(None, 3, 4 * MIB)],
        ),
        (
            "  lcm_layout_gen:    0\n    lcme_extent.e_start: 0\n    lcme_extent.e_end:   104857600\n"
            "      stripe_count:  1       stripe_size:   1048576       pattern: raid0\n"
            "    lcme_extent.e_start: 104857600\n    lcme_extent.e_end:   EOF\n"
            "      stripe_count:  4294967295       stripe_size:   1048576       pattern: raid0\n",
            [Stripes(100 * MIB, 1, MIB), Stripes(None, -1, MIB)],
        ),
        ("", []),
    ],
)
def test_layouts_as_versions_of_lfs_print_them(
    fake: FakeLustre, tmp_path: Path, text: str, stripes: list[Stripes]
) -> None:
    hostile = tmp_path / "stripe_count: 7 stripe_size: 65536 "
    hostile.mkdir()
    fake.answer("getstripe", text.replace("PATH", str(hostile)))
    assert found_lfs().layout(hostile) == stripes


def test_a_refused_layout_is_said_and_no_error(fake: FakeLustre, tmp_path: Path) -> None:
    fake.answer("setstripe", "", "error: setstripe: Permission denied\n", 13)
    assert "Permission denied" in prepare_folder(tmp_path) and "own layout" in prepare_folder(tmp_path)
    fake.answer("osts", "OBDS:\n0: x-OST0000_UUID INACTIVE\n")
    assert "no active OST" in prepare_folder(tmp_path)


def test_without_the_tool(fake: FakeLustre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "but the tool lfs is missing" in prepare_folder(tmp_path)


# --- states


NAMES = [
    b"plain",
    b"-rf",
    b"--help",
    b"a b",
    b"line\nbreak",
    b"x: (0x0000000d) released exists archived, archive_id:1\n",
    "한글".encode(),  # "Hangul"
    b"not utf-8 \xff\xfe",
    b"$(touch owned)`touch owned`;*",
]


def test_states_of_files_with_any_name(fake: FakeLustre, tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.mkdir()
    paths = [place / os.fsdecode(name) for name in NAMES]
    for path in paths:
        path.write_bytes(b"x")
    fake.release(*paths[::2])
    states = found_lfs().states(paths)
    assert list(states) == paths
    for index, path in enumerate(paths):
        state = states[path]
        assert not isinstance(state, DataError) and state.released == (index % 2 == 0) and not state.lost
        assert found_lfs().action(path) == HsmAction("NOOP", 0)
    found_lfs().restore(paths[::2])
    assert found_lfs().action(paths[5]).name == "NOOP" and found_lfs().action(paths[4]).name == "RESTORE"
    assert not list(tmp_path.rglob("owned")) and not Path("owned").exists()


def test_a_relative_name_is_never_an_option(fake: FakeLustre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("--delete").write_bytes(b"x")
    state = found_lfs().states([Path("--delete")])[Path("--delete")]
    assert not isinstance(state, DataError) and not state.released
    assert fake.calls("hsm_state") == [[str(tmp_path / "--delete")]]


def test_one_file_that_cannot_be_told_does_not_hide_the_rest(fake: FakeLustre, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b\nb", "c", "d")]
    for path in (paths[0], paths[2]):
        path.write_bytes(b"x")
    fake.release(paths[2])
    states = found_lfs().states(paths)
    assert [isinstance(states[path], DataError) for path in paths] == [False, True, False, True]
    assert getattr(states[paths[2]], "released", None) is True
    line = str(states[paths[1]])
    assert line.endswith("b\\nb: lfs hsm_state failed: can't get hsm state for it: No such file or directory")
    assert "\n" not in line


@pytest.mark.parametrize(
    "text", ["", "nonsense\n", "PATH: (0xZZ)\n", "PATH: (0x00000000)", "PATH: (0x00000000)\nmore\n"]
)
def test_answers_that_are_not_understood(fake: FakeLustre, tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    fake.answer("hsm_state", text.replace("PATH", str(path)))
    fake.answer("hsm_action", text.replace("PATH", str(path)))
    with pytest.raises(DataError, match="not understood"):
        found_lfs().states([path])
    with pytest.raises(DataError, match="not understood"):
        found_lfs().action(path)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(flags=st.integers(0, 0x7F), archive=st.integers(0, 32), name=st.binary(min_size=1, max_size=40))
def test_any_state_of_any_name_is_read_back(flags: int, archive: int, name: bytes) -> None:
    words = {0x04: "released", 0x01: "exists", 0x02: "dirty", 0x08: "archived", 0x10: "never_release"}
    words.update({0x20: "never_archive", 0x40: "lost_from_hsm"})
    name = b"/" + name.replace(b"\0", b"_")
    line = name + b": (0x%08x)" % flags + "".join(f" {word}" for bit, word in words.items() if flags & bit).encode()
    line += (b", archive_id:%d" % archive if archive else b"") + b"\n"
    match = module._STATE.match(line, len(name))
    assert match is not None and match.end() == len(line) and int(match[1], 16) == flags
    assert module.HsmState(flags).released == ("released" in line[len(name) :].decode())


def test_a_tool_that_hangs_is_given_up(fake: FakeLustre, tmp_path: Path) -> None:
    fake.answer("osts", "", hang=True)
    with pytest.raises(DataError, match=r"did not answer in 0\.2 s"):
        Lustre(str(fake.command), timeout=0.2).num_osts(tmp_path)
    with pytest.raises(DataError, match="cannot be run"):
        Lustre(str(tmp_path / "no such lfs")).num_osts(tmp_path)


def test_the_tool_runs_in_the_c_locale(fake: FakeLustre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "ko_KR.UTF-8")
    found_lfs().num_osts(tmp_path)
    log: list[dict[str, Any]] = [json.loads(line) for line in fake.log.read_text().splitlines()]
    assert {entry["locale"] for entry in log} == {"C"}


def test_a_stripe_is_the_largest_chunk() -> None:
    assert module.STRIPE_SIZE == MAX_CHUNK_BYTES
