"""Text tokenized on the fly: epochs, exact resume, and lists read again."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.reader import TextReader, open_text_reader
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import run
from tests.machine.thread_workers import on_workers
from tests.reading.text.text_reader_helpers import (
    SEQ,
    first_round,
    recipe_for,
    steps,
    stream,
    write_text,
)

pytestmark = pytest.mark.usefixtures("small_blocks", "no_thread_is_left")


# Several workers, epochs, resume.


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_document_comes_in_every_epoch(tmp_path: Path, model: Path, tokenizer: Tokenizer, size: int) -> None:
    write_text(tmp_path / "text", 7)
    recipe = recipe_for(model, tmp_path / "text", size)

    def two_epochs(worker: Any) -> Any:
        with open_text_reader(recipe, worker) as reader:
            first = steps(reader, worker, 0, until_epoch=1)
            second = steps(reader, worker, 0, until_epoch=2)
            return first, second, reader.files, reader.describe(10**6)

    results = on_workers(size, two_epochs)
    files = results[0][2]
    shares = files.deal(size)
    finished_early = 0
    for epoch in (0, 1):
        heard = [result[epoch][1] for result in results]
        assert all(each == heard[0] for each in heard)  # the same words at the same step on every worker
        assert [line[2] for line in heard[0]] == [False] * (len(heard[0]) - 1) + [True]
        for rank, result in enumerate(results):
            opened = stream([files.sources[index] for index in shares[rank]], tokenizer, key=(5, epoch, rank))
            expected = Counter(tuple(row) for block in first_round(opened) for row in block.rows.tolist())
            got = [tuple(row) for update in result[epoch][0] for row in update.reshape(-1, SEQ + 1).tolist()]
            assert result[epoch][0][0].shape == (2, 3, SEQ + 1) and result[epoch][0][0].dtype == np.int32
            assert not expected - Counter(got)
            count = sum(expected.values())
            assert Counter(got[:count]) == expected  # the first round is a whole one
            finished_early += len(got) >= count + 6
    epochs = [line[1] for line in results[0][0][1]]
    assert epochs == sorted(epochs) and epochs[-1] == 1 and len(set(epochs)) > 0.8 * len(epochs)
    assert (finished_early > 0) == (size > 1)  # otherwise nobody went round again, and this proves too little
    lines = [line for _, _, _, told in results[0][0][1] for line in told]
    total = sum(len(Path(source.name).read_text().splitlines()) for source in files.sources)
    assert lines == [f"epoch 1: {total:,} documents of 7 text files; nothing left out"]
    assert "7 text files" in results[0][3]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    stop=st.integers(0, 60),
    size=st.sampled_from([1, 2]),
    dropout=st.sampled_from([0.0, 0.25]),
    refresh=st.sampled_from(["never", "epoch"]),
)
def test_resume_is_exact_wherever_it_stops(model: Path, stop: int, size: int, dropout: float, refresh: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder), 4, seed=3, largest=24)
        (Path(folder) / "wiki_news_corpus_00").open("ab").write(b"\xff\n" * 5)
        recipe = recipe_for(model, Path(folder), size, bpe_dropout=dropout, refresh=refresh)

        def unbroken(worker: Any) -> Any:
            with open_text_reader(recipe, worker) as reader:
                before = steps(reader, worker, stop)[1] if stop else []
                reader.gather(worker)
                saved = json.dumps(reader.state())
                updates, heard = steps(reader, worker, 40)
                return saved, updates, heard, before

        def resumed(worker: Any) -> Any:
            with open_text_reader(recipe, worker, json.loads(saved)) as reader:
                reader.gather(worker)
                assert json.dumps(reader.state()) == saved
                return steps(reader, worker, 40)

        first = on_workers(size, unbroken)
        saved = first[0][0]
        for (_, updates, heard, _), (updates_again, heard_again) in zip(first, on_workers(size, resumed)):
            assert heard_again == heard and any(entry[2] for entry in heard)  # 40 updates are more than an epoch
            assert len(updates) == len(updates_again) == 40
            assert all(np.array_equal(one, other) for one, other in zip(updates, updates_again))
        before = first[0][3]
        assert json.loads(saved)["epoch_ended"] == (bool(before) and before[-1][2])


def test_the_state_is_small_and_gathering_is_not_forgotten(tmp_path: Path, model: Path) -> None:
    write_text(tmp_path / "text", 64, largest=4)
    recipe = recipe_for(model, tmp_path / "text", 2, refresh="epoch")

    def job(worker: Any) -> Any:
        with open_text_reader(recipe, worker) as reader:
            for epoch in range(12):
                steps(reader, worker, 0, until_epoch=epoch + 1)
            with pytest.raises(AssertionError, match="gather"):
                reader.state()
            reader.gather(worker)
            state = reader.state()
            fingerprint = reader.fingerprint
        del state["files"]  # a name, a size and a time of change each
        return len(json.dumps(state)), state["history"], fingerprint

    (size, history, fingerprint), _ = on_workers(2, job)
    assert size < 2000 and len(history) == 8 and [entry[0] for entry in history] == list(range(5, 13))
    assert len(fingerprint) == 32


# Lists read again.


@pytest.mark.parametrize("refresh", ["never", "epoch"])
def test_files_come_and_go_at_the_epochs_border(tmp_path: Path, model: Path, refresh: str) -> None:
    folder = tmp_path / "text"
    write_text(folder, 3)
    names = [path.name for path in sorted(folder.iterdir())]
    recipe = recipe_for(model, folder, refresh=refresh)

    def listed(reader: TextReader) -> list[str]:
        return [Path(source.name).name for source in reader.files.sources]

    with open_text_reader(recipe, Worker()) as reader:
        steps(reader, Worker(), 2)
        (folder / "later").write_text("새 글\n" * 50, encoding="utf-8")  # "new text"
        _, heard = steps(reader, Worker(), 0, until_epoch=1)
        assert heard[-1][3][0].endswith(" of 3 text files; nothing left out")
        if refresh == "never":
            assert listed(reader) == names and len(heard[-1][3]) == 1
            return
        assert listed(reader) == ["later", *names]
        assert heard[-1][3][1:] == ["epoch 2: 1 added; now 4 text files"]
        steps(reader, Worker(), 0, until_epoch=2)
        history = reader.state()["history"]
        assert [entry[2] for entry in history] == [3, 4, 4]
        assert history[0][1] != history[1][1] == history[2][1]


def test_every_worker_gets_the_new_list(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "text"
    write_text(folder, 4)
    recipe = recipe_for(model, folder, 2, refresh="epoch")

    def job(worker: Any) -> Any:
        with open_text_reader(recipe, worker) as reader:
            if worker.rank == 0:
                (folder / "new").write_text("새 글\n" * 80, encoding="utf-8")
            steps(reader, worker, 0, until_epoch=1)
            return reader.files.to_state(), sorted(source.name for source in reader._mine)

    (files, mine), (files_too, others) = on_workers(2, job)
    assert files == files_too and len(files) == 5
    assert sorted(mine + others) == [name for name, _, _ in files]


@pytest.mark.parametrize("change", ["added", "gone", "changed", "touched"])
def test_resume_checks_the_files_of_its_epoch(tmp_path: Path, model: Path, change: str) -> None:
    folder = tmp_path / "text"
    write_text(folder, 3)
    recipe = recipe_for(model, folder, refresh="epoch")
    with open_text_reader(recipe, Worker()) as reader:
        steps(reader, Worker(), 3)
        saved = reader.state()
        expected, _ = steps(reader, Worker(), 3)
    path = folder / "wiki_news_corpus_01"
    if change == "added":
        (folder / "later").write_text("새 글\n", encoding="utf-8")
        with open_text_reader(recipe, Worker(), saved) as reader:
            assert len(reader.files.sources) == 3
            assert np.array_equal(steps(reader, Worker(), 3)[0], expected)
            _, heard = steps(reader, Worker(), 0, until_epoch=1)
            assert "1 added" in heard[-1][3][1]
        return
    if change == "gone":
        path.unlink()
    elif change == "changed":
        path.write_text("다른 글\n", encoding="utf-8")
    else:
        os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=f"{path}: {'is gone' if change == 'gone' else 'has changed'}"):
        open_text_reader(recipe, Worker(), saved)


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_file_that_vanishes_or_changes_in_mid_epoch_is_named(tmp_path: Path, model: Path, change: str) -> None:
    folder = tmp_path / "text"
    write_text(folder, 6)
    with open_text_reader(recipe_for(model, folder), Worker()) as reader:
        steps(reader, Worker(), 1)
        last = Path(reader._stream.file_order(0)[-1].name)
        if change == "gone":
            last.unlink()
        else:
            last.write_text("다른 글\n", encoding="utf-8")
        wanted = "gone or unreadable" if change == "gone" else "changed since this epoch began"
        with pytest.raises(DataError, match=f"{last}: {wanted}"):
            steps(reader, Worker(), 0, until_epoch=1)
        with pytest.raises(DataError, match=str(last)):  # and again, rather than wait for ever
            next(iter(reader))


def test_a_list_of_folders_is_read_as_one(tmp_path: Path, model: Path) -> None:
    write_text(tmp_path / "a", 2, seed=1)
    write_text(tmp_path / "b", 3, seed=2)
    recipe = recipe_for(model, tmp_path)
    recipe.data.train = [str(tmp_path / "a"), str(tmp_path / "b")]
    with open_text_reader(recipe, Worker()) as reader:
        assert len(reader.files.sources) == 5


def test_reading_after_close_is_a_bug(tmp_path: Path, model: Path) -> None:
    write_text(tmp_path / "text", 1)
    reader = open_text_reader(recipe_for(model, tmp_path / "text"), Worker())
    reader.close()
    with pytest.raises(AssertionError, match="after close"):
        next(iter(reader))


HOROVOD = """
import json, sys
import numpy as np
from kogpt2_gluon.reading.text.reader import open_text_reader
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training.worker import start_worker

recipe, count, saved, out = load_recipe(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
worker = start_worker()
with open_text_reader(recipe, worker, json.load(open(saved)) if saved else None) as reader:
    rows, heard = [], []
    for update in reader:
        rows.append(update.tolist())
        heard.append(reader.agree(worker.sum(reader.notices()), worker))
        if len(rows) == count:
            break
    reader.gather(worker)
    if worker.rank == 0:
        json.dump(reader.state(), open(out + ".state", "w"))
json.dump([rows, heard], open(f"{out}.{worker.rank}", "w"))
"""


@pytest.mark.slow
def test_horovod_workers_resume_exactly(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "text"
    write_text(folder, 5)
    (tmp_path / "script.py").write_text(HOROVOD)
    recipe = recipe_for(model, folder, 2, refresh="epoch", bpe_dropout=0.1)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    horovodrun = Path(sys.executable).with_name("horovodrun")

    def job(count: int, saved: str, out: str) -> list[Any]:
        script = [sys.executable, tmp_path / "script.py", tmp_path / "recipe.yaml", count, saved, tmp_path / out]
        run(horovodrun, "--gloo", "-np", 2, *script)
        return [json.loads((tmp_path / f"{out}.{rank}").read_text()) for rank in (0, 1)]

    straight = job(36, "", "straight")
    assert straight[0][1] == straight[1][1] and any(straight[0][1])
    first = job(13, "", "first")
    second = job(23, str(tmp_path / "first.state"), "second")
    for rank in (0, 1):
        assert [one + two for one, two in zip(first[rank], second[rank])] == straight[rank]
    assert (tmp_path / "second.state").read_text() == (tmp_path / "straight.state").read_text()
