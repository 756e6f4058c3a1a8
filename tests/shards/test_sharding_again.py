"""A sharding that is run again: finished shards and sets are kept, and the bytes are those of one run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import store
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.errors import DataError, DiskFullError, RecipeError
from kogpt2_gluon.shards import sharding
from kogpt2_gluon.shards.sharding import shard_corpus
from kogpt2_gluon.shards.verify import verify
from kogpt2_gluon.tokens.training import train_tokenizer
from tests.helpers import ROOT, enlarge, kogpt2, small_disk
from tests.shards.test_sharding import sentences

CHUNK = 4096


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a tokenizer, and its train shards of three chunks each in ``whole``."""
    folder = tmp_path_factory.mktemp("again")
    (folder / "source.txt").write_text("\n".join(sentences(6000, 2)), encoding="utf-8")
    clean([folder / "source.txt"], folder / "corpus", "line", 0.1)
    train_tokenizer(folder / "corpus", folder / "t.model", vocab_size=3000, character_coverage=0.98)
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        manifest = shard(folder, folder / "whole")
    assert len(manifest.shards) > 8
    return folder


def small(patch: pytest.MonkeyPatch) -> None:
    """Shards of three chunks, blocks of a few documents."""
    patch.setattr(sharding, "SHARD_BYTES", 3 * CHUNK)
    patch.setattr(store, "READ_BYTES", 5000)


def shard(folder: Path, out: Path, **options: Any) -> Any:
    return shard_corpus(folder / "corpus", folder / "t.model", out, "train", chunk_bytes=CHUNK, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Stop(Exception):
    """Ends a sharding."""


def stop_after(patch: pytest.MonkeyPatch, blocks: int) -> list[int]:
    """Ends the next sharding after so many blocks; returns a list that gets one item for each block."""
    done: list[int] = []
    real = sharding._tokenized

    def tokenized(*arguments: Any) -> Any:
        for task in real(*arguments):
            if len(done) == blocks:
                raise Stop
            done.append(1)
            yield task

    patch.setattr(sharding, "_tokenized", tokenized)
    return done


@settings(max_examples=12, deadline=None)
@given(stops=st.lists(st.integers(0, 60), max_size=4))
def test_the_bytes_are_those_of_one_run_wherever_it_stops(made: Path, tmp_path_factory: Any, stops: list[int]) -> None:
    out = tmp_path_factory.mktemp("out") / "train"
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        for blocks in stops:
            with pytest.MonkeyPatch.context() as broken:
                done = stop_after(broken, blocks)
                try:
                    shard(made, out, say=said.append)
                except Stop:
                    assert len(done) == blocks and not out.exists()
                else:
                    assert len(done) <= blocks
        shard(made, out, say=said.append)
    assert contents(out) == contents(made / "whole")
    assert [path.name for path in out.parent.iterdir()] == ["train"]
    assert all(
        re.match(r"resuming after \d+ finished shards? \(\d[\d,]* documents\)|.*finished before", line) for line in said
    )


def test_what_is_finished_is_not_tokenized_again(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    with monkeypatch.context() as broken:
        stop_after(broken, 60)
        with pytest.raises(Stop):
            shard(made, tmp_path / "out")
    with monkeypatch.context() as watched:
        left = stop_after(watched, 10_000)
        shard(made, tmp_path / "out")
    with monkeypatch.context() as watched:
        everything = stop_after(watched, 10_000)
        shard(made, tmp_path / "all")
    # The finished shards of 60 blocks, less the one that was open and a few blocks at its border.
    assert len(everything) - 60 <= len(left) < len(everything) - 45


def test_a_killed_command_goes_on(made: Path, tmp_path: Path) -> None:
    """kill -9 at any time, with tokenizing processes; leftovers of the killed one are in nobody's way."""
    code = (
        "import sys; from pathlib import Path; import pytest\n"
        "from tests.shards.test_sharding_again import shard, small\n"
        "if __name__ == '__main__':\n"
        "    small(pytest.MonkeyPatch()); shard(Path(sys.argv[1]), Path(sys.argv[2]), processes=2)"
    )
    script = tmp_path / "sharding.py"
    script.write_text(code)
    kills = 0
    for wanted in (1, 3, 6):
        process = subprocess.Popen(
            [sys.executable, script, made, tmp_path / "out"], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        while process.poll() is None and len(list(tmp_path.glob("out.work/set/*.ktok"))) < wanted:
            time.sleep(0.001)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        shard(made, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(made / "whole")
    assert not (tmp_path / "out.work").exists()


@pytest.mark.parametrize("kilobytes", [8, 40, 70, 100, 130])
def test_a_full_disk_is_named_and_the_same_command_resumes(
    made: Path, tmp_path: Path, kilobytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    with small_disk(tmp_path / "disk", (kilobytes << 10) + (made / "t.model").stat().st_size) as disk:
        with pytest.raises(DiskFullError) as caught:
            shard(made, disk / "train")
        message, state = str(caught.value), disk / "train.work" / "state.json"
        kept = len(json.loads(state.read_bytes())["shards"]) if state.exists() else 0
        assert re.match(rf"{disk}/\S*: the disk is full \([\d.]+ MB free of [\d.]+ MB\); the train shards of ", message)
        assert re.search(r" need about \d\.\d MB; make room, then ", message)
        assert (f"resumes after {kept} finished shard" in message) == (kept > 0), message
        enlarge(disk, 64 << 20)
        shard(made, disk / "train")
        assert contents(disk / "train") == contents(made / "whole")


def test_a_finished_set_is_kept_and_another_one_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    said: list[str] = []
    manifest = shard(made, tmp_path / "out", say=said.append)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = shard(made, tmp_path / "out", say=said.append)
    assert again == manifest and said == [f"{tmp_path / 'out'}: finished before, and kept"]
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    corpus = made / "corpus" / "corpus.json"
    others = [{"chunk_bytes": 2 * CHUNK}, {"split": "test"}]
    for other in others:
        arguments = {"split": "train", "chunk_bytes": CHUNK, **other}
        with pytest.raises(RecipeError, match="not an empty folder"):
            shard_corpus(made / "corpus", made / "t.model", tmp_path / "out", **arguments)
    (tmp_path / "corpus").symlink_to(made / "corpus")
    assert shard_corpus(tmp_path / "corpus", made / "t.model", tmp_path / "out", "train", chunk_bytes=CHUNK) == manifest
    os.utime(corpus)  # cleaned again
    with pytest.raises(RecipeError, match="not an empty folder"):
        shard(made, tmp_path / "out")


def test_another_plan_needs_a_restart(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    with monkeypatch.context() as broken:
        stop_after(broken, 30)
        with pytest.raises(Stop):
            shard(made, tmp_path / "out")
    arguments = (made / "corpus", made / "t.model", tmp_path / "out", "train")
    with pytest.raises(
        RecipeError, match=r"out\.work: an unfinished sharding from before chunks of 8192 bytes; .*--restart"
    ):
        shard_corpus(*arguments, chunk_bytes=2 * CHUNK)
    text = next((made / "corpus" / "train").iterdir())
    os.utime(text)
    with pytest.raises(RecipeError, match=r"from before the corpus's text changed; .*--restart"):
        shard(made, tmp_path / "out")
    state = tmp_path / "out.work" / "state.json"
    shard(made, tmp_path / "out", restart=True)
    assert contents(tmp_path / "out") == contents(made / "whole") and not state.exists()


@pytest.mark.parametrize("damage", ["state", "shard", "gone"])
def test_a_damaged_work_folder_is_refused(
    made: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    with monkeypatch.context() as broken:
        stop_after(broken, 30)
        with pytest.raises(Stop):
            shard(made, tmp_path / "out")
    first = tmp_path / "out.work" / "set" / "train-00000.ktok"
    if damage == "state":
        (tmp_path / "out.work" / "state.json").write_text('{"start": {"block": "x"')
    elif damage == "shard":
        os.truncate(first, 100)
    else:
        first.unlink()
    with pytest.raises(DataError, match=r"(state\.json: damaged|train-00000\.ktok: not as it was).*--restart"):
        shard(made, tmp_path / "out")
    assert (tmp_path / "out.work" / "state.json").exists()


def test_the_command_keeps_the_split_that_is_finished(made: Path, tmp_path: Path) -> None:
    arguments = ("shard", made / "corpus", "--tokenizer", made / "t.model", "--out", tmp_path / "s", "--processes", "1")
    kogpt2(*arguments)
    whole = contents(tmp_path / "s" / "test")
    for path in (tmp_path / "s" / "test").iterdir():
        path.unlink()
    done = kogpt2(*arguments)
    assert "s/train: finished before, and kept" in done.stderr and "s/test: finished" not in done.stderr
    assert contents(tmp_path / "s" / "test") == whole
    assert verify(tmp_path / "s" / "train")
