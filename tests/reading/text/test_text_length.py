"""Text on the fly, resumed with another sequence length or batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.reader import check_text_reader, open_text_reader
from kogpt2_gluon.recipe import Recipe
from tests.machine.thread_workers import on_workers
from tests.reading.text.text_reader_helpers import SEQ, recipe_for, steps, write_text

pytestmark = pytest.mark.usefixtures("small_blocks", "no_thread_is_left")

LENGTH = "data.seq_length"


def state_after(recipe: Recipe, count: int, size: int = 1) -> Any:
    def work(worker: Any) -> Any:
        with open_text_reader(recipe, worker) as reader:
            steps(reader, worker, count)
            reader.gather(worker)
            return reader.state(), reader.epoch

    return on_workers(size, work)[0]


def go_on(recipe: Recipe, saved: Any, changed: Mapping[str, Any], count: int, size: int = 1) -> list[Any]:
    """Returns for each worker its updates, what it heard, its notes, epochs before the first update, its state."""

    def work(worker: Any) -> Any:
        with open_text_reader(recipe, worker, json.loads(json.dumps(saved)), "runs/a/step-1", changed) as reader:
            epoch = reader.epoch
            updates, heard = steps(reader, worker, count)
            reader.gather(worker)
            return updates, heard, reader.notes, epoch, reader.state()

    return on_workers(size, work)


@pytest.mark.parametrize("size", [1, 2])
def test_another_length_ends_the_epoch_and_begins_a_whole_one(tmp_path: Path, model: Path, size: int) -> None:
    texts = write_text(tmp_path / "text", 5)
    before = recipe_for(model, tmp_path / "text", size)
    now = recipe_for(model, tmp_path / "text", size, seq_length=2 * SEQ)
    saved, epoch = state_after(before, 7, size)
    found = go_on(now, saved, {LENGTH: SEQ}, 60, size)
    updates, heard, notes, began, _ = found[0]
    share = f"{saved['share_read']:.2%}"
    assert notes == [
        f"data.seq_length {SEQ} -> {2 * SEQ}: epoch 1 ends here: {share} of its text was read, the rest is left out of "
        "it; epoch 2 begins with all of the text"
    ]
    assert began == pytest.approx(epoch) and 0 < epoch < 1
    assert updates[0].shape == (2, 3, 2 * SEQ + 1)
    ended = [line for _, _, is_end, lines in heard if is_end for line in lines]
    assert ended[0] == f"epoch 2: {len(texts):,} documents of 5 text files; nothing left out"  # every document
    first_end = next(passes for _, passes, is_end, _ in heard if is_end)
    assert first_end == pytest.approx(epoch + 1)
    # It is another order than that of a run which had this length from its beginning.
    fresh = on_workers(size, lambda worker: begin(now, worker))
    assert not np.array_equal(fresh[0][0], updates[0])
    # Stopped on the way and resumed, without leave to change, it goes on exactly.
    half = go_on(now, saved, {LENGTH: SEQ}, 9, size)
    rest = go_on(now, half[0][4], {}, 20, size)
    assert rest[0][2] == []
    for one, other, whole in zip(half, rest, found):
        assert all(map(np.array_equal, [*one[0], *other[0]], whole[0]))
        assert [*one[1], *other[1]] == whole[1][:29]
    assert rest[0][4]["history"][0] == saved["history"][0] and len(rest[0][4]["history"]) >= 2


def begin(recipe: Recipe, worker: Any) -> Any:
    with open_text_reader(recipe, worker) as reader:
        return steps(reader, worker, 1)[0]


def test_new_files_join_with_the_new_epoch(tmp_path: Path, model: Path) -> None:
    write_text(tmp_path / "text", 3)
    saved, _ = state_after(recipe_for(model, tmp_path / "text", refresh="epoch"), 4)
    (tmp_path / "text" / "wiki_news_corpus_99").write_text("새 글\n" * 9, encoding="utf-8")  # new text
    now = recipe_for(model, tmp_path / "text", refresh="epoch", seq_length=SEQ + 1)
    _, _, notes, *_ = go_on(now, saved, {LENGTH: SEQ}, 1)[0]
    assert len(notes) == 2 and notes[1] == "epoch 2: 1 added; now 4 text files"


def test_another_batch_leaves_the_stream_as_it_is(tmp_path: Path, model: Path) -> None:
    write_text(tmp_path / "text", 4)
    recipe = recipe_for(model, tmp_path / "text")
    saved, _ = state_after(recipe, 5)
    larger = replace(recipe, training=replace(recipe.training, total_batch_size=12))
    smaller = replace(recipe, training=replace(recipe.training, total_batch_size=3))
    straight, *_ = go_on(recipe, saved, {}, 8)[0]
    for other, count in ((larger, 4), (smaller, 16)):
        updates, _, notes, *_ = go_on(other, saved, {"training.total_batch_size": 6}, count)[0]
        assert not notes
        rows = np.concatenate([update.reshape(-1, SEQ + 1) for update in updates])
        assert np.array_equal(rows, np.concatenate([update.reshape(-1, SEQ + 1) for update in straight]))


def test_a_change_right_after_an_epochs_end_reads_the_next_one_whole(tmp_path: Path, model: Path) -> None:
    texts = write_text(tmp_path / "text", 4)
    recipe = recipe_for(model, tmp_path / "text")
    with open_text_reader(recipe, Worker()) as reader:
        steps(reader, Worker(), 0, until_epoch=1)
        saved = reader.state()
    assert saved["epoch_ended"]
    now = recipe_for(model, tmp_path / "text", seq_length=SEQ // 2)
    _, heard, notes, epoch, _ = go_on(now, saved, {LENGTH: SEQ}, 100)[0]
    assert "epoch 2 ends here: nothing of it was read; epoch 3 begins with all" in notes[0] and epoch == 1
    said = Counter(line for _, _, _, lines in heard for line in lines)
    assert said[f"epoch 3: {len(texts):,} documents of 4 text files; nothing left out"] == 1


def test_without_leave_it_is_refused_and_a_dry_run_says_the_same(tmp_path: Path, model: Path) -> None:
    write_text(tmp_path / "text", 2)
    saved, _ = state_after(recipe_for(model, tmp_path / "text"), 2)
    now = recipe_for(model, tmp_path / "text", seq_length=SEQ + 1)
    for look in (check_text_reader, open_text_reader):
        with pytest.raises(DataError, match=rf"read with seq_length={SEQ}, now it is {SEQ + 1}"):
            look(now, Worker(), saved, "here")
        other = recipe_for(model, tmp_path / "text", seq_length=SEQ + 1, bpe_dropout=0.5)
        with pytest.raises(DataError, match="read with bpe_dropout"):
            look(other, Worker(), saved, "here", {LENGTH: SEQ})
    lines = check_text_reader(now, Worker(), saved, "here", {LENGTH: SEQ})
    assert lines[0] == "text               2 text files" and lines[1].startswith(
        f"data.seq_length {SEQ} -> {SEQ + 1}: "
    )
