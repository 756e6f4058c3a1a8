"""A small checkpoint to convert, with a tokenizer trained on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np

from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from kogpt2_gluon.storage.params_file import read_params
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer
from tests.helpers import ROOT
from tests.tokens.tokenizer_helpers import train_model

ORIGINAL = ROOT / "tests" / "storage" / "original"
SYMBOLS = [f"<unused{number}>" for number in range(12)]
OWN_SENTENCES = """오늘은 날씨가 맑아서 강변을 걸었다.
이 영화는 정말 재미있게 봤어요!
배우들의 연기가 훌륭했고 음악도 좋았다.
2024년 3월 5일, 서울에서 열린 회의에 120명이 참석했습니다.
그 책은 아직 읽지 못했지만 꼭 읽어 볼 생각이에요.
할머니께서 직접 만드신 김치를 보내 주셨다.
Python 3.11과 NumPy를 설치한 뒤 다시 실행해 보세요.
값이 15,000원에서 9,900원으로 내렸다.
왜 그렇게 늦었는지 아무도 묻지 않았다.
학생들은 도서관에서 조용히 공부하고 있다.""".splitlines()


def train(sentences: list[str], vocab_size: int, **options) -> bytes:
    """A SentencePiece BPE with KoGPT-2's special ids and the SYMBOLS."""
    special = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "user_defined_symbols": SYMBOLS}
    return train_model(sentences, vocab_size, **{**special, **options})


def make_checkpoint(
    folder: Path, tokenizer: bytes, change: Callable[[dict], object] = len, state: dict | None = None, **model: int
) -> Checkpoint:
    """A checkpoint below `folder`, its arrays those of the original network after `change`; `model` overrides sizes."""
    sizes = {"units": 96, "vocab_size": 501, "max_length": 64, "num_layers": 3, "num_heads": 6, **model}
    recipe = parse_recipe({"name": "tiny", "model": sizes, "data": {"seq_length": 32}})
    arrays = read_params(ORIGINAL / "tiny.params")
    change(arrays)
    state = state or {"step": 1200, "evaluation": {"loss": 3.25, "bits_per_byte": 1.53}}
    folder.mkdir(exist_ok=True)
    (folder / "source.model").write_bytes(tokenizer)
    return open_checkpoint(
        save_checkpoint(folder, state, arrays, {}, recipe, stored_tokenizer(folder / "source.model"))
    )


def with_rows(folder: Path, tokenizer: bytes, pieces: int) -> Checkpoint:
    """A checkpoint with a random row for each piece."""
    rows = np.random.RandomState(0).normal(0, 0.3, (pieces, 96)).astype(np.float32)
    return make_checkpoint(
        folder,
        tokenizer,
        lambda arrays: arrays.update({"_embed.weight": rows, "_logits_proj.weight": rows}),
        vocab_size=pieces,
    )


def varied(arrays: dict) -> None:
    """Makes the layers matter more than the last token, which a tied embedding would repeat; for 400 pieces."""
    rows = arrays["_embed.weight"][:400]  # CTranslate2 wants a piece for each row
    arrays.update({"_embed.weight": rows, "_logits_proj.weight": rows})
    draw = np.random.RandomState(5)
    for name, array in arrays.items():
        if "_layers" in name and array.ndim == 2:
            arrays[name] = draw.normal(0, 0.25, array.shape).astype(np.float32)
