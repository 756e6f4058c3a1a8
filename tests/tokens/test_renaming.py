"""Naming unused tokens: the term is one token in running text, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer as FastTokenizer

from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE, check_same_ids, tokenizer_json
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.tokens.profiles import PROFILES
from kogpt2_gluon.tokens.renaming import parse_renaming, rename_tokens
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, train
from tests.helpers import REAL_TEXT, kogpt2
from tests.tokens.tokenizer_helpers import random_words

REVIEWS = REAL_TEXT / "lm" / "nsmc_raw_reviews.txt"
TERM = "리뷰어"  # "reviewer"
SENTENCES = [*OWN_SENTENCES * 20, *(random_words(8, seed) for seed in range(200))]


def lines_of_text() -> list[str]:
    if not REVIEWS.is_file():
        return SENTENCES
    with REVIEWS.open(encoding="utf-8") as file:
        return [line.rstrip("\n") for line, _ in zip(file, range(20_000))]


@pytest.fixture(scope="module", params=PROFILES)
def before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp(request.param) / "before.model"
    path.write_bytes(train(SENTENCES, 1400, profile=request.param))
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def after(before: Tokenizer) -> Tokenizer:
    return rename_tokens(before.path, [("<unused7>", TERM)], before.path.with_name("after.model"))


@pytest.mark.parametrize(
    "text",
    [
        "그 리뷰어는 친절했다.",
        "리뷰어",
        "리뷰어가 썼다",
        "이 리뷰어",
        "명리뷰어들",
        "리뷰어리뷰어",
        "\n리뷰어\n",
        ",리뷰어.",
    ],
)
def test_the_term_is_one_token_wherever_it_stands(before: Tokenizer, after: Tokenizer, text: str) -> None:
    ids = after.encode(text)
    token = before.pieces.index("<unused7>")
    assert ids.count(token) == text.count(TERM)
    assert after.pieces[token] == TERM
    assert len(ids) < len(before.encode(text))
    if before.unk_id not in before.encode(text):
        assert after.decode(ids) == before.decode(before.encode(text)) == after.normalize(text)


def test_all_other_rows_stay(before: Tokenizer, after: Tokenizer) -> None:
    token = before.pieces.index("<unused7>")
    assert after.vocab_size == before.vocab_size
    assert [piece for piece in after.pieces if piece != TERM] == [*before.pieces[:token], *before.pieces[token + 1 :]]
    assert after.unused == [piece for piece in before.unused if piece != "<unused7>"]
    assert after.sha256 != before.sha256 == Tokenizer.load(before.path).sha256


def test_texts_without_the_term_keep_their_ids(before: Tokenizer, after: Tokenizer) -> None:
    lines = [line for line in lines_of_text() if TERM not in line and "<unused7>" not in line]
    assert len(lines) > 300
    assert after.encode_batch(lines) == before.encode_batch(lines)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([TERM, " ", "\n", "리뷰", "어", "영화", "오늘은", "ㅋ"]),
            st.characters(exclude_categories=["Cs"]),
        ),
        max_size=10,
    ).map("".join)
)
@example("리뷰 어리뷰어 어")
@example("<unused7>")
def test_with_any_text(before: Tokenizer, after: Tokenizer, text: str) -> None:
    token = before.pieces.index("<unused7>")
    ids = after.encode(text)
    if token not in ids and "<unused7>" not in text:
        assert ids == before.encode(text)
    assert ids.count(token) == after.normalize(text).count(TERM)
    if before.unk_id not in ids:
        assert after.decode(ids) == after.normalize(text)


@pytest.mark.parametrize(
    "names",
    [
        [("<unused7>", TERM)],
        [("<unused7>", f"▁{TERM}")],
        [("<unused7>", f"▁{TERM}"), ("<unused2>", TERM)],
        [("<unused0>", "인공▁지능"), ("<unused1>", "▁인공▁지능")],
        [("<unused0>", "뷰어"), ("<unused1>", TERM)],
    ],
)
def test_what_is_converted_agrees(before: Tokenizer, tmp_path: Path, names: list[tuple[str, str]]) -> None:
    named = rename_tokens(before.path, names, tmp_path / "named.model")
    model = SentencePieceBPE(named.path)
    converted = FastTokenizer.from_str(tokenizer_json(model))
    texts = [
        *lines_of_text()[:200],
        " 리뷰어",
        "리뷰어",
        "뷰어 리뷰어 뷰어",
        "인공 지능",
        "내 인공  지능은 인공지능",
        "한 리뷰어 인공 지능",
    ]
    texts += [
        f"{left}{term}{right}"
        for term in (TERM, "인공 지능")
        for left in ("", " ", "그 ", "가")
        for right in ("", "는", " ")
    ]
    check_same_ids(converted, model, texts)
    for text in texts:
        ids = named.encode(text)
        assert converted.decode(ids, skip_special_tokens=False) == named.decode(ids), text
        assert any(named.pieces.index(term) in ids for _, term in names) or not any(
            term.replace("▁", " ") in named.normalize(f" {text}") for _, term in names
        )


def test_with_a_space_in_front_the_term_takes_the_space_with_it(before: Tokenizer, tmp_path: Path) -> None:
    named = rename_tokens(before.path, [("<unused7>", f"▁{TERM}")], tmp_path / "named.model")
    token = named.pieces.index(f"▁{TERM}")
    assert named.encode("리뷰어") == [token]
    assert named.encode("오늘은 리뷰어") == [*before.encode("오늘은"), token]
    assert token not in named.encode("명리뷰어")
    assert named.decode([token, token]) == "리뷰어 리뷰어"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("<unused7>=", "the term is empty"),
        ("<unused7>=▁", "the term is empty"),
        ("<unused7>= ", "the term is empty"),
        ("<unused99>=리뷰어", r"has no <unused99>; its unused tokens are <unused0> to <unused11>"),
        ("<unused7>=오늘은", r"'오늘은' is already one token after a space \(id [0-9]+\)"),
        ("<unused7>=▁오늘은", "it is a piece already, id [0-9]+"),
        ("<unused7>=<unused8>", "are reserved"),
        ("<unused7>=<unused800>", "are reserved"),
        ("<unused7>=말</s>", "are reserved"),
        ("<unused7>=리▅뷰", "are reserved"),
        ("<unused7>=리\n뷰", "control character"),
        ("<unused7>=\u0301", "cannot begin with a mark or a part of a syllable"),
        ("<unused7>=▁\u11ab가", "cannot begin with a mark or a part of a syllable"),
        ("<unused7>=인공 지능", "write '인공▁지능'"),
        ("<unused7>=▁▁리뷰어", "one space before or within"),
        ("<unused7>=리뷰어▁", "one space before or within"),
        ("리뷰어=<unused7>", "write it as '<unused7>=TERM'"),
        ("<unused7>", "write it as '<unused7>=TERM'"),
        ("<unused07>=리뷰어", "write it as '<unused7>=TERM'"),
    ],
)
def test_what_cannot_be_a_name(before: Tokenizer, tmp_path: Path, option: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        rename_tokens(before.path, [parse_renaming(option)], tmp_path / "new.model")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("term", "spelt"),
    [("ＳＦ영화", "SF영화"), ("㈜가", "(주)가"), ("\u1112\u1161\u11ab", "한"), ("영e\u0301", "영é")],
)
def test_terms_that_normalisation_changes(before: Tokenizer, tmp_path: Path, term: str, spelt: str) -> None:
    if before.normalize("Ａ") == "A":
        with pytest.raises(RecipeError, match="normalised text never has that") as caught:
            rename_tokens(before.path, [("<unused1>", term)], tmp_path / "new.model")
        assert repr(spelt) in str(caught.value)
    else:  # where nothing is normalised, anything can be a name
        named = rename_tokens(before.path, [("<unused1>", term)], tmp_path / "new.model")
        assert named.encode(term)[-1] == named.pieces.index(term)


def test_names_given_twice(before: Tokenizer, after: Tokenizer, tmp_path: Path) -> None:
    for names, words in [
        ([("<unused1>", "리뷰어"), ("<unused2>", "리뷰어")], "the term '리뷰어' is given twice"),
        ([("<unused1>", "리뷰어"), ("<unused1>", "감독판")], "the token '<unused1>' is given twice"),
        ([], "no --token"),
    ]:
        with pytest.raises(RecipeError, match=words):
            rename_tokens(before.path, names, tmp_path / "new.model")
    with pytest.raises(RecipeError, match="has no <unused7>; it is renamed already, to '리뷰어'"):
        rename_tokens(after.path, [("<unused7>", "감독판")], tmp_path / "new.model")
    with pytest.raises(RecipeError, match="it is a piece already"):
        rename_tokens(after.path, [("<unused8>", TERM)], tmp_path / "new.model")
    again = rename_tokens(after.path, [("<unused8>", "감독판")], tmp_path / "new.model")  # another goes on from there
    assert again.encode("리뷰어감독판")[-2:] == [again.pieces.index(TERM), again.pieces.index("감독판")]


def test_a_name_that_another_hides(after: Tokenizer, tmp_path: Path) -> None:
    one = rename_tokens(after.path, [("<unused0>", "가리뷰")], tmp_path / "one.model")
    assert one.pieces.index("가리뷰") in one.encode("가리뷰어")  # found first, because it comes first
    proto = sentencepiece_model_pb2.ModelProto.FromString(after.path.read_bytes())
    proto.pieces[4].piece = "a감"
    (tmp_path / "hides.model").write_bytes(proto.SerializeToString())
    with pytest.raises(RecipeError, match="another named token is found first"):
        rename_tokens(tmp_path / "hides.model", [("<unused1>", "감독판")], tmp_path / "new.model")


def test_files_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(b"garbage")
    for path in (tmp_path / "a.model", tmp_path / "nowhere.model"):
        with pytest.raises(DataError, match=path.name):
            rename_tokens(path, [("<unused1>", TERM)], tmp_path / "new.model")
    assert [path.name for path in tmp_path.iterdir()] == ["a.model"]


def test_the_command(before: Tokenizer, tmp_path: Path) -> None:
    out = tmp_path / "named.model"
    arguments = ("tokenizer", "rename", before.path, "--token", f"<unused7>={TERM}", "--out", out)
    said = kogpt2(*arguments).stdout
    assert f"<unused7> -> '{TERM}', id {before.pieces.index('<unused7>')}" in said and "11 unused left" in said
    assert "exists" in kogpt2(*arguments, code=RecipeError.exit_code).stderr
    kogpt2(*arguments, "--overwrite")
    message = kogpt2("tokenizer", "rename", out, "--token", f"<unused7>={TERM}", "--out", tmp_path / "b", code=2).stderr
    assert "renamed already" in message and len(message.splitlines()) == 1
    assert issubclass(RecipeError, KoGPT2Error) and not (tmp_path / "b").exists()
