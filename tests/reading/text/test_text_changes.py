"""Text files that change or go while they are read: named at their next block, or after the next checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.files import CHANGED, GONE, TextChoice, TextFiles, find_change, list_text_files
from kogpt2_gluon.reading.text.reader import open_text_reader
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.machine.thread_workers import on_workers
from tests.reading.text.text_reader_helpers import Cursor, recipe_for, stream, write_text


def change_file(path: Path, change: str) -> None:
    if change == "gone":
        path.unlink()
    elif change == "touched":
        os.utime(path, ns=(1, 1))
    else:
        with path.open("ab") as file:
            file.write("더\n".encode())  # "more"


WORDS = {"gone": "gone or unreadable", "touched": "changed since", "longer": "changed since"}


@pytest.mark.parametrize("change", WORDS)
@pytest.mark.parametrize("size", [1, 2])
def test_a_change_is_seen_at_a_checkpoint_and_ends_the_run_after_it(
    tmp_path: Path, model: Path, change: str, size: int
) -> None:
    """Small files are read whole at once, so reading alone would not notice."""
    write_text(tmp_path / "text", 4)
    recipe = recipe_for(model, tmp_path / "text", size)

    def job(worker: Any) -> str:
        with open_text_reader(recipe, worker) as reader:
            next(iter(reader))
            reader.gather(worker)
            worker.sum(reader.notices())  # all have gathered
            if worker.rank == 0:
                change_file(tmp_path / "text" / "wiki_news_corpus_02", change)
            worker.sum(reader.notices())  # all wait for the change
            reader.gather(worker)
            assert reader.state()["consumed"]  # nothing that was learnt is lost
            with pytest.raises(DataError, match=f"wiki_news_corpus_02: {WORDS[change]}") as caught:
                reader.agree(worker.sum(reader.notices()), worker)
            return str(caught.value)

    assert len(set(on_workers(size, job))) == 1


@pytest.mark.parametrize("change", WORDS)
def test_a_change_of_the_file_at_hand_is_seen_at_its_next_block(
    tmp_path: Path, model: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 240)
    write_text(tmp_path, 1)
    files = list_text_files(TextChoice((str(tmp_path),), "line"), Worker())
    opened = stream(list(files.sources), Tokenizer.load(model))
    blocks = opened._read(Cursor())
    next(blocks)
    change_file(tmp_path / "wiki_news_corpus_00", change)
    with pytest.raises(DataError, match=f"wiki_news_corpus_00: {WORDS[change]}"):
        next(blocks)


def test_objects_are_compared_with_a_new_list(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [Source(f"s3://b/x/{name}", 3, "etag") for name in "abc"]
    asked: list[list[str]] = []

    def look(now: list[Source]) -> tuple[int, int]:
        def listed(folders: list[str]) -> list[Source]:
            asked.append(folders)
            return now

        monkeypatch.setattr("kogpt2_gluon.reading.text.files.list_sources", listed)
        return find_change(before, ["s3://b/x", "elsewhere"])

    assert look(before) == (-1, 0)
    assert look([before[0], before[2]]) == (1, GONE)
    assert look([*before[:2], Source("s3://b/x/c", 3, "new")]) == (2, CHANGED)
    assert asked == [["s3://b/x"]] * 3


def test_one_file_is_not_called_files() -> None:
    sources = tuple(Source(name, 1, "") for name in "ab")
    assert [TextFiles(sources[:count]).count for count in (1, 2)] == ["1 text file", "2 text files"]
