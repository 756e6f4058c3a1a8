"""Cutting at morphemes: where the cuts are, that all text comes back, and that no other analyzer is taken."""

from __future__ import annotations

import json
import multiprocessing
import sys
import unicodedata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.text_stream import TextStream
from kogpt2_gluon.tokens import morphemes
from kogpt2_gluon.tokens.morphemes import HANGUL, LONGEST, Cutter, installed
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import run
from tests.tokens.morpheme_helpers import AWKWARD, SENTENCES, train_small

kiwipiepy = pytest.importorskip("kiwipiepy", reason="cuts at morphemes")

PARTS = [
    "나는",
    " 학교에",
    "갔다",
    "뭔데",
    "ㅋㅋ",
    "\n",
    " ",
    "  ",
    "😀",
    "大",
    "a",
    "1,2",
    "<unused1>",
    "<un",
    "ᆨ",
    "\0",
]
ANY_TEXT = st.lists(
    st.one_of(st.sampled_from(PARTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)), max_size=12
).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_small(tmp_path_factory.mktemp("kiwi"), "kiwi")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_small(tmp_path_factory.mktemp("plain"), None)


@pytest.fixture(scope="module")
def cutter() -> Cutter:
    return Cutter(installed(), ["<unused1>", "<unused10>"])


@pytest.fixture(scope="module")
def kiwi() -> kiwipiepy.Kiwi:
    """Loaded once: that takes seconds."""
    return kiwipiepy.Kiwi(num_workers=1)


# ---- where the cuts are ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        ["나", "는", " 학교", "에", " 갔", "다", "."],
        ["뭔데"],  # 뭐 + 이 + ㄴ데, on two syllables, which overlap
        ["접니다"],
        ["너", "야"],  # the copula between them is not written
        ["大韓民國", "은", " 민주", "共和國", "이", "다"],
        ["나", "는\n", "갔", "다\n"],
        ["I'm 1,234.5 http://a.b/c"],  # nothing Korean: for the regular expression of byte-level BPE
        ["나", "<unused10>", "는"],
        [" ", " 나", "는"],
        [""],
    ],
)
def test_known_cuts(cutter: Cutter, pieces: list[str]) -> None:
    assert cutter.cut("".join(pieces)) == pieces
    decomposed = [unicodedata.normalize("NFD", piece) for piece in pieces]
    assert cutter.cut("".join(decomposed)) == decomposed


@pytest.mark.parametrize("text", SENTENCES)
def test_cuts_are_where_no_morpheme_is_open_and_one_begins(cutter: Cutter, kiwi: kiwipiepy.Kiwi, text: str) -> None:
    """Counted in another way: how many morphemes lie on both sides of each place."""
    found = [(each.start, each.start + each.len) for each in kiwi.tokenize(text) if each.len]
    crossing = np.zeros(len(text) + 1, int)
    for start, end in found:
        crossing[start + 1 : end] += 1
    expected = set()
    for place in {start for start, _ in found} - {0}:
        begin = place - (text[place - 1] == " ")
        if not crossing[place] and begin and (HANGUL.match(text[place]) or HANGUL.match(text[begin - 1])):
            expected.add(begin)
    assert set(np.cumsum([len(piece) for piece in cutter.cut(text)])[:-1].tolist()) == expected


@given(ANY_TEXT)
@settings(max_examples=150, deadline=None)
@example("<unused1<unused1>")
def test_pieces_are_the_text(cutter: Cutter, text: str) -> None:
    pieces = cutter.cut(text)
    assert "".join(pieces) == text and (all(pieces) or pieces == [""])
    assert pieces.count("<unused1>") == text.count("<unused1>")
    assert cutter.cut(text) == pieces


def test_a_part_is_short_and_ends_at_a_space_where_there_is_one(cutter: Cutter) -> None:
    for text in (AWKWARD["repetition"], AWKWARD["long line"], AWKWARD["long spaces"], "가\u0301" * 1500):
        parts = list(morphemes._parts(text))
        assert "".join(parts) == text and max(map(len, parts)) <= LONGEST + 2
    assert max(map(len, morphemes._parts(AWKWARD["many marks"]))) <= LONGEST + morphemes.MARKS
    assert all(part.startswith(" ") for part in list(morphemes._parts(AWKWARD["long line"]))[1:])
    assert not any(part.startswith("\u0301") for part in morphemes._parts("a" + "가\u0301" * 1500))


def test_a_line_has_the_same_pieces_alone_and_among_others(cutter: Cutter) -> None:
    lines = [f"{line}\n" for line in SENTENCES]
    assert cutter.cut("".join(lines)) == [piece for line in lines for piece in cutter.cut(line)]


# ---- text -> ids -> text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_texts_come_back(tokenizer: Tokenizer, plain: Tokenizer, name: str) -> None:
    text = AWKWARD[name]
    for each in (tokenizer, plain):
        ids = each.encode(text)
        assert each.decode(ids) == each.normalize(text) == text and each.unknown_in(text) == []
        assert b"".join(each.spellings[token] for token in ids) == text.encode()
        assert not any(each.is_special(token) for token in ids)


@given(ANY_TEXT)
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    flat, lengths = tokenizer.encode_flat([text.encode(), b"", text.encode()])
    assert flat.tolist() == ids + ids and lengths.tolist() == [len(ids), 0, len(ids)]
    ((same, places),) = tokenizer.encode_with_places([text])
    assert same == ids
    assert all(tokenizer.spellings[token] in text[start:end].encode() for token, (start, end) in zip(ids, places))
    assert [start for start, _ in places] == sorted(start for start, _ in places)


def test_a_text_that_comes_token_by_token_has_no_broken_syllable(tokenizer: Tokenizer) -> None:
    broken = 0
    for text in [*SENTENCES, AWKWARD["emoji"], AWKWARD["decomposed"]]:
        ids = tokenizer.encode(text)
        stream, shown = TextStream(tokenizer), ""
        for count, token in enumerate(ids, start=1):
            shown += stream.push(token)
            assert text.startswith(shown)  # so it has no U+FFFD, and nothing is taken back
            broken += "\ufffd" in tokenizer.decode(ids[:count])
        assert shown + stream.finish() == text
    assert broken > 20  # ids that end inside a character, which a plain decoder would show


def test_no_token_runs_over_a_cut(tokenizer: Tokenizer, plain: Tokenizer, cutter: Cutter) -> None:
    crossed = {}
    for each in (tokenizer, plain):
        crossed[each] = 0
        for text in SENTENCES:
            cuts = np.cumsum([len(piece) for piece in cutter.cut(text)])[:-1]
            ((_, places),) = each.encode_with_places([text])
            crossed[each] += sum(int(((start < cuts) & (cuts < end)).any()) for start, end in places)
    assert crossed[tokenizer] == 0 and crossed[plain] > 0


def test_half_a_surrogate_pair_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="not valid Unicode: half of a surrogate pair, U\\+D800"):
        tokenizer.encode("나는 \ud800")


# ---- processes -------------------------------------------------------------------------------------------------------


def _encode(path: Path, texts: list[str]) -> list[list[int]]:
    return Tokenizer.load(path).encode_batch(texts)


def test_other_processes_give_the_same_ids(tokenizer: Tokenizer) -> None:
    texts = [*SENTENCES, *AWKWARD.values()]
    expected = tokenizer.encode_batch(texts)  # Kiwi is loaded here, and a fork must load its own
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_encode, (tokenizer.path, texts)) == expected
    program = (
        "import json, sys\nfrom pathlib import Path\nfrom kogpt2_gluon.tokens.tokenizer import Tokenizer\n"
        "print(Tokenizer.load(Path(sys.argv[1])).encode_batch(json.loads(sys.argv[2])))"
    )
    texts = [text for text in texts if len(text) < 500]
    printed = run(sys.executable, "-c", program, str(tokenizer.path), json.dumps(texts), PYTHONHASHSEED="7").stdout
    assert json.loads(printed) == tokenizer.encode_batch(texts)


# ---- which analyzer --------------------------------------------------------------------------------------------------


def test_the_file_says_which_analyzer_it_wants(tokenizer: Tokenizer) -> None:
    said = json.loads(tokenizer.path.read_bytes())["pre_tokenizer"]["morphemes"]
    assert said == {
        "analyzer": "kiwi",
        "kiwipiepy": kiwipiepy.__version__,
        "kiwipiepy_model": installed()["kiwipiepy_model"],
        "model_type": kiwipiepy.Kiwi(num_workers=1).model_type,
        "rules": 1,
        "probe": installed()["probe"],
    }


def test_without_kiwi_or_with_another_one_the_error_says_what_to_install(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = installed()
    way_out = f"pip install kiwipiepy=={wanted['kiwipiepy']} kiwipiepy_model=={wanted['kiwipiepy_model']}"
    monkeypatch.setattr(morphemes, "version", lambda name: "0.1" if name == "kiwipiepy_model" else wanted[name])
    with pytest.raises(DataError) as other:
        Tokenizer.load(tokenizer.path)
    assert "kiwipiepy_model 0.1" not in str(other.value) and "0.1 is installed" in str(other.value)

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(morphemes, "version", missing)
    with pytest.raises(DataError, match="which is not installed") as none:
        Tokenizer.load(tokenizer.path)
    for error in (none, other):
        assert str(error.value).startswith(f"{tokenizer.path}: ") and str(error.value).endswith(way_out)


def test_an_analyzer_that_computes_otherwise_is_found(tokenizer: Tokenizer) -> None:
    """Without the processor's vector instructions Kiwi has another form of its model, which cuts elsewhere."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom kogpt2_gluon.errors import DataError\n"
        "from kogpt2_gluon.tokens.tokenizer import Tokenizer\ntokenizer = Tokenizer.load(Path(sys.argv[1]))\n"
        "print(tokenizer.decode(tokenizer.encode('plain')))\n"
        "try:\n    tokenizer.encode('나는')\nexcept DataError as error:\n    print(error)"
    )
    printed = run(sys.executable, "-c", program, tokenizer.path, KIWI_ARCH_TYPE="none").stdout.splitlines()
    assert printed[0] == "plain" and len(printed) == 2
    assert printed[1].startswith(f"{tokenizer.path}: Kiwi cuts a known text otherwise here")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"analyzer": "mecab"}, "which this version does not know"),
        ({"rules": 2}, "which this version does not know"),
        ("kiwi", "is damaged"),
        ({"kiwipiepy": ["0.24.1"]}, "is damaged"),
    ],
)
def test_a_file_that_wants_something_else_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, said: object, words: str
) -> None:
    content = json.loads(tokenizer.path.read_bytes())
    cuts = content["pre_tokenizer"]
    cuts["morphemes"] = {**cuts["morphemes"], **said} if isinstance(said, dict) else said
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=words):
        Tokenizer.load(tmp_path / "tokenizer.json")
