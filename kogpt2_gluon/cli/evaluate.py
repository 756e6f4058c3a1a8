"""The verb `kogpt2 evaluate`: scores a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.options import encoding, patterns
from kogpt2_gluon.cli.paths import ANY_PATH


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
@options.device
@options.precision
@options.operators
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
    device: str,
    precision: str,
    operators: str,
    as_json: bool,
) -> None:
    """Score a checkpoint on held-out data: loss, perplexity per token and per word, bits per byte.

    CHECKPOINT is its folder, the run's (its newest one), or RUN/best (of the lowest held-out loss). DATA is a folder of
    shards, a split of a cleaned corpus, or text: a file, a folder or s3://bucket/prefix, scored as it is, with the
    checkpoint's tokenizer. Bytes are those of the text after the tokenizer's normalisation. Every token except <s> is
    scored.

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
    scores = evaluate_checkpoint(checkpoint, data, batch_size, seq_length, device, precision, operators, text, say)
    if as_json:
        click.echo(json.dumps(scores.to_dict()))
        return
    click.echo(f"tokens scored       {scores.tokens:>14,}  (all but <s>)")
    click.echo(f"loss                {scores.loss:>14.4f}  nats per token")
    click.echo(f"perplexity          {scores.perplexity:>14.3f}  per token")
    click.echo(f"word perplexity     {scores.word_perplexity:>14.3f}  per word between spaces")
    click.echo(f"bits per byte       {scores.bits_per_byte:>14.4f}  of the normalised text, UTF-8")
