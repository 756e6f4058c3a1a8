"""Returns what transformers computes with a converted folder, to compare other tools with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.lazy_modules import needed

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

torch = needed("torch", reason="transformers runs on it")
transformers = needed("transformers", reason="the other side")


def network(folder: Path) -> GPT2LMHeadModel:
    return transformers.GPT2LMHeadModel.from_pretrained(folder).eval()


def logits_of(net: GPT2LMHeadModel, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return net(torch.tensor([ids])).logits[0].numpy()


def greedy(net: GPT2LMHeadModel, ids: list[int], new_tokens: int) -> list[int]:
    with torch.no_grad():
        out = net.generate(torch.tensor([ids]), max_new_tokens=new_tokens, do_sample=False, eos_token_id=None)
    return out[0, len(ids) :].tolist()
