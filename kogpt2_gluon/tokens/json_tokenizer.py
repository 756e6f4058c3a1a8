"""A tokenizer.json as a tokenizer: BPE (byte-level or over characters) and Unigram models, by the `tokenizers` library.

The ids are those that transformers gives without special tokens and with ``split_special_tokens``, with these rules:

- No text can insert a control token. Control tokens are the four that :mod:`kogpt2_gluon.storage.tokenizer_file` finds
  (begin, end, unknown, padding) and all added tokens that are marked as special and have a name in brackets, such as
  ``<usr>``, ``<|im_start|>`` or ``[MASK]``. Written out in a text they are spelled with ordinary pieces. All other
  added tokens are found in texts: the special ones of KoGPT2 include emoticons, :-) and ^^, which are nothing but text.
- What the file says about truncation, padding, templates (``<s>`` in front of each text) and BPE-dropout is left out.
- A character that the vocabulary cannot spell becomes the unknown token, also where the model does not name it:
  `tokenizers` would drop the character without a trace. A file that has neither all bytes nor such a token is refused.

Texts come back from a table of the bytes of each id, so that a character of several byte pieces comes back whole. When
a file is loaded, the table is compared with the library's own decoder, and the pre-tokenizer is checked to keep all of
a text, or all but runs of spaces; a file of another kind, such as one that drops the spaces between words, is refused.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, repeat, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.tokenizer_file import (
    TOKENIZER_JSON,
    StoredTokenizer,
    TokenizerJson,
    library_errors,
    read_tokenizer_json,
)
from kogpt2_gluon.tokens.incremental import IncrementalDecoder, SpellingDecoder
from kogpt2_gluon.tokens.tokenizer import UNKNOWN_TEXT, Tokenizer, check_unicode

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
LARGEST_VOCABULARY = 1 << 24  # ids; a file with one huge id must not cost a table of that size
PROBE = "a b  c\n1,2\t나 다. (x)"
PARTS = ("normalizers", "pretokenizers", "decoders")  # where a Sequence has its steps
NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


def byte_alphabet() -> dict[str, int]:
    """Returns the character of each byte in byte-level pieces, as GPT-2 has it: printable ones are their own."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + place): byte for place, byte in enumerate(others)}


def steps_of(part: Any) -> list[dict[str, Any]]:
    """Returns the steps of a normalizer, pre-tokenizer or decoder, in order, without the sequences around them."""
    if not isinstance(part, dict):
        return []
    inner = next((part[name] for name in PARTS if isinstance(part.get(name), list)), None)
    return [part] if inner is None else [step for each in inner for step in steps_of(each)]


class Spelling:
    """How the pieces of a file spell bytes: by a byte alphabet, or as text with a sign for a space.

    Attributes
    ----------
    byte_level : bool
    space : str
        The sign for a space; " " if there is none.
    has_bytes : bool
        True if pieces such as ``<0xEA>`` are bytes.
    """

    def __init__(self, plain: dict[str, Any]) -> None:
        normalizer, cuts = steps_of(plain.get("normalizer")), steps_of(plain.get("pre_tokenizer"))
        before = [*normalizer, *cuts]
        spaces = [step.get("replacement") for step in before if step.get("type") == "Metaspace"]
        spaces += [step.get("content") for step in normalizer if step.get("pattern") == {"String": " "}]
        self.byte_level = any(step.get("type") == "ByteLevel" for step in before)
        self.space = next((sign for sign in spaces if isinstance(sign, str) and len(sign) == 1), " ")
        self.has_bytes = bool(plain["model"].get("byte_fallback"))
        self._alphabet = byte_alphabet()
        self._normalizes_to_bytes = any(step.get("type") == "ByteLevel" for step in normalizer)

    def of_piece(self, piece: str) -> bytes:
        """Returns the UTF-8 that a piece adds to a text."""
        if self.byte_level:
            values = [self._alphabet.get(sign, -1) for sign in piece]
            return piece.encode() if -1 in values else bytes(values)
        match = BYTE_PIECE.fullmatch(piece) if self.has_bytes else None
        return bytes([int(match[1], 16)]) if match else piece.replace(self.space, " ").encode()

    def of_normalized(self, text: str) -> bytes:
        """Returns the UTF-8 of a normalised text, with plain spaces."""
        if self._normalizes_to_bytes:
            return self.of_piece(text)
        return (text if self.byte_level else text.replace(self.space, " ")).encode()

    def decoder(self) -> dict[str, Any] | None:
        """Returns the decoder for a file that has none, where its pre-tokenizer says which."""
        if self.byte_level:
            return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        if self.space != " ":
            return {"type": "Replace", "pattern": {"String": self.space}, "content": " "}
        return None

    def spells_everything(self, vocab: dict[str, int]) -> bool:
        """Returns True if the vocabulary has every byte that UTF-8 can have."""
        if self.byte_level:
            return all(sign in vocab for sign, byte in self._alphabet.items() if byte not in NEVER_IN_UTF8)
        return self.has_bytes and all(f"<0x{byte:02X}>" in vocab for byte in range(256))


def for_library(file: TokenizerJson, hidden: dict[str, str], spelling: Spelling) -> dict[str, Any]:
    """Returns a file's content for the library: without some settings, and with control tokens under `hidden` names.

    A model can have control tokens among its pieces, and some models would then find them in a text: Unigram, and BPE
    that looks up whole words or has learnt to make them. Under names that nobody knows they are in no text.
    """
    model = {name: value for name, value in file.plain["model"].items() if name not in ("alpha", "nbest_size")}
    vocab, unknown = file.vocabulary, file.special.get("unk_token")
    has_unknown = unknown in vocab
    if isinstance(model["vocab"], dict):
        model["dropout"] = None
        model["vocab"] = {hidden.get(piece, piece): token for piece, token in vocab.items()}
        model["merges"] = [merge for merge in model.get("merges", []) if not _makes_any(merge, hidden)]
        model["unk_token"] = hidden[unknown] if unknown is not None and has_unknown else None
    else:
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
        model["unk_id"] = vocab[unknown] if unknown is not None and has_unknown else None
    left = {piece: token for piece, token in vocab.items() if piece not in hidden}
    if not has_unknown and (isinstance(model["vocab"], list) or not spelling.spells_everything(left)):
        raise DataError(
            f"{file.path}: it can neither spell every byte nor has it a token for unknown text, so characters would be "
            'lost; name such a token in special_tokens_map.json next to it: {"unk_token": "<unk>"}'
        )
    added = [
        {**token, "content": hidden.get(token["content"], token["content"]), "special": False}
        for token in file.plain.get("added_tokens", [])
    ]
    return {
        **file.plain,
        **dict.fromkeys(("truncation", "padding", "post_processor")),
        "decoder": file.plain.get("decoder") or spelling.decoder(),
        "added_tokens": [{**token, "normalized": False} if token["content"] in hidden else token for token in added],
        "model": model,
    }


def with_what_joined(offsets: Sequence[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Returns the characters (first, last + 1) of tokens, with those that a normalizer joined to the character before.

    The library gives a composed character, such as a syllable of three letters of Hangul, the place of the first one
    only (findings/tokenizers_composed_character_has_the_place_of_its_first.sh). So a token ends where the next one
    begins, or at white space, which a pre-tokenizer may drop.
    """
    begins = sorted({begin for begin, end in offsets if begin < end})
    ends: dict[int, int] = {}
    for last in {end for begin, end in offsets if begin < end}:
        place = bisect_left(begins, last)
        gap = text[last : begins[place] if place < len(begins) else len(text)]
        ends[last] = last + len("".join(takewhile(lambda sign: not sign.isspace(), gap)))
    return [(begin, ends[end] if begin < end else end) for begin, end in offsets]


def _makes_any(merge: Any, names: dict[str, str]) -> bool:
    """Returns True if a merge makes or takes one of some pieces; it is "a b" or, in newer files, ["a", "b"]."""
    try:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        return left in names or right in names or left + right in names
    except (TypeError, ValueError):  # the library will refuse it
        return False


class JsonTokenizer(Tokenizer):
    """A tokenizer.json that turns text to ids and back.

    DataError, in one line, if it is damaged, of a kind that this program does not know, or does not say what ends a
    document.
    """

    def __init__(self, file: TokenizerJson) -> None:
        path = file.path
        super().__init__(StoredTokenizer(TOKENIZER_JSON, file.content), path)
        # A process uses one thread, as for SentencePiece: the work is shared out among processes. With this setting
        # the library also has no threads that a fork would lose, and prints no warning about it.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._spelling = Spelling(file.plain)
        hidden = {name: f"<{secrets.token_hex(16)}>" for name in file.controls}
        plain = for_library(file, hidden, self._spelling)
        with library_errors(path, "cannot read it"):
            self._library = tokenizers.Tokenizer.from_str(json.dumps(plain))
            found = self._library.get_vocab(with_added_tokens=True)
        self._name_ids(found, {hidden_name: name for name, hidden_name in hidden.items()}, file)
        self._encode_batch = getattr(self._library, "encode_batch_fast", self._library.encode_batch)
        with library_errors(path, "cannot use it"):
            self.adds_space = self._check_pre_tokenizer()
            self._check_decoder()

    @staticmethod
    def read(content: bytes, path: Path) -> JsonTokenizer:
        """Reads the content of a tokenizer.json, also of one whose text is cut at morphemes."""
        file = read_tokenizer_json(content, path)
        if file.morphemes is None:
            return JsonTokenizer(file)
        from kogpt2_gluon.tokens.morpheme_tokenizer import MorphemeTokenizer  # it is a JsonTokenizer

        return MorphemeTokenizer(file, file.morphemes)

    def _name_ids(self, found: dict[str, int], names: dict[str, str], file: TokenizerJson) -> None:
        """Makes the tables of ids; `found` are the library's, `names` the control tokens by the names it has."""
        self.vocab_size = max(found.values(), default=-1) + 1
        if self.vocab_size > LARGEST_VOCABULARY:
            raise DataError(f"{self.path}: it has an id of {self.vocab_size - 1:,}; the largest is 2^24 - 1")
        if len(set(found.values())) < len(found):  # the library numbers added tokens by the count of the others
            raise DataError(f"{self.path}: an added token gets the id of a piece, as the model's ids have holes")
        ids = {names.get(piece, piece): token for piece, token in found.items()}
        self._pieces = [""] * self.vocab_size
        for piece, token in ids.items():
            self._pieces[token] = piece
        self._special = {ids[name] for name in names.values() if name in ids}
        added = {token["content"] for token in file.plain.get("added_tokens", [])} & ids.keys()
        self._symbols = {ids[name] for name in added} - self._special
        self._beyond = {ids[name] for name in added - file.vocabulary.keys()}
        self.bos_id, self.eos_id = ids[file.special["bos_token"]], ids[file.special["eos_token"]]
        self.unk_id, self.pad_id = (ids.get(file.special.get(role, "")) for role in ("unk_token", "pad_token"))

    def _check_pre_tokenizer(self) -> bool:
        """Returns True if a space is put before a text; DataError if a text would lose more than runs of spaces."""
        normalized = self._normalized(PROBE)
        cuts = self._library.pre_tokenizer
        parts = [part for part, _ in cuts.pre_tokenize_str(normalized)] if cuts else [normalized]
        text, expected = b"".join(map(self._spelling.of_piece, parts)), self._spelling.of_normalized(normalized)
        if text.split() != expected.split():
            raise DataError(
                f"{self.path}: its pre-tokenizer drops or changes characters, such as spaces, so no text could be "
                f"written with it: {PROBE!r} becomes {text.decode()!r}"
            )
        return text.startswith(b" ")

    def _check_decoder(self) -> None:
        """Raises DataError if the library writes a piece in another way than the table of bytes."""
        texts = self.spellings
        plain = [token for token, piece in enumerate(self._pieces) if piece and token not in self._symbols]
        plain = [token for token in plain if token not in self._special]
        if self._spelling.has_bytes:  # the library writes one U+FFFD for each byte of half a character
            plain = [token for token in plain if not BYTE_PIECE.fullmatch(self._pieces[token])]
        starts = ((token, texts[token].decode("utf-8", "replace")[:1]) for token in plain)
        first = next((token for token, start in starts if start.isalnum()), None)  # its start is never stripped
        if first is None:
            raise DataError(f"{self.path}: it has no piece that begins with a letter or a digit")
        written = self._library.decode([first, *plain], skip_special_tokens=False)
        if written == b"".join(texts[token] for token in [first, *plain]).decode("utf-8", "replace"):
            return
        singly = self._library.decode_batch([[first, token] for token in plain], skip_special_tokens=False)
        expected = [(texts[first] + texts[token]).decode("utf-8", "replace") for token in plain]
        differ = (each for each in zip(plain, singly, expected) if each[1] != each[2])
        token, text, ours = next(differ, (first, written[:40], "another text"))
        raise DataError(
            f"{self.path}: its decoder is of a kind that this program does not know: piece {self._pieces[token]!r} "
            f"after {self._pieces[first]!r} is written {text!r}, and {ours!r} was expected"
        )

    @cached_property
    def pieces(self) -> list[str]:
        """The pieces of all ids, as the file spells them; "" for an id that no piece has."""
        return self._pieces

    @cached_property
    def spellings(self) -> list[bytes]:
        """The UTF-8 that each id adds to a text."""
        return [self._spell(token, piece) for token, piece in enumerate(self._pieces)]

    def _spell(self, token: int, piece: str) -> bytes:
        if token in self._special:
            return b""
        # An added token that the model does not have is a text; one that it has too is spelled as the model spells it.
        is_text = self._spelling.byte_level and token in self._beyond
        return piece.encode() if is_text else self._spelling.of_piece(piece)

    @cached_property
    def byte_ids(self) -> NDArray[np.bool_]:
        """True for ``<0xEA>`` and the like, or the byte-level pieces that are one byte of a wide character."""
        if self._spelling.byte_level:
            return np.array([len(text) == 1 and text[0] >= 0x80 for text in self.spellings], bool)
        matches = [self._spelling.has_bytes and BYTE_PIECE.fullmatch(piece) is not None for piece in self._pieces]
        return np.array(matches, bool)

    @cached_property
    def keeps_newlines(self) -> bool:
        """True if a line end comes back."""
        return "\n" in self.decode(self.encode("a\nb"))

    def is_special(self, token: int) -> bool:
        """Returns True for a control token."""
        return token in self._special

    def unknown_in(self, text: str) -> list[str]:
        """Returns the parts of a text that become the unknown token."""
        if self.unk_id is None:
            return []
        with self._usable([text]):
            encoding = self._library.encode(text, add_special_tokens=False)
        pairs = zip(encoding.ids, with_what_joined(encoding.offsets, text))
        return [text[start:end] for token, (start, end) in pairs if token == self.unk_id]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text. DataError if one is not valid Unicode, or the library fails on it."""
        with self._usable(texts):
            return [encoding.ids for encoding in self._encode_batch(list(texts), add_special_tokens=False)]

    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Returns the ids of each text and the characters that each id stands for; see Tokenizer."""
        with self._usable(texts):
            encodings = self._library.encode_batch(list(texts), add_special_tokens=False)
        return [
            (list(encoding.ids), with_what_joined(encoding.offsets, text)) for encoding, text in zip(encodings, texts)
        ]

    def encode_flat(self, texts: Sequence[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Returns the ids of many texts in one array, and the number of ids of each."""
        rows = self.encode_batch([text.decode() for text in texts])
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths

    @contextmanager
    def _usable(self, texts: Sequence[str]) -> Iterator[None]:
        """Says which texts are not valid Unicode, or that the library failed on a text."""
        try:
            with library_errors(self.path, "failed on a text"):
                yield
        except DataError:
            check_unicode(texts)
            raise

    def _decode(self, ids: list[int]) -> str:
        return self._write(ids, repeat(UNKNOWN_TEXT))

    def incremental_decoder(self) -> IncrementalDecoder:
        """Returns what decodes one text id by id."""
        return SpellingDecoder(self._written, self.adds_space)

    @cached_property
    def _written(self) -> list[bytes]:
        """The bytes that each id writes: its spelling, and a sign for what is unknown."""
        unknown = UNKNOWN_TEXT.encode()
        return [unknown if token == self.unk_id else text for token, text in enumerate(self.spellings)]

    def _write(self, ids: list[int], unknown: Iterator[str]) -> str:
        """Returns the text of ids, with the next of `unknown` for each that is unknown."""
        spellings = self.spellings
        text = b"".join([next(unknown).encode() if token == self.unk_id else spellings[token] for token in ids])
        return (text.removeprefix(b" ") if self.adds_space else text).decode("utf-8", "replace")

    def normalize(self, text: str) -> str:
        """Returns the text that comes back from a text's ids, with the parts that have no piece as they were.

        This is not always what the file's normalizer makes of it: a pre-tokenizer can drop spaces too, and a normalizer
        can put a sign in the place of what has no piece.
        """
        if not self._spelling.byte_level:
            return self._write(self.encode(text), iter(self.unknown_in(text)))
        with self._usable([text]):  # an unknown byte is a part of a character
            spelt = self._spelling.of_normalized(self._normalized(text)).decode("utf-8", "replace")
        return spelt.removeprefix(" ") if self.adds_space else spelt

    def _normalized(self, text: str) -> str:
        return self._library.normalizer.normalize_str(text) if self._library.normalizer else text
