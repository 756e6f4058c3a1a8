"""A small network with a converted folder, so that transformers writes texts with the same parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.convert.targets import convert_to
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Slots, slots_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.convert_helpers import make_checkpoint, varied

PIECES = 400


class Pair(NamedTuple):
    """One network, twice."""

    net: GPT2Model
    tokenizer: Tokenizer
    torch_net: Any

    @property
    def left_out(self) -> list[int]:
        return self.tokenizer.never_written()

    def slots(self, count: int) -> Slots:
        return slots_for(self.net, count, self.net.max_length)


def make_pair(folder: Path, tokenizer: bytes, end: float = 0.0) -> Pair:
    """A network of 400 pieces that varies its texts; `end` makes </s> likelier."""

    def change(arrays: dict) -> None:
        varied(arrays)
        # What LayerNorm adds to each hidden state has a part along the row of </s>, which is its logit.
        row, last = arrays["_embed.weight"][2], arrays["_final_ln.beta"]
        arrays["_final_ln.beta"] = (last + end * row / np.square(row).sum()).astype(np.float32)

    run = make_checkpoint(folder / "run", tokenizer, change, vocab_size=PIECES).path
    convert_to("huggingface", open_source(run)[0], folder / "converted")
    net, own, *_ = load_checkpoint(run, "cpu")
    from transformers import GPT2LMHeadModel

    return Pair(net, own, GPT2LMHeadModel.from_pretrained(folder / "converted").eval())


def draw_prompts(tokenizer: Tokenizer, count: int, longest: int = 12) -> list[list[int]]:
    """Random ids with <s> in front, as long as a draw says."""
    draw = np.random.RandomState(3)
    return [[tokenizer.bos_id, *draw.randint(16, PIECES, draw.randint(1, longest)).tolist()] for _ in range(count)]


def log_probabilities(pair: Pair, prompt: list[int], new: list[int]) -> np.ndarray:
    """Those of every token at the place of each new one, by one pass of transformers over the whole text."""
    import torch

    with torch.no_grad():
        logits = pair.torch_net(torch.tensor([[*prompt, *new]])).logits[0].double()
    return torch.log_softmax(logits, -1).numpy()[len(prompt) - 1 : -1]
