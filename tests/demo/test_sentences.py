from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import unicodedata
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.demo.sentences import grammar, sample_text
from kogpt2_gluon.demo.sentences import words as sample_words
from kogpt2_gluon.demo.sentences.sample_text import (
    has_final_consonant,
    sample_documents,
    with_particle,
    write_sample_corpus,
)
from kogpt2_gluon.demo.sentences.scenes import Scene
from tests.helpers import ROOT

NUM_DOCUMENTS = 4000
# SHA-256 of the first 2,000 documents of seed 0. It changes only when the templates or words are changed on purpose.
KNOWN_DIGEST = "daafe14ff60b50493f012dee021455f1530cd4fc31b82002b9eee5283a60dc9b"

hangul = st.text(st.characters(min_codepoint=ord("가"), max_codepoint=ord("힣")), min_size=1, max_size=6)


def closes(word: str) -> bool:
    """Returns True if the last syllable has a final consonant by Unicode decomposition, which the code does not use."""
    return "\u11a8" <= unicodedata.normalize("NFD", word)[-1] <= "\u11c2"


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(islice(sample_documents(0), NUM_DOCUMENTS))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("sample") / "new" / "corpus.txt"
    return path, write_sample_corpus(path)


# -- particles --------------------------------------------------------------------------------------------------------


@given(hangul, st.sampled_from(sorted(grammar.PARTICLES)))
def test_particles_agree_with_any_hangul_word(word: str, key: str) -> None:
    closed, open_ = grammar.PARTICLES[key]
    ends_in_rieul = unicodedata.normalize("NFD", word)[-1] == "\u11af"
    expected = closed if closes(word) and not (key == "으로" and ends_in_rieul) else open_
    assert has_final_consonant(word) == closes(word)
    for form in (word, unicodedata.normalize("NFD", word), f"'{word}'", f"({word})"):
        assert with_particle(form, f"{closed}/{open_}") == form + expected


@given(st.integers(min_value=0, max_value=10**12 - 1))
def test_figures_take_the_particle_of_their_reading(number: int) -> None:
    reading = grammar.sino_number(number)
    for figure in (str(number), f"{number:,}"):
        assert has_final_consonant(figure) == closes(reading)
        assert grammar.particle(figure, "으로/로") == grammar.particle(reading, "으로/로")


@pytest.mark.parametrize(
    ("word", "topic", "toward"),
    [
        ("책", "은", "으로"),
        ("물", "은", "로"),
        ("바다", "는", "로"),
        ("10", "은", "으로"),
        ("100", "은", "으로"),
        ("10,000", "은", "으로"),
        ("0", "은", "으로"),
        ("7", "은", "로"),
        ("12", "는", "로"),
        ("3.5", "는", "로"),
        ("2.0", "은", "으로"),
        ("1000000000000", "는", "로"),
        ("5kg", "은", "으로"),
        ("5 km", "는", "로"),
        ("30%", "는", "로"),
        ("TV", "는", "로"),
        ("URL", "은", "로"),
        ("ATM", "은", "으로"),
        ("Apple", "은", "로"),
        ("game", "은", "으로"),
        ("music", "은", "으로"),
        ("Lumi", "는", "로"),
        ("Wi-Fi", "는", "로"),
        ("Pro", "는", "로"),
        ("ㄱ", "은", "으로"),
        ("ㄹ", "은", "로"),
        ("ㅏ", "는", "로"),
        ("책)", "은", "으로"),
        ("", "는", "로"),
        ("★", "는", "로"),
    ],
)
def test_particles_after_figures_latin_and_marks(word: str, topic: str, toward: str) -> None:
    assert with_particle(word, "은/는") == word + topic
    assert with_particle(word, "으로/로") == word + toward


def test_an_unknown_particle_is_named() -> None:
    with pytest.raises(ValueError, match="에게"):
        with_particle("책", "에게")


# -- conjugation and numbers ------------------------------------------------------------------------------------------

# stem: 해라체 present, 해요체 present, 해요체 past, 합니다체 present, 을 것이다, 으면, adnominal 는/은
FORMS = """
가 간다 가요 갔어요 갑니다 갈 가면 가는
보 본다 봐요 봤어요 봅니다 볼 보면 보는
먹 먹는다 먹어요 먹었어요 먹습니다 먹을 먹으면 먹는
마시 마신다 마셔요 마셨어요 마십니다 마실 마시면 마시는
만들 만든다 만들어요 만들었어요 만듭니다 만들 만들면 만드는
듣 듣는다 들어요 들었어요 듣습니다 들을 들으면 듣는
돕 돕는다 도와요 도왔어요 돕습니다 도울 도우면 돕는
굽 굽는다 구워요 구웠어요 굽습니다 구울 구우면 굽는
짓 짓는다 지어요 지었어요 짓습니다 지을 지으면 짓는
모르 모른다 몰라요 몰랐어요 모릅니다 모를 모르면 모르는
흐르 흐른다 흘러요 흘렀어요 흐릅니다 흐를 흐르면 흐르는
쓰 쓴다 써요 썼어요 씁니다 쓸 쓰면 쓰는
되 된다 돼요 됐어요 됩니다 될 되면 되는
쉬 쉰다 쉬어요 쉬었어요 쉽니다 쉴 쉬면 쉬는
일하 일한다 일해요 일했어요 일합니다 일할 일하면 일하는
낫 낫다 나아요 나았어요 낫습니다 나을 나으면 나은
맵 맵다 매워요 매웠어요 맵습니다 매울 매우면 매운
아름답 아름답다 아름다워요 아름다웠어요 아름답습니다 아름다울 아름다우면 아름다운
바쁘 바쁘다 바빠요 바빴어요 바쁩니다 바쁠 바쁘면 바쁜
예쁘 예쁘다 예뻐요 예뻤어요 예쁩니다 예쁠 예쁘면 예쁜
크 크다 커요 컸어요 큽니다 클 크면 큰
길 길다 길어요 길었어요 깁니다 길 길면 긴
다르 다르다 달라요 달랐어요 다릅니다 다를 다르면 다른
좋 좋다 좋아요 좋았어요 좋습니다 좋을 좋으면 좋은
그렇 그렇다 그래요 그랬어요 그렇습니다 그럴 그러면 그런
하얗 하얗다 하얘요 하얬어요 하얗습니다 하얄 하야면 하얀
있 있다 있어요 있었어요 있습니다 있을 있으면 있는
재미있 재미있다 재미있어요 재미있었어요 재미있습니다 재미있을 재미있으면 재미있는
아니 아니다 아니에요 아니었어요 아닙니다 아닐 아니면 아닌
"""


@pytest.mark.parametrize("row", FORMS.strip().splitlines())
def test_conjugation(row: str) -> None:
    stem, plain, polite, past, formal, plan, condition, adnominal = row.split()
    assert grammar.finish(stem, "pres", "haera") == plain
    assert grammar.finish(stem, "pres", "haeyo") == polite
    assert grammar.finish(stem, "past", "haeyo") == past
    assert grammar.finish(stem, "pres", "hapnida") == formal
    assert grammar.finish(stem, "plan", "haera") == f"{plan} 것이다"
    assert grammar.attach(stem, "으면") == condition
    assert grammar.attach(stem, "는") == adnominal
    assert grammar.attach(stem, "는데") == adnominal + "데"
    assert grammar.finish(stem, "past", "haera") == past[:-2] + "다"
    assert grammar.attach(stem, "고") == stem + "고"


@pytest.mark.parametrize(
    ("stem", "mood", "style", "form"),
    [
        ("오", "hon.pres", "haeyo", "오세요"),
        ("오", "hon.past", "hapnida", "오셨습니다"),
        ("걷", "hon.pres", "haera", "걸으신다"),
        ("살", "hon.pres", "haeyo", "사세요"),
        ("아프", "hon.ask", "haeyo", "아프세요"),
        ("드시", "past", "haeyo", "드셨어요"),
        ("드시", "req", "haeyo", "드세요"),
        ("주무시", "past", "haera", "주무셨다"),
        ("확인하", "hon.req", "hapnida", "확인하십시오"),
        ("만들", "let", "hapnida", "만듭시다"),
        ("먹", "let", "hapnida", "먹읍시다"),
        ("가", "let", "haera", "가자"),
        ("만들", "ne", "haera", "만드는구나"),
        ("맵", "ne", "haeyo", "맵네요"),
        ("만들", "pres", "eum", "만듦"),
        ("보", "past", "eum", "봤음"),
        ("사", "promise", "haeyo", "살게요"),
        ("않", "promise", "hae", "않을게"),
    ],
)
def test_moods(stem: str, mood: str, style: str, form: str) -> None:
    assert grammar.finish(stem, mood, style) == form


@pytest.mark.parametrize(
    ("before", "mood", "style", "form"),
    [
        ("의사", "pres", "haeyo", "예요"),
        ("선생님", "pres", "haeyo", "이에요"),
        ("의사", "past", "haera", "였다"),
        ("책", "past", "hapnida", "이었습니다"),
        ("의사", "pres", "haera", "다"),
        ("책", "pres", "hae", "이야"),
        ("책", "라서", "hae", "이라서"),
        ("3도", "guess", "hapnida", "겠습니다"),
        ("8,000원", "past", "eum", "이었음"),
        ("4.5점", "pres", "eum", "임"),
    ],
)
def test_copula(before: str, mood: str, style: str, form: str) -> None:
    assert grammar.copula(before, mood, style) == form


def test_number_words() -> None:
    assert [grammar.native_number(n) for n in (1, 4, 11, 20, 21, 35, 99)] == [
        "한",
        "네",
        "열한",
        "스무",
        "스물한",
        "서른다섯",
        "아흔아홉",
    ]
    assert len({grammar.native_number(n) for n in range(1, 100)}) == 99
    assert grammar.sino_number(12_500) == "만 이천오백"
    assert grammar.sino_number(1_110_010) == "백십일만 십"
    assert grammar.sino_number(10_000) == "만"
    assert grammar.sino_number(100_010_001) == "일억 일만 일"
    assert grammar.sino_number(0) == "영"


# -- templates and words ----------------------------------------------------------------------------------------------


def predicates(nodes: tuple[sample_text.Node, ...]) -> list[tuple[str, str]]:
    found = [(node.value, node.detail) for node in nodes if node.kind == "predicate"]
    return found + [pair for node in nodes for option in node.options for pair in predicates(option)]


def slots(nodes: tuple[sample_text.Node, ...]) -> set[str]:
    found = {node.value.rstrip("0123456789") for node in nodes if node.kind == "slot"}
    return found.union(*(slots(option) for node in nodes for option in node.options))


@pytest.mark.parametrize("scene", sample_text.ALL_SCENES, ids=lambda scene: scene.name)
def test_every_template_uses_known_words_and_forms(scene: Scene) -> None:
    assert set(scene.styles.split()) <= set(grammar.STYLES)
    lines = [line for block in (scene.opening, scene.middle, scene.closing) for line in block.splitlines()]
    for line in filter(None, map(str.strip, lines)):
        nodes = sample_text.compile_template(line)
        assert slots(nodes) <= {*sample_words.POOLS, *sample_words.ROWS, "I", "my"}, line
        for stem, form in predicates(nodes):
            field = stem.strip("{}")
            cells = [row[field] for row in sample_words.ROWS[field]] if stem != field else [stem]
            for word in [cell.split(" ")[-1] for text in cells for cell in text.split("/")]:
                assert word == "이" or grammar.stem_class(word), line
            assert form.replace("hon.", "") in sample_text.MOODS or "가" <= form[0] <= "힣", line


@pytest.mark.parametrize("broken", ["[a|b", "a]", "{city", "<보 past", "~에게"])
def test_a_broken_template_is_refused(broken: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        sample_text.compile_template(broken)


# -- the text ---------------------------------------------------------------------------------------------------------


def test_particles_agree_in_the_text(documents: list[str]) -> None:
    fields = ("city", "product", "dish", "animal", "plant", "main")
    nouns = {row[field] for field in fields for row in sample_words.ROWS[field]}
    nouns |= {*sample_words.POOLS["company"], *sample_words.POOLS["team"], *sample_words.POOLS["town"]}
    noun = "|".join(sorted(nouns, key=len, reverse=True))
    checked = 0
    for match in re.finditer(rf"(?<![가-힣])({noun})(은|는|이|가|을|를|과|와|으로|로)(?= )", "\n".join(documents)):
        word, particle = match.groups()
        rieul = unicodedata.normalize("NFD", word)[-1] == "\u11af"
        if particle in ("으로", "로"):
            assert particle == ("으로" if closes(word) and not rieul else "로"), match
        else:
            assert (particle in "은이을과") == closes(word), match
        checked += 1
    assert checked > 3000


def test_speech_level_is_one_within_a_document(documents: list[str]) -> None:
    for document in documents:
        if ":" in document or "안녕하세요" in document:  # dialogues and greetings mix levels rightly
            continue
        sentences = re.split(r"(?<=[.?!]) ", re.sub(r'"[^"]*"', "", document))
        formal = [sentence.endswith(("니다.", "시오.")) for sentence in sentences]
        polite = [sentence.endswith(("요.", "요?")) for sentence in sentences]
        assert all(formal) or not any(formal), document
        assert all(polite) or not any(polite), document


def test_a_respected_subject_takes_an_honorific(documents: list[str]) -> None:
    sentences = [s for d in documents for s in re.split(r"(?<=[.?!]) ", d) if re.match(r"\S+( 선생님)?께서는? ", s)]
    sentences = [
        s for s in sentences if not re.search("시는 |셨으면 ", s) and "신다고 " not in s
    ]  # there the honorific is inside
    assert len(sentences) > 300
    for sentence in sentences:
        assert re.search("신다|시다|십니다|세요|셨", sentence.split()[-1]), sentence


def test_lines_are_clean_and_short(documents: list[str]) -> None:
    for document in documents:
        assert document == unicodedata.normalize("NFC", document).strip()
        assert "\n" not in document and "  " not in document
        assert not re.search(r"[\[\]{}<>~|]|None", document), document
        assert document[-1] in ".?!"
        assert len(document) < 500


def test_all_scenes_and_number_forms_occur(documents: list[str]) -> None:
    text = "\n".join(documents)
    patterns = r"""
        \d월.\d+일  오[전후].\d+시.\d+분  \d,\d{3}원  \d만.\d+원  [이삼사오육칠팔구]만.[가-힣]+.원  \d\.\d%
        (두|세|네).(번|명|개|그릇)  영하.\d도  \d.대.\d  [A-Z][a-z]+.[XS]\d  PDF  Wi-Fi  \d+mm  \d+GB
    """
    for pattern in patterns.split():
        assert re.search(pattern, text), pattern
    for style_end in ("습니다.", "어요.", "았다.", "했어.", "음."):
        assert text.count(style_end) > 20, style_end
    openings = {word for document in documents for word in document.split()[:3]}
    assert len(openings) > 1500


def test_topic_is_kept_within_a_document(documents: list[str]) -> None:
    animals = [row["animal"] for row in sample_words.ROWS["animal"]]
    about = [d for d in documents if d.split("은 ")[0].split("는 ")[0] in animals]
    assert len(about) > 20
    for document in about:
        subject = re.split("[은는] ", document)[0]
        assert not any(other in document for other in animals if other not in subject and subject not in other)


def test_corpus_size_and_duplicates(corpus: tuple[Path, int]) -> None:
    path, count = corpus
    text = path.read_bytes()
    lines = text.decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert len(lines) == count
    assert 3_500_000 <= len(text) < 3_500_000 + 2000
    assert len(set(lines)) > 0.98 * len(lines)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_small_corpus_is_the_beginning_of_a_large_one(corpus: tuple[Path, int], tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    write_sample_corpus(small, num_bytes=10_000)
    assert corpus[0].read_bytes().startswith(small.read_bytes())
    assert write_sample_corpus(tmp_path / "empty.txt", num_bytes=0) == 0
    assert (tmp_path / "empty.txt").read_bytes() == b""


def digest(seed: int) -> str:
    return hashlib.sha256("\n".join(islice(sample_documents(seed), 2000)).encode()).hexdigest()


def test_same_seed_same_text_in_any_process() -> None:
    assert digest(0) == KNOWN_DIGEST
    assert digest(1) != KNOWN_DIGEST
    code = (
        "import hashlib, itertools; from kogpt2_gluon.demo.sentences.sample_text import sample_documents as s;"
        "print(hashlib.sha256(chr(10).join(itertools.islice(s(0), 2000)).encode()).hexdigest())"
    )
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == KNOWN_DIGEST


def test_needs_only_the_standard_library() -> None:
    code = (
        "import sys, kogpt2_gluon.demo.sentences.sample_text;"
        "print(sorted({'mxnet', 'numpy', 'sentencepiece'} & {name.split('.')[0] for name in sys.modules}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
