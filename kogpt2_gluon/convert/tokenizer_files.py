"""The tokenizer's files in a converted folder: made from a SentencePiece model, or copied if it is a tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from kogpt2_gluon.convert.tokenizer_json import SentencePieceBPE, tokenizer_json
from kogpt2_gluon.convert.usage import morpheme_usage, usage
from kogpt2_gluon.convert.vendored_code import module_file
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.tokenizer_file import (
    CONFIG,
    MORPHEMES,
    TOKENIZER_JSON,
    is_json,
    library_errors,
    read_limited,
    read_tokenizer_json,
)
from kogpt2_gluon.storage.tokenizer_file import MAP as SPECIAL

SPIECE = "spiece.model"
CUTTING = "morphemes.py"  # the step before tokenizer.json, which cannot hold a morpheme analyzer
# What a folder may have next to tokenizer.json; copied with it.
BESIDE = (CONFIG, SPECIAL, "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja")


class TokenizerFiles(Protocol):
    """A tokenizer that can be written into a converted folder."""

    path: Path
    ids: dict[str, int]  # of every piece
    special_tokens: dict[str, str]  # transformers' name of it, such as "bos_token": the piece
    description: str  # a sentence for the card
    cutting: str  # a section of the card: what cuts texts before the tokenizer gets them; "" if nothing does

    def usage(self, max_length: int, bos: bool) -> str:
        """A section of the card about other tools."""

    def files(self, max_length: int, bos: bool = False) -> dict[str, bytes]:
        """{file name: content}; with `bos`, each text begins with that token by itself.

        DataError if the tokenizer cannot be written so that it gives the same ids.
        """


def read_tokenizer(path: Path) -> TokenizerFiles:
    """Reads a SentencePiece model or a tokenizer.json. DataError if it is neither, or cannot be converted."""
    return FromJson(path) if is_json(read_limited(path)) else FromSentencePiece(path)


class FromSentencePiece:
    """The files of a SentencePiece model; the model itself is one, so that a conversion back has it."""

    cutting = ""

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

    def usage(self, max_length: int, bos: bool) -> str:
        """A section of the card about other tools."""
        return usage(self.special_tokens["bos_token"], self.special_tokens["eos_token"], max_length, bos) + "\n"

    def files(self, max_length: int, bos: bool = False) -> dict[str, bytes]:
        """{file name: content}."""
        return {
            TOKENIZER_JSON: tokenizer_json(self._source, bos).encode(),
            CONFIG: _json(
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",  # without it transformers uses GPT-2's byte-level one
                    "model_max_length": max_length,
                    "split_special_tokens": True,  # "</s>" in a text is text, as in SentencePiece
                    "clean_up_tokenization_spaces": False,
                    # transformers 4 would make token_type_ids too, and add their embeddings to those of the tokens
                    "model_input_names": ["input_ids", "attention_mask"],
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
        self._file = read_tokenizer_json(read_limited(path), path)
        with library_errors(path, "cannot read it"):
            self.ids: dict[str, int] = Tokenizer.from_str(self._file.content.decode()).get_vocab(with_added_tokens=True)
        self._copied = {name: (path.parent / name).read_bytes() for name in BESIDE if (path.parent / name).is_file()}
        self.special_tokens = self._file.special
        self.special_symbols = self._file.special_symbols
        self.description = f"A `tokenizers` file with {len(self.ids):,} pieces, as it was."
        self._analyzer = self._file.morphemes
        if self._analyzer:
            self.description += f" It needs `{CUTTING}`, which cuts a text at morphemes first."
        self.cutting = morpheme_usage(self._analyzer) + "\n" if self._analyzer else ""

    def usage(self, max_length: int, bos: bool) -> str:
        """Returns nothing: what holds for such a file is for its maker to say."""
        return ""

    def files(self, max_length: int, bos: bool = False) -> dict[str, bytes]:
        """{file name: content}. RecipeError with `bos`, since the file is copied as it is."""
        if bos:
            raise RecipeError(f"--bos: {self.path} is copied as it is; leave it out")
        made = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_length,
            "split_special_tokens": not self.special_symbols,  # they are text, and would not be found
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],  # as above
            **self.special_tokens,
        }
        made_here = {CONFIG: _json(made), SPECIAL: _json(self.special_tokens)}
        files = {TOKENIZER_JSON: self._file.content, **made_here, **self._copied}
        if self._analyzer:
            files[CONFIG] = _json({**json.loads(files[CONFIG]), MORPHEMES: self._analyzer})
            files[CUTTING] = module_file("kogpt2_gluon.tokens.morphemes")
        return files


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
