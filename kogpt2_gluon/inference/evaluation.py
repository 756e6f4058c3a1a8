"""Held-out loss, perplexity and bits per byte.

The loss is summed over tokens in float64, over all workers, and divided once: it does not depend on their number or on
the batch size. Every token but `<s>` is scored: `<s>` follows every `</s>`, so it says nothing about a model and would
flatter a corpus of short documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.reading.held_out import HeldOutReader
from kogpt2_gluon.shards.shard_set import ShardSet


@dataclass(frozen=True)
class LanguageModelScore:
    """Scores of one evaluation.

    loss : natural-log cross-entropy a token. perplexity : its exponential. word_perplexity : the same a word between
    spaces. bits_per_byte : of the text after the tokenizer's normalisation, in UTF-8. tokens : how many were scored.
    """

    loss: float
    perplexity: float
    word_perplexity: float
    bits_per_byte: float
    tokens: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def scored_sums(losses: np.ndarray, tokens: np.ndarray, bos: int) -> np.ndarray:
    """[summed loss, tokens] in float64, over the labels that are scored.

    `losses` (batch_size, length) belong to the labels ``tokens[:, 1:]``, `tokens` being (batch_size, length + 1).
    """
    scored = tokens[:, 1:] != bos
    return np.array([losses[scored].sum(dtype=np.float64), scored.sum()])


def score(total_loss: float, tokens: int, shards: ShardSet) -> LanguageModelScore:
    """Scores from a summed loss; bytes and words a token are those of the whole set."""
    manifest = shards.manifest
    scored = manifest.tokens - manifest.documents  # the set's tokens but for one <s> a document
    loss = total_loss / tokens
    return LanguageModelScore(
        loss=loss,
        perplexity=_exp(loss),
        word_perplexity=_exp(loss * scored / max(1, manifest.words)),
        bits_per_byte=loss / math.log(2) * scored / max(1, manifest.text_bytes),
        tokens=tokens,
    )


def evaluate(
    loss_block: Any,
    shards: ShardSet,
    seq_length: int,
    batch_size: int,
    ctx: Any,
    max_sequences: int = 0,
    rank: int = 0,
    size: int = 1,
    sum_over_workers: Callable[[np.ndarray], np.ndarray] = lambda sums: sums,
    on_batch: Callable[[], None] = lambda: None,
) -> LanguageModelScore:
    """Scores a network on held-out shards.

    Parameters
    ----------
    loss_block : LanguageModelLoss
        Of the network; used in prediction mode, so without dropout.
    shards : ShardSet
    seq_length, batch_size : int
        Each sequence is scored without the ones before it.
    ctx : mx.Context
    max_sequences : int
        Score only so many sequences, evenly spaced; 0: all.
    rank, size, sum_over_workers : int, int, callable
        This worker, their number, and what adds up a float64 array over them. Every worker must call `evaluate`; all of
        them get the same scores.
    on_batch : callable
        Called after each batch.
    """
    bos = shards.manifest.special_ids["bos"]
    sums = np.zeros(2)  # loss, tokens
    for batch in HeldOutReader(shards, seq_length, max_sequences).batches(batch_size, rank, size):
        sums += scored_sums(loss_block(mx.nd.array(batch, ctx=ctx, dtype="int32")).asnumpy(), batch, bos)
        on_batch()
    total_loss, tokens = sum_over_workers(sums)
    if not tokens:
        raise DataError(f"{shards.folder}: no token to score")
    return score(float(total_loss), int(tokens), shards)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def evaluate_checkpoint(
    path: Path,
    data: Path,
    batch_size: int = 8,
    seq_length: int = 0,
    device: str = "auto",
    precision: str = "float32",
    ops: str = "auto",
) -> LanguageModelScore:
    """Scores a checkpoint on shards made with its own tokenizer; DataError if they were not."""
    net, tokenizer, recipe, ctx = load_checkpoint(path, device, precision, ops)
    seq_length = seq_length or recipe.data.seq_length
    if not 1 <= seq_length <= net.max_length:
        raise RecipeError(f"seq_length={seq_length}: the network takes 1 to {net.max_length} tokens at a time")
    with ShardSet(data) as shards:
        if shards.manifest.tokenizer_sha256 != tokenizer.sha256:
            raise DataError(f"{data}: made with another tokenizer than {path} was trained with; shard the text again")
        loss_block = LanguageModelLoss(net)
        loss_block.hybridize(static_alloc=True, static_shape=True)
        return evaluate(loss_block, shards, seq_length, batch_size, ctx)
