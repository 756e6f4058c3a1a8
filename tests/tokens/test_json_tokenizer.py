"""A tokenizer.json: the library's ids, texts that come back, and what no text and no file can do."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.shards.segments import can_cut
from kogpt2_gluon.tokens.bpe_dropout import BPEDropout
from kogpt2_gluon.tokens.counts import counter_for
from kogpt2_gluon.tokens.domain_terms import suggest_terms
from kogpt2_gluon.tokens.renaming import rename_tokens
from kogpt2_gluon.tokens.tokenizer import Tokenizer, frame_documents
from tests.helpers import run
from tests.tokens.json_helpers import EMOTICONS, END, KINDS, KOGPT2, byte_level, kogpt2, llama, unigram, write_json

TEXTS = [
    "이 영화는 정말 재미있다 ㅋㅋㅋ",
    "",
    " ",
    "  두 칸  뒤 ",
    "줄\n바꿈\r\n과\t탭",
    "뷁 궳 漢字 😀 \U0001f9d1\u200d\U0001f680 e\u0301 ﬁ Ⅳ",
    "a\u2581b \u00a0 \u3000c",
    "</s> <s>hi<|endoftext|> <pad><unk> <usr>:-)^^",
    "\u0301 begins with a mark",
]
# Everything but half a surrogate pair, with the characters that matter here drawn often.
SIGNS = st.one_of(st.sampled_from(" \n▁가나ㅋ</s>_:-)^é"), st.characters(exclude_categories=["Cs"]))
ANY_TEXT = st.text(SIGNS, max_size=30)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Library]:
    """A tokenizer of each kind, and the library with what our rules say of its file."""
    made = KINDS[request.param]()
    tokenizer = Tokenizer.load(write_json(tmp_path_factory.mktemp(request.param), made))
    plain = json.loads(made.to_str())
    for token in plain["added_tokens"]:
        token["special"] = token["content"] not in EMOTICONS
    if request.param == "kogpt2":
        plain["model"]["unk_token"] = "<unk>"
    library = Library.from_str(json.dumps(plain))
    library.encode_special_tokens = True
    return tokenizer, library


def assert_alike(kind: tuple[Tokenizer, Library], text: str) -> None:
    tokenizer, library = kind
    ids = tokenizer.encode(text)
    if not any(name in text for name in ("</s>", "<unk>", "<pad>")):  # Unigram finds these, and ours must not
        assert ids == library.encode(text, add_special_tokens=False).ids
    assert not any(tokenizer.is_special(token) and token != tokenizer.unk_id for token in ids)
    if not tokenizer.is_unknown(np.array(ids)).any():
        assert tokenizer.decode(ids) == tokenizer.normalize(text)
    if tokenizer.pad_id is None:  # byte-level, or with bytes for what has no piece
        assert tokenizer.normalize(text) == (text if tokenizer.unk_id is None else text.replace("▁", " "))
    flat, lengths = tokenizer.encode_flat([text.encode(), b"x", text.encode()])
    assert flat.tolist() == ids + tokenizer.encode("x") + ids and lengths.tolist()[::2] == [len(ids)] * 2
    text_bytes, words = counter_for(tokenizer).count(flat, lengths, [text.encode(), b"x", text.encode()])
    normalized = tokenizer.normalize(text)
    assert text_bytes.tolist() == [len(normalized.encode()), 1, len(normalized.encode())]
    assert words.tolist() == [len(normalized.split()), 1, len(normalized.split())]


@pytest.mark.parametrize("text", TEXTS)
def test_known_texts(kind: tuple[Tokenizer, Library], text: str) -> None:
    assert_alike(kind, text)


@given(ANY_TEXT)
@settings(max_examples=150, deadline=None)
@example("</s>")
@example("\u0301")
def test_any_text(kind: tuple[Tokenizer, Library], text: str) -> None:
    assert_alike(kind, text)


def test_byte_level_texts_come_back_byte_for_byte(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_json(tmp_path, byte_level()))
    assert tokenizer.special_ids == {"bos": 0, "eos": 0}
    assert (tokenizer.unk_id, tokenizer.pad_id, tokenizer.adds_space, tokenizer.keeps_newlines) == (None, None, 0, 1)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == tokenizer.normalize(text) == text
        assert b"".join(tokenizer.spellings[token] for token in ids) == text.encode()
        assert tokenizer.unknown_in(text) == []
    ids = tokenizer.encode("뷁😀")
    assert len(ids) > 2 and tokenizer.byte_ids[ids].any()
    assert [tokenizer.decode(ids[:count]) for count in (0, len(ids))] == ["", "뷁😀"]
    assert all("�" in tokenizer.decode(ids[:count]) for count in (1, len(ids) - 1))
    assert not tokenizer.is_unknown(np.arange(tokenizer.vocab_size)).any() and tokenizer.never_written() == []


def test_kogpt2s_own_kind(tmp_path: Path) -> None:
    """`</s>` begins and ends documents, as its users say; its emoticons are text, all its other special tokens not."""
    path = write_json(tmp_path, kogpt2(), bos_token="</s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    tokenizer = Tokenizer.load(path)
    assert tokenizer.special_ids == {"unk": 5, "bos": 1, "eos": 1, "pad": 3}
    assert tokenizer.controls == KOGPT2 and tokenizer.unused == ["<unused0>", "<unused1>"]
    ids = tokenizer.encode("재미있다:-)  뷁 영화")
    assert EMOTICONS[0] in [tokenizer.pieces[token] for token in ids] and 2 not in tokenizer.encode("<usr>")
    assert tokenizer.unk_id in ids and tokenizer.unknown_in("재미있다:-)  뷁 영화") == ["뷁"]
    assert tokenizer.decode(tokenizer.encode("뷁 영화 :-)")) == " ⁇  영화 :-)"
    assert tokenizer.normalize(" 뷁뷁 영화는 ①  이:-)") == "뷁뷁 영화는 1  이:-)"
    assert tokenizer.never_written() == [3, 5] and tokenizer.never_written(allow_unknown=True) == [3]
    # The library alone drops the character, and the tokens that are marked as special.
    library = Library.from_file(str(path))
    assert library.decode(library.encode("뷁 영화 :-)").ids).strip() == "영화"
    stored = write_json(tmp_path / "stored", kogpt2())
    stored.write_bytes(tokenizer.stored.content)
    again = Tokenizer.load(stored)
    assert (again.special_ids, again.sha256) == (tokenizer.special_ids, tokenizer.sha256)
    assert Library.from_file(str(stored)).get_vocab() == library.get_vocab()
    without = Tokenizer.load(write_json(tmp_path / "alone", kogpt2()))
    assert without.special_ids == {"unk": 5, "bos": 0, "eos": 1, "pad": 3} and without.sha256 != tokenizer.sha256


def whole_words(plain: dict[str, Any]) -> None:
    plain["model"]["ignore_merges"] = True


def learnt(plain: dict[str, Any]) -> None:
    """Makes `<|endoftext|>` of its letters by merges, each of which is a piece."""
    model, made = plain["model"], END[0]
    for sign in END[1:]:
        model["merges"].insert(0, [made, sign])
        made += sign
        model["vocab"].setdefault(made, len(model["vocab"]))
    model["merges"] = list(reversed(model["merges"]))
    plain["pre_tokenizer"]["use_regex"] = False


@pytest.mark.parametrize("change", [whole_words, learnt])
def test_a_model_that_makes_a_control_token_of_text_does_not(tmp_path: Path, change: Callable[..., None]) -> None:
    def no_regex(plain: dict[str, Any]) -> None:
        plain["pre_tokenizer"]["use_regex"] = False
        change(plain)

    path = write_json(tmp_path, byte_level(), no_regex)
    library = Library.from_file(str(path))
    library.encode_special_tokens = True
    assert library.encode(END).ids == [0]  # the case is real
    tokenizer = Tokenizer.load(path)
    ids = tokenizer.encode(END)
    assert tokenizer.eos_id == 0 not in ids and tokenizer.decode(ids) == END


def test_what_a_file_says_about_templates_and_chance_is_left_out(tmp_path: Path) -> None:
    def change(plain: dict[str, Any]) -> None:
        plain["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
        plain["padding"] = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
        plain["padding"].update({"pad_id": 0, "pad_type_id": 0, "pad_token": END})
        end = {"SpecialToken": {"id": END, "type_id": 0}}
        body = [end, {"Sequence": {"id": "A", "type_id": 0}}, end]
        special = {END: {"id": END, "ids": [0], "tokens": [END]}}
        plain["post_processor"] = {
            "type": "TemplateProcessing",
            "single": body,
            "pair": body,
            "special_tokens": special,
        }
        plain["model"]["dropout"] = 0.5

    plain, full = Tokenizer.load(write_json(tmp_path / "a", byte_level())), write_json(tmp_path, byte_level(), change)
    text = "이 영화는 정말 재미있다"
    assert {tuple(Tokenizer.load(full).encode(text)) for _ in range(5)} == {tuple(plain.encode(text))}


def test_ids_beyond_the_model_and_holes(tmp_path: Path) -> None:
    def change(plain: dict[str, Any]) -> None:
        vocab = plain["model"]["vocab"]
        for piece in [piece for piece, token in vocab.items() if token >= 350]:
            vocab[piece] += 100
        plain["added_tokens"] += [
            {**plain["added_tokens"][0], "id": 9, "content": name, "special": False} for name in ("<한국>", "<unused3>")
        ]

    path = write_json(tmp_path, byte_level(), change)
    tokenizer, library = Tokenizer.load(path), Library.from_file(str(path))
    assert tokenizer.vocab_size == max(library.get_vocab().values()) + 1 > 450
    holes = [token for token, piece in enumerate(tokenizer.pieces) if not piece]
    assert len(holes) >= 80 and tokenizer.never_written() == holes
    ids = tokenizer.encode("이 <한국> 영화<unused3>")
    assert ids == library.encode("이 <한국> 영화<unused3>").ids and tokenizer.decode(ids) == "이 <한국> 영화<unused3>"
    assert ids[-1] == library.token_to_id("<unused3>") and tokenizer.unused == ["<unused3>"]
    with pytest.raises(DataError, match=f"id {tokenizer.vocab_size} is not one of the"):
        tokenizer.decode([tokenizer.vocab_size])


def test_an_added_token_that_gets_the_id_of_a_piece(tmp_path: Path) -> None:
    def change(plain: dict[str, Any]) -> None:
        vocab = plain["model"]["vocab"]
        vocab.update({piece: token + 1 for piece, token in vocab.items() if token >= 350})
        plain["added_tokens"].append({**plain["added_tokens"][0], "content": "<new>"})

    with pytest.raises(DataError, match="an added token gets the id of a piece"):
        Tokenizer.load(write_json(tmp_path, byte_level(), change))


def test_a_file_without_a_decoder_writes_as_its_pre_tokenizer_reads(tmp_path: Path) -> None:
    for number, make in enumerate((byte_level, kogpt2, llama)):
        path = write_json(tmp_path / str(number), make(), lambda plain: plain.update(decoder=None))
        tokenizer = Tokenizer.load(path)
        assert tokenizer.decode(tokenizer.encode("그날 밤 바다는")) == "그날 밤 바다는"


def test_spaces_that_a_pre_tokenizer_joins_are_not_counted(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_json(tmp_path, unigram()))
    assert tokenizer.special_ids == {"unk": 2, "bos": 1, "eos": 1, "pad": 0}
    assert tokenizer.normalize("  그날   밤\n바다는 ") == "그날 밤 바다는" and not tokenizer.keeps_newlines


def put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda plain: plain.update(values)


def in_model(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda plain: plain["model"].update(values)


REFUSED: list[tuple[Callable[[], Library], Callable[[dict[str, Any]], Any], str]] = [
    (byte_level, in_model(type="WordPiece"), "its model is a WordPiece; a language model here takes BPE or Unigram"),
    (byte_level, in_model(type="WordLevel"), "its model is a WordLevel"),
    (byte_level, in_model(continuing_subword_prefix="##"), "its model has continuing_subword_prefix='##'"),
    (byte_level, in_model(end_of_word_suffix="</w>"), "its model has end_of_word_suffix='</w>'"),
    (byte_level, in_model(vocab=[["a", 0]]), "the vocabulary or the merges of its model are damaged"),
    (byte_level, in_model(vocab={"a": 0, "b": 0}), "two pieces of its model have one id"),
    (byte_level, in_model(vocab={"a": 4_000_000_000, END: 0}, merges=[]), "can neither spell every byte"),
    (kogpt2, lambda plain: plain["model"]["vocab"].update(z=4_000_000_000), "it has an id of 4,000,000,000; the larg"),
    (byte_level, in_model(merges=["a b c"]), "the tokenizers library [0-9.]+ cannot read it: "),
    (byte_level, put(added_tokens=[{"id": 1}]), "its added_tokens are damaged"),
    (byte_level, put(added_tokens=[]), "nothing says which token ends a document; name it in .*special_tokens_map"),
    (byte_level, lambda plain: plain["model"]["vocab"].pop("a"), "can neither spell every byte"),
    (kogpt2, put(pre_tokenizer={"type": "Whitespace"}), "its pre-tokenizer drops or changes characters, such"),
    (kogpt2, put(pre_tokenizer={"type": "BertPreTokenizer"}), "drops or changes characters"),
    (kogpt2, put(decoder={"type": "BPEDecoder", "suffix": "_"}), "its decoder is of a kind that this program does not"),
    (kogpt2, put(decoder={"type": "Fuse"}), "its decoder is of a kind that .* is written"),
    (kogpt2, put(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "cannot read it: .*charsmap"),
    (kogpt2, put(normalizer={"type": "None"}), "cannot read it"),
    (kogpt2, put(pre_tokenizer={"type": "Metaspace", "replacement": "__"}), "cannot read it"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "change", "words"), REFUSED)
def test_another_kind_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[], Library], change: Callable[..., Any], words: str
) -> None:
    path = write_json(tmp_path, make(), change)
    with pytest.raises(DataError, match=rf"tokenizer\.json: .*({words})") as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)


def test_characters_are_not_lost_without_a_trace(tmp_path: Path) -> None:
    """A file that has neither all bytes nor an unknown token; and Unigram, which the library stops at."""

    def nameless(plain: dict[str, Any]) -> None:
        names = [token for token in plain["added_tokens"] if token["content"] == "</s>"]
        plain["added_tokens"] = names
        plain["model"]["unk_token" if "merges" in plain["model"] else "unk_id"] = None

    for number, make in enumerate((kogpt2, unigram)):
        path = write_json(tmp_path / str(number), make(), nameless)
        with pytest.raises(DataError, match=r"can neither spell every byte nor has it a token for unknown text"):
            Tokenizer.load(path)
        named = Tokenizer.load(write_json(tmp_path / str(number), make(), nameless, unk_token="<unk>"))
        assert named.unk_id in named.encode("뷁")


HOSTILE = [
    ('{"a":' * 200_000, "not JSON, or damaged .maximum recursion"),
    ('{"a": [' + "[" * 99_999, "not JSON, or damaged"),
    ('{"model": ', "not JSON, or damaged"),
    ('{"model": 9' + "9" * 5000 + "}", "not JSON, or damaged"),
    ('{"class_name": "Tokenizer", "config": {}}', 'JSON, but not a tokenizer.json of the `tokenizers` library'),
    ("{}", 'it has no "model"'),
    ('{"model": {"type": "BPE", "vocab": {"\\ud800": 0, "</s>": 1, "<unk>": 2}, "merges": [], "unk_token": "<unk>"}, '
     '"added_tokens": [{"id": 1, "content": "</s>", "special": true}]}', "cannot read it"),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "only the name of a file in Git LFS"),
    ("", "is empty, neither a SentencePiece model nor a tokenizer.json"),
    ("[]", "is not a SentencePiece model nor a tokenizer.json, or is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), HOSTILE)
def test_hostile_and_strange_files(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"tokenizer\.json: .*{words}") as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_regular_expression_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    slow = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    steps = {"type": "Sequence", "pretokenizers": [slow, {"type": "Metaspace", "replacement": "▁"}]}
    tokenizer = Tokenizer.load(write_json(tmp_path, kogpt2(), put(pre_tokenizer=steps)))
    assert tokenizer.decode(tokenizer.encode("바다는")) == "바다는"
    with pytest.raises(DataError, match=r"failed on a text: .*retry-limit"):  # a panic, which is not an Exception
        tokenizer.encode("a" * 60 + "!")


def test_half_of_a_surrogate_pair_is_named(kind: tuple[Tokenizer, Library]) -> None:
    for call in (kind[0].encode, kind[0].normalize, lambda text: kind[0].encode_batch(["가", text])):
        with pytest.raises(DataError, match=r"half of a surrogate pair, U\+D800, at character 2 of"):
            call("가나\ud800")


def test_it_goes_to_other_processes_and_leaves_forks_alone(tmp_path: Path) -> None:
    path = write_json(tmp_path, byte_level())
    tokenizer = Tokenizer.load(path)
    assert pickle.loads(pickle.dumps(tokenizer)).encode("바다") == tokenizer.encode("바다")
    program = """
import os, sys, threading
from pathlib import Path
from kogpt2_gluon.tokens.tokenizer import Tokenizer
tokenizer = Tokenizer.load(Path(sys.argv[1]))
ids = tokenizer.encode_batch(["바다는 조용했다"] * 2000)
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
child = os.fork()
if not child:
    os._exit(tokenizer.encode_batch(["바다는 조용했다"] * 2000) != ids)
print(os.waitpid(child, 0)[1], threads)
"""
    hidden = {"TOKENIZERS_PARALLELISM": ""}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = run(sys.executable, "-c", program, path, **environment)
    assert done.stdout.split() == ["0", "1"] and not done.stderr


def test_what_only_sentencepiece_can_do_is_refused_by_name(tmp_path: Path) -> None:
    path = write_json(tmp_path, kogpt2())
    with pytest.raises(RecipeError, match=r"tokenizer\.json: data.bpe_dropout needs a SentencePiece model"):
        BPEDropout(path.read_bytes(), path)
    with pytest.raises(RecipeError, match=r"tokenizer\.json: tokens can be renamed in a SentencePiece model"):
        rename_tokens(path, [("<unused0>", "리뷰어")], tmp_path / "new.json")
    with pytest.raises(RecipeError, match=r"tokenizer\.json: tokens can be renamed in a SentencePiece model"):
        suggest_terms(path, tmp_path, [tmp_path], 1)
    assert not can_cut(path.read_bytes())


def test_unknown_parts_are_counted_as_they_were(tmp_path: Path) -> None:
    """Also where a normalizer puts another sign in their place, and where bytes of a character are unknown."""
    hide = {"type": "Replace", "pattern": {"Regex": "[뷁궳]"}, "content": "\x01"}
    tokenizer = Tokenizer.load(write_json(tmp_path / "hide", kogpt2(), put(normalizer=hide)))
    assert tokenizer.normalize("뷁 영화 궳궳") == "뷁 영화 궳궳"

    def no_byte(plain: dict[str, Any]) -> None:
        vocab = plain["model"]["vocab"]
        vocab["<unk>"] = vocab.pop("ë")  # the first byte of 뷁
        plain["model"]["merges"] = [merge for merge in plain["model"]["merges"] if "ë" not in "".join(merge)]

    tokenizer = Tokenizer.load(write_json(tmp_path / "bytes", byte_level(), no_byte, unk_token="<unk>"))
    ids, lengths = tokenizer.encode_flat(["뷁!".encode(), b"", "뷁뷁 a".encode()])
    assert tokenizer.is_unknown(ids).sum() == 3 and tokenizer.normalize("뷁!") == "뷁!"
    counted = counter_for(tokenizer).count(ids, lengths, ["뷁!".encode(), b"", "뷁뷁 a".encode()])
    assert [counts.tolist() for counts in counted] == [[4, 0, 8], [1, 0, 2]]
    assert [counts.tolist() for counts in counter_for(tokenizer).count(ids[:0], lengths[:0], [])] == [[], []]


def test_a_vocabulary_of_hangul_alone(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_json(tmp_path, kogpt2(["가나다 라마바"] * 9, 60)))
    assert tokenizer.decode(tokenizer.encode("가나 다라")) == "가나 다라"


@pytest.mark.parametrize("dtype", [np.int32, "<u2"])
def test_documents_between_one_token_or_two(dtype: Any) -> None:
    ids, lengths = np.array([7, 8, 9], np.int32), np.array([2, 0, 1])
    assert frame_documents(ids, lengths, 1, 2, dtype).tolist() == [1, 7, 8, 2, 1, 2, 1, 9, 2]
    assert frame_documents(ids, lengths, 2, 2, dtype).tolist() == [7, 8, 2, 2, 9, 2]
    assert frame_documents(ids[:0], lengths[:0], 2, 2, dtype).tolist() == []
