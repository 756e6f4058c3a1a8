"""Converts a SentencePiece BPE model to a `tokenizers` tokenizer (tokenizer.json) that gives the same ids.

``sp.encode(text)`` takes these steps: it sets user-defined symbols apart; it normalises the rest by a table (the
precompiled charsmap); it strips spaces and makes one of each run of them; it writes each space as U+2581, and one more
in front; then it joins the adjacent pair of symbols whose concatenation is the piece of the highest score, leftmost
first, until there is no such pair. Each step has a counterpart here, and each choice below says where the two libraries
differ.

Special tokens in a text are text: `<s>`, `</s>` and `<pad>` written out in it are spelled with ordinary pieces, as in
SentencePiece. `tokenizers` itself looks for them in the text. transformers does not if its tokenizer_config.json says
``split_special_tokens`` (see :mod:`kogpt2_gluon.convert.huggingface`), nor does a bare tokenizer whose
``encode_special_tokens`` is set.

All known differences are in normalising unusual text. NFC may order or compose several combining marks on one letter,
or one mark on a compatibility character such as a Roman numeral, where SentencePiece's table does not; and the
noncharacters U+FDD0 and U+FDD1 are dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from kogpt2_gluon.errors import DataError

SPACE = "\u2581"  # SentencePiece's visible space
START = Regex(r"\A(?=[\s\S])")  # of a text that is not empty. Not Prepend: transformers.js prepends to empty ones too
BREAK, WALL = "\ufdd0", "\ufdd1"  # noncharacters that keep two characters apart for a moment
LINE_END, OTHER = "\ufdd2", "\ufdd3"  # LINE_END replaces a line end, so that it does not become a space
TABLES = ("nmt_nfkc", "nmt_nfkc_jamo", "nmt_nfkc_cf", "nfkc", "nfkc_cf")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # ModelProto.SentencePiece.Type


class SentencePieceBPE:
    """A SentencePiece BPE model that can be converted, read from its file.

    `ids` maps every piece to its id; `unk`, `bos`, `eos` and `pad` are pieces, or None if the model has no such piece.
    Raises DataError, naming the file and the reason, if it cannot be converted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processor = sentencepiece.SentencePieceProcessor()
        self.proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at run time
        try:
            content = path.read_bytes()
            self.processor.load_from_serialized_proto(content)
            self.proto.ParseFromString(content)
        except OSError as error:
            raise DataError(f"tokenizer {path}: cannot be read: {error.strerror}") from None
        except Exception:  # both libraries raise types of their own, and RuntimeError
            raise DataError(f"tokenizer {path}: not a SentencePiece model") from None
        self.content = content
        self.ids = {piece.piece: index for index, piece in enumerate(self.proto.pieces)}
        self.scores = {piece.piece: piece.score for piece in self.proto.pieces if piece.type == NORMAL}
        self._refuse_what_differs()
        self.unk = self.of_type(UNKNOWN)[0]
        self.bos = self._special("<s>", self.processor.bos_id())
        self.eos = self._special("</s>", self.processor.eos_id())
        self.pad = self._special("<pad>", self.processor.pad_id())

    def of_type(self, *types: int) -> list[str]:
        """Returns the pieces of these types, in the order of their ids."""
        return [piece.piece for piece in self.proto.pieces if piece.type in types]

    def _special(self, name: str, index: int) -> Any:
        """Returns the model's own special piece, else an ordinary piece of that name, else None."""
        return self.proto.pieces[index].piece if index >= 0 else name if name in self.ids else None

    def _refuse_what_differs(self) -> None:
        trainer, spec = self.proto.trainer_spec, self.proto.normalizer_spec
        longer = {piece: score for piece, score in self.scores.items() if len(piece) > 1}
        strange = [piece for piece in longer if not self.scores.keys() >= set(piece)]
        faults = {
            "its model type is not BPE": trainer.model_type != trainer.BPE,
            "it has unused pieces": bool(self.of_type(UNUSED)),
            "it writes a space as a suffix": trainer.treat_whitespace_as_suffix,
            "it does not escape spaces": not spec.escape_whitespaces,
            f"its normalisation {spec.name!r} is none of {', '.join(TABLES)} and identity": bool(
                spec.precompiled_charsmap and spec.name not in TABLES
            ),
            "it normalises what it decodes": bool(self.proto.denormalizer_spec.precompiled_charsmap),
            "two of its pieces have one score": len(set(longer.values())) < len(longer),
            f"piece {strange[0] if strange else ''!r} has a character that is not a piece": bool(strange),
        }
        for fault, found in faults.items():
            if found:
                raise DataError(f"tokenizer {self.path}: {fault}; it cannot be converted")


def build_tokenizer(model: SentencePieceBPE) -> Tokenizer:
    """Builds the equivalent tokenizer, with the model's ids. DataError names a piece that prevents it."""
    symbols = sorted(model.of_type(USER_DEFINED), key=len, reverse=True)
    bpe = models.BPE(
        vocab=model.ids,
        merges=merges_of(model.scores),
        unk_token=model.unk,
        fuse_unk=True,
        byte_fallback=model.proto.trainer_spec.byte_fallback,
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = _normalizer(model.proto.normalizer_spec, keeps_newlines="\n" in symbols)
    tokenizer.pre_tokenizer = _pre_tokenizer(model, symbols)
    tokenizer.decoder = _decoder(model)
    if symbols:
        _hide_reserved(model, tokenizer)
        _check_symbols(model, symbols, tokenizer)
        # A symbol is set apart by the pre-tokenizer and then found whole in the vocabulary. An added token would be
        # found too, but would lose the space that SentencePiece puts before a symbol at the start of the text.
        bpe.ignore_merges = True
        tokenizer.model = bpe
    tokenizer.add_special_tokens(
        [AddedToken(piece, special=True, normalized=False) for piece in model.of_type(UNKNOWN, CONTROL)]
    )
    return tokenizer


def tokenizer_json(model: SentencePieceBPE) -> str:
    """Returns the content of tokenizer.json, checked with the model's own pieces.

    Raises DataError if a piece or a special token, as a text, does not get the ids that SentencePiece gives it.
    """
    content = json.loads(build_tokenizer(model).to_str())
    # tokenizers before 0.20 (transformers before 4.45) needs a merge as one text; later versions read both forms
    content["model"]["merges"] = [" ".join(pair) for pair in merges_of(model.scores)]
    text = json.dumps(content, ensure_ascii=False, indent=1)
    check_same_ids(Tokenizer.from_str(text), model, [piece.replace(SPACE, " ") for piece in model.ids])
    return text


def check_same_ids(tokenizer: Tokenizer, model: SentencePieceBPE, texts: Iterable[str]) -> None:
    """Raises DataError naming the first text to which `tokenizer` gives other ids than SentencePiece."""
    texts = list(texts)
    parsed, tokenizer.encode_special_tokens = tokenizer.encode_special_tokens, True
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    tokenizer.encode_special_tokens = parsed
    for text, encoding, ids in zip(texts, encodings, model.processor.encode(texts)):
        if encoding.ids != ids:
            raise DataError(
                f"tokenizer {model.path}: cannot be converted: {text!r} would become {encoding.ids} instead of {ids}"
            )


def merges_of(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Returns the pairs that may be joined, those of the highest score first: every way to cut a piece in two.

    SentencePiece joins any two neighbours that make a piece, however training made that piece, and takes the leftmost
    of several equal pairs. `tokenizers` instead ranks the ways to cut one piece; no text has been found for which that
    makes a difference.
    """
    ranked = sorted((piece for piece in scores if len(piece) > 1), key=lambda piece: -scores[piece])
    cuts = ((piece[:at], piece[at:]) for piece in ranked for at in range(1, len(piece)))
    return [(left, right) for left, right in cuts if left in scores and right in scores]


def _normalizer(spec: Any, keeps_newlines: bool) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if not spec.remove_extra_whitespaces and spec.add_dummy_prefix:
        steps.append(normalizers.Replace(START, " "))  # before the table: a text that it deletes keeps this space
    if spec.precompiled_charsmap and keeps_newlines:  # SentencePiece takes a symbol out before it looks at the table
        steps += [normalizers.Replace(LINE_END, OTHER), normalizers.Replace("\n", LINE_END)]
        steps += [*_table(spec.precompiled_charsmap), normalizers.Replace(LINE_END, "\n")]
    elif spec.precompiled_charsmap:
        steps += _table(spec.precompiled_charsmap)
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(rf"\A +|[ {SPACE}]+\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(" ", SPACE))
    if spec.remove_extra_whitespaces and spec.add_dummy_prefix:
        steps.append(normalizers.Replace(START, SPACE))  # only if something is left
    return normalizers.Sequence(steps)


def _table(charsmap: bytes) -> list[normalizers.Normalizer]:
    """Builds SentencePiece's longest-match table lookup, from `Precompiled`'s lookup of single characters and NFC.

    `Precompiled` looks up a short grapheme cluster as a whole, and replaces all of it by the *shortest* entry that it
    starts with, so that marks vanish. So BREAK, a noncharacter, is put in front of each mark: the parts of a cluster
    are then looked up one by one, and BREAK is removed. The table has the sequences that NFC composes, except for two
    kinds, which SentencePiece leaves as they are: letters on both sides of a control character that the table deletes,
    and a final consonant after a whole syllable (U+AC00 U+11A8). WALL, another noncharacter, is put between these two,
    so that NFC does not join them, and is removed after it. A break goes between two characters, never in front of the
    first: there `Precompiled` of tokenizers 0.23.3 miscounts the characters that it replaces, and panics.
    """
    open_syllables = "".join(chr(0xAC00 + 28 * index) for index in range(11172 // 28))
    return [
        normalizers.Replace(Regex(r"(?<=\p{Cc})(?=[\s\S])"), WALL),
        normalizers.Replace(Regex(r"(?<=[\s\S])(?=[\p{M}\x{200C}\x{200D}\x{FF9E}\x{FF9F}])"), BREAK),
        normalizers.Precompiled(charsmap),
        normalizers.Replace(BREAK, ""),
        normalizers.Replace(Regex(rf"(?<=[{open_syllables}])(?=[\x{{11A8}}-\x{{11C2}}])"), WALL),
        normalizers.NFC(),
        normalizers.Replace(WALL, ""),
    ]


def _pre_tokenizer(model: SentencePieceBPE, symbols: list[str]) -> pre_tokenizers.PreTokenizer:
    steps: list[pre_tokenizers.PreTokenizer] = []
    if symbols:  # longest first
        steps.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, symbols))), "isolated"))
    if SPACE in model.scores and not any(SPACE in piece[1:] for piece in [*model.scores, *symbols]):
        # No piece runs over a space, so words can be taken one by one: the same ids, and the cache works. "isolated" is
        # the only behaviour that transformers.js knows: with "merged_with_next" it silently gives other ids.
        steps.append(pre_tokenizers.Split(Regex(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+"), "isolated"))
    return pre_tokenizers.Sequence(steps)


def _hide_reserved(model: SentencePieceBPE, tokenizer: Tokenizer) -> None:
    """Keeps a word that is spelled as `</s>` from being found whole, so that no text can insert a control token.

    The word is cut where joining leaves a boundary anyway. If none of its characters is known, an unknown one replaces
    it.
    """
    cuts, unknown = [], []
    for piece in model.of_type(UNKNOWN, CONTROL, BYTE):
        at = tokenizer.model.tokenize(piece)[0].offsets[1]
        if at < len(piece):
            cuts.append(rf"\A{re.escape(piece[:at])}(?={re.escape(piece[at:])}\z)")
        else:
            unknown.append(re.escape(piece))
    if cuts:
        split = pre_tokenizers.Split(Regex("|".join(cuts)), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, split])
    if unknown:
        replace = normalizers.Replace(Regex("|".join(unknown)), BREAK)
        tokenizer.normalizer = normalizers.Sequence([tokenizer.normalizer, replace])


def _decoder(model: SentencePieceBPE) -> decoders.Decoder:
    trainer, spec = model.proto.trainer_spec, model.proto.normalizer_spec
    # The token, not its name within another piece. OpenVINO's converter reads plain texts only.
    within_another = any(model.unk in piece for piece in model.ids if piece != model.unk)
    unknown = Regex(rf"\A{re.escape(model.unk)}\z") if within_another else model.unk
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.Replace(unknown, BREAK)]
    if trainer.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if spec.add_dummy_prefix or spec.remove_extra_whitespaces:
        steps.append(decoders.Strip(" ", 1, 0))
    steps.append(decoders.Replace(BREAK, trainer.unk_surface))  # last, as its own leading space stays
    return decoders.Sequence(steps)


def _check_symbols(model: SentencePieceBPE, symbols: list[str], tokenizer: Tokenizer) -> None:
    """Raises DataError if normalisation changes a symbol, or if looking words up whole changes an ordinary piece."""
    assert tokenizer.normalizer is not None
    for symbol in symbols:
        if not tokenizer.normalizer.normalize_str("a" + symbol + "a").endswith(f"a{symbol}a"):
            raise DataError(
                f"tokenizer {model.path}: normalisation changes its symbol {symbol!r}; it cannot be converted"
            )
    for piece in model.scores:
        if [token.id for token in tokenizer.model.tokenize(piece)] != [model.ids[piece]]:
            raise DataError(f"tokenizer {model.path}: piece {piece!r} is never made by joining; it cannot be converted")
