"""The verb `kogpt2 evaluate`: scores a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.group import echo_json
from kogpt2_gluon.cli.options import encoding, patterns
from kogpt2_gluon.cli.paths import ANY_PATH

if TYPE_CHECKING:
    from kogpt2_gluon.inference.evaluation import Evaluation


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("data", type=ANY_PATH)
@click.option(
    "--documents", metavar="KIND", help="What a document of the text is, as for kogpt2 clean; not for shards."
)
@encoding
@patterns
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(min=1), help="Sequences at a time.")
@click.option("--seq-length", default=0, type=click.IntRange(min=0), help="Tokens scored together; 0: as in training.")
@click.option(
    "--stride",
    default=0,
    type=click.IntRange(min=0),
    help="Tokens from one sequence to the next; fewer than --seq-length give each token more context. 0: --seq-length.",
)
@click.option(
    "--tuned-prompt",
    type=ANY_PATH,
    metavar="FOLDER",
    help="A prompt that was tuned on CHECKPOINT (convert --to peft), in front of each sequence.",
)
@options.device
@options.precision
@options.operators
@options.weights
@options.json_output
def evaluate(
    checkpoint: Path,
    data: Path,
    documents: str | None,
    encoding: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    batch_size: int,
    seq_length: int,
    stride: int,
    tuned_prompt: Path | None,
    device: str,
    precision: str,
    operators: str,
    weights: str | None,
    as_json: bool,
) -> None:
    """Score a checkpoint on held-out data: loss, perplexity per token and per word, bits per byte.

    CHECKPOINT is its folder, the run's (its newest one), or RUN/best (of the lowest held-out loss). DATA is a folder of
    shards, a split of a cleaned corpus, or text: a file, a folder or s3://bucket/prefix, scored as it is, with the
    checkpoint's tokenizer. Every token except <s> is scored.

    Bits per byte are of the text after the tokenizer's normalisation; those per raw byte, for text alone, are of the
    text as it is. They count what it takes to restore what the tokenizer loses. Line ends between documents are not
    among the bytes.

    \b
    Example: kogpt2 evaluate runs/demo shards/test
             kogpt2 evaluate runs/demo reviews.txt --documents line
    """
    from kogpt2_gluon.machine import runtime

    runtime.wait_briefly()  # before the next line loads MXNet
    from kogpt2_gluon.inference.evaluation import evaluate_checkpoint
    from kogpt2_gluon.reading.text.held_out import TextOptions

    def say(words: str) -> None:
        click.echo(words, err=True)

    text = TextOptions(documents, encoding, include, exclude)
    scores = evaluate_checkpoint(
        checkpoint,
        data,
        batch_size,
        seq_length,
        device,
        precision,
        operators,
        text,
        say,
        stride,
        tuned_prompt,
        weights or "",
    )
    if as_json:
        echo_json(scores.to_dict())
        return
    for line in lines_of(scores):
        click.echo(line)


def lines_of(scores: Evaluation) -> Iterator[str]:
    """Yields the figures for people."""
    least = scores.seq_length - scores.stride
    yield f"tokens scored       {scores.tokens:>14,}  (all but <s>)"
    yield f"context             {least:>14,}  tokens at least, of {scores.seq_length:,}; stride {scores.stride:,}"
    yield f"loss                {scores.loss:>14.4f}  nats per token"
    yield f"perplexity          {scores.perplexity:>14.3f}  per token"
    yield f"word perplexity     {scores.word_perplexity:>14.3f}  per word between spaces"
    yield f"bits per byte       {scores.bits_per_byte:>14.4f}  of the normalised text, UTF-8"
    if scores.bits_per_raw_byte is None:
        yield "bits per raw byte                -  shards keep no raw text; evaluate the text they were made from"
        if scores.unknown_tokens:
            yield f"{scores.unknown_tokens:,} tokens are <unk>: bits per byte do not count what they were written for"
        return
    yield f"bits per raw byte   {scores.bits_per_raw_byte:>14.4f}  of the text as it is, UTF-8"
    yield lost_line(scores)


def lost_line(scores: Evaluation) -> str:
    """Returns what of a text does not come back, and what it adds to bits per raw byte."""
    if not scores.changed_documents:
        return f"all {scores.documents:,} documents come back from their tokens, byte for byte"
    assert scores.restoring_bits is not None
    share = scores.restoring_bits / max(1, scores.raw_bytes or 0)
    return (
        f"{scores.changed_documents:,} of {scores.documents:,} documents do not come back from their tokens: "
        f"{scores.lost_bytes:,} bytes, {scores.unknown_tokens:,} <unk>; bits per raw byte count {share:.4f} for that"
    )
