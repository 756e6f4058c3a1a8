"""The report says of a tokenizer exactly what its ids say, counted in the plain way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tokens.renaming import rename_tokens
from kogpt2_gluon.tokens.report import format_report, report_tokenizers
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.tokens.training import train_tokenizer
from tests.helpers import kogpt2
from tests.tokens.tokenizer_helpers import make_corpus, random_words


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Plain sentences with a test split; and spaces, wide letters, unknown signs, without one."""
    root = tmp_path_factory.mktemp("corpora")
    odd = [f"{random_words(9, seed)}  ①龘😀 {random_words(2, seed)}" for seed in range(900, 1400)]
    (root / "plain").mkdir()
    (root / "odd").mkdir()
    plain = make_corpus(root / "plain", [random_words(10, seed) for seed in range(800)], test_share=0.2)
    return [plain, make_corpus(root / "odd", odd)]


@pytest.fixture(scope="module")
def models(corpora: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    train_tokenizer(corpora[0], folder / "kogpt2.model", 800, unused=5, keep_newlines=True)
    train_tokenizer(corpora[0], folder / "lossless.model", 800, unused=3, profile="lossless")
    rename_tokens(folder / "lossless.model", [("<unused1>", "리뷰어")], folder / "lossless.model")
    return [folder / "kogpt2.model", folder / "lossless.model"]


def test_the_figures_are_those_of_the_ids(models: list[Path], corpora: list[Path]) -> None:
    report = report_tokenizers(models, corpora)
    assert [(row["corpus"], row["split"], row["model"]) for row in report["rows"]] == [
        (str(corpus), split, str(model)) for corpus, split in zip(corpora, ("test", "train")) for model in models
    ]
    for row in report["rows"]:
        tokenizer = Tokenizer.load(Path(row["model"]))
        documents = list(Corpus.open(Path(row["corpus"])).documents(row["split"]))
        ids = [tokenizer.encode(document) for document in documents]
        flat = [token for row_ids in ids for token in row_ids]
        assert row["documents"] == len(documents) and row["tokens"] == len(flat)
        assert row["tokens_per_word"] == len(flat) / sum(len(document.split()) for document in documents)
        assert row["tokens_per_character"] == len(flat) / sum(map(len, documents))
        assert row["tokens_per_document"] == len(flat) / len(documents)
        assert row["bytes_per_token"] == sum(len(document.encode()) for document in documents) / len(flat)
        assert row["unknown_rate"] == flat.count(tokenizer.unk_id) / len(flat)
        assert row["byte_rate"] == sum(tokenizer.pieces[token].startswith("<0x") for token in flat) / len(flat)
        back = [tokenizer.decode(row_ids) for row_ids in ids]
        assert row["round_trip_rate"] == sum(map(str.__eq__, back, documents)) / len(documents)
        normalized = map(tokenizer.normalize, documents)
        assert row["round_trip_normalized_rate"] == sum(map(str.__eq__, back, normalized)) / len(documents)
        assert row["vocabulary_used"] == pytest.approx(len(set(flat)) / tokenizer.vocab_size)


def test_the_profiles_differ_as_they_should(models: list[Path], corpora: list[Path]) -> None:
    plain_kogpt2, plain_lossless, odd_kogpt2, odd_lossless = report_tokenizers(models, corpora)["rows"]
    assert plain_kogpt2["round_trip_rate"] == plain_lossless["round_trip_rate"] == odd_lossless["round_trip_rate"] == 1
    assert odd_kogpt2["round_trip_rate"] == 0 < odd_kogpt2["unknown_rate"]
    assert odd_lossless["unknown_rate"] == 0 < odd_lossless["byte_rate"]
    about = report_tokenizers(models, corpora[:1])["tokenizers"]
    assert [(each["unused_left"], each["keeps_newlines"]) for each in about] == [(5, True), (2, False)]


def test_a_sample_is_the_same_in_any_company(models: list[Path], corpora: list[Path]) -> None:
    whole, sample = (report_tokenizers(models[:1], corpora, "train", size)["rows"] for size in (20, 0.01))
    again = report_tokenizers(models[:1], corpora[::-1], "train", 0.01)["rows"]
    assert sample == again[::-1]
    for few, many in zip(sample, whole):
        assert 5_000 < few["bytes"] < 15_000 < many["bytes"]
    with pytest.raises(RecipeError, match=r"--sample-mb 1e-07: draws no document of"):
        report_tokenizers(models, corpora, "train", 1e-7)


def test_what_cannot_be_reported(models: list[Path], corpora: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="odd/corpus: its test split holds no documents"):
        report_tokenizers(models, corpora, "test")
    with pytest.raises(DataError, match="nowhere"):
        report_tokenizers([tmp_path / "nowhere.model"], corpora)
    with pytest.raises(RecipeError, match="--split dev"):
        report_tokenizers(models, corpora, "dev")


def test_the_table_has_a_row_for_each(models: list[Path], corpora: list[Path]) -> None:
    report = report_tokenizers(models, corpora)
    table = format_report(report).splitlines()
    head = next(number for number, line in enumerate(table) if line.startswith("corpus"))
    rows = [line.split() for line in table[head + 1 : head + 5]]
    assert [row[2] for row in rows] == [str(model) for model in models] * 2
    assert rows[0][3] == str(report["rows"][0]["documents"])
    assert rows[0][4] == f"{report['rows'][0]['tokens_per_word']:.3f}"
    assert len({len(line) for line in table[head : head + 5]}) == 1


def test_the_command(models: list[Path], corpora: list[Path], tmp_path: Path) -> None:
    said = kogpt2("tokenizer", "report", models[0], *corpora, "--against", models[1], "--json").stdout
    assert json.loads(said) == report_tokenizers(models, corpora)
    assert "tokens/word" in kogpt2("tokenizer", "report", models[0], corpora[0]).stdout
    first, second = tmp_path / "a.model", tmp_path / "b.model"
    options = ("--vocab-size", 700, "--unused", 2, "--keep-newlines", "--sample-mb", 0.02)
    trained = kogpt2("tokenizer", *options, *corpora, "--out", first)  # `train` is understood
    assert "a sample of 0.0 MB of" in trained.stdout
    kogpt2("tokenizer", "train", *corpora, "--out", second, *options)
    assert first.read_bytes() == second.read_bytes()
    assert Tokenizer.load(first).keeps_newlines
    assert "rename" in kogpt2("tokenizer", "--help").stdout
