"""The filters over a batch: against slow and plain versions of each rule, counted exactly, and final."""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from itertools import groupby

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning.characters import (
    CODE_POINTS,
    class_table,
)
from kogpt2_gluon.corpus.cleaning.editing import SAMPLE_CHARS
from kogpt2_gluon.corpus.cleaning.filters import SAMPLES, CleanedBatch, TextCleaner
from kogpt2_gluon.corpus.cleaning.lines import Lines
from kogpt2_gluon.corpus.cleaning.normalize import normalize_line
from kogpt2_gluon.corpus.cleaning.options import load_options
from kogpt2_gluon.corpus.cleaning.repetition import cut_runs
from tests.helpers import REAL_TEXT

PIECES = ["\n", "\n\n", " ", "\t", "\0", "\u200b", "\u3164", "\ufeff", "\ud800", "\u1100", "\u1161", "\u0338", "\u0301"]
PIECES += [
    "가",
    "나다 라",
    "ㅋ",
    "ㅋㅋㅋㅋㅋ",
    "ㅠㅠㅠㅠ",
    "하하 ",
    "!!!!",
    "a",
    "Z",
    "1",
    "-",
    ".",
    "=",
    "&",
    "<",
    ">",
    "<b>",
    "&lt;",
]
PIECES += [
    "大韓",
    "(大韓)",
    "(",
    ")",
    "👍",
    "❤\ufe0f",
    "\u200d",
    "1\ufe0f\u20e3",
    "★",
    "я",
    "の",
    "010-1234-5678",
    "010",
]
PIECES += [
    "@",
    "a@b.kr",
    "http://a.kr/b",
    "://",
    "www.",
    "농협 ",
    "110-123-456789",
    "800101-1234560",
    "4111111111111111",
]
PIECES += ["ab", "AB", "ㅋㅎ", "＞", "㎏", "ﾊ", "ｱ", "ﾡ", "&url&", "&tel-num&"]
texts_of_pieces = st.lists(st.one_of(st.sampled_from(PIECES), st.characters()), max_size=25).map("".join)


@functools.cache
def cleaner(*overrides: str, preset: str | None = None) -> TextCleaner:
    return TextCleaner(load_options(preset, overrides))


def clean_one(text: str, *overrides: str) -> str | None:
    return cleaner(*overrides).clean([text]).texts[0]


def check_counts(texts: list[str], batch: CleanedBatch) -> None:
    assert len(batch.texts) == len(batch.reasons) == len(texts)
    kept = [text for text in batch.texts if text is not None]
    assert batch.line_counts == [text.count("\n") + 1 for text in kept]
    assert all((text is None) == bool(reason) for text, reason in zip(batch.texts, batch.reasons))
    assert all(line for text in kept for line in text.split("\n"))
    assert sum(text.count("\n") + 1 for text in texts) == sum(batch.line_counts) + sum(batch.lines.values())
    assert all(count > 0 for count in batch.lines.values())
    assert set(batch.reasons) - {""} <= set(batch.lines)
    assert all(len(sample.before) <= SAMPLE_CHARS and len(sample.after) <= SAMPLE_CHARS for sample in batch.samples)
    reasons = [sample.reason for sample in batch.samples]
    assert all(reasons.count(reason) <= SAMPLES for reason in reasons)


# --- single filters


@pytest.mark.parametrize(
    ("overrides", "text", "expected"),
    [
        (["normalize.form=NFKC"], "ａｂｃ ㎏ ㈜ ㅋㅋ ﾡ ㄱㅏ", "abc kg (주) ㅋㅋ ㄱ ㄱㅏ"),
        (["emoji=true"], "영화👍최고👍! ❤\ufe0f 1\ufe0f\u20e3 ★♥ 👨\u200d👩", "영화 최고! 1 ★♥"),
        (["hanja=true"], "대한민국(大韓民國)과 北 미사일, 老人들", "대한민국과 미사일, 들"),
        (["hanja=true"], "(大, 小) [漢字] (한자 漢字)", "(한자 )"),
        (["characters=true"], "가나 абв の漢 abc 12 ★ ⟶ 「인용」 ~^_^", "가나 abc 12 ★ 「인용」 ~^_^"),
        (["characters=true", "characters.also=漢"], "漢字", "漢"),
        (["characters=true", "characters.keep=[hangul]"], "가 é漢 a1!", "가 a1!"),
        (["repetition=true"], "ㅋㅋㅋㅋㅋ 아하하하하하 와!!!!! ㅠㅠ", "ㅋㅋㅋ 아하하하 와!!! ㅠㅠ"),
        (["repetition=true"], "하하 하하 하하 하하 하하 좋다", "하하 하하 하하 좋다"),
        (["repetition=true"], "ㅋㅎㅋㅎㅋㅎㅋㅎㅋㅎ", "ㅋㅎㅋㅎㅋㅎ"),
        (["repetition=true", "repetition.keep=2"], "와하하하하하하하하하핫", "와하하핫"),
        (["repetition=true"], "1000000원 YYYYMMDD 2222-2222", "1000000원 YYYYMMDD 2222-2222"),
        (["repetition=true", "repetition.group=1"], "하하 하하 하하 하하", "하하 하하 하하 하하"),
        (["url=true", "url.replacement="], "가 http://a.kr/b 나", "가 나"),
        (["short_line=true", "short_line.min_chars=3"], "가나\n다라마\n바", "다라마"),
        (["no_hangul=true"], "Where is the truth?\n어디에\n123", "어디에"),
        (
            ["boilerplate=true"],
            "기사\n무단 전재 및 재배포 금지\n" + "긴 글 무단 전재" * 20,
            "기사\n" + "긴 글 무단 전재" * 20,
        ),
        (["repeated=false"], "가\n가\n나", "가\n가\n나"),
        ([], "가\n\n가\n나\n가", "가\n나\n가"),
        (["html=true"], "<p>가</p>\n<br>\n&lt;나&gt;", "가\n<나>"),
    ],
)
def test_what_stays(overrides: list[str], text: str, expected: str) -> None:
    assert clean_one(text, *overrides) == expected


@pytest.mark.parametrize(
    ("name", "overrides", "text"),
    [
        ("empty", [], " \n\u200b\n"),
        ("html", ["html=true"], "<br>\n<!-- 없음 -->"),
        ("emoji", ["emoji=true"], "👍👍"),
        ("url", ["url=true", "url.replacement="], "http://a.kr"),
        ("short_line", ["short_line=true"], "가\n나"),
        ("length", ["length=true"], "아홉 글자입니다"),
        ("length", ["length=true", "length.max_chars=12"], "한 줄입니다\n두 줄입니다요"),
        ("hangul_share", ["hangul_share=true"], "only one 줄 is not enough"),
        ("symbol_ratio", ["symbol_ratio=true"], "== 가 == !!"),
        ("repeated_lines", ["repeated_lines=true"], "\n".join(["타입", "예시"] * 6)),
        ("repeated_ngrams", ["repeated_ngrams=true"], "하나 둘 셋 넷 다섯 여섯 일곱 " * 10),
    ],
)
def test_what_goes(name: str, overrides: list[str], text: str) -> None:
    texts = [text, "이 문서는 남습니다. 아무 문제가 없으니까요.", text]
    batch = cleaner(*overrides).clean(texts)
    check_counts(texts, batch)
    if "max_chars" not in str(overrides):
        assert batch.reasons == [name, "", name]
        assert batch.texts[1] == texts[1]
    assert batch.reasons[0] == name


def test_documents_near_the_limits_stay() -> None:
    words = " ".join(f"낱말{number}" for number in range(60))
    lines = "\n".join(f"줄 번호 {number}" for number in range(30))
    for name in ("length", "hangul_share", "symbol_ratio", "repeated_lines", "repeated_ngrams"):
        assert cleaner(f"{name}=true").clean([words, lines]).reasons == ["", ""]
    # Half of the lines, or a seventh of the words, said before.
    assert clean_one("\n".join(f"줄 번호 {number % 20}" for number in range(30)), "repeated_lines=true") is None
    assert clean_one("\n".join(f"줄 번호 {number % 24}" for number in range(30)), "repeated_lines=true") is not None
    again = words + " " + " ".join(words.split()[:10])
    assert clean_one(again, "repeated_ngrams=true") == again
    # What one document says twice, two may say once each.
    assert (
        cleaner("repeated_ngrams=true", "repeated_lines=true").clean([words, words, lines, lines]).reasons == [""] * 4
    )


def test_reasons_follow_the_order_of_the_filters() -> None:
    text = "<br>\n👍\n\n가\nabc\n짧음\n짧음"
    overrides = ["html=true", "emoji=true", "short_line=true", "no_hangul=true", "length=true"]
    batch = cleaner(*overrides).clean([text])
    assert batch.reasons == ["length"]
    assert batch.lines == {
        "html": 1,
        "emoji": 1,
        "empty": 1,
        "short_line": 1,
        "no_hangul": 1,
        "repeated": 1,
        "length": 1,
    }
    assert batch.changed == {"html": 1, "emoji": 1}


def test_samples_show_the_place() -> None:
    batch = cleaner("phone=true", "length=true").clean(["가" * 1000 + " 010-1234-5678 " + "나" * 1000, "짧다"])
    phone, length = sorted(batch.samples, reverse=True)
    assert (length.reason, length.before, length.after) == ("length", "짧다", "")
    assert phone.reason == "phone"
    assert "000-0000-0000" in phone.before and "&tel-num&" in phone.after
    assert len(phone.before) == len(phone.after) == SAMPLE_CHARS


def test_samples_tell_no_secrets() -> None:
    text = "ㅋㅋㅋㅋㅋ 800101-1234560 010-1234-5678 hong@a.kr 농협 110-123-456789 4111-1111-1111-1111"
    batch = cleaner(preset="web").clean([text, text + "\n<b>" + text + "</b>"])
    assert {sample.reason for sample in batch.samples} >= {"html", "repetition", "email", "resident_number", "account"}
    for sample in batch.samples:
        quoted = sample.before + sample.after
        for secret in ("800101", "1234560", "1234-5678", "hong", "123-456789", "4111"):
            assert secret not in quoted, sample
    by_reason = {sample.reason: sample for sample in batch.samples}
    assert "000000-0000000" in by_reason["resident_number"].before
    assert "x@a.kr" in by_reason["email"].before and "&email&" in by_reason["email"].after


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        # The bank's name comes before the piece of the line that is shown.
        (
            "국민은행: 012345-67-890123 그리고 여기서 한참 더 가서 조금 더 가면 무엇이 있을까요 ㅋㅋㅋㅋㅋ",
            "890123",
        ),
        # The piece ends in the middle of the number.
        ("ㅋㅋㅋㅋㅋ " + "가나다라마 " * 30 + "바 010-2345-6789 이다", "2345"),
        # Not yet normalised, or still HTML.
        ("연락처 010\u200b-2345-6789 입니다 감사합니다", "2345"),
        ("연락처 ０１０-２３４５-６７８９ 입니다 감사합니다 ㅋㅋㅋㅋㅋ", "２３４５"),
        ("메일은 gildong&#64;naver.com 입니다 감사합니다", "gildong"),
    ],
)
def test_samples_of_pieces_tell_no_secrets(text: str, secret: str) -> None:
    assert secret in text
    batch = cleaner(preset="web").clean([text])
    assert batch.samples and batch.texts[0] is not None and secret not in batch.texts[0]
    assert not any(secret in sample.before + sample.after for sample in batch.samples), batch.samples


def test_numbers_in_full_width_digits_are_masked() -> None:
    texts = [
        "전화 ０１０－２３４５－６７８９ 로",
        "주민 ８００１０１-１２３４５６０ 입니다",
        "２０２４년 １２월 ２５일, ０１２３４",
    ]
    batch = cleaner("phone=true", "resident_number=true").clean(texts)
    assert batch.texts == ["전화 &tel-num& 로", "주민 &social-security-num& 입니다", texts[2]]


# --- against plain versions


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(texts_of_pieces, max_size=6))
@example(["", " ", "\n", "가\n가"])
def test_the_default_is_normalize_line(texts: list[str]) -> None:
    batch = cleaner().clean(texts)
    check_counts(texts, batch)
    for text, got in zip(texts, batch.texts):
        lines = [line for line, _ in groupby(line for line in map(normalize_line, text.split("\n")) if line)]
        assert got == ("\n".join(lines) or None)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text("ㅋㅎ !1A\n", max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_cut_runs(text: str, keep: int, group: int) -> None:
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    got, changed = cut_runs(Lines.of_text(text + "\n", class_table()), keep, group)
    expected = text
    for period in range(1, group + 1):
        pattern = rf"(?s)(([^1A\n]{{{period}}})\2{{{keep - 1}}})\2+"
        expected = re.sub(pattern, r"\1", expected)
    expected = "\n".join(" ".join(line.split()) for line in expected.split("\n"))
    assert got.text == expected + "\n"
    pairs = zip(text.split("\n"), expected.split("\n"))
    assert changed.tolist() == [row for row, (before, after) in enumerate(pairs) if before != after]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.text("가a.★👍 \n", max_size=40), max_size=5))
def test_shares(texts: list[str]) -> None:
    for name, members, least in (("hangul_share", "가", True), ("symbol_ratio", ".★👍", False)):
        batch = cleaner(f"{name}=true").clean(texts)
        for text, got in zip(texts, batch.reasons):
            lines = [line for line, _ in groupby(line for line in map(normalize_line, text.split("\n")) if line)]
            seen = "".join(lines).replace(" ", "")
            count = sum(seen.count(char) for char in members)
            bad = count < 0.3 * len(seen) if least else count > 0.5 * len(seen)
            assert got == ("empty" if not seen else name if bad else "")


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.lists(st.sampled_from("가나다"), max_size=12), min_size=1, max_size=4), st.integers(2, 4))
def test_repeated_ngrams(documents: list[list[str]], size: int) -> None:
    section = ["repeated_ngrams=true", f"repeated_ngrams.words={size}", "repeated_ngrams.min_words=4"]
    batch = cleaner(*section, "repeated=false").clean([" ".join(words) for words in documents])
    for words, reason in zip(documents, batch.reasons):
        seen, covered = set(), set()
        for start in range(len(words) - size + 1):
            run = tuple(words[start : start + size])
            if run in seen:
                covered |= set(range(start, start + size))
            seen.add(run)
        bad = len(words) >= 4 and len(covered) > 0.3 * len(words)
        assert reason == ("" if words and not bad else "repeated_ngrams" if words else "empty")


def test_long_runs_of_marks_end() -> None:
    """Sorting a long run takes the square of its length; 150,000 marks would take minutes."""
    text = "가" * 600 + "e" + "\u0315\u0300" * 75_000 + "나"
    line = normalize_line(text)
    assert line == "가" * 600 + "è" + "\u0300" * 14 + "\u0315" * 15 + "나"
    assert clean_one(text) == normalize_line(line) == line
    marks = [char for char in map(chr, range(CODE_POINTS)) if unicodedata.combining(char)]
    assert len(marks) > 800
    for char in marks:
        assert normalize_line("가" * 600 + char * 31) == normalize_line("가" * 600 + char * 30)


# --- all filters at once


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(texts_of_pieces, max_size=5), st.booleans())
@example(["010👍-1234-5678", "ht漢tp://a.kr"], True)
@example(["&&&&url&", "ㅋㅋhttp://a.krㅋㅋ"], True)
@example(["농협 110-123-456789 110-123-456789 농협110-123-456789"], False)
def test_cleaning_is_final(texts: list[str], compatible: bool) -> None:
    off = [f"{name}=false" for name in ("html", "length", "symbol_ratio", "hangul_share", "no_hangul", "short_line")]
    run = cleaner(f"normalize.form={'NFKC' if compatible else 'NFC'}", *off, preset="lm_kor")
    batch = run.clean(texts)
    check_counts(texts, batch)
    kept = [text for text in batch.texts if text is not None]
    again = run.clean(kept)
    assert again.texts == kept
    assert not again.lines and not again.changed and not again.samples
    for text in kept:
        assert unicodedata.is_normalized("NFC", text)
        assert not re.search("[👍漢大のя]", text)
        text.encode()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(texts_of_pieces, max_size=6))
def test_documents_do_not_see_each_other(texts: list[str]) -> None:
    run = cleaner(preset="web")
    batch = run.clean(texts)
    check_counts(texts, batch)
    alone = [run.clean([text]) for text in texts]
    assert batch.texts == [single.texts[0] for single in alone]
    assert batch.reasons == [single.reasons[0] for single in alone]
    assert batch.lines == sum((single.lines for single in alone), batch.lines.__class__())
    assert batch.changed == sum((single.changed for single in alone), batch.changed.__class__())


def test_nothing_and_emptiness() -> None:
    for preset in ("default", "web", "lm_kor"):
        run = cleaner(preset=preset)
        assert run.clean([]) == CleanedBatch([], [])
        assert run.clean([""]).reasons == ["empty"]
        assert run.clean(["\n\n"]).lines == {"empty": 3}


HOSTILE = ["a", "<", "[[", "1", " ", "ㅋ", "ㅋㅎ", "\n", "a\n", "\0", "\ud800", "\u0315\u0300", "\u1100\u1161"]
HOSTILE += ["👍\u200d", "(漢", "가나 ", "4111 ", "🏴\U000e0067", "<!--", "계좌 1", "http://."]


@pytest.mark.parametrize("unit", HOSTILE)
def test_long_lines(unit: str) -> None:
    """Documents of 300,000 characters without an end in sight: in no more than linear time, and nothing uncounted."""
    text = unit * (300_000 // len(unit))
    for preset in ("default", "lm_kor"):
        check_counts([text], cleaner(preset=preset).clean([text]))


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a", "<", "[[", "1", " ", "ㅋ", "\u0315\u0300", "010-1234-567", "가나 "])
def test_lines_of_ten_megabytes(unit: str) -> None:
    text = unit * (10_000_000 // len(unit.encode()))
    for form in ("NFC", "NFKC"):
        check_counts([text], cleaner(f"normalize.form={form}", preset="lm_kor").clean([text]))


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="the real Korean text is not here")
def test_real_documents() -> None:
    """The web preset keeps nearly all of good prose, says the same twice, and accounts for each line."""
    rows = (REAL_TEXT / "lm" / "tech_docs_ko.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(row)["text"] for row in rows]
    run = cleaner(preset="web")
    batch = run.clean(texts)
    check_counts(texts, batch)
    assert len(texts) == 1117
    assert sum(reason == "" for reason in batch.reasons) >= 1100
    essays = (REAL_TEXT / "lm" / "kaist_treebank_docs.txt").read_text(encoding="utf-8").strip().split("\n\n")
    assert run.clean(essays).reasons == [""] * 97
