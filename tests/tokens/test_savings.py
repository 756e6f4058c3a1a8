"""The tokens that a suggestion promises are those that the renamed tokenizer saves, with pieces of the domain too."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.tokens.domain_terms import Suggestion, suggest_terms
from kogpt2_gluon.tokens.renaming import possible_names, rename_tokens
from kogpt2_gluon.tokens.savings import Savings
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.tokenizer import SPACE, Tokenizer
from tests.tokens.tokenizer_helpers import make_corpus, train_model

PARTICLES = ("", "", "를", "의", "에서", "는", "가", "로")
COMMON = ("사람", "오늘", "시간", "영화", "학교", "나라", "이야기", "생각")
UNUSED = [f"<unused{number}>" for number in range(6)]
SPREAD = ("텐서", "텐서플로", "텐서보드", "텐서곱")
APART = tuple(first + end for first in "북남동중상하전후" for end in ("서플로", "서보드"))  # so that 텐서 is no piece


def sentences(words: Sequence[str], count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(words) + draw.choice(PARTICLES) for _ in range(8)) for _ in range(count)]


def tokenizer_of(
    path: Path, lines: Sequence[str], size: int, letters: str, **options: object
) -> SentencePieceTokenizer:
    text = [*lines, " ".join(sorted(set(letters)))]
    path.write_bytes(train_model(text, size, user_defined_symbols=UNUSED, character_coverage=1.0, **options))
    tokenizer = Tokenizer.load(path)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    return tokenizer


def really_saved(tokenizer: Tokenizer, names: Sequence[str], texts: Mapping[str, int], out: Path) -> int:
    if not names:
        return 0
    now = rename_tokens(tokenizer.path, list(zip(tokenizer.unused, names)), out)
    lengths = [len(each.encode(text)) * times for each in (tokenizer, now) for text, times in texts.items()]
    return sum(lengths[: len(texts)]) - sum(lengths[len(texts) :])


# ---- a tokenizer that has a longer piece already ------------------------------------------------


@pytest.fixture(scope="module")
def suggested(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], tuple[Suggestion, int]]:
    """Suggestions for a domain of some words, with a tokenizer that has the pieces ▁텐서플로 and ▁텐서보드."""
    folder = tmp_path_factory.mktemp("savings")
    known = sentences([*COMMON, *APART, "텐서플로", "텐서보드"], 600, 1)
    letters = "".join([*known, *SPREAD, "합성곱역전파"])
    tokenizer = tokenizer_of(folder / "known.model", known, 400, letters)
    assert {f"{SPACE}텐서플로", f"{SPACE}텐서보드"} <= set(tokenizer.pieces)
    assert f"{SPACE}텐서" not in tokenizer.pieces
    (folder / "base").mkdir()
    base = make_corpus(folder / "base", sentences(COMMON, 300, 2))

    def suggest(words: Sequence[str]) -> tuple[Suggestion, int]:
        own = folder / f"domain-{len(list(folder.iterdir()))}"
        own.mkdir()
        lines = sentences(words, 300, 3)
        domain = make_corpus(own, lines)
        found = suggest_terms(tokenizer.path, domain, [base], len(UNUSED))
        texts = {line: lines.count(line) for line in lines}
        return found, really_saved(tokenizer, [term.piece for term in found.terms], texts, own / "named.model")

    return suggest


@pytest.mark.parametrize(
    "words",
    [
        (*COMMON[:3], "텐서", "텐서플로", "텐서플로", "텐서플로", "텐서보드", "텐서보드"),
        (*COMMON[:3], "텐서", "텐서", "텐서", "텐서", "텐서플로"),
        (*COMMON[:3], "텐서", "텐서곱", "텐서플로", "합성곱"),
        (*COMMON[:3], *SPREAD, "텐서2.0", "합성곱", "역전파"),
    ],
)
def test_what_is_promised_is_saved(suggested, words: Sequence[str]) -> None:
    found, really = suggested(words)
    assert really == sum(term.saved for term in found.terms) and all(term.saved > 0 for term in found.terms)


def test_a_term_that_breaks_up_longer_pieces_is_left_out(suggested) -> None:
    found, _ = suggested((*COMMON[:3], "텐서", "텐서곱", "텐서플로", "합성곱"))
    assert {term.text for term in found.terms} == {"텐서곱", "합성곱"}  # 텐서 would cost more than it saves
    found, really = suggested((*COMMON[:3], "텐서", "텐서", "텐서", "텐서", "텐서플로"))
    assert {term.text for term in found.terms} == {"텐서"} and really > 0


# ---- any words, terms and tokenizers ------------------------------------------------------------

LETTERS = "가나다라"
KINDS = {"bpe": {}, "unigram": {"model_type": "unigram"}, "spaceless": {"add_dummy_prefix": False}}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SentencePieceTokenizer]:
    folder, draw = tmp_path_factory.mktemp("tokenizers"), random.Random(4)
    lexicon = ["".join(draw.choices(LETTERS, k=draw.randint(1, 6))) for _ in range(60)]
    lines = [" ".join(draw.choices(lexicon, k=8)) for _ in range(200)]
    return {kind: tokenizer_of(folder / f"{kind}.model", lines, 60, LETTERS, **more) for kind, more in KINDS.items()}


WORDS = st.dictionaries(st.text(f"{LETTERS}.", min_size=1, max_size=8), st.integers(1, 9), min_size=1, max_size=20)
TERMS = st.lists(st.text(LETTERS, min_size=2, max_size=5), unique=True, min_size=1, max_size=8)


@settings(deadline=None)
@given(WORDS, TERMS, st.integers(1, 6), st.sampled_from([*KINDS]))
def test_the_best_terms_save_what_they_promise(
    tokenizers, tmp_path_factory, words: dict[str, int], terms: list[str], count: int, kind: str
) -> None:
    tokenizer, out = tokenizers[kind], tmp_path_factory.getbasetemp() / "named.model"
    possible = possible_names(tokenizer, [SPACE + term for term in terms])
    terms = [term for term in terms if SPACE + term in possible]
    best = Savings(tokenizer, words).best(terms, count)
    assert len(best) <= count and best.keys() <= set(terms)
    assert all(saved > 0 for saved in best.values()) and [*best.values()] == sorted(best.values(), reverse=True)
    names, texts = [SPACE + term for term in best], {f"a {word}": times for word, times in words.items()}
    try:
        assert really_saved(tokenizer, names, texts, out) == sum(best.values())
    except RecipeError as error:
        assert kind == "unigram" and "another" in str(error)  # of Unigram, which weighs pieces


@settings(deadline=None)
@given(WORDS, TERMS)
def test_one_term_saves_what_it_saves_alone(
    tokenizers, tmp_path_factory, words: dict[str, int], terms: list[str]
) -> None:
    tokenizer = tokenizers["bpe"]
    if not (possible := sorted(possible_names(tokenizer, [SPACE + term for term in terms]))):
        return
    texts = {f"a {word}": times for word, times in words.items()}
    saved = Savings(tokenizer, words).of([possible[0][1:]])
    assert saved == {
        possible[0][1:]: really_saved(tokenizer, possible[:1], texts, tmp_path_factory.getbasetemp() / "one")
    }


def test_of_terms_that_begin_alike_the_longest_is_found(tokenizers, tmp_path: Path) -> None:
    """The terms of a report on KoBERT (SKTBrain/KoBERT, issue 115), where a shorter one broke the longer one up."""
    names = ["▁시편", "▁측정", "▁시편측정", "시편", "측정", "시편측정"]
    now = rename_tokens(tokenizers["bpe"].path, list(zip(UNUSED, names)), tmp_path / "named.model")
    found = [[now.pieces[token] for token in now.encode(text)] for text in ("시편측정 측정", "가시편측정", "시편분석")]
    assert found[0] == ["▁시편측정", "▁측정"] and found[1][-1] == "시편측정" and found[2][0] == "▁시편"
