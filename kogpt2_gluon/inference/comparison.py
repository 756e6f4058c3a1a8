"""Compares two forms of one network, such as a checkpoint and its converted folder, by what they compute.

Each side is run by the library that its users have: a transformers folder by PyTorch, graphs by onnxruntime, anything
else by MXNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.convert.original import PARAMS
from kogpt2_gluon.convert.source import Source, open_source
from kogpt2_gluon.convert.transformers_folder import TransformersFolder
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.runtime import context, mx
from kogpt2_gluon.model.filling import fill_network_from
from kogpt2_gluon.model.gpt2 import build_model
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.tokens.tokenizer import Tokenizer

Logits = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # ids (B, T) -> (B, T, V)

TOLERANCE = 1e-4  # of the largest logit, for weights in float32
GREEDY = 64  # tokens
SENTENCES = (
    "오늘은 날씨가 맑아서 강변을 오래 걸었다. 물결 위로 저녁 햇빛이 천천히 내려앉았다.",
    "이 영화는 배우들의 연기가 훌륭했지만 결말이 너무 서둘러서 아쉬웠어요!",
    "2024년 3월 5일, 서울에서 열린 회의에 120명이 참석해 예산 1조 2,000억 원을 의결했다.",
    '할머니께서 직접 담그신 김치를 보내 주셨다. "맛있게 먹고 건강해라" 하고 쪽지도 넣으셨다.',
    "파이썬 3.11과 NumPy를 설치한 뒤 다시 실행해 보세요. 오류가 나면 로그를 보내 주시면 됩니다.",
)


@dataclass(frozen=True)
class Comparison:
    """The logits and tokens of two forms of a network for the same texts.

    Attributes
    ----------
    tokens : int
        Compared.
    difference, largest : float
        Of two logits of one token; the largest logit.
    same : int
        Greedy tokens from the start on that are the same, of `greedy`.
    """

    tokens: int
    difference: float
    largest: float
    same: int
    greedy: int

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens: logits differ by at most {self.difference:.2g} (of {self.largest:.3g}); "
            f"{self.same} of {self.greedy} greedy tokens are the same"
        )

    @property
    def equal(self) -> bool:
        """True if the difference is one of rounding in float32."""
        return self.difference <= TOLERANCE * self.largest and self.same == self.greedy


def compare(one: Logits, other: Logits, texts: Sequence[Sequence[int]], max_length: int) -> Comparison:
    """Runs both over `texts`, each the ids of a document with its ``<s>``; the greedy tokens follow the first text."""
    tokens, difference, largest = 0, 0.0, 0.0
    for text in texts:
        ids = np.asarray(text[:max_length], np.int64)[None]
        mine, theirs = one(ids), other(ids)
        if mine.shape != theirs.shape:
            raise DataError(f"the two networks have logits of shape {mine.shape} and {theirs.shape}")
        tokens += ids.size
        difference = max(difference, float(np.abs(mine - theirs).max()))
        largest = max(largest, float(np.abs(mine).max()))
    count = min(GREEDY, max_length - 1)
    prompt = list(texts[0][: max(1, min(8, max_length - count))])
    mine_ids, their_ids = (_greedy(side, prompt, count) for side in (one, other))
    same = next((at for at, (a, b) in enumerate(zip(mine_ids, their_ids)) if a != b), count)
    return Comparison(tokens, difference, largest, same, count)


def _greedy(logits: Logits, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits(np.asarray([ids], np.int64))[0, -1].argmax()))
    return ids[len(prompt) :]


def logits_of(source: Source, model: ModelRecipe | None = None) -> Logits:
    """Returns the network of any source, over MXNet's own operators; with `model`, as that says."""
    ctx = context("cpu")
    net = build_model(model or source.recipe().model)
    fill_network_from(net, source.model_arrays(), ctx, str(source.model_path))

    def run(ids: NDArray[np.int64]) -> Any:
        return net(mx.nd.array(ids, ctx=ctx, dtype="int32"))[0].asnumpy()

    return run


def logits_of_transformers(folder: Path) -> Logits:
    """Returns the network of a folder as transformers loads it. RecipeError if transformers or PyTorch is missing."""
    try:
        import torch
        from transformers import GPT2LMHeadModel
    except ImportError as error:
        raise RecipeError(f"--verify runs {folder} with transformers and PyTorch: {error}; pip install both") from None
    net = GPT2LMHeadModel.from_pretrained(folder).eval()

    def run(ids: NDArray[np.int64]) -> Any:
        with torch.no_grad():
            return net(torch.from_numpy(ids)).logits.float().numpy()

    return run


def logits_of_onnx(folder: Path) -> Logits:
    """Returns the network of a folder of graphs. RecipeError if onnxruntime is missing."""
    try:
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise RecipeError(f"--verify runs {folder} with onnxruntime: {error}; pip install onnxruntime") from None
    session = InferenceSession(str(folder / "logits.onnx"), providers=["CPUExecutionProvider"])

    def run(ids: NDArray[np.int64]) -> Any:
        return session.run(["logits"], {"input_ids": ids})[0]

    return run


def compare_conversion(source: Source, out: Path, target: str, exact: bool) -> Comparison:
    """Compares a source with folder `out`, made of it, on Korean sentences.

    DataError if they differ by more than rounding although the conversion is `exact`.
    """
    tokenizer = Tokenizer.load(source.tokenizer_path)
    model = source.recipe().model
    texts = [[tokenizer.bos_id, *tokenizer.encode(sentence)] for sentence in SENTENCES]
    mine = logits_of_transformers(source.path) if isinstance(source, TransformersFolder) else logits_of(source)
    if target == "huggingface":
        theirs = logits_of_transformers(out)
    elif target == "onnx":
        theirs = logits_of_onnx(out)
    else:
        file = out / PARAMS if target == "original" else out
        theirs = logits_of(open_source(file, num_heads=model.num_heads if target == "original" else 0)[0])
    found = compare(mine, theirs, texts, model.max_length)
    if exact and not found.equal:
        raise DataError(f"{out}: does not compute what {source.path} does: {found}")
    return found
