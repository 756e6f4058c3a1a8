"""The table of document kinds: a new one is one class and one line, and help and docs name them all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from kogpt2_gluon.cli.clean import clean as clean_command
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.formats import KINDS, kind_of
from kogpt2_gluon.corpus.formats.fields import Field
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.layout import LAYOUTS
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection, make_block
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.sharding import shard_corpus
from kogpt2_gluon.tokens.training import train_tokenizer
from tests.shards.shard_helpers import read_back


class Semicolons(Kind):
    """Documents end with a semicolon; a line of one ends with a slash."""

    name = "semicolons"
    meaning = "texts that end with a semicolon"

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        while record := b"".join(iter(lambda: stream.read(1), b"")):
            yield make_block(name, line, offset, record)

    def parse_block(self, block: Block) -> Iterator[Item]:
        for text in block.data.decode().split(";")[:-1]:
            if text:
                yield Document(text.replace("/", "\n"), block.source, 1, 0)
            else:
                yield Rejection("empty", block.source, 1, 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_new_kind_is_cleaned_and_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setitem(KINDS, Semicolons.name, Semicolons())
    (tmp_path / "a.semi").write_text("첫 글/둘째 줄;;다른 글;" + ";".join(f"글 {n}" for n in range(400)) + ";", "utf-8")
    report = clean([tmp_path / "a.semi"], tmp_path / "corpus", "semicolons", 0.0, processes=processes)
    assert report.documents.dropped == {"empty": 1}
    corpus = Corpus.open(tmp_path / "corpus")
    documents = ["첫 글\n둘째 줄", "다른 글", *(f"글 {n}" for n in range(400))]
    assert list(corpus.documents("train")) == documents
    assert corpus.about["sources"][0]["documents"] == "semicolons"
    tokenizer = train_tokenizer(tmp_path / "corpus", tmp_path / "t.model", vocab_size=60, unused=0)
    shard_corpus(tmp_path / "corpus", tokenizer.path, tmp_path / "shards", "train", processes)
    with ShardSet(tmp_path / "shards") as shards:
        assert read_back(shards).tolist() == [token for text in documents for token in [1, *tokenizer.encode(text), 2]]
    with pytest.raises(DataError, match=r"a\.semi: JSON lines; --documents semicolons does not read it"):
        (tmp_path / "a.semi").write_text('{"text": "가"}\n' * 3, "utf-8")
        clean([tmp_path / "a.semi"], tmp_path / "other", "semicolons")


def test_every_other_word_is_a_field() -> None:
    for word, field in (("text", "text"), ("field:line", "line"), ("field:a:b", "a:b")):
        kind = kind_of(word)
        assert isinstance(kind, Field) and (kind.field, kind.name) == (field, word)
    for word in ("", " ", "field:"):
        with pytest.raises(
            RecipeError, match="--documents is empty; say line, blank-line, file, separator:TEXT, wikipedia"
        ):
            kind_of(word)


def test_a_stored_corpus_is_read_by_the_kind_of_its_layouts_name() -> None:
    assert all(KINDS[name].layout is layout for name, layout in LAYOUTS.items())


def test_help_and_docs_name_every_kind() -> None:
    (help_text,) = (option.help for option in clean_command.params if option.name == "documents")
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        assert f"{name}: {kind.meaning}" in help_text
        assert f"| `{name}` |" in docs


def test_help_loads_no_parser_of_markup() -> None:
    """The table is made when `kogpt2` starts; the parser of wikitext would take 50 ms of it."""
    script = "import sys, kogpt2_gluon.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "kogpt2_gluon.corpus.formats.wikipedia" in loaded
    assert not {"mwparserfromhell", "xml.etree", "numpy", "mxnet"} & set(loaded)
