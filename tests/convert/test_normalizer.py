"""The normalizer in tokenizer.json: SentencePiece's ids for every character and every order of Korean letters."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from kogpt2_gluon.convert.normalizer import MARK, WALL
from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE, tokenizer_json
from tests.convert.convert_helpers import SYMBOLS, train
from tests.convert.kinds_of_lines import KINDS, LINES, TEXTS

MODELS = {
    "nmt_nfkc": {"profile": "nmt_nfkc"},
    "nmt_nfkc_jamo": {"profile": "nmt_nfkc_jamo"},
    "lossless": {"profile": "lossless"},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "nmt_nfkc_cf": {"normalization_rule_name": "nmt_nfkc_cf"},
    "bytes": {"profile": "nmt_nfkc", "byte_fallback": True},
    "every space": {"profile": "nmt_nfkc", "remove_extra_whitespaces": False},
    "no space in front": {"profile": "nmt_nfkc_jamo", "remove_extra_whitespaces": False, "add_dummy_prefix": False},
    "line ends": {"profile": "nmt_nfkc_jamo", "user_defined_symbols": [*SYMBOLS, "\n", "ㅋ영"]},
    "identity": {"normalization_rule_name": "identity"},
}
ALL = [chr(code) for code in (*range(1, 0xD800), *range(0xE000, 0x20000)) if not 0xAC80 <= code < 0xD780]
JAMO = [
    *map(chr, (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3), *range(0x3131, 0x3190))),
    *("가", "나", "각", "㉠", "㉮", "㈀", "㈎", "㈝", "ﾡ", "ￂ", " ", "\n", "\x01", "\u200b", "\u200d", "ꥠ", "ힰ"),
]
Differing = Callable[[list[str]], list[str]]


@pytest.fixture(scope="module", params=MODELS)
def differing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Differing:
    """Returns those of its texts to which the converted tokenizer gives other ids than SentencePiece."""
    path = tmp_path_factory.mktemp("model") / "t.model"
    path.write_bytes(train(TEXTS, 600, **MODELS[request.param]))
    model = SentencePieceBPE(path)
    tokenizer = Tokenizer.from_str(tokenizer_json(model))
    tokenizer.encode_special_tokens = True

    def differing(texts: list[str]) -> list[str]:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [text for text, one, ids in zip(texts, encodings, model.processor.encode(texts)) if one.ids != ids]

    return differing


def test_every_character_alone_and_among_syllables(differing: Differing) -> None:
    inside = [f"가{char}나" for char in ALL[:0x3400:11]]
    assert set(differing([*ALL[::5], *inside])) <= {text for text in (*ALL, *inside) if {WALL, MARK} & set(text)}


def test_korean_letters_in_any_order(differing: Differing) -> None:
    draw = random.Random(1)
    assert not differing(["".join(draw.choices(JAMO, k=draw.randint(2, 8))) for _ in range(2500)])


def test_characters_of_any_kind_in_any_order(differing: Differing) -> None:
    """Apart from several marks on a letter, which are the known difference."""
    draw = random.Random(2)
    chars = [char for char in ALL if char not in (WALL, MARK)]
    assert not differing(["".join(draw.choices(chars, k=draw.randint(2, 12))) for _ in range(800)])


def test_lines_of_every_kind(differing: Differing) -> None:
    assert set(differing([line for _, line in LINES])) <= set(KINDS["several marks"])


def test_several_marks_on_a_letter_are_the_known_difference(tmp_path: Path) -> None:
    (tmp_path / "t.model").write_bytes(train([*TEXTS, *["ǟ ẹ é a e ọ"] * 30], 600))
    model = SentencePieceBPE(tmp_path / "t.model")
    tokenizer = Tokenizer.from_str(tokenizer_json(model))
    for text, alike in {
        "e\u0301": True,
        "e\u0323\u0301": True,  # in the order of Unicode
        "\u00aa\u0308\u0304": True,
        "\u00e4\u0304": False,  # a mark on a letter that has one
        "e\u0301\u0323": False,  # out of order
        "a\u0344": False,
    }.items():
        assert (tokenizer.encode(text).ids == model.processor.encode(text)) is alike, ascii(text)


def test_a_token_still_knows_its_place_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "t.model").write_bytes(train(TEXTS, 600, profile="nmt_nfkc_jamo"))
    model = SentencePieceBPE(tmp_path / "t.model")
    tokenizer = Tokenizer.from_str(tokenizer_json(model))
    text = "ㅋㅋ ①☃☃ 가"
    encoding = tokenizer.encode(text)
    spelled = {token: text[start:end] for token, (start, end) in zip(encoding.tokens, encoding.offsets)}
    assert spelled["<unk>"] == "☃☃" and spelled["▁1"] == " ①" and spelled["▁가"] == " 가"
