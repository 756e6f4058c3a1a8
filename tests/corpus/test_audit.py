"""The counted audit: every sentence of a dump carries a mark, which is kept, or counted under a named reason."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning import clean, pipeline
from kogpt2_gluon.corpus.formats import namuwiki
from kogpt2_gluon.corpus.formats.wikitext import BadMarkupError, plain_text
from kogpt2_gluon.corpus.left_out import LeftOut
from kogpt2_gluon.corpus.records import Block
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError

Kinds = Sequence[tuple[str, Sequence["str | None"]]]
MARK = re.compile(r"표식[0-9]{4}글")
# Each {} becomes a mark, "a mark in a sentence". The reasons of those that go, in order; "" for a mark that stays.
WIKITEXT: Kinds = [
    # Prose
    ("== 제목 {} ==\n{}\n=== 빈 제목 {} ===\n== 다음 ==", ["", "", "heading without text"]),
    ("'''굵은 {}'''와 ''기운 {}''과 '''''둘 다 {}'''''", ["", "", ""]),
    ("* 목록 {}\n** 아래 {}\n# 번호 {}\n: 들여쓰기 {}\n; 용어 {} : 설명 {}", [""] * 6),
    ("가운데 <!-- 주석 {} --> 글 {}", ["comment", ""]),
    ("첫 줄 {}<br />둘째 줄 {}<br>셋째 줄 {}", ["", "", ""]),
    ("----\n가로줄 {}\n-- {}", ["", ""]),
    ("특수 &amp; 문자 {} &nbsp;&lt;참고&gt; {}", ["", ""]),
    # Links
    ("[[서울]]의 [[부산|{}]]과 [[대구 (동음이의)|{}]] 그리고 [[{}]]", ["", "", ""]),
    ("[[CSI: {}]]와 [[NCIS: 가|{}]]와 [[Re:{}]]", ["", "", ""]),
    ("[[파일:가.jpg|섬네일|왼쪽|그림 설명 {}의 [[고리]]]] 글 {}", ["link 파일", ""]),
    ("[[File:a.jpg|thumb|{}]] [[그림:b.png|{}]] [[미디어:소리.ogg|{}]]", ["link file", "link 그림", "link 미디어"]),
    ("[[분류:{}]] [[Category:나|{}]] [[Archivo:c.png|{}]]", ["link 분류", "link category", "link archivo"]),
    ("[[en:{}]] [[zh-min-nan:{}]]", ["link to another language"] * 2),
    ("[[:분류:{}]]와 [[:en:{}]]와 [[de:Wort|{}]]", ["", "", ""]),
    ("[http://a.kr 바깥 {}]과 [https://b.kr/{}] 그리고 http://c.kr/{}", ["", "address", "address"]),
    # Templates
    ("{{{{인물 정보\n| 이름 = {}\n| 국적 = {{{{국기|{}}}}}\n}}}}'''본문 {}'''", ["template 인물 정보", None, ""]),
    ("{{{{토막글|{}}}}}\n{{{{모르는 상자|{}}}}}", ["template 토막글", "template 모르는 상자"]),
    ("그는 {{{{모르는 틀|{}}}}}에서 {{{{모름|{}|{}}}}} 났다 {}", ["", "", "values of template 모름", ""]),
    ("{{{{인용문|{}|저자 {}}}}}\n{{{{Quote|text={}}}}}", ["", "values of template 인용문", ""]),
    ("{{{{lang|en|{}}}}} {{{{llang|ja|{}}}}} {{{{lang-fr|{}}}}} {{{{언어|zh|{}}}}}", [""] * 4),
    ("{{{{nowrap|{}}}}} {{{{작게|{}}}}} {{{{색|red|{}}}}} {{{{루비|{}|{}}}}}", [""] * 4 + ["values of template 루비"]),
    ("{{{{국기|{}}}}}와 {{{{국기그림|{}}}}} {}", ["", "template 국기그림", ""]),
    ("사실이다 {}.{{{{sfn|{}|2001}}}}{{{{출처|{}}}}}", ["", "template sfn", "template 출처"]),
    ("{{{{다른 뜻|{}}}}}'''첫 낱말 {}'''은 {{{{웹 인용|제목={}}}}}", ["template 다른 뜻", "", "template 웹 인용"]),
    ("{{{{unbulleted list|{}|{}}}}} {{{{hlist|{}|{}}}}}", [""] * 4),
    ("{{{{nihongo|{}|{}|b}}}}는 {{{{임시 링크|{}|en|A}}}}", ["", "values of template nihongo", ""]),
    ("값 {{{{단위|1915|{}}}}}, {{{{분수|{}|{}}}}}, {{{{val|1|u={}}}}}", [""] * 4),
    ("바깥 {{{{모름|{{{{안쪽|{}}}}} {}}}}} {}", ["", "", ""]),
    ("{{{{기본정렬:{}}}}}{{{{#if:{}|가}}}} {}", ["template 기본정렬", "template #if", ""]),
    ("좌표 {} {{{{좌표|37|34|N|이름={}}}}}", ["", "template 좌표"]),
    ("{{{{글상자\n| 표 =\n{{| class=a\n| {}\n|}}\n}}}} 뒤 {}", ["template 글상자", ""]),
    # Tags
    ("사실이다 {}.<ref>출처 {}</ref><ref name=\"a\" /> {}", ["", "tag ref", ""]),
    ("<references>\n<ref name=a>{}</ref>\n</references> {}", ["tag references", ""]),
    ("식 <math>x_{{{}}}</math>와 <chem>H2O {}</chem> {}", ["tag math", "tag chem", ""]),
    ("<gallery>\n파일:a.jpg|{}\n</gallery>\n<gallery mode=packed>\n가.png|{}\n</gallery>", ["tag gallery"] * 2),
    ("<timeline>\ntext {}\n</timeline>\n<score>{}</score>", ["tag timeline", "tag score"]),
    ("<syntaxhighlight lang=c>{}</syntaxhighlight><source>{}</source><pre>{}</pre>",
     ["tag syntaxhighlight", "tag source", "tag pre"]),
    ("<code>print() {}</code> <nowiki>[[{}]]</nowiki> <kbd>{}</kbd>", ["", "", ""]),
    ("<div style=\"x\">{} <span lang=en>{}</span></div><center>{}</center>", ["", "", ""]),
    ("<blockquote>{}</blockquote><poem>{}\n{}</poem>", ["", "", ""]),
    ("10<sup>{}</sup> 물<sub>{}</sub> <small>{}</small> <s>{}</s>", [""] * 4),
    ("<ruby>{}<rt>{}</rt></ruby> <imagemap>{}</imagemap>", ["", "tag rt", "tag imagemap"]),
    ("<includeonly>{}</includeonly><noinclude>{}</noinclude>", ["tag includeonly", ""]),
    ("<onlyinclude>{}</onlyinclude> <section begin=a />{}", ["", ""]),
    ("닫히지 않은 <b>{} 그리고 <div class=a> {}\n<li>{}", ["", "", ""]),
    ("a<b 이고 c>d {} 그리고 1<2 {}", ["", ""]),
    # Tables
    ("{{| class=\"wikitable\"\n|+ {}\n! {}\n|-\n| {}\n|-\n| 가 || {}\n|}}\n뒤 {}", ["table row"] * 4 + [""]),
    ("{{|\n| {}\n| <table><tr><td>가</td></tr></table>\n|}}", ["table row"]),
    ("<table>\n<tr><td>{}</td></tr>\n</table> {}", ["tag table", ""]),
    ("| 닫히지 않은 {}\n|-\n! 머리 {}\n글 {}", ["table row", "table row", ""]),
    # Broken
    ("{{{{닫히지 않은 {}\n\n다음 문단 {}", ["", ""]),
    ("닫히지 않은 [[고리 {}\n\n글 {} ]] {}", ["", "", ""]),
    ("변수 {{{{{{이름|{}}}}}}} 글 {}", ["argument", ""]),
]  # fmt: skip
HEAD = """<mediawiki xml:lang="ko"><siteinfo><namespaces><namespace key="6">Archivo</namespace></namespaces></siteinfo>
"""
NAMUMARK: Kinds = [
    ("== 제목 {} ==\n'''{}''' ~~{}~~ __{}__ {{{{{{#red {}}}}}}}", [""] * 5),
    (" * 목록 {}\n 1. 번호 {}\n> 인용 {}", [""] * 3),
    ("[[서울|{}]]과 [[{}]] [[파일:a.jpg|설명={}]] [[분류:{}]]", ["", "", "link 파일", "link 분류"]),
    ("글 {}[* 각주 {}]이다. [youtube(가{})]", ["", "footnote", "macro youtube"]),
    ("[include(틀:가, 나={})][목차][anchor({})] {}", ["macro include", "macro anchor", ""]),
    ("|| {} ||\n||<-2> 긴 칸 {}\n둘째 줄 ||\n글 {}", ["table row", "table row", ""]),
    ("|| 닫히지 않은 {} || 나\n글 {}\n|표 이름|| {} ||\n{}", ["table row", "", "table row", ""]),
    ("## 주석 {}\n{{{{{{#!html <b>{}</b>}}}}}} {}", ["comment", "block html", ""]),
    ('{{{{{{#!folding [ {} ]\n{}\n}}}}}}{{{{{{#!wiki style="a"\n{}}}}}}}', ["title of a folded block", "", ""]),
    ("{{{{{{#!syntax python\n{}}}}}}} {{{{{{그대로 {}}}}}}}", ["block syntax", ""]),
    ("[ruby({}, ruby={})] <math>{}</math> 10^^{}^^", ["", "reading of a ruby", "tag math", ""]),
    ("[date] [[닫히지 않은 {}\n\\[목차] {} [{}]", ["", "", ""]),
]


def mark_up(kinds: Kinds) -> tuple[list[str], dict[str, str | None]]:
    """Returns a page for each kind, with two sentences around it, and the reason for each mark.

    The reason is "" for a mark that stays, and None for one inside something else that goes: it is counted with that.
    """
    pages, wanted = [], {}
    for form, reasons in kinds:
        marks = [f"표식{len(wanted) + number:04d}글" for number in range(len(reasons) + 2)]
        inner = form.format(*marks[1:-1])
        pages.append(f"앞 문장 {marks[0]}이다.\n\n{inner}\n\n뒤 문장 {marks[-1]}이다.")
        wanted.update(zip(marks, ["", *reasons, ""]))
    return pages, wanted


def check(folder: Path, wanted: dict[str, str | None]) -> None:
    """Checks that every mark is in the corpus, or counted, and under the reason that is wanted."""
    corpus = Corpus.open(folder)
    kept = set(MARK.findall("\n".join(corpus.documents("train"))))
    assert kept == {mark for mark, reason in wanted.items() if reason == ""}
    counted = corpus.about["counts"]["left_out"]
    assert counted == Counter(reason for reason in wanted.values() if reason)
    assert list(counted.values()) == sorted(counted.values(), reverse=True)
    rows = [json.loads(row) for row in (folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row.get("left_out")]
    for row in rows:  # the samples of a reason show marks of that reason
        found = MARK.findall(row["before"])
        assert found and all(wanted[mark] in (row["reason"], None) for mark in found if mark not in kept), row
    assert {row["reason"] for row in rows} == set(counted)
    page = (folder / "cleaning.html").read_text(encoding="utf-8")
    assert all(f"<td>{reason}</td>" in page for reason in counted)


def write_dump(folder: Path, pages: list[str]) -> Path:
    escaped = [page.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for page in pages]
    texts = "".join(
        f"<page><title>{number}</title><ns>0</ns><revision><text>{page}</text></revision></page>\n"
        for number, page in enumerate(escaped)
    )
    path = folder / "kowiki.xml"
    path.write_text(f"{HEAD}{texts}</mediawiki>", encoding="utf-8")
    return path


def test_every_mark_of_a_wikipedia_is_accounted_for(tmp_path: Path) -> None:
    assert len(WIKITEXT) >= 40
    pages, wanted = mark_up(WIKITEXT)
    path = write_dump(tmp_path, pages)
    report = clean([path], tmp_path / "out", "wikipedia", 0, processes=2)
    assert report.documents.kept["train"] == len(WIKITEXT)
    check(tmp_path / "out", wanted)


def test_every_mark_of_namuwiki_is_accounted_for(tmp_path: Path) -> None:
    pages, wanted = mark_up(NAMUMARK)
    path = tmp_path / "namuwiki.json"
    records = [{"namespace": "0", "title": str(n), "text": page, "contributors": []} for n, page in enumerate(pages)]
    path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    report = clean([path], tmp_path / "out", "namuwiki", 0)
    assert report.documents.kept["train"] == len(NAMUMARK)
    check(tmp_path / "out", wanted)


# --- any markup, however broken


class Everything(LeftOut):
    """Remembers all of what is left out, not just one example."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def add(self, reason: str, text: str, count: int = 1) -> None:
        self.texts.append(text)
        super().add(reason, text, count)


WIKI_PIECES = """
    {{ {{모름| {{lang|en| {{nowrap| {{val| {{chem| {{색|red| {{sfn| {{인용문| {{ubl| {{분수| {{생년월일| }} |
    [[ [[파일:a| [[en: ]] {|⏎ |-⏎ |}⏎ ⏎| ⏎! ⏎ ⏎⏎ <ref> </ref> <ref␣name=a␣/> <br> <b> </b> <sup> </sup> <!-- -->
    ''' ==␣ == ␣ *␣ :␣ ; #␣ [http://a␣ ] http://a.kr/ <nowiki> </nowiki> <div␣style='x'> </div> <ruby> <rt> </rt>
    </ruby> <math> </math> <gallery> </gallery> <table> </table> <tr><td> &lt; {{{ }}} < >␣ __ ( ) <pre> </pre>
    {{#if: {{formatnum: <li>"""
NAMU_PIECES = """
    {{{ }}} {{{#!html␣ {{{#!folding␣[ {{{#red␣ [[ [[파일: | ]] [* ] [youtube( )] [ruby( ,␣ruby= || ⏎|| ||⏎ ⏎ ⏎⏎
    ==␣ ␣== ## >␣ ␣*␣ ~~ -- __ ^^ ,, ''' <math> </math> [br] [목차] [include( ( ) [ {{{+1␣"""
TARGET = re.compile(r"\[\[[^\]\n]*?\|")  # what a link with words of its own points to is no text


def pieces(text: str) -> st.SearchStrategy[list[str]]:
    choices = [piece.replace("␣", " ").replace("⏎", "\n") for piece in text.split()]
    return st.lists(st.one_of(st.just("{}"), st.sampled_from(choices)), max_size=25)


def unaccounted(parts: list[str], text_of: object) -> list[str]:
    numbers = iter(range(len(parts)))
    markup = "".join(f"표식{next(numbers):04d}글" if part == "{}" else part for part in parts)
    left_out = Everything()
    assert callable(text_of)
    text = text_of(markup, left_out) + "\n".join(left_out.texts) + "".join(TARGET.findall(markup))
    return sorted(set(MARK.findall(markup)) - set(MARK.findall(text)))


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(pieces(WIKI_PIECES))
def test_nothing_leaves_any_wikitext_in_silence(parts: list[str]) -> None:
    def text_of(markup: str, left_out: LeftOut) -> str:
        try:
            return plain_text(markup, left_out=left_out)
        except BadMarkupError:
            return markup  # the whole page is counted

    assert not unaccounted(parts, text_of)


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(pieces(NAMU_PIECES))
def test_nothing_leaves_any_namumark_in_silence(parts: list[str]) -> None:
    assert not unaccounted(parts, namuwiki.plain_text)


@pytest.mark.parametrize(
    "unit",
    [
        "{{모름|가}}",
        "{{모름|가}} 글",
        "{{ubl|가|나}}\n",
        "[[파일:a|가]]",
        "x<sup>2</sup>",
        "<b {{모름|가}}>",
        "a<b 글>",
    ],
)
def test_the_time_is_linear(unit: str) -> None:
    began = time.process_time()
    with contextlib.suppress(BadMarkupError):
        plain_text(unit * (100_000 // len(unit)), left_out=LeftOut())
    assert time.process_time() - began < 30


@pytest.mark.parametrize("blocks", [1, 7, 20])
def test_a_resumed_cleaning_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    monkeypatch.setattr("kogpt2_gluon.corpus.records.BLOCK_BYTES", 100)
    monkeypatch.setattr("kogpt2_gluon.corpus.cleaning.parts.PART_BYTES", 300)
    path = write_dump(tmp_path, mark_up(WIKITEXT)[0])
    clean([path], tmp_path / "whole" / "out", "wikipedia", 0)
    read = pipeline.read_blocks

    def fails(*arguments: Any) -> Iterator[Block]:
        yield from itertools.islice(read(*arguments), blocks)
        raise DataError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "read_blocks", fails)
        for _ in range(2):
            with pytest.raises(DataError, match="broken"):
                clean([path], tmp_path / "again" / "out", "wikipedia", 0)
    clean([path], tmp_path / "again" / "out", "wikipedia", 0)
    for name in ("corpus.json", "dropped.jsonl", "cleaning.html", "train/corpus-00000.txt"):
        assert (tmp_path / "again" / "out" / name).read_bytes() == (tmp_path / "whole" / "out" / name).read_bytes()
