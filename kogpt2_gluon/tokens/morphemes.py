"""Cuts Korean text where its morphemes begin, found by Kiwi, for byte-level BPE that never joins two morphemes.

HyperCLOVA's tokenizer is made so (Kim et al. 2021, arXiv 2109.04650): 나는 학교에 갔다 becomes 나, 는, ' 학교', 에,
' 갔', 다, and BPE works within each piece. Pieces are parts of the text as it is: joined together they are the
text. They are never the forms that Kiwi restores: 갔 is 가 + 었, two morphemes on one syllable, and stays one piece, as
do all morphemes whose places overlap.

The rules (RULES says which version of them this is):

1. The tokens that must stay whole, such as <unused7>, are set apart.
2. What is between them is cut after each line end, and a longer line than LONGEST characters at its spaces. Kiwi gets
   these parts one by one, so that its work grows in step with the text, and a line's pieces do not depend on others.
3. A part is cut where a morpheme begins, unless the place is inside another morpheme. A space goes with what follows.
4. Only cuts next to Hangul count, and none that would part a letter from its own vowel, final or mark. The rest, other
   scripts, numbers and signs, is left to the regular expression of byte-level BPE, whether or not Hangul is near.

Kiwi's model decides where morphemes begin, so a tokenizer's file names its version, and no other one is taken. It also
has a hash of the pieces of PROBE, since Kiwi computes in other ways on other processors: with KIWI_ARCH_TYPE=none,
kiwipiepy 0.24.1 put cuts of one line in four elsewhere than with what the processor has.

This file needs Python and kiwipiepy alone. A folder that was converted for transformers has a copy of it::

    from transformers import AutoTokenizer
    from morphemes import Cutter

    tokenizer, cutter = AutoTokenizer.from_pretrained(folder), Cutter.of(folder)
    ids = tokenizer(cutter.cut(text), is_split_into_words=True)["input_ids"]
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ANALYZER = "kiwi"
PACKAGES = ("kiwipiepy", "kiwipiepy_model")
MODEL_TYPE = "cong"  # the one that kiwipiepy's package of models has
RULES = 1
FILES = ("tokenizer.json", "tokenizer_config.json")
FIELD = "morphemes"  # of the pre-tokenizer in the first, and of the second
LONGEST = 1000  # characters of a part: Kiwi has died of long ones, and of a shorter one it would know less
MARKS = 100  # more than a letter has, so that it is not cut from them at the end of a part

# Sentences of several kinds, with places that are hard to decide.
PROBE = """나는 학교에 갔다가 비가 와서 집으로 돌아왔다.
아버지가방에들어가신다 그런데 아무도없었다
이 영화 진짜 개꿀잼ㅋㅋㅋ 시간가는줄 몰랐음ㅠㅠ 강추합니닷
배우 연기는 좋았으나 줄거리가 산으로 가서 별로였던듯
하늘을 나는 새를 보며 나는 노래를 불렀다
제가 접니다 뭔데 그래 너야 나야
고려시대 말기의 사대부들은 성리학을 받아들여 불교를 비판하였다.
정부는 15일 국무회의에서 소득세법 개정안을 의결했다고 밝혔다.
이용자는 설정 파일에서 포트번호를 바꾼 뒤 서버를 다시 시작해야 한다.
감기는 눈을 비비며 감기약을 먹고 머리를 감기 시작했다
그렇게까지 할 필요가 있었을까 싶기는 하지만 어쩌겠어요
쓰레기같은 감독 다신 안본다 돈아까워 죽는줄
물이 얼음이 되듯이 사람도 변하기 마련이었더랬다
서울특별시교육청이 주최한 한국어말하기대회에서 외국인유학생이 우승했다
말이 말을 타고 말도 안되는 말을 했다
걔가 글쎄 그걸 여기다 놔뒀더라고 내참
大韓民國의 主權은 國民에게 있고 모든 權力은 國民으로부터 나온다
자연어처리에서 형태소분석기는 전처리단계로 널리쓰인다
먹었엌ㅋㅋ 그랬구낰 알겠어욥 넵넵 ㅇㅋㄷㅋ
배가 고파서 배를 타기 전에 배를 두 개나 깎아 먹었다"""

# Syllables and letters, modern and old, and half-width ones.
HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb\uffa1-\uffdc]")
# What belongs to the character before it: vowels and finals of decomposed syllables, tone marks, accents, selectors.
_JOINED = re.compile("[\u1160-\u11ff\ud7b0-\ud7fb\u302e\u302f\u0300-\u036f\u200d\ufe00-\ufe0f]")
_DECOMPOSED = re.compile("[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?")  # a modern syllable
_WHOLE = re.compile(f"{_DECOMPOSED.pattern}|.", re.DOTALL)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")

_lock = threading.Lock()
_analyzers: dict[int, tuple[Any, str]] = {}  # by process: a fork must not use its parent's


class MorphemeError(ValueError):
    """The analyzer that a tokenizer names is not there, or is another one. It says what to install."""


def installed() -> dict[str, Any]:
    """Returns what a tokenizer's file says of the analyzer: the one that is installed. MorphemeError if none is."""
    found = {"analyzer": ANALYZER, **_versions(), "model_type": MODEL_TYPE, "rules": RULES}
    return {**found, "probe": _kiwi()[1]}


def _versions() -> dict[str, str]:
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise MorphemeError(f"no {error.name or PACKAGES[0]} is installed; pip install kiwipiepy") from None


def check(wanted: Mapping[str, Any]) -> None:
    """Raises MorphemeError unless the analyzer and the rules are those that a tokenizer's file names.

    What the analyzer computes here is compared when it is first used.
    """
    if (wanted.get("analyzer"), wanted.get("model_type"), wanted.get("rules")) != (ANALYZER, MODEL_TYPE, RULES):
        known = f"{ANALYZER}, model_type {MODEL_TYPE}, rules {RULES}"
        raise MorphemeError(
            f"its text is cut by {dict(wanted)}, which this version does not know ({known}); use the one that made it"
        )
    needed = " ".join(f"{name}=={wanted.get(name)}" for name in PACKAGES)
    try:
        found = _versions()
    except MorphemeError:
        raise MorphemeError(f"its text is cut by Kiwi, which is not installed; pip install {needed}") from None
    if differ := [name for name in PACKAGES if found[name] != wanted.get(name)]:
        raise MorphemeError(
            f"its text is cut by {differ[0]} {wanted.get(differ[0])}, and {found[differ[0]]} is installed, whose "
            f"morphemes may differ; pip install {needed}"
        )


def whole_tokens(plain: Mapping[str, Any]) -> list[str]:
    """Returns the tokens of a tokenizer.json that are found in texts and must not be cut."""
    return [token["content"] for token in plain.get("added_tokens", []) if not token.get("special")]


class Cutter:
    """Cuts texts into pieces that BPE must not join. Kiwi is loaded, in each process, with the first Hangul.

    Parameters
    ----------
    wanted : dict
        What a tokenizer's file says of the analyzer; see `installed`.
    whole : sequence of str
        Tokens that are found in texts and must not be cut.

    Raises MorphemeError if the analyzer is missing or is another one.
    """

    def __init__(self, wanted: Mapping[str, Any], whole: Sequence[str] = ()) -> None:
        check(wanted)
        self._probe = wanted.get("probe")
        longest_first = sorted(filter(None, whole), key=len, reverse=True)
        self._whole = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> Cutter:
        """Returns the cutter for the tokenizer of a converted folder. MorphemeError if its text is not cut."""
        plain, config = (json.loads(Path(folder, name).read_text(encoding="utf-8")) for name in FILES)
        wanted = (plain.get("pre_tokenizer") or {}).get(FIELD) or config.get(FIELD)
        if not isinstance(wanted, dict):
            raise MorphemeError(f"{folder}: nothing says that its text is cut at morphemes")
        return cls(wanted, whole_tokens(plain))

    def cut(self, text: str) -> list[str]:
        """Returns the pieces of a text, at least one; joined together they are the text.

        MorphemeError if Kiwi cuts elsewhere on this machine than the tokenizer's file says.
        """
        if HANGUL.search(text) and (here := _kiwi()[1]) != self._probe:
            raise MorphemeError(
                f"Kiwi cuts a known text otherwise here than where the tokenizer was made ({here}, not {self._probe}): "
                "unset KIWI_ARCH_TYPE, or use such a processor and system as there"
            )
        between = self._whole.split(text) if self._whole else [text]
        pieces: list[str] = []
        for place, each in enumerate(between):
            if place % 2:  # a token that stays whole
                pieces.append(each)
                continue
            for part in _parts(each):
                pieces += _cut_part(part, _kiwi()[0]) if HANGUL.search(part) else [part]
        return pieces or [text]


def _cut_part(part: str, kiwi: Any) -> list[str]:
    return _pieces(part, _morphemes(part, kiwi))


def _parts(text: str) -> Iterator[str]:
    """Yields the lines of a text with their ends, long ones cut in front of a space if they have one."""
    for line in _LINE.findall(text):
        start = 0
        while len(line) - start > LONGEST:
            space = line.rfind(" ", start + 1, start + LONGEST)
            end = space if space > 0 else start + LONGEST
            while space < 0 and end < min(len(line), start + LONGEST + MARKS) and _JOINED.match(line[end]):
                end += 1
            yield line[start:end]
            start = end
        if start < len(line):
            yield line[start:]


def _morphemes(part: str, kiwi: Any) -> list[tuple[int, int]]:
    """Returns where Kiwi finds morphemes, (first character, last + 1), those that are not written left out.

    Kiwi takes decomposed syllables, as macOS writes them in names of files, for an unknown word: it gets whole ones.
    """
    if not _DECOMPOSED.search(part):
        places: Sequence[int] = range(len(part) + 1)
        whole = part
    else:
        starts = _WHOLE.finditer(part)
        places = [*(match.start() for match in starts), len(part)]
        whole = _DECOMPOSED.sub(lambda match: unicodedata.normalize("NFC", match[0]), part)
    last = len(whole)
    found = [(each.start, min(each.start + each.len, last)) for each in kiwi.tokenize(whole)]
    return [(places[start], places[end]) for start, end in found if start < end]


def _pieces(part: str, morphemes: Iterable[tuple[int, int]]) -> list[str]:
    """Cuts a part where its `morphemes` begin, unless another one is open there."""
    cuts, covered = [], 0
    for start, end in sorted(morphemes):
        if start >= covered:
            cuts.append(start)
        covered = max(covered, end)
    places = [0]
    for cut in cuts:
        if not 0 < cut < len(part) or _JOINED.match(part[cut]):
            continue
        before = part[cut - 1]
        place = cut - 1 if before == " " else cut
        if place > places[-1] and (HANGUL.match(part[cut]) or HANGUL.match(part[place - 1])):
            places.append(place)
    return [part[begin:end] for begin, end in zip(places, [*places[1:], len(part)])]


def _kiwi() -> tuple[Any, str]:
    """Returns this process's analyzer and a hash of what it makes of PROBE.

    It is loaded when it is first needed, which takes about a second and 300 MB.
    """
    found = _analyzers.get(os.getpid())
    if found is None:
        with _lock:
            found = _analyzers.get(os.getpid())
            if found is None:
                from kiwipiepy import Kiwi

                kiwi = Kiwi(num_workers=1, model_type=MODEL_TYPE)
                pieces = "\n".join("|".join(_cut_part(line, kiwi)) for line in PROBE.splitlines())
                found = _analyzers[os.getpid()] = kiwi, hashlib.sha256(pieces.encode()).hexdigest()[:16]
    return found


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it when the process forked


os.register_at_fork(after_in_child=_new_lock)
