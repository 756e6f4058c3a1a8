"""The profiles of a tokenizer: how it normalises text before it cuts it into pieces.

``nmt_nfkc`` is KoGPT-2's own: NFKC, and a line end or a run of spaces becomes one space. ``lossless`` keeps every
character except U+2581, SentencePiece's own sign for a space; what is not in the vocabulary becomes bytes, for example
a line end <0x0A>.

``nmt_nfkc`` folds single Korean letters too: ㅋ (U+314B, what a keyboard types) becomes U+110F, a
letter that is meant to be part of a syllable. ``nmt_nfkc_jamo`` is the same without that.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sentencepiece

from kogpt2_gluon.storage.model_proto import model_proto

JAMO_PROFILE = "nmt_nfkc_jamo"
PROFILES = {
    "nmt_nfkc": "KoGPT-2's: NFKC, one kind of space; a typed ㅋ comes back as U+110F, which is not what was typed",
    JAMO_PROFILE: "the same, but single letters such as ㅋㅋ and ㅠㅠ stay as they are typed",
    "lossless": "every text as it is; characters without a piece become bytes",
}
# Single letters as keyboards type them (U+3131 to U+318E), and where NFKC finds them: half width, in brackets, circled.
JAMO = frozenset(map(chr, range(0x3131, 0x318F)))
FOLDED = JAMO | frozenset(map(chr, (*range(0xFFA0, 0xFFDD), *range(0x3200, 0x321F), *range(0x3260, 0x327F))))


@contextmanager
def trainer_options(profile: str) -> Iterator[dict[str, Any]]:
    """Yields the arguments of SentencePiece's trainer for a profile."""
    if profile == "lossless":
        yield {"normalization_rule_name": "identity", "byte_fallback": True, "remove_extra_whitespaces": False}
    elif profile == JAMO_PROFILE:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{JAMO_PROFILE}.tsv"  # the trainer takes rules from a file only
            path.write_text("\n".join(map(_rule, *zip(*jamo_rules()))), encoding="ascii")
            yield {"normalization_rule_tsv": str(path)}
    else:
        yield {"normalization_rule_name": profile}


def name_profile(model: bytes, profile: str) -> bytes:
    """Returns a trained model that names its profile; SentencePiece calls rules from a file ``user_defined``."""
    if profile != JAMO_PROFILE:
        return model
    proto = model_proto(model)
    proto.normalizer_spec.name = profile
    proto.normalizer_spec.normalization_rule_tsv = ""
    proto.trainer_spec.ClearField("self_test_sample_size")
    named: bytes = proto.SerializeToString(deterministic=True)
    return named


def jamo_rules() -> list[tuple[str, str]]:
    """Returns the rules of ``nmt_nfkc`` as (text, what becomes of it), without those that change single letters."""
    rules = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc").decompile()
    kept = [(text, becomes) for text, becomes in rules if FOLDED.isdisjoint(text)]
    typed = {unicodedata.normalize("NFKC", letter): letter for letter in sorted(JAMO, reverse=True)}
    for text, becomes in rules:
        if len(text) == 1 and text in FOLDED - JAMO:
            kept.append((text, "".join(typed.get(letter, letter) for letter in becomes)))
    return sorted(kept)


def _rule(text: str, becomes: str) -> str:
    return "\t".join(" ".join(f"{ord(char):X}" for char in side) for side in (text, becomes))
