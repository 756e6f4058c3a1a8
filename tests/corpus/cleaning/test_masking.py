"""Masks and markup: what they take, what only looks alike and stays, and that no text makes them slow."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning.markup import strip_html
from kogpt2_gluon.corpus.cleaning.masking import MASKS, is_resident_number, passes_luhn
from tests.helpers import REAL_TEXT

NUMBERS = ("resident_number", "card", "phone", "account")

MASKED = {
    "url": [
        ("https://arxiv.org/pdf/2108.10241.pdf 참조", "# 참조"),
        ("(https://tfhub.dev/)에서", "(#)에서"),  # a particle follows
        ("www.tensorflow.org에서 제공됩니다.", "#에서 제공됩니다."),
        ("보세요 http://ko.wikipedia.org/wiki/서울.", "보세요 #서울."),
        ("https://en.wikipedia.org/wiki/Seoul_(film).", "#."),
        ("HTTP://WWW.EXAMPLE.COM/?a=1&b=2!", "#!"),
    ],
    "email": [
        ("docs-ko@tensorflow.org로 메일을", "#로 메일을"),
        ("메일은 hong.gil+dong@mail.example.co.kr, 감사", "메일은 #, 감사"),
        ("부탁 드림..homemc@hanmail.net", "부탁 드림..#"),
        ("0114868595@naver.com", "#"),
    ],
    "resident_number": [
        ("주민번호 800101-1234560 입니다", "주민번호 # 입니다"),  # gloss: resident number
        ("8001011234560", "#"),
        ("외국인 800101-5000001", "외국인 #"),  # gloss: foreigner
        ("201130-3123456", "#"),  # born after the check digit went
        ("900101-1******", "#"),
    ],
    "card": [
        ("카드 4111-1111-1111-1111 결제", "카드 # 결제"),  # gloss: card, paid
        ("4111111111111111", "#"),
        ("5555 5555 5555 4444", "#"),
        ("3782-822463-10005", "#"),
    ],
    "phone": [
        ("연락처 010-1234-5678.", "연락처 #."),  # gloss: contact
        ("010 3227 2293 김현일", "# 김현일"),
        ("01076443871", "#"),
        ("010.1234.5678", "#"),
        ("011-318-7092", "#"),
        ("02-123-4567", "#"),
        ("02) 1234-5678", "#"),
        ("(031)123-4567", "#"),
        ("070-1234-5678", "#"),
        ("+82-10-1234-5678", "#"),
        ("+82 2 123 4567", "#"),
        ("+82 (0)10 1234 5678", "#"),
    ],
    "account": [
        ("신한은행 110-123-456789 홍길동", "신한은행 # 홍길동"),
        ("계좌번호: 123456-01-123456", "계좌번호: #"),  # gloss: account number
        ("국민 123456-01-123456", "국민 #"),
        ("110-123-456789 (신한은행)", "# (신한은행)"),
        ("입금은 1002123456789 로", "입금은 # 로"),  # gloss: pay into
        ("농협 301-1234-5678-91, 352-1234-5678-93", "농협 #, #"),
    ],
}

KEPT = [
    "2002.01.05",
    "10-20-30",
    "2002-01-05 12:30:45",
    "1592-1598년",  # years
    "1.2.3-4567",
    "버전 1.2.3-4567, 0.10.20",
    "가격은 1,234,567,890원",  # a price
    "12,345,678",
    "3.14159265358979",
    "192.168.100.200",
    "1588-1234",  # a firm's shared number
    "1010101010",
    "01010101010",
    "2103.05577",
    "978-89-12345-67-8",  # a book
    "1234567890123",
    "800101-1234567",  # a wrong check digit
    "800231-1234561",  # 31 February
    "4111-1111-1111-1112",  # Luhn says no
    "사업자등록번호 123-45-67890",  # a firm's registration
    "은행 거래 2020-01-05-1234",
    "은행에 1000000000원",
    "우체국 택배 1234567890123",  # a parcel
    "우리 회사 123-45-67890",  # us, not the bank of that name
    "계좌는 아니고 그냥 긴 글이 이어진 다음의 숫자 110-123-456789",
    "a@b",
    "@user 님",
    "git@github.com:a/b.git",
    "logo@2x.png",
    "220333545306",
    "29-20230503",
    "0.000000059605, 65504",
    "6-3 4-6 6-3 7-6",
]


def mask_all(text: str) -> str:
    for mask in MASKS.values():
        text = mask(text, "#")
    return text


@pytest.mark.parametrize(("name", "text", "expected"), [(n, *pair) for n, pairs in MASKED.items() for pair in pairs])
def test_masked(name: str, text: str, expected: str) -> None:
    assert MASKS[name](text, "#") == expected
    if name not in ("phone", "card"):  # other filters may know their forms as well
        assert mask_all(text) == expected


@pytest.mark.parametrize("text", KEPT)
def test_kept(text: str) -> None:
    assert mask_all(text) == text
    assert mask_all(f"앞 {text} 뒤") == f"앞 {text} 뒤"


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2020, 9, 30)), st.integers(0, 3), st.integers(0, 99999))
def test_resident_numbers(birth: datetime.date, kind: int, serial: int) -> None:
    """One of the ten last digits is right; with a day that does not exist, none is."""
    sign = ("1256" if birth.year < 2000 else "3478")[kind]
    day = birth.strftime("%y%m%d")
    right = [digit for digit in range(10) if is_resident_number(day, f"{sign}{serial:05}{digit}")]
    assert len(right) == 1
    number = f"{day}-{sign}{serial:05}{right[0]}"
    assert MASKS["resident_number"](f"번호는 {number}입니다", "#") == "번호는 #입니다"
    assert not is_resident_number(day[:4] + "32", number[7:])
    weights = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]
    total = sum(int(a) * b for a, b in zip(number.replace("-", ""), weights))
    assert right[0] == ((13 if sign in "5678" else 11) - total % 11) % 10


@settings(deadline=None, derandomize=True)
@given(st.text("0123456789", min_size=15, max_size=15))
def test_luhn_takes_one_digit_in_ten(digits: str) -> None:
    right = [digit for digit in "0123456789" if passes_luhn(digits + digit)]
    assert len(right) == 1


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [*KEPT, *(pair[0] for pairs in MASKED.values() for pair in pairs), "-", ".", " ", "@", "1", "가"]
        ),
        max_size=6,
    )
)
def test_masks_do_not_see_each_other(parts: list[str]) -> None:
    """Once is enough, but for accounts: a placeholder brings a bank's name closer to the next number."""
    text = " ".join(parts)
    for mask in MASKS.values():
        text = mask(text, "&x&")
    for name, mask in MASKS.items():
        assert name == "account" or mask(text, "&x&") == text


# --- markup


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>서울은 <b>한국</b>의 수도다.</p>", " 서울은 한국의 수도다. "),
        ("한 줄<br/>두 줄<BR>", "한 줄 두 줄 "),
        ("a &lt;b&gt; &amp;lt; &quot;x&quot; &#44032;&#xac01;", 'a <b> &lt; "x" 가각'),
        ("&nbsp;", "\xa0"),
        ("&#10;", " "),
        ("AT&T; R&D 1 < 2 > 0", "AT&T; R&D 1 < 2 > 0"),
        ("<괴물>과 <Parasite>, <Her>", "<괴물>과 <Parasite>, <Her>"),  # films
        ("`<div>` 요소와 `</div>`", "`<div>` 요소와 `</div>`"),
        ("가<!-- 주석\n둘째 -->나", "가\n나"),
        ("가<script type='x'>if (a<b)\n{}</script >나", "가\n나"),
        ("<style>p {}</style>본문", " 본문"),
        ("끝나지 않는 <!-- 주석", "끝나지 않는 <!-- 주석"),
        ("<a href='x'\n title='y'>링크</a>", "\n링크"),
    ],
)
def test_strip_html(text: str, expected: str) -> None:
    assert strip_html(text) == expected


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.sampled_from(["<", ">", "<b>", "<!--", "-->", "\n", "<script>", "</script>", "&lt;", "a", "&#10;"])))
def test_strip_html_keeps_every_line_end(parts: list[str]) -> None:
    text = "".join(parts)
    assert strip_html(text).count("\n") == text.count("\n")


# --- hostile and real text

HOSTILE = ["a", "1", "1-", "010-", "(02", "@", "a@a.", "a..", "http://", "http://.", "www.", "농협", "12-12", "82-"]
HOSTILE += ["000101-3", "<", "<!--", "&#x1", "((", "ㅋ"]
HOSTILE += [" ", "4111 ", "<script ", "<a ", "계좌 1", "110-123-456789 "]


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_is_linear(unit: str) -> None:
    """One line of 300,000 characters; the square of that would take minutes."""
    text = unit * (300_000 // len(unit))
    for mask in MASKS.values():
        mask(text, "#")
    assert strip_html(text).count("\n") == 0


def real_lines() -> Iterator[str]:
    for name in ("nsmc_raw_reviews.txt", "kaist_treebank_docs.txt"):
        yield from (REAL_TEXT / "lm" / name).read_text(encoding="utf-8").split("\n")


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="the real Korean text is not here")
def test_real_text_is_hardly_touched() -> None:
    """417,000 lines, read by eye, have four telephone numbers outside addresses, and nothing else to mask."""
    hits = {name: 0 for name in NUMBERS}
    for line in real_lines():
        if sum(map(str.isdigit, line)) >= 7:
            line = MASKS["email"](line, "#")
            for name in NUMBERS:
                hits[name] += MASKS[name](line, "\ue000").count("\ue000")
    assert hits == {"resident_number": 0, "card": 0, "phone": 4, "account": 0}
