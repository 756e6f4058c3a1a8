"""`kogpt2 evaluate` on text: the numbers of shards made of the same documents, and refusals by name."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.reading.held_out import HeldOutReader
from kogpt2_gluon.reading.text.held_out import HeldOutText, TextOptions, open_held_out_text
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import kogpt2

SEQ = 32


@pytest.fixture
def tokenizer(shards: Path) -> Tokenizer:
    return Tokenizer.load(shards / "tokenizer.model")


def opened(data: Path, tokenizer: Tokenizer, documents: str | None = None, stride: int = 0) -> HeldOutText:
    return open_held_out_text(data, TextOptions(documents), tokenizer, SEQ, stride)[0]


@pytest.mark.parametrize(("batch_size", "stride"), [(1, 0), (7, 0), (10_000, 0), (1, 1), (7, 5), (10_000, 31)])
def test_text_gives_the_sequences_of_its_shards(
    shards: Path, tokenizer: Tokenizer, batch_size: int, stride: int
) -> None:
    text = opened(shards / "corpus" / "test", tokenizer, stride=stride)
    batches = list(text.batches(batch_size))
    assert all(len(batch) == batch_size for batch in batches[:-1]) and len(batches[-1]) <= batch_size
    with ShardSet(shards / "test") as opened_shards:
        reader, manifest = HeldOutReader(opened_shards, SEQ, stride=stride), opened_shards.manifest
        expected = np.concatenate(list(reader.batches(1)))
    assert np.array_equal(np.concatenate(batches), expected)
    for name in ("tokens", "documents", "words", "text_bytes"):
        assert getattr(text, name) == getattr(manifest, name), name
    assert text.unknown_tokens == manifest.unknown
    assert not text.describe_left_out()


def test_text_is_read_from_any_file(shards: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    lines = list(Corpus.open(shards / "corpus").documents("test"))
    whole = "\n".join(lines) + "\n"
    (tmp_path / "old.txt").write_bytes(whole.encode("cp949"))
    (tmp_path / "wide").write_bytes(gzip.compress(whole.encode("utf-16-be")))
    (tmp_path / "mac.txt").write_bytes(whole.replace("\n", "\r").encode())
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": line}) + "\n" for line in lines), encoding="utf-8")
    expected = np.concatenate(list(opened(shards / "corpus" / "test", tokenizer).batches(9)))
    for name in ("old.txt", "wide", "mac.txt", "a.jsonl"):
        text = opened(tmp_path / name, tokenizer, "body" if name == "a.jsonl" else "line")
        assert np.array_equal(np.concatenate(list(text.batches(4))), expected), name
    (tmp_path / "bad.txt").write_bytes("가나다라마바사\n".encode() * 9 + b"\n\xff\n" + "끝\n".encode())
    text = opened(tmp_path / "bad.txt", tokenizer, "line")
    assert (
        sum(map(len, text.batches(4))) and text.describe_left_out() == "left out: 1 bad_utf8, 1 empty, of 10 documents"
    )


def test_what_is_not_text_is_refused_by_name(shards: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(shards / "corpus", corpus)
    (tmp_path / "rows").write_bytes(b"%PDF-1.7\n" + b"\xe2\xe3\n" * 9)
    for data, documents, error, words in (
        (tmp_path / "rows", "line", DataError, "rows: a PDF; --documents line does not read it; .* pdftotext"),
        (corpus, None, RecipeError, "corpus: a cleaned corpus; name its held-out part: .*corpus/test"),
        (corpus / "test", "blank-line", RecipeError, "whose documents are line, not blank-line"),
        (tmp_path / "none", "line", DataError, "none: no such file"),
        (tmp_path / "rows", None, RecipeError, "say what a document of it is: --documents KIND"),
    ):
        with pytest.raises(error, match=words):
            opened(data, tokenizer, documents)


def test_the_verb_scores_text_as_it_scores_shards(tiny: list[str], shards: Path, tmp_path: Path) -> None:
    kogpt2("train", "debug_cpu", *tiny, "training.num_steps=2", "data.test=")
    run = tmp_path / "run"
    of_shards = json.loads(kogpt2("evaluate", run, shards / "test", "--json").stdout)
    for data in (shards / "corpus" / "test", shards / "corpus" / "test" / "corpus-00000.txt"):
        done = kogpt2("evaluate", run, data, "--json", "--batch-size", 5)
        of_text = json.loads(done.stdout)
        raw = {name: of_text.pop(name) for name, value in of_shards.items() if value is None}
        assert of_text == pytest.approx({name: of_shards[name] for name in of_text}, rel=1e-6)
        assert raw["raw_bytes"] >= of_text["normalized_bytes"] and raw["bits_per_raw_byte"] > 0
    assert (
        "--documents, --encoding, --include"
        in kogpt2("evaluate", run, shards / "test", "--documents", "line", code=2).stderr
    )
    (tmp_path / "a.txt").write_bytes("오늘은 날씨가 좋다.\n".encode("cp949") * 20 + b"\n")
    done = kogpt2("evaluate", run, tmp_path / "a.txt", "--documents", "line")
    assert "read as cp949" in done.stderr and "left out: 1 empty" in done.stderr and "tokens scored" in done.stdout
