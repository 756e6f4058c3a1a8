"""Byte-level tokenizers for tests, with and without the cut at morphemes, and texts that have broken other programs."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from kogpt2_gluon.tokens.byte_level_training import train_byte_level
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.tokens.tokenizer_helpers import make_corpus

SENTENCES = """나는 학교에 갔다. 학교는 집에서 멀었다.
이 영화는 정말 재미있게 봤어요! 배우들의 연기가 훌륭했고 음악도 좋았다.
2024년 3월 5일, 서울에서 열린 회의에 120명이 참석했습니다.
그 책은 아직 읽지 못했지만 꼭 읽어 볼 생각이에요.
할머니께서 직접 만드신 김치를 보내 주셨다.
Python 3.11과 NumPy를 설치한 뒤 다시 실행해 보세요.
값이 15,000원에서 9,900원으로 내렸다.
왜 그렇게 늦었는지 아무도 묻지 않았다.
학생들은 도서관에서 조용히 공부하고 있다.
제가 접니다 뭔데 그래 너야 나야 ㅋㅋㅋ 하닼ㅋ""".splitlines()
# What users of Kiwi and of byte-level BPE have reported: wrong places after emoji (kiwipiepy pull request 226), crashes
# of long repetitions (kiwipiepy issue 158), spaces that do not come back (tokenizers issue 830), and their neighbours.
AWKWARD = {
    "emoji": "😀나는 😀학교에 👨‍👩‍👧갔다 🇰🇷 만세👍🏽는",
    "decomposed": unicodedata.normalize("NFD", "나는 학교에 갔다. 읽었다"),
    "old letters": "나랏〮말〯ᄊᆞ미 듕귁에 달아 ᄒᆞᆫ글",
    "letters alone": "ㅋㅋㅋ 하닼ㅋ ㅠㅠ ㅇㅈ? 먹었엌ㅋㅋ ﾡﾢ한글ﾱ",
    "line ends": "\n\n나는\r\n갔다\r\r\n\x0b\x0c 다\u2028음\u2029줄\x85끝\n",
    "wide spaces": "나는\u00a0학교에\u3000갔다\u2003\u200b다\ufeff끝\u2060",
    "tabs": "\t나는\t\t학교에 \t갔다\t",
    "nothing but spaces": "  \u3000 \n \t  ",
    "zero bytes": "나\0는 \0\0학교에\0 갔다\0",
    "hanja": "大韓民國은 民主共和國이다. 故鄕에 𠮷野家가 있다",
    "repetition": "보통" * 3000 + " " + "ㅋ" * 3000,
    "one long word": "가나다라마바사" * 500,
    "long line": "나는 학교에 갔다 " * 400,
    "long spaces": "나는" + " " * 3000 + "갔다",
    "marks": "가\u0301는 \u0301나\u20dd다\u200d라\ufe0f",
    "many marks": "나는 가" + "\u0301" * 3000 + " 갔다",
    "reserved": "나<unused1>는 <unused10><unused1>학교<unused>에 <unused2",
    "controls": "<s>나는</s> 학교에<pad><unk> <|endoftext|>",
    "sign for a space": "나는▁학교에▅갔다 Ġ나는",
    "web": "http://한글.kr/가?나=1#다 kim@school.ac.kr @나 #해시태그는 1,234.5원이다",
    "private and unassigned": "나\ue000는\U0010ffff학교\ufdd0에\u0378",
}


def train_small(folder: Path, morphemes: str | None, vocab_size: int = 450) -> Tokenizer:
    """A tokenizer of the SENTENCES, in a new file below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = make_corpus(folder, [f"{line} {number}" for number in range(4) for line in SENTENCES])
    return train_byte_level(corpus, folder / "tokenizer.json", vocab_size, 12, morphemes, processes=1)
