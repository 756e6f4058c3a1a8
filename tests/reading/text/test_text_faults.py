"""Faults of text that is tokenized on the fly: counted, or named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.reader import open_text_reader
from kogpt2_gluon.reading.text.tokens import REASONS, Cursor
from kogpt2_gluon.reading.training_data import open_training_reader, training_tokenizer
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.machine.thread_workers import on_workers
from tests.reading.text.text_reader_helpers import (
    recipe_for,
    steps,
    write_text,
)

pytestmark = pytest.mark.usefixtures("small_blocks", "no_thread_is_left")


def test_bad_documents_are_left_out_counted_and_told(tmp_path: Path, model: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "json"
    folder.mkdir()
    good = [json.dumps({"text": f"{number} 좋은 글"}).encode() for number in range(60)]
    bad = [b"\xff\xfe", b"{", b'{"body": "x"}', b'{"text": 3}', b'{"text": "\\ud800"}', b"", b"[" * 9000]
    bad.append(b'{"text": null}')
    for name in ("a", "b"):
        lines = good + bad
        random.Random(name).shuffle(lines)
        (folder / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")

    def job(worker: Any) -> Any:
        with open_text_reader(recipe_for(model, folder, 2, documents="text"), worker) as reader:
            return steps(reader, worker, 0, until_epoch=1)[1]

    heard, heard_too = on_workers(2, job)
    assert heard == heard_too
    lines = [line for *_, told in heard for line in told]
    counts = "2 bad_utf8, 4 bad_json, 2 missing_field, 2 field_not_text, 2 bad_unicode, 2 empty, 2 null_field"
    assert lines[-1] == f"epoch 1: 120 documents of 2 text files; left out: {counts}"
    assert 2 <= len(lines) <= 6 and all(" so far, of " in line for line in lines[:-1])


def test_rows_of_a_table_that_do_not_fit_are_counted_by_name(tmp_path: Path, model: Path) -> None:
    (tmp_path / "tables").mkdir()
    rows = [f'{number},"{number}째 글, 쉼표도"' for number in range(200)]
    rows[10:10] = ["too,many,columns", "7", '8,"a"b']
    (tmp_path / "tables" / "a.csv").write_text("id,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    with open_text_reader(recipe_for(model, tmp_path / "tables", documents="text"), Worker()) as reader:
        told = [line for *_, lines in steps(reader, Worker(), 0, until_epoch=1)[1] for line in lines]
    assert told[-1] == "epoch 1: 200 documents of 1 text file; left out: 3 bad_row"


def test_a_cursor_of_an_earlier_version_is_read() -> None:
    row = Cursor(1, 2, 3, 4, 5, 6, 7, tuple(range(len(REASONS)))).to_row()
    assert Cursor.from_row(row[:14]).rejected == (0, 1, 2, 3, 4, 5, 6, *[0] * (len(REASONS) - 7))
    assert Cursor.from_row(row).to_row() == row


def test_folders_without_text_are_named(tmp_path: Path, model: Path) -> None:
    cases = {"empty": [], "only_empty": [b""], "blank": [b"\n \n"], "binary": [b"\xff\xff\n"]}
    for name, contents in cases.items():
        (tmp_path / name).mkdir()
        for number, content in enumerate(contents):
            (tmp_path / name / f"{number}.txt").write_bytes(content)
    for name in ("empty", "only_empty", "blank"):
        with pytest.raises(DataError, match=name):
            open_text_reader(recipe_for(model, tmp_path / name), Worker())
    for name, reason in (("binary", "1 bad_utf8"),):
        reader = open_text_reader(recipe_for(model, tmp_path / name), Worker())
        with pytest.raises(DataError, match=rf"{name}/0\.txt: no document there .*{reason}"):
            next(iter(reader))
        reader.close()
    with pytest.raises(DataError, match="nowhere"):
        open_text_reader(recipe_for(model, tmp_path / "nowhere"), Worker())


def test_a_fault_that_rank_0_finds_reaches_every_worker(tmp_path: Path, model: Path) -> None:
    recipe = recipe_for(model, tmp_path / "nowhere", 3)

    def job(worker: Any) -> str:
        with pytest.raises(DataError, match="no such file") as error:
            open_text_reader(recipe, worker)
        return str(error.value)

    assert len(set(on_workers(3, job))) == 1


def test_recipes_that_cannot_work_say_so(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "text"
    write_text(folder, 2)

    def refused(error: type[KoGPT2Error], match: str, saved: Any = None, **data: object) -> None:
        with pytest.raises(error, match=match):
            open_text_reader(recipe_for(model, folder, **data), Worker(), saved)

    refused(RecipeError, "data.tokenizer is empty", tokenizer="")
    refused(DataError, "data.train is empty", train="")
    refused(DataError, "plain text; .* data.documents=line or blank-line", documents="body")
    refused(DataError, "data.documents=body does not read it", documents="body")
    small = recipe_for(model, folder)
    small.model.vocab_size = 50
    with pytest.raises(DataError, match="more than model"):
        open_text_reader(small, Worker())

    def too_many(worker: Any) -> None:
        with pytest.raises(RecipeError, match="3 workers cannot share 2 text files"):
            open_text_reader(recipe_for(model, folder, 3), worker)

    on_workers(3, too_many)
    with open_text_reader(recipe_for(model, folder), Worker()) as reader:
        saved = reader.state()
    refused(DataError, "seq_length=8, now it is 16", saved=saved, seq_length=16)
    refused(DataError, "bpe_dropout=0.0, now it is 0.5", saved=saved, bpe_dropout=0.5)
    refused(
        DataError,
        r"the checkpoint: saved with data.source=shards \(state version 2\), but this run reads text",
        saved={"consumed": 3, "version": 2},
    )
    refused(DataError, "state version 9", saved={**saved, "version": 9})
    refused(
        RecipeError,
        "saved by 2 workers, and data.source=text cannot resume with 1",
        saved={**saved, "workers": saved["workers"] * 2},
    )
    refused(DataError, "does not match its fingerprint", saved={**saved, "files": saved["files"][:1]})


def test_training_names_the_checkpoint_and_the_tokenizer(tmp_path: Path, model: Path) -> None:
    """Through the doors that training uses."""
    write_text(tmp_path / "text", 2)
    with open_text_reader(recipe_for(model, tmp_path / "text"), Worker()) as reader:
        saved = reader.state()
    other = recipe_for(model, tmp_path / "text", seq_length=16)
    with pytest.raises(DataError, match=r"^runs/a/step-00000003: its text was read with seq_length=8, now it is 16"):
        open_training_reader(other, Worker(), saved, "runs/a/step-00000003")
    assert training_tokenizer(other).path == model
    other.model.vocab_size = 50
    with pytest.raises(DataError, match=r"more than model\.vocab_size=50"):
        training_tokenizer(other)
