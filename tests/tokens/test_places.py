"""The places of tokens in decomposed text: a syllable of three letters, or a vowel sign of two parts, is not cut."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE, tokenizer_json
from kogpt2_gluon.tasks.encoding import spans_of_tags, tags_of_spans
from kogpt2_gluon.tasks.task import Span
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.tokens.json_helpers import byte_level, kogpt2, unigram, write_json
from tests.tokens.tokenizer_helpers import train_model

# Requests to a voice assistant in the languages of MASSIVE that write a vowel sign of two parts around a letter.
SENTENCES = (
    "내일 아침 일곱 시에 알람을 맞춰 줘",
    "서울역 근처 맛집 좀 알려 줘라",
    "আগামীকাল কোলকাতায় কেমন আবহাওয়া থাকবে বলো",
    "நாளை காலை கொச்சி போகும் பேருந்து எப்போ",
    "നാളെ കൊച്ചിയിലേക്ക് പോകാൻ ടാക്സി വേണം പോ",
    "réveille-moi à sept heures café",
    "마실까해요",  # huggingface/tokenizers, issue 1201
    "明日の朝7時にアラームをかけて",
    "поставь песню завтра вечером",
    "ヿ 하나 ？…… 끝",  # huggingface/transformers, issues 12317 and 9744: one character becomes several
)
JOINED = [unicodedata.normalize("NFC", sentence) for sentence in SENTENCES]
APART = [unicodedata.normalize("NFD", sentence) for sentence in SENTENCES]


def composing_bytes() -> Library:
    """Byte-level BPE after a normalizer, as Qwen2's file has it."""
    tokenizer = byte_level([*JOINED] * 4, 420)
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def without_spaces() -> Library:
    """A token for each syllable; runs of spaces are no part of any token."""
    tokenizer = Library(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(JOINED, trainers.BpeTrainer(vocab_size=120, special_tokens=special))
    return tokenizer


def converted() -> Library:
    """A SentencePiece model's table of characters, and NFC, as `kogpt2 convert` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pieces.model"
        path.write_bytes(train_model(JOINED * 4, 300, character_coverage=1.0))
        return Library.from_str(tokenizer_json(SentencePieceBPE(path)))


KINDS = {
    "converted": converted,
    "bytes": composing_bytes,
    "kogpt2": lambda: kogpt2(JOINED * 4, 300),
    "unigram": lambda: unigram(JOINED * 4, 300),
    "without_spaces": without_spaces,
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """A tokenizer of each kind that composes what it reads."""
    folder = tmp_path_factory.mktemp("tokenizers")
    special = {"unigram": {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}}
    found = {
        kind: Tokenizer.load(write_json(folder / kind, make(), **special.get(kind, {}))) for kind, make in KINDS.items()
    }
    (folder / "pieces.model").write_bytes(train_model(JOINED * 4, 300, character_coverage=1.0))
    return {**found, "sentencepiece": Tokenizer.load(folder / "pieces.model")}


def words_of(text: str) -> tuple[Span, ...]:
    spans, place = [], 0
    for word in text.split(" "):
        if word:
            spans.append(Span(place, place + len(word), "word"))
        place += len(word) + 1
    return tuple(spans)


def check(tokenizer: Tokenizer, text: str) -> None:
    ((ids, places),) = tokenizer.encode_with_places([text])
    assert ids == tokenizer.encode(text) and len(places) == len(ids)
    covered = {place for begin, end in places for place in range(begin, end)}
    assert {place for place, sign in enumerate(text) if not sign.isspace()} <= covered <= set(range(len(text)))
    spans, array = words_of(text), np.array(places, np.int32).reshape(-1, 2)
    assert spans_of_tags(tags_of_spans(spans, array), array, text) == spans
    written = unicodedata.normalize("NFKC", tokenizer.normalize(text))  # a part without a piece is as it was
    assert "".join(written.split()) == "".join(unicodedata.normalize("NFKC", text).split())


@pytest.mark.parametrize("kind", [*KINDS, "sentencepiece"])
def test_words_of_decomposed_text_are_found_whole(loaded: dict[str, Tokenizer], kind: str) -> None:
    for text in (*JOINED, *APART, *(f"  {text.replace(' ', '  ')} " for text in APART)):
        check(loaded[kind], text)


LETTERS = sorted({letter for text in JOINED for letter in text if letter.isalpha()} | {"한", "글", "ガ", "é"})
WORDS = st.lists(st.text(st.sampled_from(LETTERS), min_size=1, max_size=4), min_size=1, max_size=6)


@settings(deadline=None)
@given(WORDS, st.sampled_from(["NFC", "NFD"]), st.sampled_from([*KINDS, "sentencepiece"]))
def test_any_words_are_found_whole(loaded: dict[str, Tokenizer], words: list[str], form: str, kind: str) -> None:
    check(loaded[kind], unicodedata.normalize(form, " ".join(words)))


def test_half_width_letters_that_become_one(loaded: dict[str, Tokenizer]) -> None:
    ((_, places),) = loaded["kogpt2"].encode_with_places(["ｶﾞ ㄱㅏ"])
    assert places[-1][1] == 5 and {end for _, end in places} >= {2, 5}


def test_what_has_no_piece_keeps_its_letters(loaded: dict[str, Tokenizer], tmp_path: Path) -> None:
    text = unicodedata.normalize("NFD", "똠얌꿍")
    assert "".join(loaded["kogpt2"].unknown_in(text)) == text
    assert unicodedata.normalize("NFC", loaded["kogpt2"].normalize(text)) == "똠얌꿍"
