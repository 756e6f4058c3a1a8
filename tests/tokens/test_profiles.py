"""The profile that keeps single letters as they are typed: elsewhere it is `nmt_nfkc`, character by character."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.tokens.profiles import FOLDED, JAMO, JAMO_PROFILE
from kogpt2_gluon.tokens.report import REASONS, format_report, report_tokenizers
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.tokens.training import train_tokenizer
from tests.tokens.tokenizer_helpers import make_corpus, random_words

SENTENCES = [f"{random_words(8, seed)} ㅋㅋㅋ ㅠㅠ ㅇㅋ ㄱㅅ ㄳ ＯＫ é" for seed in range(200)]
PLAIN = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), SENTENCES)


@pytest.fixture(scope="module")
def tokenizer(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("jamo") / "t.model"
    return train_tokenizer(corpus, out, 600, unused=4, profile=JAMO_PROFILE, character_coverage=1.0)


def plain(text: str) -> str:
    """The text in the default profile."""
    return PLAIN.normalize(text)


@pytest.mark.parametrize(
    "text",
    [
        "ㅋㅋㅋ",
        "가ㅋㅋ",
        "ㄱㅏ",
        "ㅇㅇ",
        "ㅠㅠ ㅜㅜ",
        "ㄳ",
        "헐ㄷㄷ",
        "ㅎㅎ;",
        "ㆍ아래아ㆍ",
        "간ㄴ",
        "ㄱ ㄴ ㄷ",
        "값ㅅ",
    ],
)
def test_what_is_typed_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.normalize(text) == text
    assert plain(f"x{text}")[1:] != text


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("ﾻﾻ", "ㅋㅋ"),
        ("ￂￃ", "ㅏㅐ"),
        ("㈀㈎", "(ㄱ)(가)"),
        ("㉠㉮", "ㄱ가"),
        ("Ｆｕｌｌ", "Full"),
        ("㎏", "kg"),
        ("\u1100\u1161\u11a8", "각"),
    ],
)
def test_everything_else_is_folded(tokenizer: Tokenizer, text: str, becomes: str) -> None:
    assert tokenizer.normalize(text) == becomes


def test_all_single_characters(tokenizer: Tokenizer) -> None:
    """Only letters that `nmt_nfkc` makes of single letters differ, and folding them gives what it makes."""
    differ = []
    for number in [*range(0xD800), *range(0xE000, 0x30000)]:
        text = f"a{chr(number)}a"
        ours, theirs = tokenizer.normalize(text), PLAIN.normalize(text).replace("\u2581", " ").strip(" ")
        if ours != theirs:
            differ.append(chr(number))
            assert unicodedata.normalize("NFKC", ours) == theirs, hex(number)
            assert set(ours[1:-1]) & JAMO
    assert JAMO - {"\u3130", "\u318f"} <= set(differ)
    assert {unicodedata.name(char).split()[0] for char in differ} == {"HANGUL", "HALFWIDTH", "PARENTHESIZED", "CIRCLED"}


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="".join(FOLDED)), max_size=30))
@example("e\u0301\u0323각")
@example("\u1100\u1161\u11a8가")
def test_texts_without_single_letters_are_the_same(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.spell(text.encode()).decode() == PLAIN.normalize(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.sampled_from([*sorted(JAMO), *"가각힣갸a"]), min_size=1), max_size=4).map(" ".join))
def test_single_letters_stay_wherever_they_are(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.normalize(text) == text


def test_the_report_says_why_a_text_does_not_come_back(corpus: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    default = train_tokenizer(corpus, tmp_path / "default.model", 600, unused=4)
    (tmp_path / "in.txt").write_text("x")
    texts = ["ㅋㅋ 좋다", "ＯＫ", "값은 龘", "그냥 좋다", "ㅇㅋ ㎏"]
    folder = make_corpus(tmp_path, [*texts, SENTENCES[0]])
    report = report_tokenizers([default.path, tokenizer.path], [folder], split="train")
    first, second = (row["reasons"] for row in report["rows"])
    assert first["jamo"] == 3 and "jamo" not in second
    assert first["folded"] == second["folded"] == 3  # ＯＫ, ㎏, and ＯＫ in the sentence
    assert first["unknown"] >= 1 <= second["unknown"]
    for row in report["rows"]:
        assert max(row["reasons"].values()) <= row["documents"] - row["came_back"] <= sum(row["reasons"].values())
        assert set(row["reasons"]) <= set(REASONS)
    text = format_report(report)
    assert (
        f"jamo: single letters such as ㅋ become other characters (--profile {JAMO_PROFILE} keeps them): 3 of" in text
    )
    assert "folded: " in text and "spaces: " not in text
