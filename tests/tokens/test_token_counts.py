"""Bytes and words counted from ids are those of the normalised text, whatever the text."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.tokens.counts import SPACES, TokenCounter
from kogpt2_gluon.tokens.profiles import PROFILES
from kogpt2_gluon.tokens.renaming import rename_tokens
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import REAL_TEXT
from tests.tokens.tokenizer_helpers import SIGNS, random_words, train_model

OPTIONS = {
    **{profile: {"profile": profile} for profile in PROFILES},
    "newlines": {"normalization_rule_name": "nmt_nfkc", "user_defined_symbols": ["<unused0>", "<unused1>", "\n"]},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "no_prefix": {"normalization_rule_name": "nmt_nfkc", "add_dummy_prefix": False},
    "suffix": {"normalization_rule_name": "nmt_nfkc", "treat_whitespace_as_suffix": True},
    "spaces_unknown": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "unigram": {"normalization_rule_name": "nmt_nfkc", "model_type": "unigram"},
}


@pytest.fixture(scope="module", params=[*OPTIONS, "renamed"])
def counter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, TokenCounter]:
    out = tmp_path_factory.mktemp("counts") / f"{request.param}.model"
    options = OPTIONS.get(request.param, OPTIONS["nmt_nfkc"])
    sentences = (random_words(10, seed) + " the cat sat. 2,024" for seed in range(300))
    out.write_bytes(train_model(sentences, 700, **{"user_defined_symbols": ["<unused0>", "<unused1>"], **options}))
    if request.param == "renamed":
        rename_tokens(out, [("<unused0>", "리뷰어"), ("<unused1>", "▁두▁말")], out)
    tokenizer = Tokenizer.load(out)
    return tokenizer, TokenCounter(tokenizer)


def assert_counted(counter: tuple[Tokenizer, TokenCounter], texts: list[str]) -> None:
    tokenizer, counts = counter
    encoded = [text.encode() for text in texts]
    text_bytes, words = counts.count(*tokenizer.encode_flat(encoded), encoded)
    normalized = [tokenizer.normalize(text) for text in texts]
    assert text_bytes.tolist() == [len(text.encode()) for text in normalized], ascii(texts)
    assert words.tolist() == [len(text.split()) for text in normalized], ascii(texts)


def test_all_spaces_are_known() -> None:
    assert [sign for sign in map(chr, range(sys.maxunicode + 1)) if sign.isspace()] == SPACES


# fmt: off
PARTS = [
    *SIGNS[:6], *SPACES, "the", " cat", "龘", "龘龘", "😀", "ㅋㅋ", "①", "㈜", "Ａ", "e\u0301", "\u1100\u1161", "ᆨ",
    "\0", "\u0001", "\ufeff", "\u200b", "\u200d", "\ufffd", "\u2581", "\u2585", "\u180e", "\u00ad", "\U000e0001",
    "<unk>", "<s>", "<0x0A>", "<unused0>", "리뷰어", "두 말", " 두  말", "“따옴표”", "…",
]
# fmt: on


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.lists(
        st.lists(st.one_of(st.sampled_from(PARTS), st.characters(exclude_categories=["Cs"])), max_size=12).map("".join),
        max_size=6,
    )
)
@example(["", ""])
@example(["\u0001"])
@example(["", SIGNS[0], "", "龘", ""])
@example(["a\u0085b", "龘\u0085龘 a"])
@example(["a\u3000b 龘\u3000\u3000c"])
def test_any_text(counter: tuple[Tokenizer, TokenCounter], texts: list[str]) -> None:
    assert_counted(counter, texts)


def test_few_texts_are_normalised_again(
    counter: tuple[Tokenizer, TokenCounter], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, counts = counter
    texts = [random_words(5, seed) for seed in range(50)]
    encoded = [text.encode() for text in texts]
    expected = [len(tokenizer.normalize(text).encode()) for text in texts]
    looked_at = []
    spell = SentencePieceTokenizer.spell
    monkeypatch.setattr(SentencePieceTokenizer, "spell", lambda self, text: looked_at.append(text) or spell(self, text))
    ids, lengths = tokenizer.encode_flat(encoded)
    assert counts.count(ids, lengths, encoded)[0].tolist() == expected
    documents = np.repeat(np.arange(len(texts)), lengths)
    assert len(looked_at) == len(set(documents[ids == tokenizer.unk_id].tolist())) < 10


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="the real Korean text (../shared/korean) is not here")
def test_real_text(counter: tuple[Tokenizer, TokenCounter]) -> None:
    for path in sorted((Path(REAL_TEXT) / "lm").iterdir()):
        with path.open(encoding="utf-8") as file:
            assert_counted(counter, [line.rstrip("\n") for line, _ in zip(file, range(1500))])
