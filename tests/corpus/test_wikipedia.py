"""Wikipedia's dump: its structure, its markup, and files made to do harm."""

from __future__ import annotations

import bz2
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.documents import read_blocks, read_documents
from kogpt2_gluon.corpus.formats import KINDS
from kogpt2_gluon.corpus.formats.wikitext import BadMarkupError, plain_text, render
from kogpt2_gluon.corpus.records import Document, Rejection
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="ko">
  <siteinfo>
    <sitename>위키백과</sitename>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="10" case="first-letter">틀</namespace>
    </namespaces>
  </siteinfo>
"""
PAGE = """  <page>
    <title>{title}</title>
    <ns>{ns}</ns>
    <id>5</id>
{redirect}    <revision>
      <id>3</id>
      <timestamp>2020-03-01T00:00:00Z</timestamp>
      <contributor><username>가</username><id>1</id></contributor>
      <model>{model}</model>
      <format>text/x-wiki</format>
      <text bytes="9" xml:space="preserve">{text}</text>
      <sha1>abc</sha1>
    </revision>
  </page>
"""
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


def page(text: str, ns: int = 0, redirect: str = "", model: str = "wikitext") -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    to = f'    <redirect title="{redirect}" />\n' if redirect else ""
    return PAGE.format(title="가", ns=ns, redirect=to, model=model, text=text)


def dump(path: Path, *pages: str, tail: str = "</mediawiki>\n") -> Path:
    """A multistream dump: the head, each page, and the end are bz2 streams of their own."""
    path.write_bytes(b"".join(bz2.compress(part.encode()) for part in (HEAD, *pages, tail) if part))
    return path


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


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("인구는 {{formatnum:1234567}}명이다", "인구는 1234567명이다"),  # "the population is 1234567"
        ("길이 {{convert|5|km|mi|abbr=on}}, {{변환|3|m}}", "길이 5 km, 3 m"),
        ("{{nowrap|[[서울]] 시}}와 {{Small|작은 {{formatnum: 7 }}}}", "서울 시와 작은 7"),
        ("값 {{val|1.5|u=m}} {{국기|미국}}{{smallbox|가}}끝", "값 1.5 m 미국가끝"),
        (
            "산은 {{단위|1915|m}}, {{분수|1|2}}과 {{frac|3|1|2}}, {{val|6.02|0.1|e=23|u=mol}}",
            """산은 1915 m, 1/2과 3 1/2, \
6.02±0.1×10^23 mol""",
        ),
        ("{{chem|H|2|O}}와 {{chem2|H2SO4}}, m{{위첨자|2}}의 1.5{{e|24}}", "H₂O와 H₂SO₄, m²의 1.5×10^24"),
        ("{{생년월일과 나이|1970|5|8}} 출생", "1970년 5월 8일 출생"),
    ],
)
def test_templates_that_are_a_part_of_the_sentence_stay(markup: str, text: str) -> None:
    assert plain_text(markup) == text


def test_control_characters_do_not_cost_the_page(tmp_path: Path) -> None:
    page = PAGE.format(title="가", ns=0, redirect="", model="wikitext", text="앞\x1c뒤")
    path = tmp_path / "a.xml"
    path.write_text(f"{HEAD}{page}</mediawiki>", encoding="utf-8")
    assert [item.text for item in read_documents(path, "wikipedia") if isinstance(item, Document)] == ["앞뒤"]


# --- links, by their prefixes


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("[[CSI: 마이애미|마이애미 편]]과 [[NCIS: 로스앤젤레스]]", "마이애미 편과 NCIS: 로스앤젤레스"),
        ("[[Re:제로]], [[Id:Invaded|이드]], [[It: 챕터 투|그것]], [[La: 영화]]", "Re:제로, 이드, 그것, La: 영화"),
        ("[[ISO:9001]]과 [[UTC+09:00]]과 [[X:가|엑스]], [[abc:가]]", "ISO:9001과 UTC+09:00과 엑스, abc:가"),
        ("글 [[en:Test]][[zh-min-nan:Chhì-giām]] [[simple: Test]] 끝", "글   끝"),
        ("[[:en:Test]]와 [[:파일:가.png]]와 [[de:Wort|낱말]]", "en:Test와 파일:가.png와 낱말"),
        ("글[[ 파일 : 가.png|설명 [[나]]]] [[Category:가]][[IMAGE:b.png]]끝", "글 끝"),
    ],
)
def test_what_a_prefix_is(markup: str, text: str) -> None:
    assert plain_text(markup) == text


SITEINFO = """<mediawiki><siteinfo><namespaces><namespace key="6" case="first-letter">Archivo</namespace>
<namespace key="14" case="first-letter">Categoría de &amp; X</namespace><namespace key="10">Ej</namespace></namespaces>
</siteinfo>
"""


def test_the_head_of_a_dump_names_its_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for blocks after the first, and where reading begins amid the dump."""
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 100)
    texts = [f"글 {n} [[Archivo:a.png|그림]][[categoría_de & X:b]][[Ej:가]] {'나' * 300}" for n in range(5)]
    path = tmp_path / "a.xml.bz2"
    path.write_bytes(bz2.compress((SITEINFO + "".join(map(page, texts)) + "</mediawiki>").encode()))
    wanted = [f"글 {n} Ej:가 {'나' * 300}" for n in range(5)]
    assert [item.text for item in read_documents(path, "wikipedia") if isinstance(item, Document)] == wanted
    source, kind = local_source(path), KINDS["wikipedia"]
    blocks = list(read_blocks(source, kind))
    assert len(blocks) == 5 and len({block.head for block in blocks}) == 1 and blocks[0].head
    assert list(read_blocks(source, kind, start=blocks[2].next_start)) == blocks[3:]


# --- templates that are not known


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("그는 {{모르는 틀|서울|x=1}}에서 났다.", "그는 서울에서 났다."),
        ("{{모르는 틀|서울|x=1}}", ""),
        ("{{모르는 틀|1=서울}}은 크다.", "서울은 크다."),
        ("크다 {{모름|en|Seoul}}", "크다 Seoul"),
        ("{{모름\n|서울\n}}은 크다.", "은 크다."),  # a box of several lines
        ("* {{모름|서울}}\n# {{모름|부산}}\n: {{모름|대구}}", "서울\n부산"),
        ("났다.{{sfn|김|2001}}{{출처 필요|날짜=2020}}{{Efn|주석이다}} {{웹 인용|url=x|제목=가}}", "났다."),
        ("{{다른 뜻|서울}}'''서울'''은 {{국기그림|대한민국}}{{Flagicon|KOR}} 수도이다.", "서울은  수도이다."),
        ("{{모름|{{모름2|안쪽}} 글}}이다", "안쪽 글이다"),
        ("<small>{{모름|작은}} 글</small> <b>{{모름|굵은}}</b>", "작은 글"),
        ("{{모름|가}} {{모름|나}}", ""),
        ("값은 {{모름}}이다", "값은 이다"),
        ("{{KOR}}이 {{국기나라|jpn}}을, {{Flag|XYZ}}를 이겼다.", "대한민국이 일본을, XYZ를 이겼다."),
        ("가람(金, {{한자|可}}, {{lang|en|Garam}}; {{sfn|가}}; 글)", "가람(金, Garam; 글)"),
        (
            "우라늄은 {{w|nuclear weapon|핵무기}}에 쓰인다. {{음성|a.ogg|들어보기}}",
            "우라늄은 핵무기에 쓰인다. 들어보기",
        ),
        ("{{sqrt|2}}와 {{lc:ABC}}와 {{IPAc-ko|ㄱ|ㅏ}}와 {{math|''x''<sup>2</sup>}}", "√2와 ABC와 ㄱㅏ와 x²"),
        ("{{인용문|나는 산이 좋다.|저자}}\n{{Quote\n|text=여러 줄\n인용}}", "나는 산이 좋다.\n여러 줄\n인용"),
        ("{{틀:모름|서울}}은 {{Template:nowrap|크고}} {{ubl|가|나}}{{·}}{{!}}", "서울은 크고 가, 나 · |"),
        ("{{색|red|붉은}} 글 {{정렬|가|나}} {{루비|漢|한}} {{화폐|KRW|1000}}원", "붉은 글 나 漢 1000원"),
    ],
)
def test_templates_that_are_not_known(markup: str, text: str) -> None:
    assert plain_text(markup) == text


def test_names_of_templates_are_options(tmp_path: Path) -> None:
    text = "글이 있다.\n{{내 상자|상자의 글}}\n그는 {{내 표시|표시}}을 했다. {{nowrap|붙은 말}}."
    path = dump(tmp_path / "a.xml.bz2", *[page(f"{n} {text}") for n in range(3)])
    names = {"keep_templates": ["내_상자"], "drop_templates": ["내 표시", "Nowrap"]}
    report = clean([path], tmp_path / "out", "wikipedia", 0, **names)
    assert next(Corpus.open(tmp_path / "out").documents("train")) == "0 글이 있다.\n상자의 글\n그는 을 했다. ."
    assert report.left_out == {"template 내 표시": 3, "template nowrap": 3}
    with pytest.raises(RecipeError, match="--documents line has no templates"):
        clean([path], tmp_path / "out2", "line", **names)


# --- raised and lowered text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("5.97×10<sup>24</sup> kg", "5.97×10^24 kg"),
        ("10<sup>-3</sup>, 2<sup>n</sup>, (a+b)<sup>2</sup>", "10^-3, 2^n, (a+b)^2"),
        ("100 m<sup>2</sup>, Ca<sup>2+</sup>", "100 m², Ca²⁺"),
        ("x<sup>k+1</sup> e<sup>''x''</sup> a<sub>n+1</sub>", "x^(k+1) e^x a_(n+1)"),
        ("H<sub>2</sub>SO<sub>4</sub>, v<sub>max</sub>", "H₂SO₄, v_max"),
        ("2<sup>2<sup>3</sup></sup> 1<sup>st</sup> 말<sup>주 1</sup> 표<sup>[1]</sup>", "2^(2^3) 1st 말주 1 표[1]"),
        ("x<sub>2</sub><sup>3</sup> a<sup></sup>b<sup>{{nowrap|2}}</sup>", "x₂³ ab²"),
    ],
)
def test_raised_and_lowered_text(markup: str, text: str) -> None:
    assert plain_text(markup) == text


@pytest.mark.parametrize("text", ["a<b 이고 c>d 이다", "n<s and m>t", "x<p, q>r", "10<i 이며 3>2", "if a<b && c>d"])
def test_comparisons_are_no_tags(text: str) -> None:
    assert plain_text(text + "\n\n{{각주}}\n다음") == text + "\n다음"


def test_calls_keep_their_parentheses() -> None:
    assert plain_text("명령은 <code>print()</code>와 main()이다. 가({{모름}}).") == "명령은 print()와 main()이다. 가."
