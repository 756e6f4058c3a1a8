"""Repair: a usable set of the shards that are whole, nothing deleted, every loss reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.format import MANIFEST, TOKENIZER, Manifest, ShardWriter
from kogpt2_gluon.shards.repair import repair_set
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.verify import verify
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.shards.shard_helpers import edit_manifest, flip, parts_of, read_back, reseal, write_documents
from tests.shards.verify_helpers import FIRST, LAST, LENGTHS, SECOND, THIRD, swap


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    write_documents(tmp_path / "set", LENGTHS)
    return tmp_path / "set"


def test_repair_restores_special_ids(folder: Path) -> None:
    before = Manifest.load(folder)
    edit_manifest(folder, lambda plain: plain["special_ids"].update(eos=9), sign=True)
    repaired(folder)
    assert Manifest.load(folder) == before


def test_a_repair_is_reported_though_the_next_set_is_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_documents(tmp_path / name, LENGTHS)
    swap(tmp_path / "train")
    for path in (tmp_path / "test").glob("*.ktok"):
        flip(path, 5)
    done = CliRunner().invoke(cli, ["verify", str(tmp_path), "--repair"])
    assert isinstance(done.exception, DataError) and f"renamed to {THIRD}" in done.stdout


def test_the_command_repairs(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards / "train", tmp_path / "train")
    with ShardSet(tmp_path / "train") as before:
        count, tokens = before.num_shards, before.manifest.tokens
    assert count == 1
    (tmp_path / "train" / MANIFEST).write_text("{", encoding="utf-8")
    done = CliRunner().invoke(cli, ["verify", str(tmp_path), "--json", "--repair"])
    plain = json.loads(done.stdout)
    assert done.exit_code == 0 and plain["ok"] and not plain["before"]["ok"] and plain["tokens"] == tokens
    assert plain["repaired"][0]["actions"]


def test_a_set_that_cannot_be_repaired_is_reported(tmp_path: Path) -> None:
    write_documents(tmp_path / "set", [100] * 20)  # one shard of 4 chunks
    flip(tmp_path / "set" / FIRST, 1500)
    for options in ([], ["--repair"]):
        done = CliRunner().invoke(cli, ["verify", str(tmp_path / "set"), *options])
        assert isinstance(done.exception, DataError)
        assert ": 1 fault; " in str(done.exception) and "data.corrupt=skip trains" in str(done.exception)
        assert "--repair" not in str(done.exception)
    plain = json.loads(CliRunner().invoke(cli, ["verify", str(tmp_path / "set"), "--json", "--repair"]).stdout)
    assert not plain["ok"] and len(plain["refused"]) == 1
    assert (tmp_path / "set" / FIRST).exists()


def test_a_wrong_tokenizer_is_never_written_down(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    write_documents(folder, LENGTHS)
    (folder / TOKENIZER).write_bytes(b"another")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = CliRunner().invoke(cli, ["verify", str(folder), "--repair"])
    assert isinstance(done.exception, DataError) and "put the right file back" in str(done.exception)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write_documents(tmp_path / "test", [50] * 9)
    assert f"copied from {tmp_path / 'test' / TOKENIZER}" in repaired(folder)
    assert (folder / "damaged" / TOKENIZER).read_bytes() == b"another"
    assert (folder / MANIFEST).read_bytes() == before[MANIFEST]


def test_a_set_of_another_tokenizer_is_beyond_repair(tmp_path: Path) -> None:
    write_documents(tmp_path / "train", LENGTHS)
    write_documents(tmp_path / "test", [50] * 9, tokenizer=b"another")
    before = (tmp_path / "test" / MANIFEST).stat().st_mtime_ns
    done = CliRunner().invoke(cli, ["verify", str(tmp_path), "--repair"])
    assert isinstance(done.exception, DataError) and "no repair can fix that" in str(done.exception)
    assert (tmp_path / "test" / MANIFEST).stat().st_mtime_ns == before


def repaired(folder: Path) -> str:
    """Repairs, checks that the result has no faults and loads, and returns the lines that were printed."""
    report = verify(folder)
    assert report.faults
    (done,) = [repair_set(each) for each in report.sets if each.faults]
    assert verify(folder).faults == []
    with ShardSet(folder) as shards:
        assert len(read_back(shards)) == shards.manifest.tokens
    return "\n".join(done.lines())


def without_text(tokens: np.ndarray, *lost: int) -> np.ndarray:
    return np.concatenate([tokens[start * 4096 : (start + 1) * 4096] for start in range(4) if start not in lost])


def test_swapped_names_are_given_back(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    swap(folder)
    said = repaired(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert f"{FIRST}: renamed to {THIRD}" in said and "lost" not in said


def test_an_interrupted_repair_goes_on(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / FIRST).rename(folder / f"renaming-{THIRD}")
    (folder / THIRD).rename(folder / FIRST)
    (folder / f"renaming-{THIRD}").rename(folder / "renaming-x.ktok")
    repaired(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_stray_shard_is_moved_aside(folder: Path) -> None:
    before = Manifest.load(folder)
    shutil.copy(folder / FIRST, folder / "copy.ktok")
    said = repaired(folder)
    assert (folder / "damaged" / "copy.ktok").is_file() and "copy.ktok: moved to damaged/copy.ktok" in said
    assert Manifest.load(folder) == before


@pytest.fixture()
def real(shards: Path, tmp_path: Path) -> Path:
    """The package's own sentences with their tokenizer, in shards of two chunks, without unknown tokens."""
    folder = tmp_path / "real"
    folder.mkdir()
    shutil.copy(shards / "train" / TOKENIZER, folder / TOKENIZER)
    with ShardSet(shards / "train") as opened:
        tokens, old = read_back(opened), opened.manifest
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    documents = np.split(tokens, np.flatnonzero(tokens == tokenizer.eos_id) + 1)[:-1]
    documents = [document for document in documents if tokenizer.unk_id not in document]
    texts = [tokenizer.decode(document) for document in documents]
    manifest = Manifest(
        "train", old.dtype, old.chunk_bytes, old.vocab_size, old.tokenizer_sha256, old.special_ids, "a corpus"
    )
    manifest.text_bytes = sum(len(text.encode()) for text in texts)
    manifest.words = sum(len(text.split()) for text in texts)
    with ShardWriter(folder, manifest, 2 * old.chunk_bytes) as writer:
        writer.add(np.concatenate(documents), [len(document) for document in documents])
        writer.finish()
    assert len(manifest.shards) > 6
    return folder


def test_a_lost_manifest_is_counted_again(real: Path) -> None:
    before = Manifest.load(real)
    assert before.unknown == 0 and before.text_bytes > 100_000
    (real / MANIFEST).unlink()
    said = repaired(real)
    after = Manifest.load(real)
    assert after.source == "unknown; repaired: the old manifest lost" and "counted" in said
    after.source = before.source
    assert after == before


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("lost", [0, 2, -1])
def test_a_lost_shard(real: Path, lost: int, manifest: bool) -> None:
    before = Manifest.load(real)
    with ShardSet(real) as shards:
        tokens = read_back(shards)
    info = before.shards[lost]
    flip(real / info.name, 4096)
    if not manifest:
        (real / MANIFEST).unlink()
    said = repaired(real)
    after = Manifest.load(real)
    start = sum(each.tokens for each in before.shards[: lost % len(before.shards)])
    with ShardSet(real) as shards:
        left = np.concatenate([tokens[:start], tokens[start + info.tokens :]])
        assert np.array_equal(read_back(shards), left)
    assert after.documents == before.documents - info.documents
    assert (real / "damaged" / info.name).is_file() and f"lost {info.name}" in said
    assert info.name in after.source and "repaired" in after.source
    share = after.tokens / before.tokens
    assert after.text_bytes == pytest.approx(before.text_bytes * share, rel=0.05)
    assert after.words == pytest.approx(before.words * share, rel=0.05)
    report = verify(real)
    assert all("repaired" in note for note in report.notes)
    assert report.notes or lost == 2  # in the middle, a document may run on where another one did
    # Where it is not known that a shard was lost, the cut is a fault.
    edit_manifest(real, lambda plain: plain.update(source="a corpus"), sign=True)
    assert len(verify(real).faults) == len(report.notes)


def test_repair_without_the_tokenizer_changes_nothing(folder: Path) -> None:
    flip(folder / SECOND, 5)
    (folder / TOKENIZER).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (report,) = verify(folder).sets
    with pytest.raises(DataError, match="put the right file back, and repair again"):
        repair_set(report)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_repair_with_nothing_left(folder: Path) -> None:
    for path in folder.glob("*.ktok"):
        flip(path, 5)
    (report,) = verify(folder).sets
    with pytest.raises(DataError, match="no whole shard is left"):
        repair_set(report)
    assert len(list(folder.glob("*.ktok"))) == 4


def test_repair_refuses_shards_that_cannot_follow_one_another(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / LAST).rename(folder / "a-00000.ktok")
    (report,) = verify(folder).sets
    with pytest.raises(DataError, match=r"a-00000\.ktok ends within a chunk"):
        repair_set(report)


def test_repair_prefers_the_set_that_has_most_tokens(real: Path, tmp_path: Path) -> None:
    write_documents(tmp_path / "other", [100] * 20, chunk_bytes=4096)
    shutil.copy(tmp_path / "other" / FIRST, real / "train-00099.ktok")
    before = Manifest.load(real)
    (real / MANIFEST).unlink()
    repaired(real)
    assert (real / "damaged" / "train-00099.ktok").is_file()
    assert Manifest.load(real).shards == before.shards


def test_numbers_tell_which_shards_are_gone(real: Path) -> None:
    (real / SECOND).unlink()
    (real / MANIFEST).unlink()
    assert f"lost {SECOND}" in repaired(real)


def test_damaged_files_of_the_same_name_are_all_kept(real: Path) -> None:
    saved = (real / SECOND).read_bytes()
    for number in range(2):
        (real / SECOND).write_bytes(saved)
        flip(real / SECOND, number)
        repaired(real)
    names = sorted(path.name for path in (real / "damaged").iterdir())
    assert names == [SECOND, f"{SECOND}.2"]


def test_unknown_tokens_count_as_a_syllable(real: Path) -> None:
    before = Manifest.load(real)

    def change(_: dict, ends: np.ndarray, payload: bytearray) -> None:
        tokens = np.frombuffer(payload, "<u2")
        inside = np.setdiff1d(np.arange(10, 400), [*ends.tolist(), *(ends - 1).tolist()])
        tokens[inside[::7]] = 0
        payload[:] = tokens.tobytes()

    reseal(real / FIRST, change)
    (real / MANIFEST).unlink()
    assert "with a Hangul syllable for each of" in repaired(real)
    after = Manifest.load(real)
    assert after.unknown > 20 and after.tokens == before.tokens
    assert after.text_bytes == pytest.approx(before.text_bytes, rel=0.01)


def test_shards_are_never_changed(real: Path) -> None:
    before = {path.name: parts_of(path)[3] for path in real.glob("*.ktok")}
    flip(real / SECOND, 9)
    repaired(real)
    after = {path.name: parts_of(path)[3] for path in real.glob("*.ktok")}
    assert after == {name: payload for name, payload in before.items() if name != SECOND}
