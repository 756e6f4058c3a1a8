"""Texts that come token by token: whole characters, the same text as decoding all at once, and stop strings."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.inference.text_stream import StopStrings, TextStream
from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, train
from tests.tokens.json_helpers import KINDS, write_json

# How a SentencePiece model treats spaces and bytes.
MODELS = {
    "nmt_nfkc": {},
    "lossless": {"profile": "lossless"},
    "no space in front": {"profile": "lossless", "add_dummy_prefix": False},
    "only the first space": {"remove_extra_whitespaces": False},
    "no space in front, runs of spaces to one": {
        "add_dummy_prefix": False,
        "byte_fallback": True,
        "remove_extra_whitespaces": True,
    },
}
JSON_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
HARD = "가 나  다\n😀👨‍👩‍👧 ⵣ龘 \ufffd \ufffd\ufffd é ㅋㅋ 100%"


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """One of each kind."""
    folder = tmp_path_factory.mktemp("tokenizers")
    made: dict[str, Tokenizer] = {
        name: SentencePieceTokenizer(train(OWN_SENTENCES * 20, 700, **options), Path(f"{name}.model"))
        for name, options in MODELS.items()
    }
    for name, make in KINDS.items():
        special = {} if name == "byte_level" else JSON_SPECIAL
        if name == "unigram":
            special = {**JSON_SPECIAL, "bos_token": "</s>"}
        made[name] = Tokenizer.load(write_json(folder / name, make(), **special))
    return made


def parts_of(tokenizer: Tokenizer, ids: list[int], prompt: list[int]) -> tuple[str, list[str]]:
    stream = TextStream(tokenizer, prompt)
    return stream.prompt, [*map(stream.push, ids), stream.finish()]


NAMES = [*MODELS, *KINDS]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_parts_together_are_what_decoding_all_gives(tokenizers, name, data):
    """Any ids, special ones and bytes in any order too."""
    tokenizer = tokenizers[name]
    some = [int(token) for token in tokenizer.byte_ids.nonzero()[0]]
    spaces = [token for token, piece in enumerate(tokenizer.pieces) if piece.startswith(("▁", "Ġ"))][:40]
    alone = [token for token, piece in enumerate(tokenizer.pieces) if piece in ("▁", "Ġ")]
    special = [token for token in range(tokenizer.vocab_size) if tokenizer.is_special(token)]
    token = st.one_of(
        *(st.sampled_from(group) for group in (some, spaces, alone, special) if group),
        st.integers(0, tokenizer.vocab_size - 1),
    )
    ids = data.draw(st.lists(token, max_size=24))
    border = data.draw(st.integers(0, len(ids)))
    begin, parts = parts_of(tokenizer, ids[border:], ids[:border])
    assert begin + "".join(parts) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=st.one_of(st.text(max_size=20), st.text(alphabet=HARD, max_size=30)))
def test_a_text_comes_in_whole_characters(tokenizers, name, text):
    """A replacement character is shown only where the text has one, and never at first and otherwise later."""
    tokenizer = tokenizers[name]
    ids = tokenizer.encode(text)
    whole = tokenizer.decode(ids)
    _, parts = parts_of(tokenizer, ids, [])
    assert "".join(parts) == whole
    shown = 0
    for part in parts:
        assert whole.startswith(part, shown)
        shown += len(part)


@pytest.mark.parametrize("name", ["lossless", "byte_level", "llama"])
def test_a_character_of_several_tokens_comes_once_it_is_whole(tokenizers, name):
    tokenizer = tokenizers[name]
    ids = tokenizer.encode("a龘")
    _, parts = parts_of(tokenizer, ids, [])
    assert [part for part in parts if part][-1] == "龘" and parts[-1] == ""
    assert parts_of(tokenizer, ids[:-1], [])[1][-1] != ""  # bytes of half a character: only at the end
    assert all("\ufffd" not in part for part in parts_of(tokenizer, ids[:-1], [])[1][:-1])


@pytest.mark.parametrize("name", ["lossless", "byte_level"])
def test_a_replacement_character_of_the_text_itself_is_shown_at_once(tokenizers, name):
    tokenizer = tokenizers[name]
    _, parts = parts_of(tokenizer, tokenizer.encode("가\ufffd"), [])
    assert "".join(parts) == "가\ufffd" and parts[-1] == ""


# What went wrong in other programs that do this; the numbers are those of their public reports.
BROKEN = [
    (b"\xc0\x80", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf"),  # overlong forms (unslothai/llama.cpp 202)
    (b"\xed\xa0\x80", b"\xed\xbf\xbf"),  # halves of surrogate pairs
    (b"\xf4\x90\x80\x80", b"\xff\xfe"),  # beyond Unicode
    ("가".encode()[:2], "나".encode()),  # half a syllable and a whole one (text-generation-inference 131)
    ("😀".encode()[1:], "😀".encode()[:3], b"a"),
]


@pytest.mark.parametrize("name", ["lossless", "byte_level", "llama"])
@pytest.mark.parametrize("parts", BROKEN)
def test_bytes_that_are_no_text_do_not_stop_a_stream(tokenizers, name, parts):
    """A network can write any bytes: what follows them is shown as ever."""
    tokenizer = tokenizers[name]
    by_byte = {tokenizer.spellings[token]: int(token) for token in tokenizer.byte_ids.nonzero()[0]}
    by_byte |= {bytes([byte]): tokenizer.spellings.index(bytes([byte])) for byte in b"a" if name == "byte_level"}
    raw = [by_byte[bytes([byte])] for part in parts for byte in part if bytes([byte]) in by_byte]
    ids = [*raw, *tokenizer.encode("a 가"), *raw]
    _, shown = parts_of(tokenizer, ids, [])
    assert "".join(shown) == tokenizer.decode(ids) and "가" in "".join(shown[: -len(raw)])


@pytest.mark.parametrize("name", ["lossless", "byte_level", "llama"])
def test_what_follows_a_replacement_character_is_not_held_back(tokenizers, name):
    """sgl-project/sglang-omni 2124, mlc-ai/mlc-llm 2978: nothing more came after one that was really in the text."""
    tokenizer = tokenizers[name]
    ids = tokenizer.encode("앞 \ufffd 뒤")
    _, parts = parts_of(tokenizer, ids, [])
    assert "".join(parts[:-1]).endswith("뒤") and parts[-1] == ""


def test_the_space_between_prompt_and_text(tokenizers):
    for name in NAMES:
        tokenizer = tokenizers[name]
        both = tokenizer.encode("오늘은 날씨가 맑아서")
        begin, parts = parts_of(tokenizer, both[2:], both[:2])
        assert begin + "".join(parts) == tokenizer.decode(both)


def test_syllables_of_letters_come_whole(tokenizers):
    tokenizer = tokenizers["lossless"]
    text = unicodedata.normalize("NFD", "한글 값이")
    _, parts = parts_of(tokenizer, tokenizer.encode(text), [])
    assert "".join(parts) == text
    shown = ""
    for part in parts[:-1]:
        shown += part
        assert not shown or unicodedata.normalize("NFC", text).startswith(unicodedata.normalize("NFC", shown)), shown
    assert "".join(parts_of(tokenizer, tokenizer.encode("ᄏᄏᄏᄏᄏᄏ"), [])[1]) == "ᄏᄏᄏᄏᄏᄏ"


def test_a_model_that_denormalizes_shows_its_text_at_the_end(tokenizers):
    """Its text is changed as a whole, so nothing is certain before."""
    proto = model_proto(train(OWN_SENTENCES * 20, 400))
    proto.denormalizer_spec.CopyFrom(proto.normalizer_spec)
    tokenizer = SentencePieceTokenizer(proto.SerializeToString(), Path("d.model"))
    ids = tokenizer.encode("오늘은 날씨가 맑아서")
    _, parts = parts_of(tokenizer, ids, [])
    assert parts == [""] * len(ids) + [tokenizer.decode(ids)]


# Stop strings


def ended_by(text: str, stops: list[str]) -> tuple[str, bool]:
    """By definition: look at each beginning of the text, the shortest first; the longest stop string that ends it."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@settings(max_examples=400, deadline=None)
@given(
    parts=st.lists(st.text(alphabet="ab가", max_size=4), max_size=10),
    stops=st.lists(st.text(alphabet="ab가", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_whatever_the_borders(parts, stops):
    stream, shown = StopStrings(stops), ""
    whole = "".join(parts)
    expected, found = ended_by(whole, stops)
    for part in parts:
        shown += stream.push(part)
        assert expected.startswith(shown)  # nothing of a stop string is ever shown
        if stream.found:
            break
    if not stream.found:
        shown += stream.finish()
    assert (shown, stream.found) == (expected, found)


def test_the_beginning_of_a_stop_string_is_neither_shown_early_nor_twice():
    """vllm 3574 showed DEF, G and HI of the stop string DEFGHIJ; llama.cpp 10914 repeated text after a near miss."""
    stream = StopStrings(["DEFGHIJ"])
    assert [stream.push(part) for part in (" ABC", "DEF", "G", "HI", "J K")] == [" ABC", "", "", "", ""]
    stream = StopStrings(["\n", "Alice:"])
    assert [stream.push(part) for part in (" ", "Alice", "!", " Hi")] == [" ", "", "Alice!", " Hi"]
    stream = StopStrings(["aab"])  # its beginning begins again inside of itself
    assert "".join([*map(stream.push, "aaab"), stream.finish()]) == "a" and stream.found


def test_only_what_could_be_a_stop_string_is_held_back():
    stream = StopStrings(["\n\n", "끝."])
    assert [stream.push(part) for part in ("가\n", "나끝", "까지\n", "\n다")] == ["가", "\n나", "끝까지", ""]
    assert stream.found and stream.push("라") == ""
    assert StopStrings([]).push("a") == "a"
