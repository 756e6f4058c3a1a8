"""Wikipedia's dump: its structure, its markup, and files made to do harm."""

from __future__ import annotations

import bz2
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.documents import read_documents
from kogpt2_gluon.corpus.formats.wikitext import BadMarkupError, plain_text, render
from kogpt2_gluon.corpus.records import Document, Rejection
from kogpt2_gluon.errors import DataError
from tests.corpus.wikipedia_helpers import HEAD, PAGE, dump, page

ARTICLE = """{{다른 뜻}}
{{인물 정보
| 이름 = 지미 카터
| 그림 = [[파일:Carter.jpg|섬네일]]
| 국적 = {{nowrap|{{국기|미국}}}}
}}
'''제임스 얼 카터'''({{llang|en|James Earl Carter}}, [[1924년]] ~ )는 [[민주당 (미국)|민주당]] 출신 [[미국]]의 39대 \
[[대통령]]이다.<ref>{{웹 인용|url=http://x.y|제목=가}}</ref><!-- == 주석 == -->

== 생애 ==
=== 어린 시절 ===
[[파일:Jimmy.jpg|섬네일|왼쪽|카터의 [[생가]]]]
카터({{한자|柯}})는 [[조지아주]]에서&nbsp;태어났다.<ref name="a" /> ''농부''의 아들이다.\
<br />둘째 줄, 식 <math>a<b</math>.

* 목록 [[하나]]
** [http://x.y 바깥 고리] [http://y.z]
; 용어 : 설명
{| class="wikitable"
! 가 !! 나
|-
| 1 || {{a|b}}
|}
<gallery>
파일:a.jpg|가
</gallery>
<div style="x">상자 <nowiki>[[그대로]]</nowiki></div>

== 같이 보기 ==
=== 책 ===
== 각주 ==
{{각주}}

[[분류:대통령]]
[[en:Jimmy Carter]]
"""
ARTICLE_TEXT = """제임스 얼 카터(James Earl Carter, 1924년 ~ )는 민주당 출신 미국의 39대 대통령이다.
생애
어린 시절
카터는 조지아주에서\xa0태어났다. 농부의 아들이다.
둘째 줄, 식 .
목록 하나
바깥 고리
용어 : 설명
상자 그대로"""


def test_a_dump(tmp_path: Path) -> None:
    pages = [
        page(ARTICLE),
        page("#넘겨주기 [[지미 카터]]", redirect="지미 카터"),
        page("#REDIRECT [[지미 카터]]"),
        page("틀의 글", ns=10),
        page("{}", model="json"),
        page("{{각주}}"),
        page(""),
        PAGE.format(title="가", ns=0, redirect="", model="wikitext", text="&nbsp;&undeclared;"),
        page("{{가|" * 1000),
        page("마지막 글"),
    ]
    path = dump(tmp_path / "kowiki-20200301-pages-articles-multistream.xml.bz2", *pages)
    items = list(read_documents(path, "wikipedia"))
    assert [item.reason if isinstance(item, Rejection) else item.text for item in items] == [
        ARTICLE_TEXT,
        "redirect",
        "redirect",
        "namespace",
        "not_wikitext",
        "empty",
        "empty",
        "bad_xml",
        "bad_markup",
        "마지막 글",
    ]
    data = bz2.decompress(path.read_bytes())
    for item, text in zip(items, pages):
        assert data[item.offset :].startswith(text.strip().encode())
        assert data.count(b"\n", 0, item.offset) + 1 == item.line


@pytest.mark.parametrize("block_bytes", [10, 700, 1 << 20])
def test_blocks_end_between_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", block_bytes)
    path = dump(tmp_path / "a.xml.bz2", *(page(f"글 {number}") for number in range(20)))
    texts = [item.text for item in read_documents(path, "wikipedia") if isinstance(item, Document)]
    assert texts == [f"글 {number}" for number in range(20)]


def test_a_dump_cut_off_gives_what_it_has_and_then_fails(tmp_path: Path) -> None:
    whole = dump(tmp_path / "a.xml.bz2", page("하나"), page("둘"), tail="")
    half = dump(tmp_path / "b.xml.bz2", page("하나"), page("둘"), tail="  <page>\n    <title>다")
    for path, words in ((whole, "truncated.*without </mediawiki>"), (half, "truncated.*in the middle of a page")):
        items = read_documents(path, "wikipedia")
        assert [next(items), next(items)]
        with pytest.raises(DataError, match=f"{path.name}: {words}"):
            next(items)
    cut = tmp_path / "c.xml.bz2"
    cut.write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"c\.xml\.bz2: truncated: its compressed data"):
        list(read_documents(cut, "wikipedia"))
    other = tmp_path / "d.xml"
    other.write_bytes(b"<html></html>")
    with pytest.raises(DataError, match=r"d\.xml: not a MediaWiki XML dump"):
        list(read_documents(other, "wikipedia"))


def test_entities_cannot_grow(tmp_path: Path) -> None:
    """The billion laughs: each page is parsed by itself, so no document type reaches it."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    prolog = f'<?xml version="1.0"?><!DOCTYPE mediawiki [<!ENTITY l0 "lol">{laughs}]>\n'
    bad = PAGE.format(title="가", ns=0, redirect="", model="wikitext", text="&l9;")
    inner = '  <page><!DOCTYPE page [<!ENTITY a "b">]><ns>0</ns><revision><text>&a;</text></revision></page>\n'
    outside = '  <page><ns>0</ns><revision><text>&x;</text></revision><!ENTITY x SYSTEM "file:///etc/passwd"></page>\n'
    path = tmp_path / "a.xml"
    path.write_text(prolog + HEAD + bad + inner + outside + page("글") + "</mediawiki>", encoding="utf-8")
    items = list(read_documents(path, "wikipedia"))
    assert [item.reason if isinstance(item, Rejection) else item.text for item in items] == ["bad_xml"] * 3 + ["글"]


def test_bad_pages_do_not_hide_others(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    pages = [
        page("하나"),
        "  </page>\n",
        "  <page><title>&</page>\n",
        "  <page>" + "<a>" * 9000 + "</page>",
        page("둘"),
    ]
    data = (HEAD + "".join(pages)).encode() + page("@").encode().replace(b"@", b"\xff") + b"</mediawiki>"
    path.write_bytes(data)
    items = list(read_documents(path, "wikipedia"))
    found = [item.reason if isinstance(item, Rejection) else item.text for item in items]
    assert found == ["하나", "bad_xml", "bad_xml", "bad_xml", "둘", "bad_utf8"]
    assert items[-1].bad_utf8 == (data.index(b"\xff"),)


def test_the_last_revision_counts(tmp_path: Path) -> None:
    both = page("옛 글").replace("</revision>", "</revision><revision><text>새 글</text></revision>")
    assert [item.text for item in read_documents(dump(tmp_path / "a.xml.bz2", both), "wikipedia") if item[0]] == [
        "새 글"
    ]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("[[가 (나)|다]]의 [[:분류:라]]", "다의 분류:라"),
        ("[[File:a.png|{{b}}|c]]앞 [[그림:b.png]]뒤", "앞 뒤"),
        ("가<ref>나 <b>다</b></ref>라<references><ref>마</ref></references>", "가라"),
        ("가(나, {{한자|柯}})", "가(나)"),
        ("가({{lang-en|Carter}}; [[나]])", "가(Carter; 나)"),
        ("가<!-- 나", "가"),
        ("{| \n| 가\n{| \n| 나\n|}\n| 다\n|}라", "라"),
        ("{{가\n== 아님 ==\n}}나\n== 다 ==\n라", "나\n다\n라"),
        ("&lt;b&gt; &amp;amp; &#44032; &nosuch;", "&amp; 가 &nosuch;"),
        ("__목차없음__가", "가"),
        ("== 하나 ==\n=== 둘 ===\n글\n== 셋 ==\n", "하나\n둘\n글"),
        ("가 <script>x</script><style>y</style>나", "가 나"),
        ("&#0;1줄\n\x002줄", "&#0;1줄\n2줄"),
        ("* \n*\n#", ""),
        ("가 {{나", "가 나"),
    ],
)
def test_markup(markup: str, text: str) -> None:
    assert plain_text(markup) == text


@pytest.mark.parametrize(
    "unit", ["{{", "{{가|", "[[", "[[가|", "{|\n", "<ref>", "<b>", "<ref a=", "[http://a ", "{{a|[[b|}}]]", "<br><li>"]
)
def test_markup_made_to_be_slow_is_refused(unit: str) -> None:
    """Each of these takes the parser from seconds to a minute; a few openings without an end are let through."""
    with pytest.raises(BadMarkupError):
        plain_text(unit * 10_000)
    plain_text(unit * 50)


def test_deep_markup_is_no_crash() -> None:
    for opening, closing in (("{{a|", "}}"), ("[[a|", "]]"), ("<b>", "</b>"), ("{|\n", "\n|}")):
        plain_text(opening * 5000 + "가" + closing * 5000)
    assert plain_text("=" * 10_000 + "\n" + "'" * 10_000) in ("", "=" * 10_000)


MARKUP = [
    "{{",
    "}}",
    "[[",
    "]]",
    "{|",
    "|}",
    "\n",
    "|",
    "<ref>",
    "</ref>",
    "<br>",
    "<!--",
    "-->",
    "'''",
    "==",
    "가",
    " ",
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*MARKUP, "*", "[http://a ", "]", "&lt;", "<nowiki>", "</nowiki>", ";", ":", "\x00"])))
def test_any_markup_gives_clean_lines(pieces: list[str]) -> None:
    text = plain_text("".join(pieces))
    assert "\x00" not in text
    assert all(line.strip() == line and line for line in text.split("\n")) or not text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            ["가", " ", "\n", "* ", "# ", "[[나]]", "[[나|다]]", "[[파일:a|b]]", "[[:분류:라]]", "''", ";", "1"]
        )
    )
)
def test_prose_needs_no_parser(pieces: list[str]) -> None:
    """Text with flat links alone goes past mwparserfromhell: with the same result."""
    text = "".join(pieces)
    short = plain_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "_COMPLEX", re.compile(""))
        assert plain_text(text) == short
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render.mwparserfromhell, "parse", lambda *_, **__: pytest.fail("parsed"))
        assert plain_text(text) == short


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text(st.sampled_from("가나다 .1a"), min_size=1, max_size=20).map(str.strip).filter(bool)))
def test_plain_prose_is_kept(lines: list[str]) -> None:
    assert plain_text("\n\n".join(lines)) == "\n".join(lines)


def test_control_characters_do_not_cost_the_page(tmp_path: Path) -> None:
    page = PAGE.format(title="가", ns=0, redirect="", model="wikitext", text="앞\x1c뒤")
    path = tmp_path / "a.xml"
    path.write_text(f"{HEAD}{page}</mediawiki>", encoding="utf-8")
    assert [item.text for item in read_documents(path, "wikipedia") if isinstance(item, Document)] == ["앞뒤"]
