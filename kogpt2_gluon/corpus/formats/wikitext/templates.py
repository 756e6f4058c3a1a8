"""Templates by name: those whose text belongs to the sentence, and how they show it; those that show nothing.

Of a template that is not known here, the first unnamed value stays if it is amid a sentence, so that the sentence
has no hole; alone in its line it is a box or a notice, and goes. Whatever goes is counted under the template's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

from kogpt2_gluon.corpus.formats.wikitext.countries import COUNTRIES
from kogpt2_gluon.corpus.formats.wikitext.links import LANGUAGES
from kogpt2_gluon.corpus.tags import LOWERED, MARK_END, RAISED, subscript, superscript

NAME_LENGTH = 60  # characters of a name that are read
_NAME = re.compile(rf"\{{\{{\s*(#?[^|{{}}<>\[\]\n:]{{0,{NAME_LENGTH}}}:?)")

_FILE = re.compile(r"[^\n]{1,200}\.(?:og[gav]|mp3|wav|midi?|flac|webm|jpe?g|png|gif|svg|tiff?)", re.IGNORECASE)
FUNCTIONS = frozenset(
    ["formatnum", "lc", "uc", "lcfirst", "ucfirst"]
)  # {{formatnum:1234}}: the first value is in the name

Values = Sequence[str]
Named = Mapping[str, str]
# Returns what a template shows, of its unnamed and named values, all of them plain text.
Show = Callable[[Values, Named], str]


def template_name(wikitext: str, begin: int = 0) -> str:
    """Returns the name of the template that begins at ``{{``, in lower case: ``인용문``, ``#if``, ``formatnum``."""
    found = _NAME.match(wikitext, begin)
    name = " ".join(found[1].replace("_", " ").split()).lower() if found else ""
    for prefix in ("틀:", "template:"):
        if name == prefix:
            after = wikitext[found.end() : found.end() + NAME_LENGTH] if found else ""
            return " ".join(re.split(r"[|{}\n]", after)[0].replace("_", " ").split()).lower()
    return name.rstrip(": ") or "without a name"


# --- how known templates show their values


def _last(values: Values, _: Named) -> str:
    return values[-1] if values else ""


def _lang(values: Values, _: Named) -> str:
    return values[1] if len(values) > 1 else ""


def _quantity(values: Values, _: Named) -> str:
    """{{convert|5|km|mi}}, {{convert|5|to|10|km}}, {{단위|1915|m}}."""
    if len(values) > 3 and values[1].lower() in ("to", "-", "–", "and", "or", "x", "×", "by", "~", "및", "에서"):
        return f"{values[0]}~{values[2]} {values[3]}"
    return " ".join(values[:2])


def _val(values: Values, named: Named) -> str:
    """{{val|6.02|e=23|u=mol|up=s}}: number, uncertainty, power of ten, unit."""
    number = values[0] if values else ""
    if len(values) > 1:
        number += "±" + values[1]
    if named.get("e"):
        number += "×10" + superscript("0", named["e"])
    unit = named.get("u") or named.get("ul") or ""
    per = named.get("up") or named.get("upl") or ""
    unit += "/" + per if per else ""
    return f"{named.get('p', '')}{number}" + (" " + unit if unit else "") + named.get("s", "")


def _fraction(values: Values, _: Named) -> str:
    """{{분수|1|2}} is 1/2, {{분수|3|1|2}} is 3 1/2, {{분수|2}} is 1/2."""
    if len(values) == 1:
        return "1/" + values[0]
    whole = values[0] + " " if len(values) > 2 else ""
    return whole + "/".join(values[-2:])


def _chemistry(values: Values, _: Named) -> str:
    """{{chem|H|2|O}}, {{chem2|H2O}}: numbers after letters are lowered."""
    if len(values) > 1:
        return "".join(subscript(value) if value.isdigit() else value for value in values)
    return re.sub(r"(?<=[A-Za-z)\]])[0-9]+", lambda found: subscript(found[0]), "".join(values))


def _power_of_ten(values: Values, _: Named) -> str:
    return "×10" + superscript("0", values[0]) if values else ""


def _raised(values: Values, _: Named) -> str:
    return RAISED + _last(values[:1], _) + MARK_END


def _lowered(values: Values, _: Named) -> str:
    return LOWERED + _last(values[:1], _) + MARK_END


def _root(values: Values, _: Named) -> str:
    return "√" + _last(values[:1], _)


def _joined(values: Values, _: Named) -> str:
    return "".join(values)


def _date(values: Values, _: Named) -> str:
    numbers = [value.strip() for value in values[:3]]
    if not numbers or not all(number.isdigit() for number in numbers):
        return values[0] if values else ""
    return " ".join(number + unit for number, unit in zip(numbers, "년월일"))


def _list(values: Values, _: Named) -> str:
    return ", ".join(value for value in values if value)


def _quotation(values: Values, named: Named) -> str:
    for name in ("quote", "text", "인용문", "인용", "내용", "본문"):
        if named.get(name):
            return named[name]
    return values[0] if values else ""


def _amount(values: Values, _: Named) -> str:
    """{{화폐|KRW|1000}}: the amount; its currency is a sign before or a word after it."""
    return values[1] if len(values) > 1 else _last(values, _)


def _first(values: Values, _: Named) -> str:
    """The first value, but the second where the first is the code of a language or a file."""
    if len(values) > 1 and (values[0] in LANGUAGES or _FILE.fullmatch(values[0])):
        return values[1]
    return values[0] if values else ""


def _country(values: Values, _: Named) -> str:
    """{{국기|대한민국}}, {{국기나라|KOR}}."""
    return COUNTRIES.get(values[0].upper(), values[0]) if values else ""


FIRST = _first


def _rules(show: Show, names: str) -> dict[str, Show]:
    return {name.strip().replace("_", " "): show for name in re.split(r"[,\n]", names) if name.strip()}


RULES: dict[str, Show] = {
    **_rules(_lang, "lang, llang, 언어, lang-x, 외국어"),
    **_rules(
        FIRST,
        """nowrap, nobr, small, big, abbr, smaller, larger, 작게, 크게, 굵게, 줄바꿈 금지, 줄바꿈금지, 툴팁,
        tooltip, formatnum, lc, uc, lcfirst, ucfirst, nihongo, 일본어, 한국어, 중국어,
        루비, ruby, ruby-ja, 윗주, ipa, ipa-ko, ipa-en, ill, 임시 링크, 임시링크,
        link-en, llink, 본명, 원어, doi, isbn, 밑줄, 취소선, code, mono, kbd, var, em, strong, nihongo2,
        nihongo krt, 유니코드, unicode""",
    ),
    **_rules(_country, "국기, 국기나라, 나라, 국가, 축구, 야구, 농구, flag, flagcountry, flagu, fb"),
    **_rules(_quantity, "convert, cvt, 변환, 단위, 단위 변환, 단위변환"),
    **_rules(_val, "val, 값, 수치"),
    **_rules(_fraction, "분수, frac, fraction, sfrac, 나눗셈"),
    **_rules(_chemistry, "chem, chem2, 화학식, ce"),
    **_rules(_power_of_ten, "e, esp, 10^"),
    **_rules(_raised, "sup, 위 첨자, 위첨자, superscript"),
    **_rules(_lowered, "sub, 아래 첨자, 아래첨자, subscript"),
    **_rules(
        _date,
        """출생일, 출생일과 나이, 태어난 날, 태어난 날과 나이, 생년월일, 생년월일과 나이, 사망일, 사망일과 나이,
        날짜, birth date, birth date and age, death date, death date and age, start date, start date and age,
        end date, 시작 날짜, 시작일, 종료일, 출시일, 개봉일, bda, dda""",
    ),
    **_rules(_list, "hlist, ubl, unbulleted list, plainlist, plain list, flatlist, 목록, 가로 목록, ublist"),
    **_rules(_root, "sqrt, radic, 제곱근"),
    **_rules(_joined, "ipac-ko, ipac-en, ipac-ja"),
    **_rules(_amount, "화폐, 통화, currency"),
    **_rules(
        _last, "w, wikt-lang, color, 색, 글자색, 글씨색, 글자 색, font color, fontcolor, 정렬, sort, 정렬키, hs, nts"
    ),
    **_rules(
        _quotation,
        """인용문, 인용문2, 인용문1, 긴 인용문, 가사,
        인용구, 인용 상자, 인용상자, quote, quote box, quotation, blockquote, cquote, bquote, 대사, 시,
        poem, verse, rquote, pull quote, 따옴표, 큰따옴표""",
    ),
}
SIGNS = {
    "!": "|", "=": "=", "(": "{", ")": "}", "*": " · ", "·": " · ", "dot": " · ", "•": " • ", "bullet": " • ",
    "ndash": "–", "mdash": "—", "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "--": "—", "nbsp": " ", "sp": " ",
    "'": "'", "'s": "'s", '"': '"', "pm": "±", "times": "×", "년": "년", "-'": "'", "dagger": "†", "star": "★",
}  # fmt: skip

# Amid a sentence these are notes, marks or pictures: references, flags, coordinates, notices of maintenance; and what
# only a program could know, such as an age.
_NOTHING = frozenset(
    name.strip()
    for name in re.split(
        r"[,\n]",
        """sfn, sfnp, sfnm, harv, harvnb, harvp, harvtxt, harvcoltxt, efn, efn-ua, efn-lr, efnote, refn, ref,
        note, r, rp, fact, cn, citation needed, citation, 출처, 출처 필요, 출처필요, 각주, 주석, 주, 내용주,
        언제, 누가, 누구, 어디, when, who, by whom, where, which, clarify, dubious, vague, 불확실, 모호,
        모호한 표현, 의심, 확인 필요, 더 나은 출처 필요, better source, failed verification, dead link,
        깨진 링크, 죽은 링크, webarchive, 웹아카이브, 좌표, coord, coor, 위키데이터 좌표, 국기그림, 국기 그림,
        flagicon, flag icon, flagdeco, 깃발그림, 아이콘, icon, anchor, 앵커, color box, colorbox, 색상자, 범례,
        legend, clear, 단락, -, 본문, 상세, main, see also, further, details, 다른 뜻, 다른뜻, 다른 뜻 넘어옴,
        다른 뜻 설명, 다른 뜻 문서, 다른 뜻 인물, 동음이의, 동음이의어, 구별, 혼동, 비슷한 이름, about,
        redirect, distinguish, for, hatnote, 참고, 함께, 같이 보기, 관련 문서, 위키공용, 위키공용 분류,
        위키공용분류, commons, commonscat, commons category, 위키문헌, 위키인용집, 위키낱말사전, wikisource,
        wikiquote, wiktionary, 보호, 보호된 문서, 토막글, stub, 기본정렬, defaultsort, displaytitle, 목차, toc,
        전체이름, 나이, age, 경과, 날수, pagename, fullpagename, currentyear, currentmonth, currentday, #if,
        #ifeq, #ifexist, #switch, #expr, #invoke, #time, #tag, #vardefine, lang icon, en icon, 한자, 언어링크, 별점,
        rating, 소리, audio, listen, 소리 듣기, 정보, 알림, notice, 문단 이동, 빈 문단, 편집 요청, 삭제, 번역,
        번역 필요, 위키화, 갱신, update, 한글, 이동, 통합, 합병""",
    )
    if name.strip()
)
_NOTHING_LIKE = re.compile(
    r"(?:cite|vcite|citeweb|infobox|navbox|정보상자|둘러보기|지도|location map|superimpose|efn|포털|portal)\b.*"
    r"|.* (?:인용|정보|정보상자|토막글|icon)|.*(?:토막글|각주)"
)


class Templates(NamedTuple):
    """Names of templates, besides those known here, of which the first unnamed value stays or nothing does."""

    keep: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()

    @classmethod
    def of(cls, keep: Sequence[str], drop: Sequence[str]) -> Templates:
        """Returns the names as templates are compared: in lower case, with single spaces."""
        plain = (frozenset(template_name("{{" + name) for name in names) for names in (keep, drop))
        return cls(*plain)

    def rule(self, name: str) -> Show | None:
        """Returns how a template is shown wherever it is; None if nothing of it is, or that is for its place."""
        if name in self.drop:
            return None
        if name in self.keep:
            return RULES.get(name, FIRST)
        if name in RULES:
            return RULES[name]
        if name.upper() in COUNTRIES:
            return lambda values, named: _first(values, named) or COUNTRIES[name.upper()]
        if name in SIGNS:
            return lambda values, named: SIGNS[name]
        if name.startswith(("lang-", "llang-")):
            return FIRST if "-" in name else None
        return None

    def shows_nothing(self, name: str) -> bool:
        """Returns True for a template that is nothing but a note or a mark, even amid a sentence."""
        if name in self.drop:
            return True
        return self.rule(name) is None and (name in _NOTHING or _NOTHING_LIKE.fullmatch(name) is not None)


USUAL = Templates()


# --- is a template amid a sentence?

_REACH = 200  # characters on each side that are looked at
_NO_PROSE = re.compile(
    r"\{\{[^{}]*\}\}|<[^<>]*>|\[\[\s*(?:파일|그림|분류|file|image|category):[^\[\]]*\]\]", re.IGNORECASE
)
_CUT = re.compile(r"^[^{}]*\}\}|\{\{[^{}]*$|^[^<>]*>|<[^<>]*$")
_LIST_ITEM = re.compile(r"[ \t]*[*#][*#:; \t]*")
_WORD = re.compile(r"[^\W_]")


def stands_amid(before: str, after: str) -> bool:
    """Returns True if a template between these texts has words next to it in its line, or is an item of a list."""
    before = before[before.rfind("\n") + 1 :]
    after = after.partition("\n")[0]
    if _LIST_ITEM.fullmatch(before):
        return True
    return any(_WORD.search(_CUT.sub("", _NO_PROSE.sub("", side))) for side in (before[-_REACH:], after[:_REACH]))


def outermost_stays(wikitext: str, begin: int, end: int, templates: Templates) -> bool:
    """Returns True if anything of the template at `begin` .. `end`, which is inside nothing else, may stay."""
    name = template_name(wikitext, begin)
    if templates.rule(name) is not None:
        return True
    if templates.shows_nothing(name) or wikitext.find("\n", begin, end) >= 0:
        return False
    return stands_amid(wikitext[max(0, begin - _REACH) : begin], wikitext[end : end + _REACH])
