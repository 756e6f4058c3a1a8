"""From a cleaned corpus to shards: every document, the tokenizer's own counts, the same bytes each time."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.shards.format import MANIFEST, Manifest
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.sharding import BYTES_PER_TOKEN, shard_corpus
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.tokens.training import train_tokenizer
from tests.shards.shard_helpers import SPECIAL, parts_of, read_back
from tests.storage.lustre_helpers import FakeLustre


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    words = ["".join(chr(0xAC00 + draw.randrange(11172)) for _ in range(draw.randint(1, 4))) for _ in range(1200)] + [
        "GPT-2",
        "2020년",
        "3.5%",
        "한국어",
        "모델을",
        "배운다",
        "ㅋㅋㅋ",
        "①",
        "Ｆｕｌｌ",
    ]
    return [" ".join(draw.choices(words, k=draw.randint(1, 25))) for _ in range(count)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    source = folder / "source.txt"
    source.write_text("\n".join(sentences(9000, 1)), encoding="utf-8")
    clean([source], folder / "corpus", "line", 0.1)
    return folder / "corpus"


@pytest.fixture(scope="module")
def tokenizer(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("tokenizer") / "t.model"
    return train_tokenizer(corpus, out, vocab_size=3000, unused=5, character_coverage=0.98)


@pytest.fixture(scope="module", params=[1, 3])
def sharded(
    request: pytest.FixtureRequest, corpus: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp(f"shards{request.param}") / "new" / "train"
    seen: list[tuple[int, int]] = []
    shard_corpus(corpus, tokenizer.path, out, "train", request.param, progress=lambda *at: seen.append(at))
    assert seen == sorted(seen) and all(0 < done <= total for done, total in seen)
    assert len(seen) >= 2  # more than one task, so that the order of results matters
    return out


def test_every_document_is_there_between_its_signs(sharded: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    expected = [[1, *tokenizer.encode(document), 2] for document in Corpus.open(corpus).documents("train")]
    with ShardSet(sharded) as shards:
        assert read_back(shards).tolist() == [token for document in expected for token in document]
        (info,) = shards.manifest.shards
        assert parts_of(sharded / info.name)[1].tolist() == np.cumsum([len(ids) for ids in expected]).tolist()
        assert shards.chunk_tokens == (64 << 10) // 2


def test_counts_are_the_tokenizers(sharded: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    documents = list(Corpus.open(corpus).documents("train"))
    manifest = Manifest.load(sharded)
    ids = [tokenizer.encode(document) for document in documents]
    texts = [tokenizer.normalize(document) for document in documents]
    assert manifest.documents == len(documents) == Corpus.open(corpus).count("train")
    assert manifest.tokens == sum(map(len, ids)) + 2 * len(documents)
    assert manifest.unknown == sum(each.count(tokenizer.unk_id) for each in ids) > 0
    assert manifest.text_bytes == sum(len(text.encode()) for text in texts)
    assert manifest.words == sum(len(text.split(" ")) for text in texts)
    assert (manifest.split, manifest.dtype, manifest.vocab_size) == ("train", "<u2", 3000)
    assert manifest.tokenizer_sha256 == tokenizer.sha256 == Tokenizer.load(ShardSet(sharded).tokenizer_path).sha256
    assert manifest.special_ids == SPECIAL
    assert manifest.text_bytes / manifest.tokens < BYTES_PER_TOKEN  # the guess errs towards small chunks


def test_any_number_of_processes_gives_the_same_bytes(
    corpus: Path, tokenizer: Tokenizer, tmp_path: Path, sharded: Path
) -> None:
    shard_corpus(corpus, tokenizer.path, tmp_path / "again", "train", processes=2)
    names = sorted(path.name for path in sharded.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (sharded / name).read_bytes()


def test_the_test_split_and_a_chosen_chunk_size(corpus: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    manifest = shard_corpus(corpus, tokenizer.path, tmp_path / "test", "test", chunk_bytes=4096)
    assert manifest.chunk_bytes == 4096 and manifest.documents == Corpus.open(corpus).count("test")
    with ShardSet(tmp_path / "test") as shards:
        assert shards.num_chunks == -(-manifest.tokens // 2048) > 3


def test_documents_of_several_lines(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "source.txt").write_text("가나 다\n라마\n\n바사\n", encoding="utf-8")
    clean([tmp_path / "source.txt"], tmp_path / "corpus", "blank-line", 0.0)
    shard_corpus(tmp_path / "corpus", tokenizer.path, tmp_path / "out", "train")
    with ShardSet(tmp_path / "out") as shards:
        assert read_back(shards).tolist() == [1, *tokenizer.encode("가나 다\n라마"), 2, 1, *tokenizer.encode("바사"), 2]
        assert (shards.manifest.documents, shards.manifest.words) == (2, 4)


def test_text_that_is_not_utf8_is_named_and_leaves_no_manifest(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "source.txt").write_text("\n".join(sentences(20, 3)), encoding="utf-8")
    clean([tmp_path / "source.txt"], tmp_path / "corpus", "line", 0.0)
    path = Corpus.open(tmp_path / "corpus").files("train")[0]
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"corpus-00000\.txt: not UTF-8"):
        shard_corpus(tmp_path / "corpus", tokenizer.path, tmp_path / "out", "train")
    assert not (tmp_path / "out" / MANIFEST).exists()


# --- refusals


def test_refuses_a_folder_with_files(corpus: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine", encoding="utf-8")
    for out in (tmp_path, tmp_path / "keep.txt"):
        with pytest.raises(RecipeError, match="not an empty folder") as caught:
            shard_corpus(corpus, tokenizer.path, out, "train")
        assert str(out) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_refuses_an_empty_split_and_leaves_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "source.txt").write_text("하나뿐인 글\n", encoding="utf-8")
    clean([tmp_path / "source.txt"], tmp_path / "corpus", "line", 0.0)
    with pytest.raises(DataError, match="test split holds no documents"):
        shard_corpus(tmp_path / "corpus", tokenizer.path, tmp_path / "out", "test")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("chunk_bytes", [-1, 3, 65537, 96 << 10])
def test_refuses_chunks_that_are_no_power_of_two(
    corpus: Path, tokenizer: Tokenizer, tmp_path: Path, chunk_bytes: int
) -> None:
    with pytest.raises(RecipeError, match="power of two"):
        shard_corpus(corpus, tokenizer.path, tmp_path / "out", "train", chunk_bytes=chunk_bytes)
    assert not (tmp_path / "out").exists()


def test_a_tokenizing_process_that_dies_ends_the_work(
    corpus: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may kill it for its memory; a pool that starts another one would wait for ever."""
    sharding = "kogpt2_gluon.shards.sharding"
    monkeypatch.setattr(f"{sharding}._tokenize", os._exit)  # called with a block: an error in the child
    monkeypatch.setattr(Corpus, "blocks", lambda corpus, split: iter([9]))  # exit code 9
    with pytest.raises(KoGPT2Error, match="--processes"):
        shard_corpus(corpus, tokenizer.path, tmp_path / "out", "train", processes=1)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_new_folder_on_lustre_gets_its_layout(
    corpus: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, said = FakeLustre.install(tmp_path, monkeypatch), []
    shard_corpus(corpus, tokenizer.path, tmp_path / "out", "test", say=said.append)
    verbs = [json.loads(line)["verb"] for line in fake.log.read_text().splitlines()]
    assert "setstripe" in verbs and len(said) == 1 and str(tmp_path / "out") in said[0]
