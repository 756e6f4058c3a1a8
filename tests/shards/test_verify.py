"""`kogpt2 verify`: every change of a set is found, and each fault has its place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards import check as shard_check
from kogpt2_gluon.shards import verify as verify_module
from kogpt2_gluon.shards.format import MANIFEST, TOKENIZER, Manifest
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.verify import verify
from tests.shards.shard_helpers import edit_manifest, flip, read_back, reseal, write_documents
from tests.shards.verify_helpers import FIRST, LAST, LENGTHS, SECOND, THIRD, found, messages, payload_of, swap


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    write_documents(tmp_path / "set", LENGTHS)
    return tmp_path / "set"


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.one_of(st.integers(2, 70), st.sampled_from([16, 32, 64])), min_size=1, max_size=50),
    dtype=st.sampled_from(["<u2", "<u4"]),
    chunk_bytes=st.sampled_from([32, 64, 128]),
    chunks_a_shard=st.integers(1, 4),
    chunks_a_task=st.integers(1, 3),
)
def test_a_set_that_was_written_has_no_faults(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    dtype: str,
    chunk_bytes: int,
    chunks_a_shard: int,
    chunks_a_task: int,
) -> None:
    folder = tmp_path_factory.mktemp("written") / "set"
    tokens = write_documents(folder, lengths, chunk_bytes, chunks_a_shard * chunk_bytes, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_check, "RANGE_BYTES", chunks_a_task * chunk_bytes)
        patch.setattr(shard_check, "READ_SIZE", 32)  # few document ends at a time
        report = verify(folder)
    assert report.faults == [] and report.notes == []
    plain = report.to_dict()
    assert plain["ok"] and plain["tokens"] == len(tokens) and plain["documents"] == len(lengths)
    assert plain["chunks"] == -(-tokens.nbytes // chunk_bytes)
    assert plain["bytes"] == sum(path.stat().st_size for path in folder.glob("*.ktok"))
    shutil.rmtree(folder)


def test_real_shards_have_no_faults(shards: Path) -> None:
    report = verify(shards)
    assert report.faults == [] and [Path(each.folder).name for each in report.sets] == ["train", "test"]
    for each in report.sets:
        manifest = Manifest.load(Path(each.folder))
        assert (each.tokens, each.documents) == (manifest.tokens, manifest.documents)
        assert each.fingerprint == manifest.fingerprint()


def test_progress_ends_at_all_bytes(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    verify(folder, progress=lambda done, total: seen.append((done, total)))
    size = sum(path.stat().st_size for path in folder.glob("*.ktok"))
    assert seen == sorted(seen) and seen[-1] == (size, size)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set whose shards each example damages, and then restores."""
    folder = tmp_path_factory.mktemp("template") / "set"
    write_documents(folder, LENGTHS)
    return folder


@settings(derandomize=True, max_examples=200, deadline=None)
@given(shard=st.integers(0, 3), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(template: Path, shard: int, place: float, bit: int) -> None:
    """Verify finds it, with its place, and so does a reader of the set."""
    path = sorted(template.glob("*.ktok"))[shard]
    whole = path.read_bytes()
    data = bytearray(whole)
    offset = int(place * len(data))
    data[offset] ^= 1 << bit
    path.write_bytes(data)
    try:
        faults = found(verify(template))
        with pytest.raises(DataError, match=path.name), ShardSet(template) as shards:
            read_back(shards)
    finally:
        path.write_bytes(whole)
    assert faults and all(name == path.name for name, _, _ in faults)
    if offset < payload_of(shard):
        chunk = offset // 1024
        assert faults == [(path.name, chunk, chunk * 1024)]
    else:
        assert any(isinstance(where, int) and where <= offset for _, chunk, where in faults if chunk is None)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(shard=st.integers(0, 3), place=st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_found(template: Path, shard: int, place: float) -> None:
    path = sorted(template.glob("*.ktok"))[shard]
    whole = path.read_bytes()
    length = int(place * len(whole))
    path.write_bytes(whole[:length])
    try:
        faults = found(verify(template))
        with pytest.raises(DataError, match=path.name):
            ShardSet(template)
    finally:
        path.write_bytes(whole)
    assert faults and all(name == path.name for name, _, _ in faults)
    payload = payload_of(shard)
    cut = [chunk for _, chunk, _ in faults if chunk is not None]
    assert cut == [chunk for chunk in range(-(-payload // 1024)) if min(payload, (chunk + 1) * 1024) > length]


def test_no_fault_hides_the_next(folder: Path) -> None:
    flip(folder / FIRST, 10)
    flip(folder / FIRST, 3 * 1024)
    flip(folder / SECOND, 8192)  # a document end
    os.truncate(folder / THIRD, 7000)
    (folder / LAST).unlink()
    (folder / TOKENIZER).write_bytes(b"another")
    edit_manifest(folder, lambda plain: plain.update(words=1), sign=False)
    shutil.copy(folder / FIRST, folder / "stray.ktok")
    (folder / "train-00004.tmp").write_bytes(b"")
    faults = found(verify(folder))
    for expected in (
        (MANIFEST, None, None),
        (FIRST, 0, 0),
        (FIRST, 3, 3072),
        (SECOND, None, 8192),
        (THIRD, None, 6980),
        (THIRD, 6, 6144),
        (THIRD, 7, 7168),
        (LAST, None, None),
        (TOKENIZER, None, None),
        ("stray.ktok", 0, 0),
        ("stray.ktok", 3, 3072),
        ("stray.ktok", None, None),
        ("train-00004.tmp", None, None),
    ):
        assert expected in faults, expected


def test_swapped_shards(folder: Path) -> None:
    swap(folder)
    assert f"{FIRST}: not the shard that the manifest means by this name; it is {THIRD}" in messages(folder)
    assert len(verify(folder).faults) == 2


def test_a_shard_of_another_set(folder: Path, tmp_path: Path) -> None:
    write_documents(tmp_path / "other", [100] * 129 + [101])
    shutil.copy(tmp_path / "other" / FIRST, folder / FIRST)
    assert f"{FIRST}: not the shard that the manifest means by this name; it is a shard of another" in messages(folder)


@pytest.mark.parametrize(
    ("change", "sign", "message"),
    [
        (lambda plain: plain.update(vocab_size=60000), False, "own fingerprint"),
        (lambda plain: plain.update(vocab_size=60000), True, "its footer says vocab_size=50000, the manifest 60000"),
        (lambda plain: plain.update(tokenizer_sha256="0" * 64), True, "not the tokenizer of these shards"),
        (lambda plain: plain.update(documents=7), True, "its 7 documents are not those of its shards"),
        (lambda plain: plain["shards"].pop(1), False, "own fingerprint"),
        (lambda plain: plain["shards"].reverse(), True, "ends within a chunk"),
        (lambda plain: plain["special_ids"].update(eos=9), True, "its footer says special_ids"),
        (lambda plain: plain["shards"][0].update(bytes=5), True, "the manifest says 5"),
        (
            lambda plain: plain["shards"].__setitem__(slice(0, 2), plain["shards"][1::-1]),
            True,
            "does not begin with <s>",
        ),
        (lambda plain: plain.clear(), False, "not a manifest of shards"),
        (lambda plain: plain.update(special_ids=None), False, "own fingerprint"),
        (lambda plain: plain["shards"][0].update(tokens="x"), False, "manifest.json"),
        (lambda plain: plain["shards"][0].update(documents="x"), False, "own fingerprint"),
    ],
)
def test_edited_manifest(folder: Path, change: Callable[[dict], None], sign: bool, message: str) -> None:
    edit_manifest(folder, change, sign)
    assert message in messages(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain.update(special_ids={}),
        lambda plain: plain.update(special_ids=[1]),
        lambda plain: plain.update(special_ids={"bos": 1, "eos": None}),
        lambda plain: plain.update(vocab_size="many"),
        lambda plain: plain.update(documents=1.5),
        lambda plain: plain.update(source=None),
        lambda plain: plain.update(chunk_bytes=1 << 60),
        lambda plain: plain["shards"][0].update(documents=None),
        lambda plain: plain["shards"][0].update(documents=-1),
        lambda plain: plain["shards"][0].update(hash=5),
        lambda plain: plain["shards"][1].update(name=FIRST),
        lambda plain: plain.update(shards=[{**plain["shards"][0], "tokens": 1 << 60}], tokens=1 << 60),
    ],
)
def test_a_signed_manifest_of_another_kind(folder: Path, change: Callable[[dict], None]) -> None:
    """A manifest with the right fingerprint can still hold anything."""
    edit_manifest(folder, change, sign=True)
    assert str(folder / MANIFEST) in messages(folder)
    with pytest.raises(DataError, match=MANIFEST):
        ShardSet(folder)
    CliRunner().invoke(cli, ["verify", str(folder), "--json"], catch_exceptions=False)


def test_json_nested_without_end(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 100_000, encoding="utf-8")
    assert "not a manifest of shards (RecursionError" in messages(folder)


def test_a_link_that_leads_nowhere_is_a_fault(folder: Path) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to(folder / "nowhere")
    assert f"{folder / SECOND}: cannot be read: No such file" in messages(folder)


def test_tokens_that_no_tokenizer_gives(folder: Path) -> None:
    """Hashes that fit do not make a shard good."""

    def change(_: dict, ends: np.ndarray, payload: bytearray) -> None:
        tokens = np.frombuffer(payload, "<u2")
        tokens[650], tokens[652] = 50000, 65535
        tokens[int(ends[2]) - 1] = 99  # token 299, no </s>
        tokens[int(ends[20])] = 99  # token 2100, no <s>
        payload[:] = tokens.tobytes()

    sealed = reseal(folder / FIRST, change)
    edit_manifest(folder, lambda plain: plain["shards"][0].update(hash=sealed), sign=True)
    assert found(verify(folder)) == [(FIRST, 0, 598), (FIRST, 1, 1300), (FIRST, 4, 4200)]
    assert "2 token ids are not below vocab_size=50000, the first is 50000" in messages(folder)
    with ShardSet(folder) as shards:  # readers trust the hashes
        read_back(shards)


@pytest.mark.parametrize(
    ("change", "message", "offset"),
    [
        (lambda ends: ends.__setitem__(3, ends[2]), "do not rise at document 3", 8192 + 24),
        (lambda ends: ends.__setitem__(0, 2**63), "do not rise at document 1", 8192 + 8),
        (lambda ends: ends.__setitem__(-1, 4097), "ends at token 4,097 of 4,096", 8192 + 8 * 39),
    ],
)
def test_document_ends_that_cannot_be(
    folder: Path, change: Callable[[np.ndarray], None], message: str, offset: int
) -> None:
    sealed = reseal(folder / FIRST, lambda _, ends, __: change(ends))
    edit_manifest(folder, lambda plain: plain["shards"][0].update(hash=sealed), sign=True)
    report = verify(folder)
    assert found(report) == [(FIRST, None, offset)] and message in str(report.faults[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda footer: footer.update(tokens=0),
        lambda footer: footer.update(tokens=-5),
        lambda footer: footer.update(tokens=10**15),
        lambda footer: footer.update(documents="many"),
        lambda footer: footer.update(dtype="object"),
        lambda footer: footer.update(chunk_bytes=0),
        lambda footer: footer.update(chunk_bytes=1 << 60, chunks=1),
        lambda footer: footer.update(special_ids=[]),
        lambda footer: footer.update(special_ids={"bos": 1}),
        lambda footer: footer.update(format_version=1),
        lambda footer: footer.clear(),
    ],
)
def test_a_hostile_footer(folder: Path, change: Callable[[dict], None]) -> None:
    reseal(folder / FIRST, lambda footer, *_: change(footer))
    faults = found(verify(folder))
    assert faults and {name for name, _, _ in faults} == {FIRST}
    (folder / MANIFEST).unlink()  # so that nothing says what its layout is
    assert FIRST in messages(folder)


@pytest.mark.parametrize("size", [0, 1, 19, 20, 21, 3000])
def test_a_file_that_is_no_shard(folder: Path, size: int) -> None:
    (folder / FIRST).write_bytes(bytes(size))
    (folder / MANIFEST).unlink()
    faults = found(verify(folder))
    assert any(name == FIRST for name, _, _ in faults) and (MANIFEST, None, None) in faults


def test_train_and_test_of_two_tokenizers(tmp_path: Path) -> None:
    write_documents(tmp_path / "train", LENGTHS)
    write_documents(tmp_path / "test", [50] * 9, tokenizer=b"another")
    assert "another tokenizer than" in messages(tmp_path)


def test_sets_at_any_depth(tmp_path: Path) -> None:
    for name in ("wiki/train", "news/train", "news/test"):
        write_documents(tmp_path / "shards" / name, LENGTHS)
    (tmp_path / "shards" / "news" / "train" / "damaged").mkdir()
    shutil.copy(tmp_path / "shards" / "news" / "test" / FIRST, tmp_path / "shards" / "news" / "train" / "damaged")
    (tmp_path / "shards" / "round").symlink_to(tmp_path)
    (tmp_path / "shards" / "step-1").mkdir()
    (tmp_path / "shards" / "step-1" / MANIFEST).write_text("{}")  # a checkpoint's
    names = [str(Path(each.folder).relative_to(tmp_path / "shards")) for each in verify(tmp_path / "shards").sets]
    assert names == ["news/train", "news/test", "wiki/train"]
    flip(tmp_path / "shards" / "wiki" / "train" / SECOND, 1500)
    done = CliRunner().invoke(cli, ["verify", str(tmp_path / "shards"), "--json"])
    assert done.exit_code == 3 and [each["faults"] for each in json.loads(done.stdout)["sets"]] == [0, 0, 1]
    swap(tmp_path / "shards" / "news" / "test")
    flip(tmp_path / "shards" / "wiki" / "train" / SECOND, 1500)
    done = CliRunner().invoke(cli, ["verify", str(tmp_path / "shards"), "--repair"])
    assert done.exit_code == 0 and f"renamed to {THIRD}" in done.stdout


def test_no_shards_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no shards there"):
        verify(tmp_path)
    with pytest.raises(DataError, match="no shards there"):
        verify(tmp_path / "none")


def test_the_same_report_from_several_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(folder / FIRST, 2000)
    flip(folder / LAST, 100)
    one = verify(folder).to_dict()
    monkeypatch.setattr(verify_module, "FEW_BYTES", 0)
    two = verify(folder, processes=2).to_dict()
    assert one.pop("seconds") >= 0 and two.pop("seconds") >= 0
    assert one == two and len(one["faults"]) == 2


def test_the_command(folder: Path) -> None:
    done = CliRunner().invoke(cli, ["verify", str(folder), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"]
    flip(folder / SECOND, 1500)
    done = CliRunner().invoke(cli, ["verify", str(folder), "--json", "--processes", "1"])
    plain = json.loads(done.stdout)
    assert done.exit_code == 3 and not plain["ok"] and plain["seconds"] > 0
    assert [(fault["file"], fault["chunk"], fault["offset"]) for fault in plain["faults"]] == [
        (str(folder / SECOND), 1, 1024)
    ]
    done = CliRunner().invoke(cli, ["verify", str(folder)])
    assert isinstance(done.exception, DataError) and f"{folder / SECOND}: chunk 1 byte 1024: damaged" in done.stdout
