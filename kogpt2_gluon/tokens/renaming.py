"""Gives unused tokens a name: ``<unused7>`` becomes 리뷰어 ("reviewer"), so that a domain's term is one token.

All other ids stay the same, and so does the size of the vocabulary, so a trained model keeps all rows of its embedding.
The rows of the renamed tokens hold whatever the row of an unused token holds, until training learns them. A text
without the term keeps its ids.

A renamed token is found before any other piece, wherever its letters are, also inside a longer word. Spelled with
U+2581 in front (``▁리뷰어``), it is found only after a space or at the start of the text, and the space is part of it:
" 리뷰어는" is then two tokens, while plain 리뷰어 leaves the space as one more. Both spellings may have a token.

The new file has another SHA-256. Shards record the tokenizer that they were made with, so older shards are refused with
the new file: make them again (`kogpt2 shard`). A checkpoint holds a copy of its own tokenizer and does not change.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from kogpt2_gluon.tokens.tokenizer import SPACE, UNUSED, Tokenizer
from kogpt2_gluon.tokens.training import RESERVED
from kogpt2_gluon.user_files import read_user_text
from kogpt2_gluon.wording import gigabytes

USER_DEFINED = 4  # ModelProto.SentencePiece.Type
SPECIAL = re.compile(r"<(?:s|/s|unk|pad|unused\d+|0x[0-9A-Fa-f]{2})>")


def parse_renaming(text: str) -> tuple[str, str]:
    """Parses ``<unused7>=리뷰어`` to (unused token, term); RecipeError if the text has another form."""
    token, sign, term = text.partition("=")
    if not sign or not UNUSED.fullmatch(token):
        raise RecipeError(f"--token {text!r}: write it as '<unused7>=TERM'")
    return token, term


def read_renamings(path: Path) -> list[tuple[str, str]]:
    """Reads a renaming a line, as `kogpt2 tokenizer suggest` writes them; empty lines and those with # are left out.

    RecipeError if the file cannot be read, or a line has another form.
    """
    found = []
    for number, line in enumerate(read_user_text(path, "--from").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            found.append(parse_renaming(line.strip()))
        except RecipeError:
            raise RecipeError(f"--from {path}, line {number}: {line[:40]!r}: write it as <unused7>=TERM") from None
    return found


def possible_names(tokenizer: SentencePieceTokenizer, terms: Iterable[str]) -> set[str]:
    """Returns those of the terms that an unused token of the tokenizer can have as its name, each by itself."""
    ids = {piece: token for token, piece in enumerate(tokenizer.pieces)}
    learnt, possible = set(ids), set()
    for term in terms:
        with suppress(RecipeError):
            _check_term(term, "", tokenizer)
            _check_new(term, "", ids, learnt)
            possible.add(term)
    return possible


def rename_tokens(model: Path, renamings: Sequence[tuple[str, str]], out: Path) -> Tokenizer:
    """Writes the tokenizer `model` with renamed tokens to `out`, whole or not at all; returns the new tokenizer.

    `renamings` are pairs (``<unusedN>``, term). RecipeError for a token that does not exist or is renamed already, and
    for a term that is empty, already a piece, given twice, or not spelled as the tokenizer spells it (the message says
    how); DataError for a file that is not a SentencePiece model.
    """
    if not renamings:
        raise RecipeError("no --token to rename; write it as '<unused7>=TERM', or name a list of them: --from FILE")
    tokenizer = Tokenizer.load(model)
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise RecipeError(f"{model}: tokens can be renamed in a SentencePiece model, and this is a tokenizer.json")
    proto = model_proto(tokenizer.stored.content, model)
    ids = {piece.piece: token for token, piece in enumerate(proto.pieces)}
    learnt = {piece.piece for piece in proto.pieces if piece.type != USER_DEFINED}
    _check_twice(renamings)
    chosen = []
    for token, term in renamings:
        option = f"--token {f'{token}={term}'!r}"
        if token not in ids:
            raise RecipeError(f"{option}: {model} has no {token}; {_what_became(token, proto, tokenizer)}")
        _check_term(term, option, tokenizer)
        _check_new(term, option, ids, learnt)
        chosen.append((ids[token], term))
    for index, term in chosen:
        proto.pieces[index].piece = term
        proto.pieces[index].type = USER_DEFINED
    content: bytes = proto.SerializeToString()
    _check_result(SentencePieceTokenizer(content, out), chosen)
    need = f"the tokenizer needs {gigabytes(len(content))}; make room, or choose another --out"
    with full_disk_named(out.parent, lambda: need):
        write_file(out, content)
    return Tokenizer.load(out)


def _check_twice(renamings: Sequence[tuple[str, str]]) -> None:
    for what, names in (("token", [token for token, _ in renamings]), ("term", [term for _, term in renamings])):
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(f"--token: the {what} {name!r} is given twice")


def _what_became(token: str, proto: Any, tokenizer: Tokenizer) -> str:
    """Says why there is no such unused token: it has a name already, or there never was one."""
    symbols = list(proto.trainer_spec.user_defined_symbols)  # the names in training: renaming does not change them
    names = [piece.piece for piece in proto.pieces if piece.type == USER_DEFINED]
    if token in symbols and len(symbols) == len(names):
        return f"it is renamed already, to {names[symbols.index(token)]!r}"
    left = tokenizer.unused
    return f"its unused tokens are {left[0]} to {left[-1]}" if left else "it has no unused tokens (left)"


def _check_term(term: str, option: str, tokenizer: Tokenizer) -> None:
    """Raises RecipeError unless the term is spelled as this tokenizer spells texts."""
    text = term[1:] if term.startswith(SPACE) else term
    if not text.strip():
        raise RecipeError(f"{option}: the term is empty")
    if SPECIAL.search(term) or RESERVED in term:
        raise RecipeError(f"{option}: {RESERVED} (U+2585) and names such as <s>, <unused8> and <0x41> are reserved")
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in term):
        raise RecipeError(f"{option}: the term has a control character")
    if " " in term:
        raise RecipeError(f"{option}: a space inside a piece is spelled U+2581: write {term.replace(' ', SPACE)!r}")
    if text[0] == SPACE or text[-1] == SPACE or SPACE * 2 in text:
        raise RecipeError(f"{option}: U+2581 stands for one space before or within the term")
    if unicodedata.category(text[0]).startswith("M") or "\u1160" <= text[0] <= "\u11ff":
        raise RecipeError(
            f"{option}: a term cannot begin with a mark or a part of a syllable, which joins the character before it"
        )
    spelt = tokenizer.normalize(f"a{text.replace(SPACE, ' ')}a").replace(" ", SPACE)
    if spelt != f"a{text}a":
        raise RecipeError(f"{option}: normalised text never has that term; it becomes {spelt[1:-1]!r}")


def _check_new(term: str, option: str, ids: dict[str, int], learnt: set[str]) -> None:
    if term in ids:
        raise RecipeError(f"{option}: it is a piece already, id {ids[term]}")
    if SPACE + term in learnt:  # the new token would break up that piece: it is found first, and has no space
        raise RecipeError(
            f"{option}: {term!r} is already one token after a space (id {ids[SPACE + term]}); choose another term"
        )


def _check_result(tokenizer: Tokenizer, chosen: Sequence[tuple[int, str]]) -> None:
    """Checks the edited model: the tokens of each term, as a text, include its id."""
    for token, term in chosen:
        text = f"a{term.replace(SPACE, ' ')}a"
        if tokenizer.pieces[token] != term or token not in tokenizer.encode(text):
            raise RecipeError(f"--token: {term!r} would not be found in texts: another named token is found first")
