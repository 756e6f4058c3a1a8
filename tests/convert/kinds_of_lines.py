"""Lines of every kind that a tokenizer may meet, by the name of the kind; the tests of other tools share them."""

from __future__ import annotations

import random
import unicodedata

from tests.convert.convert_helpers import OWN_SENTENCES

# To train a tokenizer on: letters alone have pieces, and so have letters that stand for characters which are newer than
# the NFKC of `tokenizers`.
LETTERS = "가나다라 ㄱㄴㅋㅎㅏㅠㅣㄳㅄ ᄀ카ᅲᆨᆪ ABCXYZ0123456789 ~～ ä令和 σςß ㅋㅋㅋ ㅠㅠ (ㄱ) ΑΣ ι"
TEXTS = [*OWN_SENTENCES, LETTERS] * 30
_draw = random.Random(7)


def _random_syllables(lines: int) -> list[str]:
    letters = [*map(chr, range(0xAC00, 0xD7A4)), *[" "] * 3000]
    return ["".join(_draw.choices(letters, k=24)).strip() for _ in range(lines)]


def _words(text: str) -> list[str]:
    return text.split(" ")


def _among_words(signs: str) -> list[str]:
    """Each sign alone, at both ends of a word, within it, and between two words."""
    places = ("{}", "{}영화{}", "영{}화", "영화 {} 좋다")
    return [place.replace("{}", sign) for sign in signs.split("|") for place in places]


KINDS: dict[str, list[str]] = {
    "korean": [*OWN_SENTENCES, *_random_syllables(12)],
    "rare syllables": ["뷁쉙꿻", "갂갃갅", "똠방각하 펲시콜라", "힣힢힡", "뢠뢨"],
    "english": ["The quick brown fox", "don't stop", "iPhone을 샀다", "UPPER lower MiXeD", "a", "e-mail: a@b.c"],
    "digits": ["0", "12345678901234567890", "3.14", "1,000원", "2024-03-05", "010-1234-5678", "5점 만점에 10점"],
    "punctuation": [*_words("!!! ... 정말??!! ~^^~ \"'` a/b\\c —–…· #@$%&*+=<>|_"), "(괄호) [대괄호] {중괄호}"],
    "brackets": _words("< > <unused unused0> <unused> <0xZZ> </ [UNK] <|endoftext|>"),
    "names of bytes": ["<0x41>", "<0x00>", "a<0xEA>"],
    "symbols": [*_among_words("<unused0>|<unused11>"), "<unused0><unused1>", " <unused0> <unused0>"],
    "letters as typed": [*_words("ㅋㅋ ㅋㅋㅋㅋㅋ ㅠㅠ ㄱㅏ ㅏ ㄳ ㅇㅋ 감사ㄳ"), "ㅎㅎ 재밌다ㅋㅋ", "ㅜㅜㅜ 슬퍼"],
    "letters of a syllable": _words("ᄀ ᄀᄀ ᅡ ᆨ 가\u11a8 \u1100\u1161\u11a8 각ᅡ ᄋᄋ ᄏᄏ 가ᅡ"),
    "old letters": _words("\u1112\u119e\u11ab글 ㆍ ㅿ 나랏말ᄊᆞ미 ꥠᅡ ힰ"),
    "decomposed": [unicodedata.normalize("NFD", line) for line in (*OWN_SENTENCES, "é", "ño", "Å")],
    "half and full width": _words("ＡＢＣ １２３ ﾊﾝｶｸ ｶﾞ ﾡﾢ ﾻﾻﾻ ￦1,000 （주） ～ ！？"),
    "compatibility": _words("①②③ ㈜한국 ㈀㈎ ﬁﬂ ½ Ⅷ ㎏ ㎡ ㉠㉡ ℃ ™ ª ² \u32ff \U0001ccd6"),
    "emoji": _words("😀 👍🏽 👨\u200d👩\u200d👧 ❤\ufe0f 🇰🇷 재밌다😂😂 1\ufe0f\u20e3"),
    "special tokens": [*_among_words("<s>|</s>|<pad>|<unk>"), "<s>안녕</s>", "<unused0></s>", "끝</s> ", "<<s>>"],
    "spaces": ["", " ", "   ", " 앞", "뒤 ", "  둘  사이  ", "a  b", "영화 ", " . "],
    "tabs and line ends": [*_among_words("\t|\n|\r\n|\n\n"), "한 줄\n두 줄\n", "\t\t탭"],
    "other spaces": _among_words("\u00a0|\u3000|\u2003|\u2028|\u0085"),
    "invisible": _among_words("\u200b|\u200d|\u200c|\ufeff|\u00ad|\u2060|\u200e"),
    "control characters": _among_words("\u0001|\u001f|\u007f|\u009f"),
    "the zero byte": _among_words("\u0000"),
    "combining marks": _words("a\u0300 e\u0323\u0302 각\u0301 \u0301 กำ नमस्ते שָׁלוֹם \u00aa\u0300"),
    "several marks": ["a\u0344", "\u00e4\u0304", "e\u0301\u0323"],
    "rare characters": _words("漢字 鬱龘 𠮷野家 㐀㐁 Ωμέγα Привет 日本語 العربية 𝔘𝔫𝔦 \ue000 \U0010fffd"),
    "signs of tokenizers": ["▁", "▁영화", "영화▁▁좋다", "Ġ", "##영화", "@@", "\ufffd"],
    "long": ["영화" * 300, "ㅋ" * 500, "a" * 500, "가 " * 300, "☃" * 50],
}
LINES = [(kind, line) for kind, lines in KINDS.items() for line in lines]
