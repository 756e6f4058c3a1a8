"""The tokenizer's files in a converted folder: made from a SentencePiece model, or copied if it is a tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE, tokenizer_json
from kogpt2_gluon.errors import DataError

SPIECE, TOKENIZER_JSON = "spiece.model", "tokenizer.json"
CONFIG, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
# What a folder may have next to tokenizer.json; copied with it.
BESIDE = (CONFIG, SPECIAL, "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja")
# Where a file names no special tokens, the first of these that it has.
USUAL = {
    "bos_token": ("<s>", "<|endoftext|>", "[BOS]", "</s>"),
    "eos_token": ("</s>", "<|endoftext|>", "[EOS]"),
    "unk_token": ("<unk>", "[UNK]", "<|endoftext|>"),
    "pad_token": ("<pad>", "[PAD]"),
}


class TokenizerFiles(Protocol):
    """A tokenizer that can be written into a converted folder."""

    path: Path
    ids: dict[str, int]  # of every piece
    special_tokens: dict[str, str]  # transformers' name of it, such as "bos_token": the piece
    description: str  # a sentence for the card

    def files(self, max_length: int) -> dict[str, bytes]:
        """{file name: content}. DataError if the tokenizer cannot be written so that it gives the same ids."""


def read_tokenizer(path: Path) -> TokenizerFiles:
    """Reads a SentencePiece model or a tokenizer.json. DataError if it is neither, or cannot be converted."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()[:1]
    except OSError as error:
        raise DataError(f"tokenizer {path}: cannot be read: {error.strerror}") from None
    return FromJson(path) if start == b"{" else FromSentencePiece(path)


class FromSentencePiece:
    """The files of a SentencePiece model; the model itself is one, so that a conversion back has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._source = SentencePieceBPE(path)
        self.ids = self._source.ids
        normalisation = self._source.proto.normalizer_spec.name or "identity"
        self.description = (
            f"SentencePiece BPE, {len(self.ids):,} pieces, normalisation `{normalisation}`, written as a `tokenizers`\n"
            "  file that gives the same ids."
        )
        found = {f"{name}_token": getattr(self._source, name) for name in ("bos", "eos", "unk", "pad")}
        self.special_tokens = {name: piece for name, piece in found.items() if piece is not None}

    def files(self, max_length: int) -> dict[str, bytes]:
        """{file name: content}."""
        return {
            TOKENIZER_JSON: tokenizer_json(self._source).encode(),
            CONFIG: _json(
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",  # without it transformers uses GPT-2's byte-level one
                    "model_max_length": max_length,
                    "split_special_tokens": True,  # "</s>" in a text is text, as in SentencePiece
                    "clean_up_tokenization_spaces": False,
                    **self.special_tokens,
                }
            ),
            SPECIAL: _json(self.special_tokens),
            SPIECE: self._source.content,
        }


class FromJson:
    """A tokenizer.json, copied as it is with the files next to it that say what its special tokens are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._content = path.read_bytes()
            tokenizer = Tokenizer.from_str(self._content.decode())
            self.ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        except Exception as error:  # the library raises Exception itself
            raise DataError(f"tokenizer {path}: not a tokenizer.json ({str(error)[:200]})") from None
        self._copied = {name: (path.parent / name).read_bytes() for name in BESIDE if (path.parent / name).is_file()}
        named = {**self._read(SPECIAL), **self._read(CONFIG)}
        self.special_tokens = {}
        for name, usual in USUAL.items():
            piece = named[name].get("content") if isinstance(named.get(name), dict) else named.get(name)
            known = [each for each in (piece, *usual) if isinstance(each, str) and each in self.ids]
            if known:
                self.special_tokens[name] = known[0]
        self.description = f"A `tokenizers` file with {len(self.ids):,} pieces, as it was."

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._copied.get(name, b"{}"))
        except (ValueError, RecursionError):
            raise DataError(f"{self.path.parent / name}: not JSON, or damaged") from None
        return content if isinstance(content, dict) else {}

    def files(self, max_length: int) -> dict[str, bytes]:
        """{file name: content}."""
        made = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, **self.special_tokens}
        made_here = {CONFIG: _json(made), SPECIAL: _json(self.special_tokens)}
        return {TOKENIZER_JSON: self._content, **made_here, **self._copied}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
