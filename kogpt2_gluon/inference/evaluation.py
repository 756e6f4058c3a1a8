"""Held-out loss, perplexity and bits per byte.

The loss is summed over tokens in float64, over all workers, and divided once, so it does not depend on their number or
on the batch size. Every token except `<s>` is scored: `<s>` follows every `</s>`, so it says nothing about a model and
would flatter a corpus of short documents. A token that both begins and ends documents is scored like any other.

The tokens of all documents are one stream, and a sequence begins where `stride` says, not where a document does. With
the stride of a whole sequence the first tokens of each are scored with little context; with a shorter one sequences
overlap, and each token is scored once, in the sequence that has the most before it.

Bits per byte are of the normalised text, and for text also of the raw one. Both pay for `</s>`, which separates
documents as line ends do in a file, and neither counts bytes for it. `<unk>` is scored like any other token. In bits
per raw byte the bits are added that restore what does not come back from the tokens (reading/text/coming_back.py), so
that they are a size to which the text can be compressed with this network, without loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.slot_losses import SlotLosses
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.reading.held_out import HeldOutReader
from kogpt2_gluon.reading.text.held_out import HeldOutText, TextOptions, open_held_out_text
from kogpt2_gluon.shards.format import MANIFEST
from kogpt2_gluon.shards.shard_set import ShardSet


@dataclass(frozen=True)
class LanguageModelScore:
    """The scores of one evaluation.

    Attributes
    ----------
    loss : float
        Natural-log cross-entropy per token.
    perplexity : float
        The exponential of `loss`.
    word_perplexity : float
        The perplexity per word, words being separated by spaces.
    bits_per_byte : float
        Per byte of UTF-8 of the text after the tokenizer's normalisation.
    tokens : int
        How many tokens were scored.
    """

    loss: float
    perplexity: float
    word_perplexity: float
    bits_per_byte: float
    tokens: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @property
    def shown(self) -> dict[str, float]:
        """The figures for the log of a training run."""
        return {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}

    @property
    def chooses(self) -> tuple[str, float]:
        """The figure that chooses the best checkpoint; see training/objective.py."""
        return "loss", self.loss


@dataclass(frozen=True)
class Evaluation(LanguageModelScore):
    """The figures of `evaluate_checkpoint`. Those from `bits_per_raw_byte` on are None for shards.

    Attributes
    ----------
    seq_length, stride : int
        Each token but the first ones of the text was scored with at least ``seq_length - stride`` tokens before it.
    documents, normalized_bytes : int
        Of the whole text; bytes are UTF-8.
    unknown_tokens : int
        How many of `tokens` are ``<unk>``. What they are written for is not in `loss` and `bits_per_byte`.
    bits_per_raw_byte : float
        Of the text before normalisation, ``restoring_bits`` included.
    raw_bytes : int
        Of that text, without the line ends between documents.
    changed_documents, lost_bytes : int
        Documents that do not come back from their tokens as they were, and bytes that do not.
    restoring_bits : int
        The size of what restores them.
    """

    seq_length: int = 0
    stride: int = 0
    documents: int = 0
    normalized_bytes: int = 0
    unknown_tokens: int = 0
    bits_per_raw_byte: float | None = None
    raw_bytes: int | None = None
    changed_documents: int | None = None
    lost_bytes: int | None = None
    restoring_bits: int | None = None


def scored_sums(
    losses: np.ndarray, tokens: np.ndarray, unscored: int, stride: int = 0, begins: bool = True
) -> np.ndarray:
    """The summed loss and the number of tokens, over the labels other than `unscored`: (2,) float64.

    `losses` (batch_size, length) belong to the labels ``tokens[:, 1:]``, `tokens` being (batch_size, length + 1). With
    a `stride` only the last labels of a row count, those that are not in the row before; `begins` is True if nothing
    comes before the first row.
    """
    scored = tokens[:, 1:] != unscored
    if stride:
        scored[int(begins) :, : scored.shape[1] - stride] = False
    return np.array([losses[scored].sum(dtype=np.float64), scored.sum()])


class TextCounts(Protocol):
    """The counts of a text: its documents, tokens that are scored, words, and bytes after normalisation."""

    documents: int
    words: int
    text_bytes: int

    @property
    def scored_tokens(self) -> int: ...


def score(total_loss: float, tokens: int, counts: TextCounts) -> LanguageModelScore:
    """The scores that a summed loss gives; bytes and words per token are those of the whole text, as `counts` say."""
    scored, loss = counts.scored_tokens, total_loss / tokens
    return LanguageModelScore(
        loss=loss,
        perplexity=_exp(loss),
        word_perplexity=_exp(loss * scored / max(1, counts.words)),
        bits_per_byte=loss / math.log(2) * scored / max(1, counts.text_bytes),
        tokens=tokens,
    )


@dataclass(frozen=True)
class EvaluationOptions:
    """How held-out text is scored.

    Attributes
    ----------
    seq_length : int
        Tokens of a sequence; each is scored without the ones before it.
    batch_size : int
        Sequences of one worker in one step.
    max_sequences : int
        Score only so many sequences, evenly spaced; 0: all.
    stride : int
        How many tokens after a sequence the next one begins; 0: `seq_length`.
    """

    seq_length: int
    batch_size: int = 8
    max_sequences: int = 0
    stride: int = 0


def evaluate(
    loss_block: Any,
    shards: ShardSet,
    options: EvaluationOptions,
    ctx: Any,
    worker: Worker | None = None,
    progress: Callable[[], None] = lambda: None,
) -> LanguageModelScore:
    """Scores a network on held-out shards. Every worker calls this, and all of them get the same scores.

    Parameters
    ----------
    loss_block : LanguageModelLoss
        The network's; it is used in prediction mode, so without dropout.
    shards : ShardSet
    options : EvaluationOptions
    ctx : mx.Context
    worker : Worker, optional
        Scores its share of the sequences; without one, this process scores them all.
    progress : callable
        Called after each batch.
    """
    worker = worker or Worker()
    unscored = shards.manifest.unscored_id
    sums = np.zeros(2)  # loss, tokens
    reader = HeldOutReader(shards, options.seq_length, options.max_sequences, options.stride)
    for number, batch in enumerate(reader.batches(options.batch_size, worker.rank, worker.size)):
        begins = number == worker.rank == 0
        sums += scored_sums(_losses(loss_block, batch, ctx), batch, unscored, options.stride, begins)
        progress()
    total_loss, tokens = worker.sum(sums)
    if not tokens:
        raise DataError(f"{shards.folder}: no token to score")
    return score(float(total_loss), int(tokens), shards.manifest)


def _losses(loss_block: Any, batch: np.ndarray, ctx: Any) -> np.ndarray:
    """The loss of each label of a batch. What fills the batch up can be -1, which the network does not have."""
    return loss_block(mx.nd.array(np.maximum(batch, 0), ctx=ctx, dtype="int32")).asnumpy()


def is_shard_folder(data: Path) -> bool:
    """Returns True for a folder of shards, even one that lacks its manifest."""
    return data.is_dir() and ((data / MANIFEST).is_file() or any(data.glob("*.ktok")))


def evaluate_text(
    loss_block: Any, text: HeldOutText, batch_size: int, ctx: Any, say: Callable[[str], None]
) -> LanguageModelScore:
    """Scores a network on text, in this process; `say` is called with the documents that were left out."""
    sums = np.zeros(2)  # loss, tokens
    for number, batch in enumerate(text.batches(batch_size)):
        sums += scored_sums(_losses(loss_block, batch, ctx), batch, text.unscored_id, text.stride, number == 0)
    left_out = text.describe_left_out()
    if not sums[1]:
        raise DataError(f"{text.name}: no token to score" + (f" ({left_out})" if left_out else ""))
    if left_out:
        say(left_out)
    return score(float(sums[0]), int(sums[1]), text)


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
    text: TextOptions | None = None,
    say: Callable[[str], None] = lambda words: None,
    stride: int = 0,
    tuned: Path | None = None,
    weights: str = "",
) -> Evaluation:
    """Scores a checkpoint on shards that were made with its own tokenizer, or on text, with that tokenizer.

    `data` is a folder of shards; or a file, folder or S3 prefix of text, read as `text` says; or a split of a cleaned
    corpus. `say` is called with what was left out. `seq_length` 0 is the recipe's, `stride` 0 is `seq_length`.
    `tuned` is a prompt that is put in front of each sequence.
    `weights` is the form of the matrices that texts are written by (model/decoding.py), empty for the network's own.
    DataError if the shards were made with another tokenizer, or the text cannot be read.
    """
    is_text, text = not is_shard_folder(data), text or TextOptions()
    if text != TextOptions() and not is_text:
        raise RecipeError(f"{data}: shards; --documents, --encoding, --include and --exclude are for text")
    net, tokenizer, recipe, ctx = load_checkpoint(path, device, precision, ops, tuned, weights)
    seq_length = seq_length or recipe.data.seq_length
    if not 1 <= seq_length <= net.max_length:
        raise RecipeError(f"seq_length={seq_length}: the network takes 1 to {net.max_length} tokens at a time")
    stride = stride or seq_length
    if not 1 <= stride <= seq_length:
        raise RecipeError(
            f"stride={stride}: it takes 1 to {seq_length}, the tokens of a sequence, or some are left out"
        )
    loss_block: Any = SlotLosses(net, ctx, weights) if weights else LanguageModelLoss(net)
    if not weights:
        loss_block.hybridize(static_alloc=True, static_shape=True)
    if is_text:
        held_out, notes = open_held_out_text(data, text, tokenizer, seq_length, stride)
        for note in notes:
            say(note)
        scores = evaluate_text(loss_block, held_out, batch_size, ctx, say)
        return _of_text(scores, held_out, seq_length)
    with ShardSet(data) as shards:
        if shards.manifest.tokenizer_sha256 != tokenizer.sha256:
            raise DataError(
                f"{data}: made with another tokenizer than {path}; shard the text again with that tokenizer"
            )
        scores = evaluate(loss_block, shards, EvaluationOptions(seq_length, batch_size, stride=stride), ctx)
        counts = shards.manifest
        return Evaluation(
            **asdict(scores),
            seq_length=seq_length,
            stride=stride,
            documents=counts.documents,
            normalized_bytes=counts.text_bytes,
            unknown_tokens=counts.unknown,
        )


def _of_text(scores: LanguageModelScore, text: HeldOutText, seq_length: int) -> Evaluation:
    """Adds the figures of the raw text, all of which has been read."""
    lost, restoring_bits = text.coming_back, text.coming_back.bits()
    bits = scores.loss / math.log(2) * text.scored_tokens + restoring_bits
    return Evaluation(
        **asdict(scores),
        seq_length=seq_length,
        stride=text.stride,
        documents=text.documents,
        normalized_bytes=text.text_bytes,
        unknown_tokens=text.unknown_tokens,
        bits_per_raw_byte=bits / max(1, text.raw_bytes),
        raw_bytes=text.raw_bytes,
        changed_documents=lost.documents,
        lost_bytes=lost.lost_bytes,
        restoring_bits=restoring_bits,
    )
