"""Texts cut into segments give the ids, bytes and words of the whole; where they might not, nothing is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.shards import segments
from kogpt2_gluon.shards.segments import SEGMENT_BYTES, can_cut, cut_texts
from kogpt2_gluon.tokens.counts import SPACES, TokenCounter
from kogpt2_gluon.tokens.profiles import PROFILES
from kogpt2_gluon.tokens.renaming import rename_tokens
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import REAL_TEXT
from tests.tokens.tokenizer_helpers import SIGNS, random_words, train_model

DEFINED = ["<unused0>", "<unused1>"]
CUT = {
    **{profile: {"profile": profile} for profile in PROFILES},
    "newlines": {"user_defined_symbols": [*DEFINED, "\n"]},
    "lossless_newlines": {"profile": "lossless", "user_defined_symbols": [*DEFINED, "\n"]},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "folded": {"normalization_rule_name": "nmt_nfkc_cf"},
    "renamed": {},
}
WHOLE = {
    "no_prefix": {"add_dummy_prefix": False},
    "suffix": {"treat_whitespace_as_suffix": True},
    "unigram": {"model_type": "unigram"},
    "spans_spaces": {"split_by_whitespace": False},
    "word_with_space": {"user_defined_symbols": ["▁두▁말"]},
}
SPACED = " ".join(["가", "e\u0301", "龘", "the"] * 99)


def make_tokenizer(out: Path, options: dict[str, Any]) -> Path:
    sentences = (random_words(10, seed) + " the cat sat. 2,024" for seed in range(300))
    out.write_bytes(train_model(sentences, 700, **{"user_defined_symbols": DEFINED, **options}))
    return out


@pytest.fixture(scope="module", params=CUT)
def counter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    path = make_tokenizer(tmp_path_factory.mktemp("segments") / f"{request.param}.model", CUT[request.param])
    if request.param == "renamed":
        rename_tokens(path, [("<unused0>", "리뷰어"), ("<unused1>", "▁두말")], path)
    assert can_cut(path.read_bytes())
    return TokenCounter(Tokenizer.load(path))


def assert_same(counter: TokenCounter, texts: list[bytes]) -> None:
    tokenizer = counter._tokenizer
    parts, counts = cut_texts(texts)
    assert counts.sum() == len(parts) and (counts >= 1).all()
    ends = np.cumsum(counts).tolist()
    assert [b" ".join(parts[end - count : end]) for end, count in zip(ends, counts.tolist())] == texts
    whole, lengths = tokenizer.encode_flat(texts)
    ids, part_lengths = tokenizer.encode_flat(parts)
    assert ids.tolist() == whole.tolist(), ascii(texts)
    owner = np.repeat(np.arange(len(texts)), counts)
    assert np.bincount(owner, part_lengths, len(texts)).tolist() == lengths.tolist()
    text_bytes, words = counter.count(ids, part_lengths, parts)
    normalized = [tokenizer.normalize(text.decode()) for text in texts]
    assert text_bytes.sum() + len(parts) - len(texts) == sum(len(text.encode()) for text in normalized)
    assert words.sum() == sum(len(text.split()) for text in normalized)


# fmt: off
PARTS = [
    *SIGNS[:4], *SPACES, " ", " ", " ", "a", "the", "cat", "두 말", "龘", "😀", "①", "Ａ", "e", "\u0301", "\u0308", "¨",
    "\u1100\u1161", "가", "ᆨ", "\0", "\u0001", "\ufeff", "\u200b", "\u200d", "\ufffd", "\u2581", "\u180e", "\ua66f",
    "<unk>", "<s>", "<0x0A>", "<unused0>", "리뷰어", "ﷺ", "\u3099", "ꀀ", "\uabed", "\uac00", "\ucfff", "\ud7a3", "!",
]
# fmt: on


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    texts=st.lists(
        st.lists(st.one_of(st.sampled_from(PARTS), st.characters(exclude_categories=["Cs"])), max_size=30).map("".join),
        max_size=4,
    ),
    size=st.integers(1, 20),
)
@example(texts=[], size=1)
@example(texts=["", "a b", ""], size=1)
@example(texts=["a  b \u0301c \u3000d", "가 \u0308 나 ¨ 다"], size=1)
def test_any_text(counter: TokenCounter, texts: list[str], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cut_every(patch, size)
        assert_same(counter, [text.encode() for text in texts])


def cut_every(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(segments, "SEGMENT_BYTES", size)
    patch.setattr(segments, "_SEGMENT", segments.compile_segment(size))


def test_beside_a_cut_any_plain_character_stays_as_it_is(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every character that a cut may follow or precede, and others that could be next to a space."""
    cut_every(monkeypatch, 1)
    signs = [*map(chr, range(0x21, 0x7F)), *map(chr, range(0xA000, 0xD000))]
    texts = [f"가 {sign} {sign} 나".encode() for sign in signs]
    assert set(cut_texts(texts)[1].tolist()) == {2}  # between the two signs
    assert_same(counter, texts)


def test_short_texts_and_long_words_stay_whole() -> None:
    texts = [b"a " * (SEGMENT_BYTES // 2), b"a" * (1 << 20), b"", "龘".encode() * 9999]
    parts, counts = cut_texts(texts)
    assert parts == texts and counts.tolist() == [1] * 4
    parts, counts = cut_texts([b"x", SPACED.encode(), b"y"])
    assert counts[1] > 1 and max(map(len, parts)) < SEGMENT_BYTES + 20 and (parts[0], parts[-1]) == (b"x", b"y")


@pytest.mark.parametrize("name", WHOLE)
def test_tokenizers_that_look_across_spaces_are_known(name: str, tmp_path: Path) -> None:
    assert not can_cut(make_tokenizer(tmp_path / "t.model", WHOLE[name]).read_bytes())


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="the real Korean text (../shared/korean) is not here")
def test_real_text(counter: TokenCounter) -> None:
    with (Path(REAL_TEXT) / "lm" / "tech_docs_ko.jsonl").open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(100))]
    assert_same(counter, [text.encode() for text in texts])
    assert_same(counter, [" ".join(text.split()).encode() for text in texts])
