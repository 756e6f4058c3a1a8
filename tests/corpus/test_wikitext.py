"""Wikipedia's templates, links, and raised and lowered text, as plain text."""

from __future__ import annotations

import bz2
from pathlib import Path

import pytest

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.documents import read_blocks, read_documents
from kogpt2_gluon.corpus.formats import KINDS
from kogpt2_gluon.corpus.formats.wikitext import plain_text
from kogpt2_gluon.corpus.records import Document
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import RecipeError
from tests.corpus.wikipedia_helpers import dump, page


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
