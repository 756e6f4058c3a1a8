"""Bad words: the ids that a word has in real texts, and none of them in what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.bad_words import bad_word_ids
from kogpt2_gluon.inference.filters import BadWords
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.convert_helpers import OWN_SENTENCES
from tests.tokens import json_helpers


@pytest.fixture(scope="module")
def tokenizers(small_tokenizer, tmp_path_factory) -> dict[str, Tokenizer]:
    """One of each kind: those that put a space in front of a text, and those that do not."""
    folder = tmp_path_factory.mktemp("tokenizers")
    found: dict[str, Tokenizer] = {"sentencepiece": SentencePieceTokenizer(small_tokenizer, Path("small.model"))}
    for kind in ("byte_level", "kogpt2", "unigram", "llama"):
        made = json_helpers.KINDS[kind](" ".join(OWN_SENTENCES * 3).split())  # words, so that no piece has two
        found[kind] = Tokenizer.load(json_helpers.write_json(folder / kind, made))
    return found


KINDS = ["sentencepiece", "byte_level", "kogpt2", "unigram", "llama"]


def is_completed(sequences, ids) -> bool:
    """True if a token of a text completes one of the sequences, as the filter sees it."""
    words = BadWords(sequences)
    return any(ids[place] in words.completing_tokens(ids[:place]) for place in range(len(ids)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_found_where_texts_have_it(tokenizers, kind):
    """First in a text, and after a space; nothing else in these texts is forbidden with it."""
    tokenizer, seen = tokenizers[kind], 0
    for sentence in OWN_SENTENCES:
        for word in sentence.split():
            sequences = bad_word_ids(tokenizer, [word])
            if tokenizer.unknown_in(word):
                assert not sequences
                continue
            assert is_completed(sequences, tokenizer.encode(sentence)), word
            assert is_completed(sequences, tokenizer.encode(word))
            for other in OWN_SENTENCES:
                if word not in other:
                    assert not is_completed(sequences, tokenizer.encode(other)), (word, other)
            seen += 1
    assert seen > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_in_front_finds_only_beginnings(tokenizers, kind):
    tokenizer = tokenizers[kind]
    anywhere, beginnings = bad_word_ids(tokenizer, ["김치"]), bad_word_ids(tokenizer, [" 김치"])
    inside, after_space = tokenizer.encode(".김치"), tokenizer.encode("가 김치")
    assert is_completed(anywhere, inside) and is_completed(anywhere, after_space)
    assert not is_completed(beginnings, inside) and is_completed(beginnings, after_space)
    assert set(beginnings) < set(anywhere)


def test_spellings_of_one_word_differ(tokenizers):
    """The pieces of a word after a space and inside another word (those that others' bad words missed)."""
    tokenizer = tokenizers["sentencepiece"]
    spelt = {tuple(tokenizer.pieces[token] for token in ids) for ids in bad_word_ids(tokenizer, ["김치"])}
    assert spelt == {("▁김", "치"), ("김치",)}


def test_what_has_no_word_in_it_is_refused(tokenizers):
    tokenizer = tokenizers["sentencepiece"]
    assert bad_word_ids(tokenizer, []) == () == bad_word_ids(tokenizer, ["龘"])
    assert bad_word_ids(tokenizer, ["김치", " 김치", "김치"]) == bad_word_ids(tokenizer, ["김치"])
    for empty in ("", "  "):
        with pytest.raises(RecipeError, match="it must have a character besides spaces"):
            bad_word_ids(tokenizer, ["김치", empty])
