"""The tokenizer: what its file must hold, text to ids, and text back."""

from __future__ import annotations

import io
import pickle
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.tokens.training import RESERVED, train_tokenizer
from tests.helpers import REAL_TEXT
from tests.tokens.tokenizer_helpers import SIGNS, make_corpus, random_words

REVIEWS = REAL_TEXT / "lm" / "nsmc_raw_reviews.txt"
needs_korean = pytest.mark.skipif(not REVIEWS.is_file(), reason="the real Korean text (../shared/korean) is not here")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), [random_words(12, seed) for seed in range(500)])


@pytest.fixture(scope="module", params=["nmt_nfkc", "lossless"])
def tokenizer(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("tokenizer") / "new" / "folder" / f"{request.param}.model"
    return train_tokenizer(corpus, out, vocab_size=800, unused=20, profile=request.param)


def test_what_cannot_be_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.model: the tokenizer cannot be read"):
        Tokenizer.load(tmp_path / "nowhere.model")
    for data, words in [
        (b"", "is empty"),
        (b"garbage", "not a SentencePiece model"),
        (tokenizer.path.read_bytes()[:-5], "damaged"),
    ]:
        (tmp_path / "a.model").write_bytes(data)
        with pytest.raises(DataError, match=f"a.model: {words}|a.model: .*{words}"):
            Tokenizer.load(tmp_path / "a.model")


def test_a_model_whose_texts_are_not_utf8(tokenizer: Tokenizer, tmp_path: Path) -> None:
    content = tokenizer.path.read_bytes()
    piece = tokenizer.pieces[-1].encode()
    path = tmp_path / "a.model"
    for damaged in (content.replace(piece, b"\xff" * len(piece)), content.replace(b"<s>", b"<\xff>")):
        assert damaged != content and len(damaged) == len(content)
        path.write_bytes(damaged)
        for read in (Tokenizer.load, lambda path: model_proto(path.read_bytes(), path), SentencePieceBPE):
            with pytest.raises(DataError, match=r"a\.model: .*(not a SentencePiece model|damaged|lacks the piece)"):
                read(path)


def test_other_ids_are_read_by_name(corpus: Path, tmp_path: Path) -> None:
    def train(**options: object) -> Tokenizer:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=Corpus.open(corpus).lines("train"),
            model_writer=model,
            model_type="bpe",
            vocab_size=500,
            minloglevel=2,
            **options,
        )
        (tmp_path / "a.model").write_bytes(model.getvalue())
        return Tokenizer.load(tmp_path / "a.model")

    other = train(unk_id=5, pad_id=3, bos_id=0, eos_id=1, user_defined_symbols="<unused0>,<unused2>")
    assert (other.unk_id, other.pad_id, other.bos_id, other.eos_id) == (5, 3, 0, 1)
    assert other.unused == ["<unused0>", "<unused2>"]
    with pytest.raises(DataError, match="lacks the piece <pad>"):
        train()
    plain = train(pad_id=3, add_dummy_prefix=False, normalization_rule_name="identity", remove_extra_whitespaces=False)
    assert plain.normalize(" 가  나") == " 가  나"


def test_batches_threads_and_processes_agree(tokenizer: Tokenizer) -> None:
    texts = [random_words(6, seed) for seed in range(200)] + ["", " ", "새 글자 龘"]
    ids = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == ids
    flat, lengths = tokenizer.encode_flat([text.encode() for text in texts])
    assert flat.dtype == np.int32 and lengths.tolist() == [len(row) for row in ids]
    assert flat.tolist() == [token for row in ids for token in row]
    copy = pickle.loads(pickle.dumps(tokenizer))  # how a process pool hands it over
    assert copy.encode_batch(texts) == ids
    assert copy.sha256 == tokenizer.sha256


def test_flat_ids_need_nothing_but_the_public_encode(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [random_words(6, seed).encode() for seed in range(20)] + [b""]
    ids, lengths = tokenizer.encode_flat(texts)
    monkeypatch.setattr(tokenizer, "_processor", SimpleNamespace(encode=tokenizer._processor.encode))
    plain_ids, plain_lengths = tokenizer.encode_flat(texts)
    assert plain_ids.dtype == ids.dtype and plain_ids.tolist() == ids.tolist()
    assert plain_lengths.dtype == lengths.dtype and plain_lengths.tolist() == lengths.tolist()
    assert tokenizer.encode_flat([])[0].size == 0


def test_what_is_no_text_and_no_id(tokenizer: Tokenizer) -> None:
    for call in (tokenizer.encode, tokenizer.normalize, lambda text: tokenizer.encode_batch(["가", text])):
        with pytest.raises(DataError, match=r"half of a surrogate pair, U\+D800, at character 2"):
            call("가나\ud800")
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match=f"id {wrong} is not one of the 800"):
            tokenizer.decode([5, wrong])
    assert tokenizer.decode([1, *tokenizer.encode(SIGNS[0]), 2, 3]) == SIGNS[0]


def test_nmt_nfkc_folds(corpus: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(corpus, tmp_path / "a.model", 600)
    assert tokenizer.normalize("  ㈜ ａ①\n나\u3000 다 ") == "(주) a1 나 다"
    assert tokenizer.normalize(unicodedata.normalize("NFD", "한글")) == "한글"
    assert tokenizer.encode(f"{SIGNS[0]}\n{SIGNS[1]}") == tokenizer.encode(f"{SIGNS[0]} {SIGNS[1]}")
    for text in ("", " ", "\n"):
        assert tokenizer.encode(text) == []
        assert tokenizer.normalize(text) == ""


@pytest.fixture(scope="module")
def lossless(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(corpus, tmp_path_factory.mktemp("lossless") / "a.model", 800, profile="lossless")


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.text(
        st.one_of(
            st.sampled_from([*SIGNS[:5], " ", "\n", "\r", "\0", RESERVED]), st.characters(exclude_categories=["Cs"])
        )
    )
)
@example("<s> </s> <unused3> ⁇ <0x41>")
@example("👨\u200d👩 \ufeff\ufffe\U0010ffff")
def test_lossless_is_lossless(lossless: Tokenizer, text: str) -> None:
    text = text.replace("\u2581", "")  # SentencePiece's sign for a space: the one exception
    ids = lossless.encode(text)
    assert lossless.decode(ids) == text
    assert lossless.unk_id not in ids
    assert lossless.normalize(text) == text


@needs_korean
def test_real_text(tmp_path: Path) -> None:
    source = tmp_path / "reviews.txt"
    lines = REVIEWS.read_bytes().split(b"\n")[::6]
    source.write_bytes(b"\n".join(lines))
    clean([source], tmp_path / "corpus", "line", test_share=0.1)
    held_out = list(Corpus.open(tmp_path / "corpus").documents("test"))
    assert len(held_out) > 5000
    kogpt2 = train_tokenizer(tmp_path / "corpus", tmp_path / "kogpt2.model", 8000)
    lossless = train_tokenizer(tmp_path / "corpus", tmp_path / "lossless.model", 8000, profile="lossless")
    ids = lossless.encode_batch(held_out)
    assert [lossless.decode(row) for row in ids] == held_out
    assert not any(lossless.unk_id in row for row in ids)
    ids = kogpt2.encode_batch(held_out)
    tokens, size = sum(map(len, ids)), sum(len(text.encode()) for text in held_out)
    assert sum(row.count(kogpt2.unk_id) for row in ids) < 0.003 * tokens
    assert 4.0 < size / tokens < 5.5  # bytes a token
    known = [(text, row) for text, row in zip(held_out, ids) if kogpt2.unk_id not in row]
    assert all(kogpt2.decode(row) == kogpt2.normalize(text) for text, row in known)
    decomposed = [unicodedata.normalize("NFD", text) for text in held_out]
    same = sum(row == other for row, other in zip(ids, kogpt2.encode_batch(decomposed)))
    assert same > 0.99 * len(ids)
