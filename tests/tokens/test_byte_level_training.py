"""Training a byte-level tokenizer: ids in their places, the same file each time, and what cannot work is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tokenizers
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.tokens import morphemes
from kogpt2_gluon.tokens.byte_level_training import train_byte_level
from kogpt2_gluon.tokens.json_tokenizer import byte_alphabet
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import run
from tests.tokens.morpheme_helpers import AWKWARD, SENTENCES, train_small
from tests.tokens.tokenizer_helpers import make_corpus

KINDS = [None, "kiwi"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param:
        pytest.importorskip("kiwipiepy", reason="cuts at morphemes")
    return train_small(tmp_path_factory.mktemp(str(request.param)), request.param)


def test_special_pieces_are_where_they_belong(tokenizer: Tokenizer) -> None:
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, 3)
    assert tokenizer.vocab_size == 450 and tokenizer.unused == [f"<unused{number}>" for number in range(12)]
    assert [tokenizer.encode(f"나{piece}")[-1] for piece in tokenizer.unused] == list(range(4, 16))
    assert set(tokenizer.pieces[16 : 16 + 256]) == set(byte_alphabet())
    assert tokenizer.keeps_newlines and not tokenizer.adds_space
    spelt_out = tokenizer.encode(AWKWARD["controls"])
    assert not {0, 1, 2, 3} & set(spelt_out) and tokenizer.decode(spelt_out) == AWKWARD["controls"]


def test_more_text_is_learnt_as_fewer_tokens(tokenizer: Tokenizer) -> None:
    for text in SENTENCES:
        assert len(tokenizer.encode(text)) < 0.75 * len(text.encode())


def test_without_the_cut_the_ids_are_the_librarys(tokenizer: Tokenizer) -> None:
    library = tokenizers.Tokenizer.from_file(str(tokenizer.path))
    library.encode_special_tokens = True
    same = [library.encode(text).ids == tokenizer.encode(text) for text in [*SENTENCES, *AWKWARD.values()]]
    is_cut = b'"morphemes"' in tokenizer.path.read_bytes()
    assert all(same) if not is_cut else not all(same)


def test_another_process_makes_the_same_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    kind = "kiwi" if b'"morphemes"' in tokenizer.path.read_bytes() else None
    program = f"""
import sys
from pathlib import Path
from kogpt2_gluon.tokens.byte_level_training import train_byte_level
if __name__ == "__main__":
    train_byte_level(Path(sys.argv[1]), Path(sys.argv[2]), 450, 12, {kind!r}, processes=2)
"""
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    out = tmp_path / "new" / "tokenizer.json"
    corpus = tokenizer.path.parent / "corpus"
    run(sys.executable, tmp_path / "program.py", corpus, out, PYTHONHASHSEED="5", RAYON_NUM_THREADS="2")
    assert out.read_bytes() == tokenizer.path.read_bytes()


def test_sizes_that_cannot_work(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, SENTENCES)
    with pytest.raises(RecipeError, match="too small for byte-level BPE, whose bytes and special pieces alone are 270"):
        train_byte_level(corpus, tmp_path / "a.json", 269, unused=10)
    with pytest.raises(RecipeError, match=r"whose text yields [0-9]+ pieces; give at most that") as error:
        train_byte_level(corpus, tmp_path / "a.json", 9000, unused=10)
    most = int(str(error.value).split("text yields ")[1].split()[0])
    assert train_byte_level(corpus, tmp_path / "a.json", most, unused=10).vocab_size == most
    with pytest.raises(RecipeError, match="--morphemes mecab: is not kiwi"):
        train_byte_level(corpus, tmp_path / "b.json", 300, morphemes="mecab")


def test_without_kiwi_training_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise morphemes.PackageNotFoundError(name)

    monkeypatch.setattr(morphemes, "version", missing)
    with pytest.raises(RecipeError, match="no kiwipiepy is installed; pip install kiwipiepy"):
        train_byte_level(make_corpus(tmp_path, SENTENCES), tmp_path / "a.json", 300, 10, "kiwi")


def test_the_command(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, SENTENCES)
    words = ["tokenizer", str(corpus), "--vocab-size", "400", "--out", str(tmp_path / "t.json")]
    done = CliRunner().invoke(cli, [*words, "--byte-level"])
    assert done.exit_code == 0 and "400 tokens" in done.output
    assert Tokenizer.load(tmp_path / "t.json").decode(Tokenizer.load(tmp_path / "t.json").encode("뷁\n")) == "뷁\n"
    for options, message in (
        (["--morphemes", "kiwi"], "--morphemes kiwi: goes with --byte-level; give both"),
        (["--byte-level", "--keep-newlines"], "--keep-newlines: byte-level BPE keeps every character"),
        (["--byte-level", "--profile", "lossless"], "--profile: byte-level BPE keeps every character"),
    ):
        words[-1] = str(tmp_path / "other.json")
        done = CliRunner().invoke(cli, [*words, *options])
        assert isinstance(done.exception, RecipeError) and message in str(done.exception)
    assert not (tmp_path / "other.json").exists()
