"""The tokenizer: all of the corpus is used, ids are where they belong, and text comes back."""

from __future__ import annotations

import io
import pickle
import random
import re
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.data.cleaning import clean
from kogpt2_gluon.data.corpus import Corpus
from kogpt2_gluon.data.tokenizer import MAX_SENTENCE_BYTES, RESERVED, Tokenizer, cut_sentence, train_tokenizer
from kogpt2_gluon.errors import DataError, RecipeError

KOREAN = Path(__file__).resolve().parents[2] / "shared" / "korean" / "lm"
needs_korean = pytest.mark.skipif(not KOREAN.is_dir(), reason="the real Korean text (../shared/korean) is not here")
SIGNS = [chr(0xAC00 + 7 * number) for number in range(300)]


def make_corpus(folder: Path, documents: list[str], test_share: float = 0.0) -> Path:
    source = folder / "source.txt"
    source.write_text("\n".join(documents), encoding="utf-8")
    clean([source], folder / "corpus", "line", test_share)
    return folder / "corpus"


def random_words(count: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices(SIGNS, k=draw.randint(1, 5))) for _ in range(count))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), [random_words(12, seed) for seed in range(500)])


@pytest.fixture(scope="module", params=["nmt_nfkc", "lossless"])
def tokenizer(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("tokenizer") / "new" / "folder" / f"{request.param}.model"
    return train_tokenizer(corpus, out, vocab_size=800, unused=20, profile=request.param)


# --- training


def test_special_pieces_are_where_they_belong(tokenizer: Tokenizer) -> None:
    assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2, 3)
    assert tokenizer.vocab_size == 800
    assert tokenizer.unused == [f"<unused{number}>" for number in range(20)]
    assert [tokenizer.encode(piece)[-1] for piece in tokenizer.unused] == list(range(4, 24))
    spelt_out = tokenizer.encode(f"<s></s><pad> {SIGNS[0]}")  # in a text these are signs like any other
    assert spelt_out
    assert not {1, 2, 3} & set(spelt_out)


def test_every_byte_of_a_long_line_is_used(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines far above SentencePiece's limit, each with a sign that occurs only at its very end."""
    rare = ["힣", "龘", "Ж", "β"]
    documents = [random_words(4000, seed) + f" 끝{sign}" for seed, sign in enumerate(rare)]
    documents += [
        "꽝" * 30_000 + "뾺",
        f"앞쪽 {RESERVED} 뒤똠",
    ]  # a word without a space; the sign that skips a sentence
    assert all(len(text.encode()) > 4 * MAX_SENTENCE_BYTES for text in documents[:5])
    folder = make_corpus(tmp_path, documents)
    tokenizer = train_tokenizer(folder, tmp_path / "a.model", 1000, unused=2, character_coverage=1.0, verbose=True)
    for sign in (*rare, "뾺", "앞", "똠"):
        assert tokenizer.unk_id not in tokenizer.encode(sign), sign
    log = capfd.readouterr().err
    loaded = re.search(r"Loaded all (\d+) sentences", log)
    assert loaded is not None, "SentencePiece's log has changed: this test no longer sees what was loaded"
    sentences = [part for line in Corpus.open(folder).lines("train") for part in cut_sentence(line)]
    assert int(loaded[1]) == len(sentences)
    assert not re.search(r"[Ss]kipped|too long", log)


def test_the_log_would_show_a_skipped_line(capfd: pytest.CaptureFixture[str]) -> None:
    """The proof above can fail: fed whole, such lines are skipped, and the log says so."""
    lines = [random_words(4000), *(random_words(20, seed) for seed in range(50))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=io.BytesIO(), model_type="bpe", vocab_size=500, minloglevel=0
    )
    assert re.search(r"Skipped 1 too long", capfd.readouterr().err)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.lists(st.sampled_from(["a", "가", "나다", "😀", " ", RESERVED, "x" * 9]), max_size=40).map("".join),
    st.integers(8, 40),
)
@example("가" * 100, 8)
@example(" " * 30, 8)
@example("12345678 0", 8)
@example("1234567 90", 8)
def test_cutting_loses_nothing(line: str, limit: int) -> None:
    parts = list(cut_sentence(line, limit))
    assert all(len(part.encode()) <= limit and RESERVED not in part for part in parts)
    assert "".join(parts).replace(" ", "") == line.replace(" ", "").replace(RESERVED, "")
    words = re.split(f"[ {RESERVED}]+", line)
    if all(len(word.encode()) <= limit for word in words):
        assert " ".join(parts).split() == [word for word in words if word]


def test_cutting_a_huge_line_takes_linear_time() -> None:
    line = random_words(400_000)  # 4.5 MB
    parts = list(cut_sentence(line))
    assert " ".join(parts) == line
    assert len(parts) < 1.01 * len(line.encode()) / (MAX_SENTENCE_BYTES - 20) + 1


def test_only_the_train_split_is_learnt(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path, [random_words(10, seed) for seed in range(300)], test_share=0.3)
    texts = {split: set("".join(Corpus.open(folder).lines(split))) for split in ("train", "test")}
    for path in Corpus.open(folder).files("test"):  # signs that only the test split has, in as many bytes
        path.write_text(
            path.read_text(encoding="utf-8").translate({ord(sign): "龘" for sign in SIGNS}), encoding="utf-8"
        )
    tokenizer = train_tokenizer(folder, tmp_path / "a.model", 500, unused=0, character_coverage=1.0)
    assert texts["test"]
    assert tokenizer.unk_id in tokenizer.encode("龘")
    assert tokenizer.unk_id not in tokenizer.encode("".join(sorted(texts["train"])))


def test_training_twice_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    first = train_tokenizer(corpus, tmp_path / "a.model", 600)
    second = train_tokenizer(corpus, tmp_path / "b.model", 600)
    assert first.sha256 == second.sha256
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.model", "b.model"]


@pytest.mark.parametrize(("wrong", "words"), [(150, "too small"), (10**6, "too high")])
def test_the_size_that_would_do_is_named(corpus: Path, tmp_path: Path, wrong: int, words: str) -> None:
    with pytest.raises(RecipeError, match=f"--vocab-size {wrong}: {words}") as caught:
        train_tokenizer(corpus, tmp_path / "a.model", wrong)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    named = int(re.findall(r"\d+", str(caught.value).split(str(corpus))[1])[0])
    assert train_tokenizer(corpus, tmp_path / "a.model", named).vocab_size == named


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vocab_size": 0}, "--vocab-size 0"),
        ({"unused": -1}, "--unused -1"),
        ({"character_coverage": 0.5}, "--character-coverage 0.5"),
        ({"profile": "nfc"}, "--profile nfc: is none of nmt_nfkc, lossless"),
    ],
)
def test_bad_arguments(corpus: Path, tmp_path: Path, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        train_tokenizer(corpus, tmp_path / "a.model", **{"vocab_size": 600, **arguments})  # type: ignore[arg-type]


def test_a_corpus_that_breaks_while_it_is_read(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path, [random_words(10, seed) for seed in range(50)])
    path = Corpus.open(folder).files("train")[0]
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"corpus-00000\.txt: not UTF-8"):
        train_tokenizer(folder, tmp_path / "a.model", 500)
    assert not (tmp_path / "a.model").exists()


# --- text to ids and back


def test_what_cannot_be_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.model: the tokenizer cannot be read"):
        Tokenizer.load(tmp_path / "nowhere.model")
    for data, words in [
        (b"", "an empty file"),
        (b"garbage", "not a SentencePiece model"),
        (tokenizer.path.read_bytes()[:-5], "damaged"),
    ]:
        (tmp_path / "a.model").write_bytes(data)
        with pytest.raises(DataError, match=f"a.model: {words}|a.model: .*{words}"):
            Tokenizer.load(tmp_path / "a.model")


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
    assert other.unused == ["<unused0>"]
    with pytest.raises(DataError, match="without the piece <pad>"):
        train()
    plain = train(pad_id=3, add_dummy_prefix=False, normalization_rule_name="identity", remove_extra_whitespaces=False)
    assert plain.normalize(" 가  나") == " 가  나"


def test_batches_threads_and_processes_agree(tokenizer: Tokenizer) -> None:
    texts = [random_words(6, seed) for seed in range(200)] + ["", " ", "새 글자 龘"]
    ids = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == tokenizer.encode_batch(texts, num_threads=2) == ids
    copy = pickle.loads(pickle.dumps(tokenizer))  # how a process pool hands it over
    assert copy.encode_batch(texts) == ids
    assert copy.sha256 == tokenizer.sha256


def test_what_is_no_text_and_no_id(tokenizer: Tokenizer) -> None:
    for call in (tokenizer.encode, tokenizer.normalize, lambda text: tokenizer.encode_batch(["가", text])):
        with pytest.raises(DataError, match=r"half of a surrogate pair, U\+D800, at character 2"):
            call("가나\ud800")
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match=f"id {wrong} is none of the 800"):
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
    lines = (KOREAN / "nsmc_raw_reviews.txt").read_bytes().split(b"\n")[::6]
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
