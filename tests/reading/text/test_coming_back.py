"""The loss of a tokenizer: patches restore every text, and cost what the project's profiles lose."""

from __future__ import annotations

import lzma
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.reading.text.coming_back import FILTERS, ComingBack, Edit, Guesses, edits
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import REAL_TEXT
from tests.tokens.tokenizer_helpers import train_model

texts = st.text(st.sampled_from("가나ㅋㅠ각ᄏ  \u3000\u00a0\ufeffa.…Ａ⁇\t\n\U0001f600\u2581"), max_size=150)


def apply(start: str, steps: list[Edit]) -> str:
    """A reader's side of `edits`."""
    place, parts = 0, []
    for kept, dropped, put in steps:
        parts += [start[place : place + kept], put]
        place += kept + len(dropped)
        assert start[place - len(dropped) : place] == dropped
    return "".join([*parts, start[place:]])


@given(texts, texts)
@example("가" * 200, "나" * 130)
@example("", "가")
@example("가나다 " * 60, "가나다  " * 60)
def test_edits_lead_from_any_text_to_any_other(start: str, goal: str) -> None:
    steps = list(edits(start, goal))
    assert apply(start, steps) == goal
    assert bool(steps) == (start != goal)


def number(patch: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (patch[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if patch[place - 1] < 0x80:
            return value, place


def read_code(written: list[str], patches: bytes) -> list[str]:
    """A reader of the code: it has what the tokens are written as and all patches, and nothing else."""
    guesses, place, texts = Guesses(), 0, []
    since, place = number(patches, place) if patches else (len(written), 0)
    for each in written:
        text = guess = guesses.guess(each)
        if since:
            since -= 1
        else:
            count, place = number(patches, place)
            steps, at = [], 0
            for _ in range(count):
                kept, place = number(patches, place)
                dropped, place = number(patches, place)
                put, place = number(patches, place)
                end = place
                for _ in range(put):  # characters: its first byte says how long one is
                    end += 1 + sum(patches[end] >= least for least in (0xC0, 0xE0, 0xF0))
                steps.append(Edit(kept, guess[at + kept : at + kept + dropped], patches[place:end].decode()))
                place, at = end, at + kept + dropped
            text = apply(guess, steps)
            since, place = number(patches, place) if place < len(patches) else (len(written), place)
        guesses.learn(each, list(edits(each, text)))
        texts.append(text)
    return texts


@given(st.lists(st.tuples(texts, st.booleans()), max_size=12))
@settings(deadline=None)
def test_the_code_gives_back_every_text(documents: list[tuple[str, bool]]) -> None:
    raw = [text for text, _ in documents]
    written = [" ".join(unicodedata.normalize("NFKC", text).split()) if lossy else text for text, lossy in documents]
    lost = ComingBack()
    patches = b"".join(lost.add(*pair) for pair in zip(raw, written))
    assert read_code(written, patches) == raw
    assert lost.documents == sum(a != b for a, b in zip(raw, written))
    assert lost.bits() == (8 * len(lzma.compress(patches, lzma.FORMAT_RAW, filters=FILTERS)) if patches else 0)
    assert lost.bits() == lost.bits()


def test_what_can_be_foreseen_costs_nothing() -> None:
    """ㅋ comes back as U+110F each time: that is learnt from the first document; a space that is lost is not."""
    lost = ComingBack()
    assert lost.add("재밌다 ㅋㅋㅋ", "재밌다 ᄏᄏᄏ")
    assert not any(lost.add(f"{word} ㅋㅋ", f"{word} ᄏᄏ") for word in ("좋다", "별로", "그냥"))
    assert lost.add("두  칸", "두 칸")
    assert (lost.documents, lost.lost_bytes) == (5, 3 * (3 + 2 * 3) + 1)
    rare = ComingBack()
    assert rare.add("ㅋ", "ᄏ") and rare.add("ᄏ", "ᄏ")  # one for, one against: from then on it is taken as it is
    assert not rare.add("ᄏ", "ᄏ")


def test_time_is_linear_for_texts_that_have_nothing_in_common() -> None:
    begun = time.process_time()
    lost = ComingBack()
    lost.add("가나다라마바사" * 4000, "아자차카타파하" * 4000)
    assert lost.lost_bytes == 84_000 and time.process_time() - begun < 5


SENTENCES = [
    "이 영화는 정말 재미있게 봤어요!",
    "배우들의 연기가 훌륭했고 음악도 좋았다.",
    "ㅋㅋㅋ 최고 ㅠㅠ",
    "1  2",
] * 5


@pytest.fixture(scope="module", params=["nmt_nfkc", "nmt_nfkc_jamo", "lossless"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Tokenizer]:
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.model"
    path.write_bytes(train_model(SENTENCES, 400, request.param))
    return request.param, Tokenizer.load(path)


@pytest.mark.parametrize(
    ("text", "lossless", "jamo"),
    [
        ("정말 재미있게", True, True),
        ("재미 ㅋㅋㅋ", False, True),  # KoGPT-2's own folds it
        ("봤어요 훩", False, False),  # no piece: <unk>
        ("두  칸", False, False),
        (" 앞에", False, False),
        ("뒤에 ", False, False),
        ("훌륭했고\u3000음악도", False, False),
        ("정말\t재미", False, False),
        ("정말\u200b재미", False, False),  # of no width
        ("\ufeff정말", False, False),  # a byte-order mark amid a file
        ("정말\u2581재미", False, False),  # how SentencePiece spells a space
        (unicodedata.normalize("NFD", "정말"), False, False),
        ("１２", False, False),
        ("…", False, False),
        ("한 줄\n두 줄", False, False),
    ],
)
def test_kinds_of_loss_by_profile(tokenizer: tuple[str, Tokenizer], text: str, lossless: bool, jamo: bool) -> None:
    """Each is a situation that others met: bits per byte of a text that cannot be had back are no compression."""
    name, loaded = tokenizer
    lost = ComingBack()
    written = loaded.decode(loaded.encode(text))
    lost.add(text, written)
    comes_back = {"nmt_nfkc": lossless, "nmt_nfkc_jamo": jamo, "lossless": True}[name]
    if name == "lossless" and "\u2581" in text:
        comes_back = False  # SentencePiece has no other sign for a space
    assert (written == text) == comes_back == (lost.documents == 0)
    assert (lost.bits() > 0) == (not comes_back)


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="needs the real text in ../shared/korean")
def test_real_reviews(tmp_path: Path) -> None:
    """KoGPT-2's normalisation changes some 15% of review lines; most of it can be foreseen."""
    with (REAL_TEXT / "lm" / "nsmc_raw_reviews.txt").open(encoding="utf-8") as stream:
        lines = [line for line in (stream.readline().rstrip("\n") for _ in range(4000)) if line.strip()]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_model(lines, 2000, character_coverage=0.9995))
    tokenizer, lost = Tokenizer.load(path), ComingBack()
    ids, lengths = tokenizer.encode_flat([line.encode() for line in lines])
    written, place = [], 0
    for length in lengths.tolist():
        written.append(tokenizer.decode(ids[place : place + length].tolist()))
        place += length
    patches = b"".join(lost.add(*pair) for pair in zip(lines, written))
    assert read_code(written, patches) == lines
    assert 0.1 < lost.documents / len(lines) < 0.25
    assert 0.001 < lost.bits() / sum(len(line.encode()) for line in lines) < 0.05
