"""How well a network predicts the texts of a task: perplexity and bits per byte, without any prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.scoring import Scorer, rolling_requests
from kogpt2_gluon.tasks.task import Row
from kogpt2_gluon.tokens.counts import counter_for

TEXTS = 1000  # at a time


class TextScore(NamedTuple):
    """How well the network predicts the texts of the rows, each as a document of its own; ``</s>`` is scored too.

    Attributes
    ----------
    perplexity : float
        Per token.
    bits_per_byte : float
        Of UTF-8 of the text after the tokenizer's normalisation.
    tokens, texts : int
        Scored; a text that several rows have counts once, an empty one not at all.
    """

    perplexity: float
    bits_per_byte: float
    tokens: int
    texts: int


def score_texts(scorer: Scorer, encoder: PromptEncoder, rows: Sequence[Row]) -> TextScore:
    """Scores the texts of rows, each alone."""
    tokenizer, counter = encoder.tokenizer, counter_for(encoder.tokenizer)
    texts = [text for text in dict.fromkeys(text for row in rows for text in row.texts) if text.strip()]
    loss, tokens, text_bytes = 0.0, 0, 0
    for part in _parts(texts):
        ids = encoder.encode_texts(part)
        lengths = np.array([len(each) for each in ids], np.int64)
        text_bytes += int(counter.count(np.concatenate(ids), lengths, [text.encode() for text in part])[0].sum())
        documents = [np.append(each, tokenizer.eos_id).astype(np.int32) for each in ids]
        found = scorer.log_likelihoods(
            [each for ids in documents for each in rolling_requests(ids, tokenizer.bos_id, scorer.max_length)]
        )
        loss -= sum(each.log_likelihood for each in found)
        tokens += sum(each.tokens for each in found)
    perplexity = math.exp(min(700.0, loss / tokens)) if tokens else math.nan
    return TextScore(perplexity, loss / math.log(2) / text_bytes if text_bytes else math.nan, tokens, len(texts))


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[begin : begin + TEXTS] for begin in range(0, len(texts), TEXTS))
