"""Training a tokenizer: all of the corpus is used, or the sample that was asked for, and ids are where they belong."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, DiskFullError, RecipeError
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.tokens.training import MAX_SENTENCE_BYTES, RESERVED, Sentences, cut_sentence, train_tokenizer
from kogpt2_gluon.wording import gigabytes
from tests.helpers import enlarge, small_disk
from tests.tokens.tokenizer_helpers import SIGNS, make_corpus, random_words


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), [random_words(12, seed) for seed in range(500)])


@pytest.fixture(scope="module", params=["nmt_nfkc", "lossless"])
def tokenizer(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("tokenizer") / "new" / "folder" / f"{request.param}.model"
    return train_tokenizer(corpus, out, vocab_size=800, unused=20, profile=request.param)


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
        ({"character_coverage": 0.97}, "--character-coverage 0.97: must be from 0.98 to 1"),
        ({"character_coverage": float("nan")}, "--character-coverage nan"),
        ({"profile": "nfc"}, "--profile nfc: is none of nmt_nfkc, nmt_nfkc_jamo, lossless"),
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


# --- samples


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Corpora of 120 kB each, the last one of a few very long lines."""
    root = tmp_path_factory.mktemp("three")
    texts = [
        [random_words(12, seed) for seed in range(1000)],
        [random_words(30, seed) for seed in range(5000, 5400)],
        [random_words(4000, seed) for seed in range(9000, 9003)],
    ]
    for number in range(len(texts)):
        (root / str(number)).mkdir()
    return [make_corpus(root / str(number), lines) for number, lines in enumerate(texts)]


@pytest.mark.parametrize("limit", [20_000, 100_000, 300_000])
def test_a_sample_is_never_larger_and_nearly_as_large_as_asked(three: list[Path], limit: int) -> None:
    sentences = Sentences(three, limit)
    drawn = list(sentences)
    size = sum(len(sentence.encode()) + 1 for sentence in drawn)
    assert size == sentences.used <= limit
    assert size > limit - 2 * MAX_SENTENCE_BYTES
    everything = list(Sentences(three, 10**9))
    assert sentences.total == sum(len(sentence.encode()) + 1 for sentence in everything)
    assert set(drawn) < set(everything)
    assert f"a sample of {gigabytes(size)} of the {gigabytes(sentences.total)} of text" in sentences.summary()


def test_the_sample_does_not_depend_on_order_and_grows_with_its_size(three: list[Path]) -> None:
    there, back = list(Sentences(three, 100_000)), list(Sentences(three[::-1], 100_000))
    assert sorted(there) == sorted(back) and there != back
    assert set(there) < set(Sentences(three, 200_000))
    whole = [set(Sentences([folder], 10**9)) for folder in three]
    shares = [sum(len(sentence) for sentence in there if sentence in sentences) for sentences in whole]
    assert min(shares) > 0.1 * sum(shares)  # of every corpus, though one has few lines


def test_a_model_of_a_sample_and_of_all(three: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    small = train_tokenizer(three, tmp_path / "a.model", 600, sample_mb=0.1, say=said.append)
    again = train_tokenizer(three[::-1], tmp_path / "b.model", 600, sample_mb=0.1)
    whole = train_tokenizer(three, tmp_path / "c.model", 600, say=said.append)
    assert small.pieces == again.pieces != whole.pieces
    assert "a sample of 0.1 MB of" in said[0] and said[1].startswith("learning from all 0.")


def test_samples_that_cannot_be(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--sample-mb 1e-05: draws no sentence of"):
        train_tokenizer(three, tmp_path / "a.model", 600, sample_mb=1e-5)
    with pytest.raises(RecipeError, match="--sample-mb -1"):
        train_tokenizer(three, tmp_path / "a.model", 600, sample_mb=-1)
    with pytest.raises(RecipeError, match="named twice"):
        train_tokenizer([three[0], three[1], three[0]], tmp_path / "a.model", 600)
    assert list(tmp_path.iterdir()) == []


# --- line ends


@pytest.fixture(scope="module", params=["nmt_nfkc", "lossless"])
def with_newlines(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("newlines") / "a.model"
    return train_tokenizer(corpus, out, 800, unused=7, profile=request.param, keep_newlines=True)


def test_a_line_end_is_one_token(with_newlines: Tokenizer) -> None:
    assert with_newlines.keeps_newlines
    assert with_newlines.pieces[4:12] == [*(f"<unused{number}>" for number in range(7)), "\n"]
    assert with_newlines.encode(f"{SIGNS[0]}\n\n{SIGNS[1]}").count(11) == 2


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.lists(st.sampled_from(SIGNS[:40]), max_size=4).map(" ".join), max_size=6).map("\n".join))
@example("\n")
@example("\n\n가")
def test_lines_come_back(with_newlines: Tokenizer, text: str) -> None:
    assert with_newlines.decode(with_newlines.encode(text)) == text
    assert with_newlines.normalize(text) == text


def test_without_it_a_line_end_is_a_space_or_a_byte(tokenizer: Tokenizer) -> None:
    assert not tokenizer.keeps_newlines
    back = tokenizer.decode(tokenizer.encode(f"{SIGNS[0]}\n{SIGNS[1]}"))
    assert back == f"{SIGNS[0]}{' ' if tokenizer.path.stem == 'nmt_nfkc' else chr(10)}{SIGNS[1]}"


@pytest.mark.parametrize("kilobytes", [4, 100, 250])
def test_a_full_disk_is_named_before_anything_is_learnt(corpus: Path, tmp_path: Path, kilobytes: int) -> None:
    with small_disk(tmp_path / "disk", kilobytes << 10) as disk:
        said: list[str] = []
        message = (
            rf"^{disk}/new/t\.model: the disk is full \(0\.\d MB free of 0\.\d MB\); the tokenizer needs 0\.3 MB; make"
        )
        with pytest.raises(DiskFullError, match=message):
            train_tokenizer(corpus, disk / "new" / "t.model", vocab_size=800, say=said.append)
        assert not said and not any(disk.iterdir())
        enlarge(disk, 1 << 20)
        assert train_tokenizer(corpus, disk / "new" / "t.model", vocab_size=800).vocab_size == 800


def test_a_disk_that_fills_up_meanwhile_is_named(corpus: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        fill = (disk / "filler").write_bytes
        with pytest.raises(DiskFullError, match=r"t\.model|/disk: the disk is full .* the tokenizer needs"):
            train_tokenizer(corpus, disk / "t.model", vocab_size=800, say=lambda line: fill(b"x" * 1_000_000) and None)
        assert [path.name for path in disk.iterdir()] == ["filler"]
