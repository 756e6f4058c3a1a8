"""Text on the fly where files, or their beginnings, hold no document: it trains on the others, and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.reader import open_text_reader
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.dry_run import check as check_data
from tests.machine.thread_workers import on_workers
from tests.reading.text.text_reader_helpers import recipe_for, steps

LINES = [f"{n}번째 날에는 산에 갔다. 비가 왔다." for n in range(60)]
REDIRECT = (
    "<page><title>t</title><ns>0</ns><redirect title='y'/><revision><text>#redirect [[y]]</text></revision></page>\n"
)


pytestmark = pytest.mark.usefixtures("small_blocks")


def page(text: str) -> str:
    return f"<page><title>t</title><ns>0</ns><revision><text>{text}</text></revision></page>\n"


def dump(*pages: str) -> bytes:
    return ("<mediawiki>\n" + "".join(pages) + "</mediawiki>\n").encode()


# name -> (documents, files): each has text somewhere, and blocks or whole files without any
CASES: dict[str, tuple[str, dict[str, bytes]]] = {
    "a file of one empty line": ("line", {"a": "\n".join(LINES).encode(), "b": b"\n"}),
    "a million empty lines first": ("line", {"a": b"\n" * 1_100_000 + "\n".join(LINES).encode()}),
    "empty lines amid and after": ("line", {"a": ("\n" * 900).join(LINES).encode() + b"\n" * 9000}),
    "a dump of redirects": ("wikipedia", {"a.xml": dump(*map(page, LINES)), "b.xml": dump(*[REDIRECT] * 40)}),
    "redirects first": ("wikipedia", {"a.xml": dump(*[REDIRECT] * 40, *map(page, LINES))}),
    "records without text": (
        "text",
        {
            "a": b'{"text": ""}\n' * 100 + b"".join(json.dumps({"text": line}).encode() + b"\n" for line in LINES),
            "b": b'{"other": 1}\n' * 50,
        },
    ),
    "bad bytes first": ("line", {"a": b"a\xff\n" * 9 + b"\n" * 300 + "\n".join(LINES).encode()}),
    "white space of all kinds": ("blank-line", {"a": b" \t\r\n" * 400 + "\n\n".join(LINES).encode() + b"\n \n" * 200}),
    "utf-16": ("line", {"a": ("\n" * 500 + "\n".join(LINES)).encode("utf-16")}),
    "cp949 among utf-8": ("line", {"a": "\n".join(LINES[:30]).encode(), "b": "\n".join(LINES[30:]).encode("cp949")}),
    "big-endian, no mark, CR": ("line", {"a": "\r".join(["", "", *LINES]).encode("utf-16-be")}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_document_comes_and_a_resume_is_exact(tmp_path: Path, model: Path, name: str) -> None:
    documents, files = CASES[name]
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    recipe = recipe_for(model, tmp_path, documents=documents, refresh="epoch")
    check_data(recipe)
    tokenizer = Tokenizer.load(model)
    with open_text_reader(recipe, Worker()) as reader:
        updates, heard = steps(reader, Worker(), 0, until_epoch=1)
        begin = reader.state()  # right at the start of the second epoch
        after, _ = steps(reader, Worker(), 25)
        later = reader.state()
        last, _ = steps(reader, Worker(), 5)
    assert f"epoch 1: {len(LINES)} documents of " in heard[-1][3][0]
    seen = {token for update in updates for token in update.ravel().tolist()}
    assert seen >= {token for line in LINES for token in tokenizer.encode(line)}
    for state, expected in ((begin, after), (later, last)):
        with open_text_reader(recipe, Worker(), json.loads(json.dumps(state))) as reader:
            assert all(map(np.array_equal, steps(reader, Worker(), len(expected))[0], expected))


def test_a_worker_whose_files_hold_nothing_is_named(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.xml").write_bytes(dump(*map(page, LINES)))
    (tmp_path / "b.xml").write_bytes(dump(*[REDIRECT] * 40))

    def job(worker: Any) -> str:
        with open_text_reader(recipe_for(model, tmp_path, 2, documents="wikipedia"), worker) as reader:
            try:
                next(iter(reader))
            except DataError as error:
                return str(error)
            return ""

    (fault,) = filter(None, on_workers(2, job))
    assert fault.startswith(f"{tmp_path / 'b.xml'}: no document there (left out: 40 other)")
    assert fault.endswith("leave these files out (data.exclude), or add text to them")


@pytest.mark.parametrize(
    "name, data, words",
    [
        (
            "rows",
            b"PAR1\x15\x04\x15\0" + bytes(200),
            r"rows: a table \(Parquet\); data\.documents=line does not read it",
        ),
        ("a.jsonl", b'{"text": "\xea\xb0\x80"}\n' * 9, r"a\.jsonl: JSON lines; .*: data\.documents=FIELD"),
        ("scan.png", b"\x89PNG\r\n\x1a\n" + bytes(99), r"an image; .* leave it out: data\.exclude=\['\*\.png'\]"),
        ("notes.docx", b"PK\x03\x04" + bytes(26) + b"word/document.xml" + bytes(99), "a Word document"),
    ],
)
def test_what_is_not_text_is_refused_at_the_start_and_left_out_later(
    tmp_path: Path, model: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES), encoding="utf-8")
    recipe = recipe_for(model, tmp_path, refresh="epoch")
    with open_text_reader(recipe, Worker()) as reader:
        (tmp_path / name).write_bytes(data)  # while the run goes on
        _, heard = steps(reader, Worker(), 0, until_epoch=1)
        assert len(heard[-1][3]) == 2 and "epoch 2: left out: " in heard[-1][3][1] and name in heard[-1][3][1]
        saved = reader.state()
    with open_text_reader(recipe, Worker(), saved) as reader:
        assert reader.files.count == "1 text file"
    for entrance in (lambda: open_text_reader(recipe, Worker()), lambda: check_data(recipe)):
        with pytest.raises(DataError, match=words) as refused:
            entrance()
        assert "1 others can: data.exclude=['PATTERN'] or data.corrupt=skip goes on with them" in str(refused.value)
    for change in ({"corrupt": "skip"}, {"exclude": [name]}, {"include": ["*.txt"]}):
        with open_text_reader(recipe_for(model, tmp_path, **change), Worker()) as reader:
            assert reader.files.count == "1 text file"
            assert (name in reader.describe(1)) == ("corrupt" in change)


def test_an_encoding_that_is_named_is_part_of_the_run(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\n".join(LINES).encode("johab"))
    recipe = recipe_for(model, tmp_path, encoding="johab")
    with open_text_reader(recipe, Worker()) as reader:
        assert reader.files.sources[0].encoding == "johab" and "read as johab" in reader.describe(1)
    plain = recipe_for(model, tmp_path)
    assert recipe.fingerprint() != plain.fingerprint() != recipe_for(model, tmp_path, exclude=["b"]).fingerprint()
    with pytest.raises(RecipeError, match=r"data\.encoding"):
        recipe_for(model, tmp_path, encoding="euc")
