"""A made task of reviews, its rows, a tokenizer and a network that has opinions about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.scoring import Scorer
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.tasks.in_context import InContext, InContextOptions
from kogpt2_gluon.tasks.prompts.prompts import Prompt
from kogpt2_gluon.tasks.public import PUBLIC
from kogpt2_gluon.tasks.task import CLASSIFICATION, Row, Task
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.convert.convert_helpers import OWN_SENTENCES, train

LABELS = ("bad", "fair", "good")
TASK = Task("reviews", "", CLASSIFICATION, PUBLIC["nsmc"].read, {}, ("accuracy", "macro_f1"), LABELS)
# The words have different numbers of tokens and bytes.
PROMPT = Prompt("a made one", "글: {text}\n평가: {label}", {"bad": "별로", "fair": "그저 그렇다", "good": "좋다!"})
MAX_LENGTH = 192


def rows(count: int, seed: int = 0) -> list[Row]:
    """Rows of different texts, a few words each, with labels in turn."""
    draw = np.random.RandomState(seed)
    words = " ".join(OWN_SENTENCES).split()
    return [
        Row(
            (f"{' '.join(draw.choice(words, draw.randint(1, 5)))} {seed}{place}",),
            LABELS[place % 3],
            where=f"row {place}",
        )
        for place in range(count)
    ]


def make_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer with pieces for the task's words."""
    sentences = [*OWN_SENTENCES, *(f"글: x 평가: {word}" for word in PROMPT.words.values())]
    (folder / "tokenizer.model").write_bytes(train(sentences * 20, 500))
    return Tokenizer.load(folder / "tokenizer.model")


def make_network(vocab_size: int, max_length: int = MAX_LENGTH) -> GPT2Model:
    """A small network over MXNet's own operators."""
    mx.random.seed(7)
    np.random.seed(7)
    net = GPT2Model(units=32, vocab_size=vocab_size, max_length=max_length, num_layers=2, num_heads=4)
    net.initialize(mx.init.Normal(0.3), force_reinit=True)
    return net


def in_context(
    net: GPT2Model,
    tokenizer: Tokenizer,
    scored: Sequence[Row],
    train_rows: Sequence[Row] = (),
    prompt: Prompt = PROMPT,
    task: Task = TASK,
    said: list[str] | None = None,
    **options: object,
) -> InContext:
    say = said.append if said is not None else lambda line: None
    wanted = InContextOptions(**options)
    return InContext(Scorer(net), PromptEncoder(tokenizer), task, prompt, wanted, scored, train_rows, say)
