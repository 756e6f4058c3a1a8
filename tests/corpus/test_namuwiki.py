"""NamuWiki's dump: the array is cut right whatever its strings hold, and namumark becomes text."""

from __future__ import annotations

import io
import json
import lzma
from pathlib import Path
from typing import Any

import ijson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.documents import read_documents
from kogpt2_gluon.corpus.formats.json_array import Record, parse_records, read_array_blocks
from kogpt2_gluon.corpus.formats.namuwiki import plain_text
from kogpt2_gluon.corpus.left_out import LeftOut
from kogpt2_gluon.corpus.records import Document, Rejection
from kogpt2_gluon.errors import DataError

ARTICLE = """[include(틀:다른 뜻, other1=나, rd1=[[다]])]
[[분류:대한민국]]
||<table align=right><bgcolor=#fff> '''이름''' || [[홍길동]] ||
||<-2> 긴 칸의
둘째 줄 ||
[목차]
== 개요 ==
'''홍길동'''[* [[허균]]의 [[소설|책]]이라고 [br]한다.]은 ~~유명한~~ [[의적|도적]]이다. \
[[파일:a.jpg|width=100]]{{{#red 빨간}}} 글.

==# 자세히 #==
 * 첫째 {{{+1 크게}}}
 1. 둘째 [ruby(漢字, ruby=한자)]
> 인용문이다.
----
## 주석이다
{{{#!folding [ 펼치기 ]
접힌 글 [youtube(abc)]
}}}
{{{#!html <b>굵게</b>}}}{{{#!wiki style="color:red"
상자 안의 글}}}
{{{그대로 [[둔다]]}}} \\[목차] [대괄호] <math>x^2</math> x^^2^^ H,,2,,O
[각주]
"""
ARTICLE_TEXT = """개요
홍길동은 유명한 도적이다. 빨간 글.
자세히
첫째 크게
둘째 漢字
인용문이다.
접힌 글
상자 안의 글
그대로 둔다 [목차] [대괄호]  x² H₂O"""


def page(text: Any, namespace: Any = "0") -> dict[str, Any]:
    return {"namespace": namespace, "title": "가", "text": text, "contributors": ["namubot"]}


PAGES = [
    page("#redirect 홍길동\n"),
    page(ARTICLE),
    page("== 틀 ==", "1"),
    page("정수의 이름공간", 0),
    page("[목차]\n[[분류:가]]"),
    page(7),
    {"namespace": "0", "title": "가"},
    ["가"],
]
RESULTS = ["redirect", ARTICLE_TEXT, "namespace", "정수의 이름공간", "empty", "field_not_text", "missing_field"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_dump(tmp_path: Path, indent: int) -> None:
    data = json.dumps(PAGES, ensure_ascii=False, indent=indent).encode()
    path = tmp_path / "namuwiki_20210301.json.xz"
    path.write_bytes(lzma.compress(data))
    items = list(read_documents(path, "namuwiki"))
    found = [item.reason if isinstance(item, Rejection) else item.text for item in items]
    assert found == [*RESULTS, "missing_field"]
    for item, value in zip(items, PAGES):
        assert json.JSONDecoder().raw_decode(data[item.offset :].decode())[0] == value
        assert data.count(b"\n", 0, item.offset) + 1 == item.line


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-99, 99), st.text(st.sampled_from('\\"{}[],:가\n\u2028x'), max_size=12)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
RECORDS = st.lists(st.one_of(st.dictionaries(st.text(max_size=3), JSON, max_size=3), st.lists(JSON, max_size=3)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(RECORDS, st.sampled_from([None, 0, 1]), st.booleans(), st.booleans(), st.integers(1, 50))
def test_the_array_is_cut_as_a_parser_would(
    records: list[Any], indent: int, escaped: bool, under_key: bool, block_bytes: int
) -> None:
    keys = ("document",) if under_key else ()
    whole: Any = {"id": "document", "x": [{"document": []}], "document": records, "y": {}} if under_key else records
    data = json.dumps(whole, indent=indent, ensure_ascii=escaped).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
        blocks = list(read_array_blocks("a.json", io.BytesIO(data), 1, 0, keys))
    values = [record.value for block in blocks for record in parse_records(block) if isinstance(record, Record)]
    assert values == records
    assert values == list(ijson.items(io.BytesIO(data), "document.item" if keys else "item"))
    assert all(data[block.offset : block.end] == block.data for block in blocks)


@pytest.mark.parametrize(
    ("data", "count", "words"),
    [
        (b'[{"text": "a"}, {"te', 1, "truncated: a record that begins after byte 14"),
        (b'[{"text": "a"}, ', 1, "truncated: a record that begins after byte 14"),
        (b'[{"text": "a"}', 1, "truncated"),
        (b'[{"text": "a"} {"text": "b"}]', 1, "damaged: there is not just one comma between two records, at byte 15"),
        (
            b'[{"text": "a"} 7, {"text": "b"}]',
            1,
            "damaged: there is not just one comma between two records, at byte 15",
        ),
        (b'[{"text": "a"},,{"text": "b"}]', 1, "damaged"),
        (b'[{"text": "a"},]', 1, "damaged"),
        (b'[{"text": "a"}] {"text": "b"}', 1, "something follows the end of its JSON array at byte 14"),
        (b'[,{"text": "a"}]', 0, "damaged"),
        (b'{"text": "a"}', 0, "begins with b'{', not with"),
        (b"", 0, "no JSON array in 0 bytes"),
        (b" \n", 0, "no JSON array in 2 bytes"),
    ],
)
def test_a_broken_file_gives_what_came_before_and_then_fails(
    tmp_path: Path, data: bytes, count: int, words: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    items = read_documents(path, "namuwiki")
    assert [next(items).offset for _ in range(count)] == [1][:count]
    with pytest.raises(DataError, match=f"^{path}: {words}"):
        next(items)


def test_a_broken_record_is_counted_and_the_next_one_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    good = json.dumps(page("글")).encode()
    deep = b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    # A number is no page, but the array goes on after it.
    bad = [
        b"7",
        b'"[{"',
        b"null",
        b'{"text": nul}',
        b'{"text": "\xff"}',
        deep,
        b'{"text": "\\ud800", "namespace": "0"}',
        b"{]",
    ]
    path.write_bytes(b"\xef\xbb\xbf [" + b",\n".join([good, *bad, good]) + b"] ")
    items = list(read_documents(path, "namuwiki"))
    found = [item.reason if isinstance(item, Rejection) else item.text for item in items]
    assert found == ["글", *["missing_field"] * 3, "bad_json", "bad_utf8", "bad_json", "\ud800", "bad_json", "글"]
    assert items[5].bad_utf8 == (path.read_bytes().index(b"\xff"),)
    assert list(read_documents(write(tmp_path / "b.json", b"[]"), "namuwiki")) == []


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("namumark", "text"),
    [
        ("[[가]]와 [[나|다]] [[https://a.b|바깥]] [[:파일:c.jpg]]", "가와 다 바깥 파일:c.jpg"),
        ("[[나|[[파일:a.png]] 다]]", "다"),
        ("가[* 나 [[다]] [라] [* 마]]바", "가바"),
        ("가[br]나", "가\n나"),
        ("{{{#ff0000,#00ff00 가}}}{{{-2 나}}}{{{다}}}", "가나다"),
        ("{{{#!syntax python\nx = [1]\n}}}가", "가"),
        ("{{{#!wiki a\n||가||\n||나||}}}다", "다"),
        ("||가||\n나\n|표 제목|가||\n||끝 없는\n다", "나\n다"),
        ("[각주]", ""),
        ("[age(1990-01-01)]세 [date] [math(x)]가", "세  가"),
        ("가(나)( , )", "가(나)"),
        ("== 가 ==\n===== 나 =====\n==# 다 #==", "가\n나\n다"),
        (" * 가\n  * 나\n a. 다\n*라", "가\n나\n다\n*라"),
        ("--가-- ~~나~~ __다__ ~라 --마", "가 나 다 ~라 --마"),
        ("가 [나\n== 다 ==\n]라", "가 [나\n다\n]라"),
        ("{{{가", "{{{가"),
        ("[[가", "[[가"),
        ("}}}가]]나]", "가]]나]"),
        ("{{|상자|}}", "상자"),
        ("a\\[b\\]", "a[b]"),
        ("", ""),
    ],
)
def test_markup(namumark: str, text: str) -> None:
    assert plain_text(namumark) == text


MARKS = """[[ [[가| {{{ {{{#!wiki [* [include( [ruby( [ruby(a, ||
||N | ~~ --a __ \\ ''' = N= {{{# <math> (, ] }}} * > ||aN"""


@pytest.mark.parametrize("mark", MARKS.split())
def test_a_long_run_of_any_mark_is_read_in_linear_time(mark: str) -> None:
    """Quadratic code would take minutes for each of these, and the suite's timeout would end it."""
    unit = mark.replace("N", "\n")
    count = (1 << 18) // len(unit)
    plain_text(unit * count)
    plain_text(unit * (count // 2) + "가" + "]]}}})]||" * (count // 8))


MARKUP = [
    "{{{",
    "}}}",
    "[[",
    "]]",
    "[*",
    "]",
    "[",
    "|",
    "||",
    "\n",
    "==",
    " ",
    "'''",
    "~~",
    "#!wiki ",
    "가",
    "\\",
    "|}}",
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*MARKUP, "[include(", ")", "[br]", "{{{#!html ", "분류:", " * ", "나"])))
def test_any_markup_gives_clean_lines(pieces: list[str]) -> None:
    text = plain_text("".join(pieces))
    assert all(line.strip() == line and line for line in text.split("\n")) or not text


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text(st.sampled_from("가나다 .1a"), min_size=1, max_size=20).map(str.strip).filter(bool)))
def test_plain_prose_is_kept(lines: list[str]) -> None:
    assert plain_text("\n\n".join(lines)) == "\n".join(lines)
    assert isinstance(Document(plain_text("가"), "", 1, 0), Document)


@pytest.mark.parametrize(
    ("namumark", "text"),
    [
        ("|| 가 || 나\n남는 글이다.\n|| 다 || 라 ||\n끝", "남는 글이다.\n끝"),
        ("|| 가 || 나\n하나\n\n둘\n||<tablealign=center> 다 ||\n|| 라\n셋", "하나\n둘\n셋"),
        ("|| 가\n== 제목 ==\n글\n둘째 줄 ||", "제목\n글\n둘째 줄 ||"),
        ("||<-2> 긴 칸의\n둘째 줄\n셋째 줄 ||\n글", "글"),  # one row of several lines
        ("|표 이름|| 가 || 나 ||\n글\n|| 다\n글 둘\n|다른 표|| 라 ||", "글\n글 둘"),
        ("|| 가 ||\n|| 나 || 다\n|| 라 ||\n글", "글"),
    ],
)
def test_a_row_that_does_not_end_takes_no_prose(namumark: str, text: str) -> None:
    assert plain_text(namumark) == text


@pytest.mark.parametrize(
    ("namumark", "text"),
    [
        ("5.97×10^^24^^ kg, 10^^-3^^", "5.97×10^24 kg, 10^-3"),
        ("100 m^^2^^와 x^^k+1^^", "100 m²와 x^(k+1)"),
        ("H,,2,,SO,,4,, v,,max,,", "H₂SO₄ v_max"),
        ("명령은 print()이고 글[* 각주]", "명령은 print()이고 글"),
    ],
)
def test_raised_and_lowered_text(namumark: str, text: str) -> None:
    assert plain_text(namumark) == text


def test_what_goes_is_counted() -> None:
    left_out = LeftOut()
    plain_text(ARTICLE, left_out)
    assert left_out.counts == {
        "macro include": 1,
        "link 분류": 1,
        "table row": 2,
        "footnote": 1,
        "link 파일": 1,
        "reading of a ruby": 1,
        "comment": 1,
        "title of a folded block": 1,
        "macro youtube": 1,
        "block html": 1,
        "tag math": 1,
    }
    assert left_out.examples["footnote"].startswith("[*") and "번역" not in left_out.examples["table row"]


def test_the_time_of_counting_is_linear() -> None:
    for unit in ("[* 가]", "[[파일:a|가]]", "|| 가\n", "{{{#!folding [ 가 ]\n나}}}", "x^^2^^", "## 가\n"):
        left_out = LeftOut()
        plain_text(unit * 40_000, left_out)
