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

All known differences are in normalising several combining marks on one letter (see
:mod:`kogpt2_gluon.convert.normalizer`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from kogpt2_gluon.convert.normalizer import OTHER, SPACE, normalizer_of
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.model_proto import model_proto
from kogpt2_gluon.storage.tokenizer_file import read_limited

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
        content = read_limited(path)
        try:
            self.processor.load_from_serialized_proto(content)
            self.proto = model_proto(content, path)
        except (DataError, RuntimeError, UnicodeError):
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
    try:
        tokenizer.normalizer = normalizer_of(
            model.processor,
            model.proto.normalizer_spec,
            frozenset("".join([*model.scores, *symbols])),
            symbols,
            model.proto.trainer_spec.byte_fallback,
        )
    except DataError as error:
        raise DataError(f"tokenizer {model.path}: {error}") from None
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


def tokenizer_json(model: SentencePieceBPE, bos: bool = False) -> str:
    """Returns the content of tokenizer.json, checked with the model's own pieces.

    With `bos`, each text that is encoded begins with the model's bos piece, unless the caller asks for no special
    tokens. Raises DataError if a piece or a special token, as a text, does not get the ids that SentencePiece gives it.
    """
    tokenizer = build_tokenizer(model)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[model.bos, "$A"],
            pair=[model.bos, "$A", f"{model.bos}:1", "$B:1"],
            special_tokens=[(model.bos, model.ids[model.bos])],
        )
    content = json.loads(tokenizer.to_str())
    # tokenizers before 0.20 (transformers before 4.45) needs a merge as one text; later versions read both forms
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    text = json.dumps(content, ensure_ascii=False)
    tokenizer = Tokenizer.from_str(text)
    pieces = [piece.replace(SPACE, " ") for piece in model.ids]
    try:
        check_same_ids(tokenizer, model, [" ".join(pieces[at : at + 16]) for at in range(0, len(pieces), 16)])  # faster
    except DataError:
        check_same_ids(tokenizer, model, pieces)  # names one piece
        raise
    if not model.proto.normalizer_spec.add_dummy_prefix:  # then a piece is another one after a space
        check_same_ids(tokenizer, model, pieces)
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
        replace = normalizers.Replace(Regex("|".join(unknown)), OTHER)
        tokenizer.normalizer = normalizers.Sequence([tokenizer.normalizer, replace])


def _decoder(model: SentencePieceBPE) -> decoders.Decoder:
    trainer, spec = model.proto.trainer_spec, model.proto.normalizer_spec
    # The token, not its name within another piece. OpenVINO's converter reads plain texts only.
    within_another = any(model.unk in piece for piece in model.ids if piece != model.unk)
    unknown = Regex(rf"\A{re.escape(model.unk)}\z") if within_another else model.unk
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.Replace(unknown, OTHER)]
    if trainer.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if spec.add_dummy_prefix or spec.remove_extra_whitespaces:
        steps.append(decoders.Strip(" ", 1, 0))
    steps.append(decoders.Replace(OTHER, trainer.unk_surface))  # last, as its own leading space stays
    return decoders.Sequence(steps)


def _check_symbols(model: SentencePieceBPE, symbols: list[str], tokenizer: Tokenizer) -> None:
    """Raises DataError if normalisation changes a symbol, or if looking words up whole changes an ordinary piece."""
    normalize = tokenizer.normalizer.normalize_str
    edge = normalize(OTHER)[-1]
    for symbol in symbols:
        if not normalize(OTHER + symbol + OTHER).endswith(edge + symbol + edge):
            raise DataError(
                f"tokenizer {model.path}: normalisation changes its symbol {symbol!r}; it cannot be converted"
            )
    for piece in model.scores:
        if [token.id for token in tokenizer.model.tokenize(piece)] != [model.ids[piece]]:
            raise DataError(f"tokenizer {model.path}: piece {piece!r} is never made by joining; it cannot be converted")
