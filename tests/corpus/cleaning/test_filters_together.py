"""Filters that run together: none judges a line by what a mask wrote, and exponents and comparisons are no markup."""

from __future__ import annotations

import pytest

from kogpt2_gluon.corpus.cleaning.filters import CleanedBatch, TextCleaner
from kogpt2_gluon.corpus.cleaning.markup import strip_html
from kogpt2_gluon.corpus.cleaning.options import load_options

DATA = {
    "url": "https://news.example.co.kr/view/2020/politics-article?id=12345&page=2",
    "email": "honggildong.example@mail.example.co.kr",
    "resident_number": "880101-1234568",
    "card": "4111-1111-1111-1111",
    "phone": "010-1234-5678",
    "account": "국민 110-234-567890",
}
COUNTING = {
    "short_line": ["short_line.min_chars=12"],
    "no_hangul": ["no_hangul.min_hangul=4"],
    "length": ["length.min_chars=24"],
    "longest": ["length.min_chars=0", "length.max_chars=60"],
    "hangul_share": ["hangul_share.min_share=0.25"],
    "symbol_ratio": ["symbol_ratio.max_share=0.3"],
}
TEXTS = ["문의 {}", "{} 로 주세요", "가나다라마바 {} {} {}", "{}, {}, {}: 전화 주세요", "오늘은 비가 왔다.\n{} 입니다"]


def clean(text: str, overrides: list[str], mask: str = "", placeholder: str = "") -> CleanedBatch:
    if mask:
        overrides = [*overrides, f"{mask}=true", *([f"{mask}.replacement={placeholder}"] if placeholder else [])]
    return TextCleaner(load_options(None, overrides)).clean([text])


@pytest.mark.parametrize("placeholder", ["", "&a-very-long-name-of-a-placeholder&", "<비밀>", "?"])
@pytest.mark.parametrize("name", COUNTING)
@pytest.mark.parametrize("mask", DATA)
def test_what_stays_unmasked_stays_masked(mask: str, name: str, placeholder: str) -> None:
    section = {"longest": "length"}.get(name, name)
    overrides = [f"{section}=true", "repeated=false", *COUNTING[name]]
    for form in TEXTS:
        text = form.replace("{}", DATA[mask])
        if name in ("no_hangul", "hangul_share", "symbol_ratio", "longest"):
            text = form.replace("{}", "")  # what the mask hides counts neither way
        stays = clean(text, overrides)
        masked = clean(form.replace("{}", DATA[mask]), overrides, mask, placeholder)
        lines = [kept.count("\n") + 1 if kept else 0 for kept in (stays.texts[0], masked.texts[0])]
        assert lines[1] >= lines[0], (form, stays, masked)
        if masked.texts[0]:  # and the result is a fixed point
            assert clean(masked.texts[0], overrides, mask, placeholder).texts == masked.texts


def test_the_line_of_three_telephones_stays() -> None:
    text = "문의는 02-123-4567 또는 010.9999.8888로 주세요. 010 1234 5678 입니다.\n이 문장은 남는다. 오늘은 비가 왔다."
    batch = TextCleaner(load_options("web")).clean(text.split("\n"))
    assert batch.texts == [
        "문의는 &tel-num& 또는 &tel-num&로 주세요. &tel-num& 입니다.",
        "이 문장은 남는다. 오늘은 비가 왔다.",
    ]
    assert TextCleaner(load_options("web")).clean(["&tel-num&, &url&", "abc def ghi jkl"]).texts == [None, None]


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("a<b 이고 c>d", "a<b 이고 c>d"),
        ("n<s and m>t, x<p, q>r", "n<s and m>t, x<p, q>r"),
        ("10<i 이며 3>2 그리고 <a href='x'>고리</a>", "10<i 이며 3>2 그리고 고리"),
        ("if a<b && c>d 이면", "if a<b && c>d 이면"),
        ("<td nowrap>가</td><input disabled><br clear=all /><p style=''>나</p>", " 가    나 "),
        ('<a\nhref="x">가</a><b class=c>나</b><img src="a.jpg"alt="b"><hr/>', "\n가나  "),
        ("<font color = red>글</font> <br >", "글  "),
    ],
)
def test_comparisons_are_no_tags(text: str, stripped: str) -> None:
    assert strip_html(text) == stripped


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("5.97×10<sup>24</sup> kg", "5.97×10^24 kg"),
        ("100 m<sup class='x'>2</sup>, Ca<SUP>2+</SUP>, 10<sup>-3</sup >", "100 m², Ca²⁺, 10^-3"),
        ("H<sub>2</sub>O, v<sub>max</sub>, x<sup>n+1</sup>", "H₂O, v_max, x^(n+1)"),
        ("글<sup><a href='#'>[1]</a></sup> 글<sup>주</sup>", "글[1] 글주"),
    ],
)
def test_html_keeps_exponents(text: str, stripped: str) -> None:
    assert strip_html(text) == stripped


def test_exponents_survive_all_filters() -> None:
    words = "지구의 질량과 포도당의 식이 여기에 있다: "
    text = words + "질량은 5.97×10<sup>24</sup> kg, C<sub>6</sub>H<sub>12</sub>O<sub>6</sub>, m<sup>3</sup>이다."
    plain = words + "질량은 5.97×10^24 kg, C₆H₁₂O₆, m³이다."
    for preset in ("web", "lm_kor"):
        assert TextCleaner(load_options(preset)).clean([text, plain]).texts == [plain, plain]


@pytest.mark.parametrize(
    "unit",
    ["<b ", "<sup>", "a<b c=", "<a href=", "<sup>2</sup>", "&tel-num&", "<b a a a a a ", "<b" + " " * 4999 + "x>"],
)
def test_the_time_is_linear(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    strip_html(text)
    clean(text, ["hangul_share=true", "length=true"], "phone")
