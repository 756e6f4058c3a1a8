"""Terms of a domain: the planted ones are found, without particles and parts, and are worth what the table says."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tokens.bounded_counts import BoundedCounts
from kogpt2_gluon.tokens.domain_terms import letters_of, log_likelihood_ratio, suggest_terms
from kogpt2_gluon.tokens.renaming import rename_tokens
from kogpt2_gluon.tokens.stems import count_longest, find_endings, find_stems
from kogpt2_gluon.tokens.terms_table import table
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import REAL_TEXT, kogpt2
from tests.tokens.tokenizer_helpers import make_corpus, train_model

PARTICLES = ("", "", "를", "의", "에서", "는", "가", "로")
TERMS = ("텐서플로", "합성곱", "하이퍼파라미터", "역전파", "TensorFlow")
COMMON = ("사람", "오늘", "시간", "영화", "학교", "나라", "이야기", "생각", "마음", "친구")
NEVER = ("hong@example.org를", "010-1234-5678로", "https://example.org/텐서", "tf.keras를", "2021년에")


def sentence(draw: random.Random, words: tuple[str, ...], length: int = 8) -> str:
    return " ".join(draw.choice(words) + draw.choice(PARTICLES) for _ in range(length))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base corpus, a domain with TERMS in every other word, and a tokenizer of the base with all their letters."""
    folder, draw = tmp_path_factory.mktemp("terms"), random.Random(1)
    base = [sentence(draw, COMMON) for _ in range(600)]
    domain = [sentence(draw, (*COMMON[:5], *TERMS)) for _ in range(400)]
    domain += [f"{sentence(draw, COMMON[:5])} {' '.join(NEVER)}" for _ in range(40)]
    domain += [" ".join(f"홍길동{particle}" for particle in PARTICLES * 10)]  # often, in one document
    for name, lines in (("base", base), ("domain", domain)):
        (folder / name).mkdir()
        (folder / name / "source.txt").write_text("\n".join(lines), encoding="utf-8")
        clean([folder / name / "source.txt"], folder / name / "corpus", "line", 0.1)
    symbols = [f"<unused{number}>" for number in range(9)]
    letters = sorted(set("".join(base + domain)))
    model = train_model([*base, " ".join(letters)], 220, user_defined_symbols=symbols, character_coverage=1.0)
    (folder / "base.model").write_bytes(model)
    return folder


def suggest(work: Path, count: int = 9, **more: int):
    return suggest_terms(work / "base.model", work / "domain" / "corpus", [work / "base" / "corpus"], count, **more)


def test_the_planted_terms_are_found_and_nothing_else(work: Path) -> None:
    found = suggest(work)
    assert {term.text for term in found.terms} == set(TERMS)
    assert found.tokens == [f"<unused{number}>" for number in range(len(TERMS))] and found.missed == 0
    assert [term.saved for term in found.terms] == sorted((term.saved for term in found.terms), reverse=True)
    text = list(Corpus.open(work / "domain" / "corpus").documents("train"))
    words = Counter(word for line in text for word in line.split())
    assert found.words == sum(words.values())
    for term in found.terms:
        count = sum(times for word, times in words.items() if word.startswith(term.text))
        assert term.count == count and term.per_million == pytest.approx(count / found.words * 1e6)
        assert term.base_per_million == 0 and "".join(term.pieces) == f"▁{term.text}"


def test_it_is_the_same_again_and_counts_no_more_than_asked(work: Path) -> None:
    found = suggest(work)
    assert suggest(work) == found
    assert suggest(work, 2).terms == found.terms[:2]
    more = {term.text for term in suggest(work, least_count=found.terms[0].count).terms}
    assert more == {term.text for term in found.terms if term.count >= found.terms[0].count}


def test_with_little_memory_the_terms_stay_and_counts_say_how_far_they_are_off(work: Path) -> None:
    exact, found = suggest(work), suggest(work, most_words=60)
    assert found.missed > 0 == exact.missed and found.words == exact.words
    assert "counts of the domain may be too small by" in table(found) and "too small" not in table(exact)
    counts = {term.text: term.count for term in exact.terms}
    assert found.terms and all(term.count <= counts[term.text] for term in found.terms)


def test_the_tokens_saved_are_those_of_the_renamed_tokenizer(work: Path, tmp_path: Path) -> None:
    found, before = suggest(work), Tokenizer.load(work / "base.model")
    renamings = [(token, term.piece) for token, term in zip(found.tokens, found.terms)]
    now = rename_tokens(before.path, renamings, tmp_path / "named.model")
    text = list(Corpus.open(work / "domain" / "corpus").documents("train"))
    less = sum(map(len, before.encode_batch(text))) - sum(map(len, now.encode_batch(text)))
    assert less == sum(term.saved for term in found.terms) > 0


def test_both_commands_chain(work: Path, tmp_path: Path) -> None:
    listed, named = tmp_path / "terms.txt", tmp_path / "named.model"
    command = ("tokenizer", "suggest", work / "base.model", work / "domain" / "corpus", "--base", work / "base/corpus")
    done = kogpt2(*command, "--count", 9, "--out", listed)
    assert all(term in done.stdout for term in TERMS) and "counting words: " in done.stderr
    assert "exists" in kogpt2(*command, "--out", listed, "--count", 9, code=2).stderr
    rows = json.loads(kogpt2(*command, "--count", 9, "--json").stdout)["terms"]
    assert listed.read_text(encoding="utf-8").splitlines() == [f"{row['token']}={row['name']}" for row in rows]
    listed.write_text("# looked through\n\n" + listed.read_text(encoding="utf-8"), encoding="utf-8")
    said = kogpt2("tokenizer", "rename", work / "base.model", "--from", listed, "--out", named).stdout
    assert f"{len(TERMS)}" in said and "4 unused left" in said
    pieces = Tokenizer.load(named).pieces
    assert {f"▁{term}" for term in TERMS} <= set(pieces)
    listed.write_text("<unused0>=가나\n<unused1> 다라\n", encoding="utf-8")
    told = kogpt2("tokenizer", "rename", work / "base.model", "--from", listed, "--out", named, "--overwrite", code=2)
    assert f"{listed}, line 2: '<unused1> 다라': write it as <unused7>=TERM" in told.stderr
    told = kogpt2("tokenizer", "rename", work / "base.model", "--out", tmp_path / "x.model", code=2).stderr
    assert "name a list of them: --from FILE" in told and told.count("\n") == 1


def test_what_does_not_fit_is_one_line(work: Path, tmp_path: Path) -> None:
    domain, base = work / "domain" / "corpus", work / "base" / "corpus"
    with pytest.raises(RecipeError, match=r"--count 10: .*base.model has 9 unused tokens"):
        suggest(work, 10)
    with pytest.raises(RecipeError, match="named twice"):
        suggest_terms(work / "base.model", domain, [base, domain], 5)
    with pytest.raises(RecipeError, match="not a cleaned corpus but plain text"):
        suggest_terms(work / "base.model", work / "base" / "source.txt", [base], 5)
    empty = make_corpus(tmp_path, ["문서 하나"], test_share=0.99)
    if not Corpus.open(empty).count("train"):
        with pytest.raises(DataError, match="its train split is empty"):
            suggest_terms(work / "base.model", empty, [base], 5)


# ---- the statistics -----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(500, 10_000), st.integers(0, 400), st.integers(500, 10_000))
def test_the_ratio_is_that_of_scipy(count: int, words: int, base_count: int, base_words: int) -> None:
    table = [[count, words - count], [base_count, base_words - base_count]]
    expected = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert log_likelihood_ratio(count, words, base_count, base_words) == pytest.approx(expected, rel=1e-6, abs=1e-6)


WORDS = st.lists(st.text("가나다라", min_size=1, max_size=3), max_size=60)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=12), st.integers(2, 8))
def test_counts_are_too_small_by_no_more_than_they_say(documents: list[list[str]], most: int) -> None:
    bounded, exact = BoundedCounts(most), Counter(word for words in documents for word in words)
    for words in documents:
        bounded.add(Counter(words))
        assert len(bounded.counts) <= most
    assert bounded.total == sum(exact.values())
    for word, times in exact.items():
        assert times - bounded.missed <= bounded.counts[word] <= times
        assert bounded.documents[word] <= sum(word in words for words in documents)
    if len(exact) <= most:
        assert bounded.counts == exact and bounded.missed == 0


@settings(deadline=None)
@given(st.dictionaries(st.text("가나다", min_size=1, max_size=5), st.integers(1, 9), max_size=40), st.integers(1, 9))
def test_stems_are_counted_as_plain_counting_does(words: dict[str, int], least: int) -> None:
    stems = find_stems(words, least)
    for text, stem in stems.items():
        longer = [other for other in stems if other != text and other.startswith(text)]
        with_it = {word: times for word, times in words.items() if word.startswith(text)}
        alone = sum(times for word, times in with_it.items() if not any(word.startswith(each) for each in longer))
        assert alone == stem.count >= least
        assert stem.followers.get("", 0) == words.get(text, 0)
    counted = count_longest(words, stems)
    assert sum(counted.values()) == sum(
        times for word, times in words.items() if any(word.startswith(text) for text in stems)
    )


def test_particles_are_endings_and_parts_are_no_stems() -> None:
    draw = random.Random(2)
    words = Counter(draw.choice(TERMS + COMMON) + draw.choice(PARTICLES) for _ in range(6000))
    words.update({"하이퍼링크를": 1})
    stems = find_stems(words, 20)
    assert set(stems) == {*TERMS, *COMMON}
    assert {*PARTICLES} - {""} <= find_endings(words, stems)
    words.update(
        {"텐서": 200, "텐서를": 120, "텐서의": 100, "텐서는": 80}
    )  # a stem by itself, and the beginning of one
    stems = find_stems(words, 20)
    assert set(stems) == {*TERMS, *COMMON, "텐서"}
    assert stems["텐서"].count == 500
    words = Counter({"사용하는": 50, "사용하고": 40, "사용하면": 30, "사용하지": 30, "사용": 20, "사용을": 20})
    assert "사용하" not in find_stems(words, 20)  # never a word by itself


def test_forms_of_what_is_seldom_a_word_by_itself_are_no_stems() -> None:
    draw = random.Random(3)
    endings = ("하여", "하는", "할", "합니다", "을", "은")
    words = Counter(draw.choice((*TERMS, *COMMON)) + draw.choice((*endings, "", "")) for _ in range(6000))
    words.update(
        {f"사용{ending}": 60 for ending in endings} | {"사용": 2, "사용자": 90, "사용자은": 40, "사용자을": 50}
    )
    words.update(
        {
            "값을": 60,
            "값은": 60,
            "값": 60,
            "추가": 40,
            "추가하는": 50,
            "추가할": 40,
            "추론": 30,
            "추론은": 30,
            "추론을": 30,
        }
    )
    assert set(find_stems(words, 30)) == {*TERMS, *COMMON, "사용자", "추가", "추론"}


def test_words_without_terms() -> None:
    text = '텐서를 텐서(tensor)의 "텐서" tf.data를 GPT2는 a@b.org ㅋㅋ 3월에 my_model을 www.example.org 끝.'
    found = letters_of(Counter(text.split()))
    assert found == Counter({"텐서를": 1, "텐서": 1, "끝": 1, "": 8})


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="no real text on this machine")
def test_on_technical_documents(tmp_path: Path) -> None:
    """A part of each corpus, with a tokenizer of the reviews."""
    tech = [json.loads(line)["text"] for line in (REAL_TEXT / "lm" / "tech_docs_ko.jsonl").open(encoding="utf-8")]
    reviews = (REAL_TEXT / "lm" / "nsmc_raw_reviews.txt").read_text(encoding="utf-8").splitlines()
    corpora = []
    for name, documents in (("tech", [text.replace("\n", " ") for text in tech[::8]]), ("reviews", reviews[::40])):
        (tmp_path / name).mkdir()
        corpora.append(make_corpus(tmp_path / name, documents))
    symbols = [f"<unused{number}>" for number in range(40)]
    letters = sorted(set("".join(tech[::8])))
    model = train_model([*reviews[::80], *(f"{letter}" for letter in letters)], 3500, user_defined_symbols=symbols)
    (tmp_path / "reviews.model").write_bytes(model)
    found = suggest_terms(tmp_path / "reviews.model", corpora[0], [corpora[1]], 40)
    terms = {term.text: term for term in found.terms}
    assert len(terms) == 40 and {"데이터", "모델", "함수", "TensorFlow"} <= set(terms)
    particles = tuple("를을의는은")
    assert not [text for text in terms if text.endswith(particles) and text[:-1] in terms]
    assert not [text for text in terms if any(sign.isdigit() or sign in "@./_" for sign in text)]
    assert all(term.per_million > 2 * term.base_per_million and len(term.pieces) > 1 for term in found.terms)
