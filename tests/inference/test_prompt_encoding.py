"""Ids of prompts and answers: those of the whole text, whatever the tokenizer, and whatever the border."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, train

EXAMPLES = "".join(f"글: {sentence}\n평가: {word}\n\n" for sentence in OWN_SENTENCES for word in ("긍정", "부정"))


@pytest.fixture(scope="module", params=["nmt_nfkc", "lossless"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train([*OWN_SENTENCES * 20, *EXAMPLES.splitlines()], 700, profile=request.param))
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> PromptEncoder:
    return PromptEncoder(tokenizer)


def test_answers_after_a_space_have_the_ids_that_the_whole_text_has(tokenizer, encoder):
    prompts = [(f"{EXAMPLES}글: {sentence}\n평가:", [" 긍정", " 부정", " 알 수 없음"]) for sentence in OWN_SENTENCES]
    for (prompt, answers), found in zip(prompts, encoder.encode(prompts)):
        own = tokenizer.encode(prompt)
        assert found.context.tolist() == [tokenizer.bos_id, *own] and not found.is_crossed
        for answer, ids in zip(answers, found.answers):
            assert [*own, *ids] == tokenizer.encode(prompt + answer)


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.text("가나 \n.:ab영화정말!  ", max_size=60),
    answers=st.lists(st.text("긍정 :.a나", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=3),
)
def test_any_prompt_and_answers_are_the_whole_text(tokenizer, encoder, prompt, answers):
    (found,) = encoder.encode([(EXAMPLES + prompt, answers)])
    own = tokenizer.encode((EXAMPLES + prompt).rstrip())
    for answer, ids in zip(answers, found.answers):
        assert [*found.context, *ids] == [tokenizer.bos_id, *tokenizer.encode(EXAMPLES + prompt + answer)]
    assert found.context.tolist()[1:] == own[: len(found.context) - 1]
    assert found.is_crossed == (len(found.context) - 1 < len(own))


def test_a_space_at_the_end_of_the_prompt_belongs_to_the_answer(encoder):
    with_space, without = encoder.encode([("이 영화는 ", ["정말", "아직"]), ("이 영화는", [" 정말", " 아직"])])
    assert with_space.context.tolist() == without.context.tolist()
    assert [ids.tolist() for ids in with_space.answers] == [ids.tolist() for ids in without.answers]


def test_an_empty_prompt_is_the_beginning_of_a_document(tokenizer, encoder):
    for prompt in ("", " ", "\n"):
        (found,) = encoder.encode([(prompt, ["긍정"])])
        assert found.context.tolist() == [tokenizer.bos_id]
        assert found.answers[0].tolist() == tokenizer.encode(prompt + "긍정")


def test_special_tokens_spelled_out_are_text(tokenizer, encoder):
    (found,) = encoder.encode([("<s> 글", [" </s>"])])
    ids = [*found.context, *found.answers[0]]
    assert ids[0] == tokenizer.bos_id and not {tokenizer.bos_id, tokenizer.eos_id} & set(ids[1:])


def test_a_piece_across_the_border_moves_it_for_all_answers(small_tokenizer, tmp_path):
    (tmp_path / "small.model").write_bytes(small_tokenizer)
    tokenizer = Tokenizer.load(tmp_path / "small.model")
    piece = next(piece for piece in tokenizer.pieces if piece.isalpha() and len(piece) == 3)  # within a word
    head, tail = piece[:1], piece[1:]
    found = next(
        found
        for start in ("", *OWN_SENTENCES)
        for found in PromptEncoder(tokenizer).encode([(f"{start} {head}", [tail, "."])])
        if found.is_crossed
    )
    both = [tokenizer.decode([*found.context[1:], *ids]) for ids in found.answers]
    assert both[0].endswith(piece) and both[1].endswith(f"{head}.")  # no character is lost, none is there twice


def test_unknown_characters_in_a_row_are_one_token_and_still_scored(tmp_path: Path, small_tokenizer: bytes) -> None:
    (tmp_path / "small.model").write_bytes(small_tokenizer)
    tokenizer = Tokenizer.load(tmp_path / "small.model")
    (found,) = PromptEncoder(tokenizer).encode([("이 영화는 龘", ["鱻", " 좋다"])])
    assert tokenizer.encode("龘") == tokenizer.encode("龘鱻")
    assert found.answers[0].tolist() == [tokenizer.unk_id] and found.is_crossed
    assert found.answers[1].tolist() == [tokenizer.unk_id, *tokenizer.encode("좋다")]


def test_an_answer_without_a_token_is_named(tmp_path: Path, small_tokenizer: bytes) -> None:
    (tmp_path / "small.model").write_bytes(small_tokenizer)
    encoder = PromptEncoder(Tokenizer.load(tmp_path / "small.model"))
    for answer in ("", " ", "\n\n"):
        with pytest.raises(DataError, match=r"the answer .* adds no token to its prompt, which ends in '이 영화는'"):
            encoder.encode([("이 영화는", ["좋다", answer])])
    with pytest.raises(DataError, match="half of a surrogate pair"):
        encoder.encode([("이 영화는 \ud800", ["좋다"])])
