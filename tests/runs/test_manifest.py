"""A checkpoint's manifest: what it says is compared with the files, and one that says something else is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DamagedError, DataError
from kogpt2_gluon.runs import manifest as manifest_module
from kogpt2_gluon.runs.checkpoint import newest_checkpoint, open_checkpoint
from kogpt2_gluon.runs.manifest import FileFacts, digest_as_written
from kogpt2_gluon.storage.params_file import write_params
from tests.runs.checkpoint_helpers import FILES, check_whole, save
from tests.shards.shard_helpers import flip as flip_at


def drop(name: str) -> Callable[[dict], None]:
    return lambda manifest: manifest["files"].pop(name)


@pytest.mark.parametrize(
    "change",
    [
        *(drop(name) for name in FILES),
        lambda manifest: manifest["files"].update({"../x": {"bytes": 1, "xxh3_128": ""}}),
        lambda manifest: manifest["files"].update({"..": {"bytes": 1, "xxh3_128": ""}}),
        lambda manifest: manifest.update(files=[]),
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.update(format_version=3),
        lambda manifest: manifest.pop("block_bytes"),
        lambda manifest: manifest.update(block_bytes=-1),
        lambda manifest: manifest.update(block_bytes="16"),
        lambda manifest: manifest["files"]["state.json"].pop("bytes"),
        lambda manifest: manifest["files"]["state.json"].update(bytes=10**30),
        lambda manifest: manifest["files"]["state.json"].update(bytes=True),
        lambda manifest: manifest["files"]["state.json"]["xxh3_128"].append(""),
        lambda manifest: manifest["files"]["state.json"].update(xxh3_128=[1]),
    ],
)
def test_a_manifest_of_something_else(ckpt_dir: Path, change: Callable[[dict], None]) -> None:
    path = save(ckpt_dir, 10) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        newest_checkpoint(ckpt_dir)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", "{}"])
def test_a_manifest_that_is_none(ckpt_dir: Path, text: Any) -> None:
    save(ckpt_dir, 10)
    path = save(ckpt_dir, 20) / "manifest.json"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(DamagedError) as caught:
        open_checkpoint(ckpt_dir)
    assert str(path) in str(caught.value)
    check_whole(newest_checkpoint(ckpt_dir), 10)


def test_a_checkpoint_of_format_version_1(ckpt_dir: Path) -> None:
    """One hash for each file, and the tied matrix twice."""
    found = open_checkpoint(save(ckpt_dir, 10))
    write_params(found.model_path, dict(found.model_arrays()))
    files = {
        file.name: {"bytes": file.stat().st_size, "xxh3_128": xxhash.xxh3_128_hexdigest(file.read_bytes())}
        for file in sorted(found.path.iterdir())
        if file.name != "manifest.json"
    }
    manifest = {"format_version": 1, "files": files}
    (found.path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    check_whole(newest_checkpoint(ckpt_dir), 10)
    flip_at(found.model_path, 100)
    with pytest.raises(DataError, match=r"model\.params: missing, truncated or damaged"):
        newest_checkpoint(ckpt_dir)


def test_a_flipped_byte_in_any_block_is_found(tmp_path: Path, monkeypatch) -> None:
    """Files of several blocks, checked by several threads; sizes at, above and below the edge of a block."""
    monkeypatch.setattr(manifest_module, "BLOCK_BYTES", 1000)
    for size in (0, 1, 999, 1000, 1001, 3000, 4500):
        folder = tmp_path / str(size)
        folder.mkdir()
        files, content = manifest_module.ManifestWriter(folder), np.random.RandomState(size).bytes(size)
        with files.open("f") as file:
            for at in range(0, size, 700):
                file.write(content[at : at + 700])
        files.close()
        facts = manifest_module.read_manifest(folder)["f"]
        assert (folder / "f").read_bytes() == content and len(facts.hashes) == max(1, -(-size // 1000))
        assert manifest_module.same_as_written(folder / "f", facts)
        for at in {0, size // 2, size - 1} if size else ():
            flip_at(folder / "f", at)
            assert not manifest_module.same_as_written(folder / "f", facts)
            flip_at(folder / "f", at)
        (folder / "f").write_bytes(content + b"x")
        assert not manifest_module.same_as_written(folder / "f", facts)


def test_parts_are_read_on_the_way_and_every_byte_once(tmp_path: Path, monkeypatch) -> None:
    """Parts of any size and place: within a block, over several, next to each other, none; pieces smaller than both."""
    monkeypatch.setattr(manifest_module, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(manifest_module, "PIECE_BYTES", 64)
    draw = np.random.default_rng(1)
    content = draw.bytes(5432)
    files = manifest_module.ManifestWriter(tmp_path)
    files.write("f", content)
    files.close()
    whole = manifest_module.read_manifest(tmp_path)["f"]
    read: list[int] = []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[Any], offset: int) -> int:
        short = [buffers[0][: draw.integers(1, 65)]]  # a file system may give less than was asked for
        read.append(preadv(descriptor, short, offset))
        return read[-1]

    monkeypatch.setattr(manifest_module.os, "preadv", counted)
    one_hash = manifest_module.FileFacts(5432, [xxhash.xxh3_128_hexdigest(content)], 0)
    for facts in (whole, one_hash):
        for count in (0, 1, 2, 3, 8, 40):
            edges = sorted(draw.choice(5433, 2 * count, replace=False).tolist())
            if count == 3:
                edges = [0, 1000, 1000, 3000, 3000, 5432]  # all of it, at the edges of blocks
            pairs = list(zip(edges[::2], edges[1::2]))
            memory = [bytearray(end - start) for start, end in pairs]
            read.clear()
            parts = [(start, memoryview(each)) for (start, _), each in zip(pairs, memory)]
            assert manifest_module.read_as_written(tmp_path / "f", facts, parts)
            assert [bytes(each) for each in memory] == [content[start:end] for start, end in pairs]
            assert sum(read) == len(content)
    flip_at(tmp_path / "f", 4321)
    assert not manifest_module.read_as_written(tmp_path / "f", whole, [])
    assert not manifest_module.read_as_written(tmp_path / "f", whole, [(0, memoryview(bytearray(10)))])


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=70), block_bytes=st.sampled_from([0, 1, 7, 32, 64, 100]), data=st.data())
def test_the_hash_of_a_whole_file_is_made_while_its_blocks_are_compared(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, block_bytes: int, data: st.DataObject
) -> None:
    path, digest = tmp_path_factory.mktemp("file") / "a", xxhash.xxh3_128_hexdigest
    length = block_bytes or max(1, len(content))
    blocks = [content[start : start + length] for start in range(0, max(1, len(content)), length)]
    facts = FileFacts(len(content), [digest(block) for block in blocks], block_bytes)
    path.write_bytes(content)
    assert digest_as_written(path, facts) == digest(content)
    path.write_bytes(content + b"x")
    assert digest_as_written(path, facts) == ""
    if content:
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:at])
        assert digest_as_written(path, facts) == ""
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert digest_as_written(path, facts) == ""
    path.unlink()
    assert digest_as_written(path, facts) == ""


def test_a_verified_fingerprint_reads_the_network_once(ckpt_dir: Path) -> None:
    found = open_checkpoint(save(ckpt_dir, 10))
    write_with_manifest(found.path, found.model_name, bytes(3 << 20))
    found = open_checkpoint(found.path)
    before = bytes_read()
    assert found.verified_fingerprint() == xxhash.xxh3_128_hexdigest(bytes(3 << 20))
    assert bytes_read() - before < 4 << 20
    flip_at(found.model_path, 2 << 20)
    with pytest.raises(DamagedError, match=r"model\.params: missing, truncated or damaged"):
        found.verified_fingerprint()


def bytes_read() -> int:
    """Bytes that this process has asked the kernel for so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def write_with_manifest(folder: Path, name: str, content: bytes) -> None:
    """Replaces a file of a checkpoint by another one, as if it had been saved so."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (folder / name).write_bytes(content)
    manifest["files"][name] = {"bytes": len(content), "xxh3_128": [xxhash.xxh3_128_hexdigest(content)]}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
