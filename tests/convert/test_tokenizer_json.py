"""tokenizer.json: the ids and texts of SentencePiece, or a refusal that says why."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer

from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE, tokenizer_json
from kogpt2_gluon.errors import DataError
from tests.convert.convert_helpers import OWN_SENTENCES, SYMBOLS, make_checkpoint, train
from tests.helpers import REAL_TEXT

REVIEWS = REAL_TEXT / "lm" / "nsmc_raw_reviews.txt"
# fmt: off
ODD = [
    "ㅋㅋㅋ", "ㅠㅠ", "ㄳ", "ㅏ", "</s>", "<s>", "<pad>", "<unk>", "<unused0>", "<unused11>", "<unused", "<0x41>", "a",
    "Ⅷ", "①", "ﬁ", "㈜", "½", "漢字", "ＡＢ", "é", "e\u0323\u0302", "▁", "2.5%", "😀", "👨\u200d👩\u200d👧",
    "❤\ufe0f", "²\u200d",
]
SPACES = [
    " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff", "\u0001", "\u0085", "\u2028",
]
# fmt: on
# The ways in which our tokenizers, and others', are trained.
PROFILES = {
    "newlines": {"normalization_rule_name": "nmt_nfkc", "user_defined_symbols": [*SYMBOLS, "\n"]},
    "nmt_nfkc": {"normalization_rule_name": "nmt_nfkc"},
    "nmt_nfkc_jamo": {"profile": "nmt_nfkc_jamo"},
    "lossless": {"normalization_rule_name": "identity", "byte_fallback": True, "remove_extra_whitespaces": False},
    "no_prefix": {"normalization_rule_name": "nmt_nfkc", "add_dummy_prefix": False, "remove_extra_whitespaces": False},
}


def real_lines() -> list[str]:
    if not REVIEWS.is_file():
        return OWN_SENTENCES
    with REVIEWS.open(encoding="utf-8") as file:
        return [line.rstrip("\n") for line, _ in zip(file, range(15_000))]


@pytest.fixture(scope="module", params=PROFILES)
def pair(request, transformers, tmp_path_factory):
    """(AutoTokenizer of a converted checkpoint, SentencePiece) with 6,000 pieces of real text."""
    folder = tmp_path_factory.mktemp(request.param)
    model = train(real_lines(), 6000, **PROFILES[request.param])
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    rows = np.zeros((6000, 96), np.float32)

    def more_rows(arrays):
        arrays.update({"_embed.weight": rows, "_logits_proj.weight": rows})

    convert_checkpoint(make_checkpoint(folder / "ckpt", model, more_rows, vocab_size=6000), folder / "out")
    return transformers.AutoTokenizer.from_pretrained(folder / "out"), sp


def mixed_lines(count: int) -> list[str]:
    """Real lines as they are, decomposed, cut, and with odd characters inserted, before and after them."""
    draw, lines, odd = random.Random(0), real_lines(), [*ODD, ""]
    mixed = [
        "",
        " ",
        "   ",
        "\n",
        "\u3000",
        *SYMBOLS,
        *ODD,
        *SPACES,
        "<s>안녕</s>",
        "<unused0></s>",
        "감사ㄳ",
        "ㅋ\u0001ㅠ",
    ]
    while len(mixed) < count:
        line = draw.choice(lines)
        kind = len(mixed) % 5
        if kind == 1:
            line = unicodedata.normalize("NFD", line)
        elif kind == 2:
            words = [part for word in line.split(" ") for part in (word, draw.choice(SPACES), draw.choice(odd))]
            line = "".join(words)
        elif kind == 3:
            line = draw.choice(SPACES) + line + draw.choice(SPACES)
        elif kind == 4:
            at = draw.randint(0, len(line))
            line = line[:at] + "".join(draw.choices(ODD + SPACES, k=3)) + line[at:]
        mixed.append(line)
    return mixed


def assert_alike(tokenizer, sp, text: str) -> None:
    ids = sp.encode(text)
    assert tokenizer.encode(text, add_special_tokens=False) == ids, ascii(text)
    assert tokenizer.decode(ids) == sp.decode(ids), ascii(text)


def test_ten_thousand_mixed_lines_have_the_same_ids_and_decode_alike(pair):
    tokenizer, sp = pair
    lines = mixed_lines(10_000)
    assert tokenizer(lines, add_special_tokens=False).input_ids == sp.encode(lines)
    assert tokenizer(lines[:500]).input_ids == sp.encode(lines[:500])  # nothing is added by default either
    encoded = sp.encode(lines)
    assert tokenizer.batch_decode(encoded) == sp.decode(encoded)


# No combining marks: those are the known difference that the module's docstring states.
characters = st.characters(exclude_categories=["Cs", "Mn", "Mc", "Me"], exclude_characters="\ufdd0\ufdd1")
hangul = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(characters | hangul | st.sampled_from("ㄱㄳㅋㅏㅠ ᆨᄀ")))
@example("가\u11a8")
@example("\u00b2\u200d")
def test_random_text(pair, text):
    assert_alike(*pair, text)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(ODD + SPACES + SYMBOLS[:2] + ["가", "영화"]), max_size=8).map("".join))
@example("<unused0></s>")
@example(" <unused0> <unused0>")
def test_random_mixtures_of_symbols_specials_and_spaces(pair, text):
    assert_alike(*pair, text)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5000), max_size=12))
def test_any_ids_decode_alike(pair, ids):
    tokenizer, sp = pair
    ids = [index for index in ids if index < sp.vocab_size() and not (sp.is_control(index) or sp.is_byte(index))]
    while ids and sp.id_to_piece(ids[0]) == "▁":  # a second space at the start: SentencePiece strips by token
        del ids[0]
    assert tokenizer.decode(ids) == sp.decode(ids)


def test_special_tokens_are_known_but_not_read_out_of_texts_unless_asked(pair):
    tokenizer, sp = pair
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        0,
        1,
        2,
        3,
    )
    assert len(tokenizer) == sp.vocab_size()
    assert tokenizer.convert_ids_to_tokens(range(16)) == ["<unk>", "<s>", "</s>", "<pad>", *SYMBOLS]
    assert 2 not in tokenizer.encode("끝</s>")
    assert tokenizer.encode("끝</s>", split_special_tokens=False)[-1] == 2
    assert tokenizer.decode([1, *sp.encode("영화"), 2], skip_special_tokens=True) == "영화"


def test_a_tokenizer_saved_again_is_still_the_same(pair, transformers, tmp_path):
    tokenizer, sp = pair
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    lines = mixed_lines(300)
    assert again(lines).input_ids == sp.encode(lines)


def test_runs_of_few_letters_where_a_piece_can_be_made_in_overlapping_places(tmp_path):
    draw = random.Random(0)
    sentences = ["".join(draw.choices("ㅋㅠ가", (6, 2, 1), k=draw.randint(1, 40))) for _ in range(300)]
    (tmp_path / "t.model").write_bytes(train(sentences, 90, normalization_rule_name="identity"))
    model = SentencePieceBPE(tmp_path / "t.model")
    tokenizer = Tokenizer.from_str(tokenizer_json(model))
    for _ in range(2000):
        text = "".join(draw.choices("ㅋㅠ가 ", (6, 2, 1, 1), k=draw.randint(1, 60)))
        assert tokenizer.encode(text).ids == model.processor.encode(text), text


def test_the_longest_of_several_symbols_is_taken(tmp_path):
    symbols = ["<a>", "<a><b>", "<b>", "b><", "(*|?)"]
    (tmp_path / "t.model").write_bytes(train(OWN_SENTENCES, 300, user_defined_symbols=symbols))
    model = SentencePieceBPE(tmp_path / "t.model")
    tokenizer = Tokenizer.from_str(tokenizer_json(model))
    for text in ("<a><b>", "<a><b><a>", "x<b><a>", "오늘은<a> <b>날씨가", "(*|?)<a>", "(*|?", "*"):
        assert tokenizer.encode(text).ids == model.processor.encode(text), text


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("known", ["가나다 라마바", "가나다 라마바 s", "가나다 </s> 라마바"])
def test_control_tokens_cannot_be_brought_in_by_a_text(known, prefix, tmp_path):
    """The letters of `</s>` may be pieces, unknown, or some of each."""
    (tmp_path / "t.model").write_bytes(train([known] * 50, 60, add_dummy_prefix=prefix))
    model = SentencePieceBPE(tmp_path / "t.model")
    tokenizer = Tokenizer.from_str(tokenizer_json(model))
    tokenizer.encode_special_tokens = True
    for text in (
        "<unused0></s>",
        "</s>",
        "<s>",
        "☃</s>☃",
        "<unused0><unk><unused1>",
        "<unused0></s></s> </s>",
        "<<s>>",
    ):
        ids = tokenizer.encode(text).ids
        assert ids == model.processor.encode(text), text
        assert not {1, 2, 3} & set(ids)


def changed(model: bytes, change) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    change(proto)
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p.trainer_spec, "model_type", 1), "its model type is not BPE"),
        (lambda p: setattr(p.trainer_spec, "treat_whitespace_as_suffix", True), "writes a space as a suffix"),
        (lambda p: setattr(p.normalizer_spec, "escape_whitespaces", False), "does not escape spaces"),
        (
            lambda p: setattr(p.normalizer_spec, "name", "user_defined"),
            "normalisation 'user_defined' is none of nmt_nfkc",
        ),
        (lambda p: setattr(p.pieces[60], "type", 5), "it has unused pieces"),
        (lambda p: setattr(p.pieces[41], "score", p.pieces[40].score), "two of its pieces have one score"),
        (lambda p: setattr(p.pieces[40], "piece", "가☃"), "piece '가☃' has a character that is not a piece"),
        (lambda p: setattr(p.pieces[4], "piece", "①"), "normalisation changes its symbol '①'"),
        (lambda p: setattr(p.pieces[2], "piece", "<end>"), "it has no eos piece"),
    ],
)
def test_tokenizers_that_cannot_be_mapped_are_refused(change, message, tmp_path, small_tokenizer):
    checkpoint = make_checkpoint(tmp_path / "changed", changed(small_tokenizer, change))
    with pytest.raises(DataError, match=message) as caught:
        convert_checkpoint(checkpoint, tmp_path / "out")
    assert "tokenizer.model: " in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_model_types_and_other_files_are_refused(tmp_path):
    unigram = train(OWN_SENTENCES * 20, 200, model_type="unigram")
    for model, message in ((unigram, "its model type is not BPE"), (b"not a model", "not a SentencePiece model")):
        checkpoint = make_checkpoint(tmp_path / "other", model)
        with pytest.raises(DataError, match=rf"tokenizer\.model: {message}"):
            convert_checkpoint(checkpoint, tmp_path / "out")
    with pytest.raises(DataError, match=r"tokenizer\.model: the tokenizer cannot be read: No such file"):
        SentencePieceBPE(tmp_path / "tokenizer.model")
