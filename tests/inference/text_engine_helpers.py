"""A network with strong opinions, and what the text engine writes with it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from kogpt2_gluon.inference.generation import Generator
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.text_engine import TextRequest, Written
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.tokens.sentencepiece_tokenizer import SentencePieceTokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, train

POSITIONS = 24
GREEDY = Sampling(8, temperature=0)


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(train(OWN_SENTENCES * 20, 400, profile="lossless"), Path("small.model"))


def make_net(tokenizer, ops=None) -> GPT2Model:
    """One whose opinions are strong and differ from place to place; `</s>` is likely enough to end some texts."""
    mx.random.seed(5)
    net = GPT2Model(units=32, vocab_size=tokenizer.vocab_size, max_length=POSITIONS, num_layers=2, num_heads=4, ops=ops)
    net.initialize(mx.init.Normal(0.4))
    return net


KNOWN: dict[tuple, list[int]] = {}


def alone(net, tokenizer, request: TextRequest) -> list[int]:
    """The new ids of a text that is written by itself, its prompt read at once."""
    key = (id(net), tuple(request.prompt), request.sampling, request.sample)
    if key not in KNOWN:
        KNOWN[key] = write_alone(net, tokenizer, request)
    return KNOWN[key]


def write_alone(net, tokenizer, request: TextRequest) -> list[int]:
    left_out, vocab_size = tokenizer.never_written(), tokenizer.vocab_size
    ids = Generator(net).ids(
        request.prompt, tokenizer.eos_id, request.sampling, request.sample + 1, vocab_size, left_out
    )
    return ids[request.sample]


def gather(written: list[Written], tokenizer) -> dict[int, tuple[list[int], str, str]]:
    """The new ids, the text and the reason of each, which is given once and last."""
    ids, texts, reasons = defaultdict(list), defaultdict(str), {}
    for each in written:
        assert each.number not in reasons
        if each.choice and each.choice.token != tokenizer.eos_id:
            ids[each.number].append(each.choice.token)
        texts[each.number] += each.text
        if each.finish_reason:
            reasons[each.number] = each.finish_reason
    return {number: (ids[number], texts[number], reason) for number, reason in reasons.items()}
