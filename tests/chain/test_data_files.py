"""Fingerprints of data: they change with what its reader reads, and with nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.chain import data_files
from kogpt2_gluon.chain.chain_file import load_chain
from kogpt2_gluon.chain.data_files import Data
from kogpt2_gluon.chain.stages import data_of
from kogpt2_gluon.corpus.sources import choose_sources
from kogpt2_gluon.errors import DataError
from tests.storage.s3_helpers import no_account

SETTINGS = "tracking.sample_prompts: []"


def fingerprint(path: object, *, known=None, **rules) -> str:
    return Data(str(path), **rules).fingerprint({} if known is None else known)


def test_a_linked_folder_is_entered_once_and_hidden_names_are_not(tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir(), other.mkdir()
    (data / "a.txt").write_text("a")
    (other / "b.txt").write_text("b")
    alone = fingerprint(data)
    (data / "linked").symlink_to(other)
    before = fingerprint(data)
    assert before != alone
    (other / "up").symlink_to(data)  # back up
    assert fingerprint(data) == before
    for name in (".DS_Store", "_SUCCESS", "linked/.hidden", "empty.txt"):
        (data / name).write_text("" if name == "empty.txt" else "x")
    (data / "__MACOSX").mkdir()
    (data / "__MACOSX" / "a.txt").write_text("x")
    assert fingerprint(data) == before
    (other / "b.txt").write_text("c")
    assert fingerprint(data) != before


PATHS = ["a.txt", "b.csv", ".h.txt", "_s.txt", "sub/a.txt", "sub/b.csv", "_sub/a.txt", "linked/a.txt"]
TREES = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([b"", b"x", b"y", b"xy"]), min_size=1)


def read_by_the_reader(folder: Path, include: list[str]) -> dict[str, bytes]:
    try:
        sources = choose_sources([folder], include).sources
    except DataError:  # nothing is left to read
        return {}
    return {os.path.relpath(source.name, folder): Path(source.name).read_bytes() for source in sources}


@settings(max_examples=60, deadline=None)
@given(TREES, TREES, st.sampled_from([[], ["*.txt"]]))
def test_it_changes_exactly_with_what_the_reader_reads(one, other, include):
    with tempfile.TemporaryDirectory() as work:
        folders = [Path(work) / "one", Path(work) / "other"]
        for folder, tree in zip(folders, (one, other)):
            away = folder.with_name(f"{folder.name}-away")
            for each in (folder / "sub", folder / "_sub", away):
                each.mkdir(parents=True)
            (folder / "linked").symlink_to(away)
            for name, content in tree.items():
                (folder / name).write_bytes(content)
        assume(all(read_by_the_reader(folder, []) for folder in folders))
        are_same = read_by_the_reader(folders[0], include) == read_by_the_reader(folders[1], include)
        assert (fingerprint(folders[0], include=include) == fingerprint(folders[1], include=include)) == are_same


def test_patterns_of_text_choose_and_one_of_several_sets_may_have_none(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    before = fingerprint(tmp_path, include=["*.txt"])
    (tmp_path / "b.csv").write_text("b")
    assert fingerprint(tmp_path, include=["*.txt"]) == before != fingerprint(tmp_path)
    assert fingerprint(tmp_path, exclude=["*.csv"]) == before
    assert fingerprint(tmp_path, include=["*.jsonl"])
    with pytest.raises(DataError, match="no such file or folder"):
        fingerprint(tmp_path / "nowhere", include=["*.txt"])


def test_a_large_file_counts_by_its_content_and_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "SLOW_BYTES", 10)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("long enough a text")
    hour_ago = time.time() - 3600
    os.utime(tmp_path / "one" / "a.txt", (hour_ago, hour_ago))
    known: dict[str, list[str]] = {}
    before = fingerprint(tmp_path / "one", known=known)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "a.txt").touch()
    assert fingerprint(tmp_path / "two", known=known) == before
    assert list(known) == [str(tmp_path / "one")]  # the other one has just been changed, and may change again
    known[str(tmp_path / "one")][1] = "as it was"
    assert fingerprint(tmp_path / "one", known=known) == "as it was"
    with (tmp_path / "one" / "a.txt").open("r+") as file:
        file.write("L")
    os.utime(tmp_path / "one" / "a.txt", (hour_ago, hour_ago))
    assert fingerprint(tmp_path / "one", known=known) not in (before, "as it was")


def test_an_object_of_s3_that_was_replaced_is_another_and_a_copy_of_the_prefix_is_not(tmp_path, monkeypatch):
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    with no_account(monkeypatch, tmp_path), moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="texts")
        for key in ("raw/a.txt", "raw/b/c.txt", "raw/_SUCCESS", "copy/a.txt", "copy/b/c.txt"):
            client.put_object(Bucket="texts", Key=key, Body=b"text")
        before = fingerprint("s3://texts/raw")
        assert fingerprint("s3://texts/copy/") == before == fingerprint("s3:/texts/raw")
        client.put_object(Bucket="texts", Key="raw/b/c.txt", Body=b"next")
        assert fingerprint("s3://texts/raw") != before
        with pytest.raises(DataError):
            fingerprint("s3://texts/nothing")


def inputs_of_stage(tmp_path, content: str) -> dict[str, Data]:
    path = tmp_path / "chain.yaml"
    path.write_text(f"stages: {{one: {content}}}\n")
    chain = load_chain(str(path))
    return data_of(chain, chain.stages[0])


def test_a_task_counts_with_files_that_it_names_though_they_are_hidden(tmp_path):
    folder, task = tmp_path / "data", tmp_path / "task.yaml"
    folder.mkdir()
    for name in ("_train.tsv", "test.tsv"):
        (folder / name).write_text("text\tlabel\na\tx\n")
    task.write_text("name: own\nlabels: [x, y]\nfiles: {train: _train.tsv, test: test.tsv}\n")
    data = inputs_of_stage(tmp_path, f"{{finetune: x, task: {task}, data: {folder}}}")
    assert list(data) == ["task.data", "task.name"]
    before = data["task.data"].fingerprint({})
    (folder / "_train.tsv").write_text("text\tlabel\na\ty\n")
    assert data["task.data"].fingerprint({}) != before


def test_text_counts_as_its_stage_reads_it(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "manifest.json").write_text("{}")  # a name that means nothing among texts
    text = f"data: {{source: text, train: {tmp_path / 'raw'}, tokenizer: t, include: ['*.txt'], test: ''"
    never = inputs_of_stage(tmp_path, f"{{train: demo, settings: {{{text}}}, {SETTINGS}}}}}")
    assert never["data.train"] == Data(str(tmp_path / "raw"), False, ["*.txt"], [])
    grows = inputs_of_stage(tmp_path, f"{{train: demo, settings: {{{text}, refresh: epoch}}, {SETTINGS}}}}}")
    assert "data.train" not in grows and "data.tokenizer" in grows  # the run itself looks after text that may grow
