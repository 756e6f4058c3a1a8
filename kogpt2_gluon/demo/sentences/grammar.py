"""Just enough Korean grammar to write correct sentences: particles, conjugation, number words.

Everything works on precomposed syllables: U+AC00 + (initial * 21 + vowel) * 28 + final. A predicate is a bare stem
(보, 맵, 만들); its class is looked up in :mod:`kogpt2_gluon.demo.sentences.words`, so that an unknown stem is an error
at once instead of a wrong form. An ending is written in the fullest shape that a grammar lists it under (으면, 아서,
는데) and takes the shape that the stem asks for (보면, 매워서, 맛있는데).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from kogpt2_gluon.demo.sentences import words

VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
FINALS = ["", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"]
# An open stem and 아/어 run together: 보아 is written 봐, 마시어 마셔.
CONTRACTED = dict(zip("ㅏㅓㅐㅔㅕㅗㅜㅣㅚ", "ㅏㅓㅐㅔㅕㅘㅝㅕㅙ"))
FIRST, LAST = "가", "힣"

# The form after a consonant, the form after a vowel. 으로/로 counts ㄹ as a vowel.
PARTICLES = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "으로": ("으로", "로"),
    "아": ("아", "야"),
    "이나": ("이나", "나"),
    "이든": ("이든", "든"),
    "이란": ("이란", "란"),
    "이랑": ("이랑", "랑"),
    "이라": ("이라", "라"),
    "이라고": ("이라고", "라고"),
    "이라는": ("이라는", "라는"),
    "이야": ("이야", "야"),
    "이에요": ("이에요", "예요"),
    "이었": ("이었", "였"),
}

# Units after a figure are read out: 5km is 오 킬로미터, 5kg is 오 킬로그램.
UNITS_WITH_FINAL = ("kg", "mg", "g")
UNITS_WITHOUT_FINAL = ("km", "cm", "mm", "m", "ml", "L", "GB", "MB", "TB", "kWh", "%", "℃", "°")
UNIT_AFTER_FIGURE = re.compile(rf"\d\s?({'|'.join(UNITS_WITH_FINAL + UNITS_WITHOUT_FINAL)})$")
# An English word whose usual Hangul spelling ends in a consonant (club, game, Apple, music, cut); a rule of thumb.
LATIN_FINAL = re.compile(r"([lmnc]|ng|ck|ook|le|[aeiou][mn]e|(^|[^aeiou])[aeiou][bpt])$")
LATIN_RIEUL = re.compile(r"(l|le)$")


def split_syllable(syllable: str) -> tuple[int, str, str]:
    """A Hangul syllable as (number of its initial, vowel, final or '')."""
    code = ord(syllable) - ord(FIRST)
    return code // 588, VOWELS[code // 28 % 21], FINALS[code % 28]


def join_syllable(initial: int, vowel: str, final: str = "") -> str:
    """The inverse of `split_syllable`."""
    return chr(ord(FIRST) + (initial * 21 + VOWELS.index(vowel)) * 28 + FINALS.index(final))


def final_consonant(word: str) -> str:
    """The consonant that `word` ends in when read aloud in Korean, '' for a vowel or nothing readable.

    Hangul is exact. Figures are read as Sino-Korean numbers, so 10 ends in ㅂ (십) and 12 in a vowel (이). Latin
    capitals are spelled out (TV, PDF), other Latin words go by a rule of thumb. Quotes and brackets at the end are
    passed over.
    """
    word = unicodedata.normalize("NFC", word)
    unit = UNIT_AFTER_FIGURE.search(word)
    if unit:
        return "ㅁ" if unit.group(1) in UNITS_WITH_FINAL else ""
    word = re.sub(r"[\W_]+$", "", word)
    last = word[-1:]
    if FIRST <= last <= LAST:
        return split_syllable(last)[2]
    if "ㄱ" <= last <= "ㅎ":  # a consonant by its name: 기역, 니은, 리을
        return {"ㄱ": "ㄱ", "ㄴ": "ㄴ", "ㄹ": "ㄹ", "ㅁ": "ㅁ", "ㅂ": "ㅂ", "ㅇ": "ㅇ"}.get(last, "ㅅ")
    if "0" <= last <= "9":
        return _final_of_figure(re.search(r"[0-9.,]+$", word).group())  # type: ignore[union-attr]
    if last.isascii() and last.isalpha():
        return _final_of_latin(re.search(r"[A-Za-z]+$", word).group())  # type: ignore[union-attr]
    return ""


def _final_of_figure(figure: str) -> str:
    digits = figure.replace(",", "")
    zeros = len(digits) - len(digits.rstrip("0"))
    if zeros and "." not in digits and zeros < len(digits):  # the last unit that is read: 십 백 천, 만 억 조 경
        return ["", "ㅂ", "ㄱ", "ㄴ"][zeros % 4] or ["ㄴ", "ㄱ", "", "ㅇ"][(zeros // 4 - 1) % 4]
    return {"0": "ㅇ", "1": "ㄹ", "3": "ㅁ", "6": "ㄱ", "7": "ㄹ", "8": "ㄹ"}.get(digits[-1], "")


def _final_of_latin(word: str) -> str:
    if word.isupper() or len(word) == 1:
        return {"L": "ㄹ", "R": "ㄹ", "M": "ㅁ", "N": "ㄴ"}.get(word[-1].upper(), "")
    if not LATIN_FINAL.search(word.lower()):
        return ""
    return "ㄹ" if LATIN_RIEUL.search(word.lower()) else "ㄴ"


def has_final_consonant(word: str) -> bool:
    """Returns True if `word`, read aloud in Korean, ends in a consonant (see `final_consonant`)."""
    return final_consonant(word) != ""


def particle(word: str, pair: str) -> str:
    """The form of a particle that agrees with `word`; `pair` is '은/는' or its first half, '은'."""
    key = pair.split("/")[0]
    if key not in PARTICLES or pair not in (key, "/".join(PARTICLES[key])):
        raise ValueError(f"unknown particle {pair!r}; known: {', '.join('/'.join(p) for p in PARTICLES.values())}")
    closed, open_ = PARTICLES[key]
    final = final_consonant(word)
    return open_ if final == "" or (key == "으로" and final == "ㄹ") else closed


def with_particle(word: str, pair: str) -> str:
    """`word` with the agreeing form of a particle: with_particle('책', '은/는') is '책은'."""
    return word + particle(word, pair)


# -- conjugation ------------------------------------------------------------------------------------------------------


def stem_class(stem: str) -> str:
    """'verb', 'adjective' or 'existence' (있, 없: a plain form like an adjective's, 는 like a verb's)."""
    if stem in words.HONORIFIC_VERBS or stem in words.VERBS:
        return "verb"
    if stem.endswith(("있", "없")):
        return "existence"
    if stem in words.ADJECTIVES:
        return "adjective"
    raise KeyError(f"the stem {stem!r} is in no list of words.py")


def _with_final(stem: str, final: str) -> str:
    """`stem` with the final consonant of its last syllable replaced."""
    initial, vowel, _ = split_syllable(stem[-1])
    return stem[:-1] + join_syllable(initial, vowel, final)


def _before_vowel(stem: str) -> str:
    """Returns the form of the stem before 으: ㅂ becomes 우, ㄷ becomes ㄹ, ㅅ falls away."""
    change = words.IRREGULAR.get(stem, "")
    if change == "ㅂ":
        return _with_final(stem, "") + "우"
    if change == "ㄷ":
        return _with_final(stem, "ㄹ")
    return _with_final(stem, "") if change in ("ㅅ", "ㅎ") else stem


def _without_rieul(stem: str) -> str:
    return _with_final(stem, "") if split_syllable(stem[-1])[2] == "ㄹ" else stem


def infinitive(stem: str) -> str:
    """The stem with 아 or 어, contracted as it is written: 봐, 매워, 들어, 몰라, 해."""
    change = words.IRREGULAR.get(stem, "")
    body, (initial, vowel, final) = stem[:-1], split_syllable(stem[-1])
    if stem.endswith("하"):
        return body + "해"
    if change == "ㅂ":
        return _with_final(stem, "") + ("와" if stem in ("돕", "곱") else "워")
    if change == "ㅎ":
        return body + join_syllable(initial, "ㅒ" if vowel == "ㅑ" else "ㅐ")
    if change == "르":
        _, previous, _ = split_syllable(body[-1])
        return _with_final(body, "ㄹ") + ("라" if previous in "ㅏㅗ" else "러")
    if change == "어":  # 아니, 피: not contracted
        return stem + "어"
    if vowel == "ㅡ" and not final:
        bright = body and split_syllable(body[-1])[1] in "ㅏㅗ"
        return body + join_syllable(initial, "ㅏ" if bright else "ㅓ")
    if not final and vowel in CONTRACTED:
        return body + join_syllable(initial, CONTRACTED[vowel])
    full = _before_vowel(stem) if change in ("ㄷ", "ㅅ") else stem
    return full + ("아" if vowel in "ㅏㅑㅗ" else "어")


def past_stem(stem: str) -> str:
    """Returns the stem of the past: 봤, 매웠, 했."""
    return _with_final(infinitive(stem), "ㅆ")


@cache
def attach(stem: str, ending: str) -> str:
    """A stem with a non-final or any single ending: attach('맵', '아서') is '매워서'."""
    if ending.startswith("았"):
        return past_stem(stem) + ending[1:]
    if ending.startswith("아"):
        return infinitive(stem) + ending[1:]
    if ending.startswith("는") and ending[:2] not in ("는다", "는구"):
        ending = ("은" if stem_class(stem) == "adjective" else "는") + ending[1:]
    final = split_syllable(stem[-1])[2]
    if ending.startswith(("은", "을", "음", "읍")):  # these close an open syllable: 간, 갈, 감
        mark = split_syllable(ending[0])[2]
        full = _before_vowel(stem)
        last = split_syllable(full[-1])[2]
        if last == "ㄹ" and final == "ㄹ":
            return _with_final(full, {"ㄴ": "ㄴ", "ㄹ": "ㄹ", "ㅁ": "ㄻ", "ㅂ": "ㅂ"}[mark]) + ending[1:]
        if last or words.IRREGULAR.get(stem) == "ㅅ":
            return full + ending
        return _with_final(full, mark) + ending[1:]
    if ending.startswith("습") or ending.startswith("는다"):
        if final in ("", "ㄹ"):
            return _with_final(stem, "ㅂ" if ending[0] == "습" else "ㄴ") + ending[1:]
        return stem + ending
    if ending.startswith("으"):
        full = _before_vowel(stem)
        if final == "ㄹ":
            return (_without_rieul(stem) if ending[1] in "니시십세셔셨" else stem) + ending[1:]
        keeps = split_syllable(full[-1])[2] or words.IRREGULAR.get(stem) == "ㅅ"
        return full + (ending if keeps else ending[1:])
    return (_without_rieul(stem) if split_syllable(ending[0])[0] == 2 else stem) + ending  # initial 2 is ㄴ


# Style -> endings after a stem that ends in a consonant for good (past 았, conjecture 겠).
CLOSED_ENDINGS = {"haeyo": "어요", "hapnida": "습니다", "haera": "다", "hae": "어", "eum": "음"}
STYLES = tuple(CLOSED_ENDINGS)
PLAN = {"haeyo": " 거예요", "hapnida": " 것입니다", "haera": " 것이다", "hae": " 거야", "eum": " 것임"}
ASK = {"haeyo": "어요", "hapnida": "습니까", "haera": "니", "hae": "어", "eum": "어"}


@cache
def finish(stem: str, mood: str, style: str) -> str:
    """A sentence-final predicate.

    mood: pres, past, guess (겠), promise (을게), plan (을 것이다), ne (네), ask, askpast, req (a request), let (a
    proposal); 'hon.' before it puts 시 in. style: haeyo (해요), hapnida (합니다), haera (한다), hae (해), eum (함).
    """
    honorific = mood.startswith("hon.") or stem in words.HONORIFIC_VERBS
    kind = stem_class(stem)
    if mood.startswith("hon."):
        stem, mood = attach(stem, "으시"), mood[4:]
    if mood == "past":
        return past_stem(stem) + CLOSED_ENDINGS[style]
    if mood == "askpast":
        return past_stem(stem) + ASK[style]
    if mood == "promise" and style in ("haeyo", "hae"):
        return attach(stem, "을") + ("게요" if style == "haeyo" else "게")
    if mood in ("guess", "promise"):
        return stem + "겠" + CLOSED_ENDINGS[style]
    if mood == "plan":
        return attach(stem, "을") + PLAN[style]
    if honorific and style == "haeyo" and mood in ("pres", "ask", "req"):
        return stem[:-1] + "세요"
    if honorific and style == "hapnida" and mood == "req":
        return _with_final(stem, "ㅂ") + "시오"
    table = {
        "pres": ("아요", "습니다", "는다" if kind == "verb" else "다", "아", "음"),
        "ask": ("아요", "습니까", "니", "아", "아"),
        "ne": ("네요", "습니다", "는구나" if kind == "verb" else "구나", "네", "음"),
        "req": ("으세요", "으십시오", "아라", "아", "을 것"),
        "let": ("아요", "읍시다", "자", "자", "자"),
    }
    ending = table[mood][STYLES.index(style)]
    if stem == "아니" and ending in ("아요", "아"):
        return "아니에요" if ending == "아요" else "아니야"
    return attach(stem, ending)


def copula(before: str, mood: str, style: str) -> str:
    """The forms of 이다 after the text `before`, final (mood as in `finish`) or connecting (mood is an ending)."""
    closed = has_final_consonant(before)
    past = "이었" if closed else "였"
    if mood == "past":
        return past + CLOSED_ENDINGS[style]
    if mood == "guess":
        return ("이겠" if closed else "겠") + CLOSED_ENDINGS[style]
    if mood == "plan":
        return "일" + PLAN[style]
    if mood.startswith("았"):
        return past + mood[1:]
    short = {
        "pres": ("에요", "입니다", "이다", "야", "임"),
        "ne": ("네요", "입니다", "구나", "네", "임"),
        "ask": ("에요", "입니까", "니", "야", "야"),
    }
    if mood in short:
        ending = short[mood][STYLES.index(style)]
        if ending == "에요":
            return "이에요" if closed else "예요"
        if ending == "이다":
            return "이다" if closed else "다"
        return ending if ending[0] in "입임" or not closed else "이" + ending
    if mood in ("라서", "라면", "라는", "라고"):
        return ("이" if closed else "") + mood
    return {"는": "인", "는데": "인데", "으면": "이면", "으며": "이며", "으니": "이니", "을": "일"}.get(
        mood
    ) or "이" + mood


# -- numbers ----------------------------------------------------------------------------------------------------------

NATIVE_ONES = ["", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉"]
NATIVE_TENS = ["", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔"]
SINO_DIGITS = ["", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구"]


def native_number(number: int) -> str:
    """Returns a native number word in its form before a counter, 1 to 99: 한, 스무, 스물두."""
    assert 1 <= number <= 99, number
    return "스무" if number == 20 else NATIVE_TENS[number // 10] + NATIVE_ONES[number % 10]


def sino_number(number: int) -> str:
    """A Sino-Korean number word, 0 to 9999 억: 12500 is 만 이천오백."""
    assert 0 <= number < 10**12, number
    groups = []
    for unit in ("", "만", "억"):
        number, group = divmod(number, 10_000)
        if group:
            lone = "만" if unit == "만" and group == 1 and not number else ""
            groups.append(lone or _sino_group(group) + unit)
    return " ".join(reversed(groups)) or "영"


def _sino_group(group: int) -> str:
    """1 to 9999; 일 is not said before 십, 백, 천."""
    text = ""
    for place, digit in zip(("천", "백", "십", ""), f"{group:04d}"):
        if digit != "0":
            text += ("" if digit == "1" and place else SINO_DIGITS[int(digit)]) + place
    return text
