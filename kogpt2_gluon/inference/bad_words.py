"""The ids of words that must not be written."""

from __future__ import annotations

from collections.abc import Sequence

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.tokens.tokenizer import Tokenizer

# What a word may follow: the ids of a word in a text depend on it. A word's own after each of them are collected.
BEFORE = ("가", ".", "a", "1", "\n")


def bad_word_ids(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Returns the sequences of ids that words become in a text, for `bad_words` of Sampling.

    A word is found at the beginning of another word and inside of one; written with a space in front, only at the
    beginning. The ids are those that the tokenizer makes of it: a network can still spell a word with other pieces, or
    as a part of a longer piece. A word that the tokenizer cannot spell has none, since a text never has it.

    RecipeError for an empty word.
    """
    sequences: dict[tuple[int, ...], None] = {}
    for word in words:
        bare = word.strip()
        if not bare:
            raise RecipeError(f"bad word {word!r}: it must have a character besides spaces")
        for ids in _spellings(tokenizer, bare, only_after_space=word[0].isspace()):
            if tokenizer.unk_id not in ids:
                sequences[tuple(ids)] = None
    return tuple(sequences)


def _spellings(tokenizer: Tokenizer, word: str, only_after_space: bool) -> list[list[int]]:
    """Returns the ids of a word in front of a text, after a space, and, unless it is not to be, after a letter."""
    found = [tokenizer.encode(word)] if tokenizer.adds_space or not only_after_space else []
    for before in BEFORE:
        own = tokenizer.encode(before)
        for between in (" ",) if only_after_space else (" ", ""):
            whole = tokenizer.encode(before + between + word)
            if whole[: len(own)] == own:  # else a piece crosses the border, and the word has no ids of its own
                found.append(whole[len(own) :])
    return [ids for ids in found if ids]
