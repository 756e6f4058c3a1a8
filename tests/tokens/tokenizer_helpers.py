"""Text for the tests of tokenizers: signs that are words of their own, and corpora of them."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece

from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.tokens.profiles import name_profile, trainer_options

SIGNS = [chr(0xAC00 + 7 * number) for number in range(300)]


def make_corpus(folder: Path, documents: list[str], test_share: float = 0.0) -> Path:
    source = folder / "source.txt"
    source.write_text("\n".join(documents), encoding="utf-8")
    clean([source], folder / "corpus", "line", test_share)
    return folder / "corpus"


def random_words(count: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices(SIGNS, k=draw.randint(1, 5))) for _ in range(count))


def train_model(sentences: Iterable[str], vocab_size: int, profile: str = "nmt_nfkc", **options: Any) -> bytes:
    """A SentencePiece model in one of our profiles; `options` are those of its own trainer, and go before it."""
    ours = {"model_type": "bpe", "pad_id": 3, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2}
    model = io.BytesIO()
    with trainer_options(profile) as of_profile:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocab_size,
            **{**ours, **of_profile, **options},
        )
    return name_profile(model.getvalue(), profile)
