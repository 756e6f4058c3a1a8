"""The verb `kogpt2 evaluate`: scores a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.options import ANY_PATH, FOLDER


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("data", type=FOLDER)
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(min=1), help="Sequences at a time.")
@click.option("--seq-length", default=0, type=click.IntRange(min=0), help="Tokens scored together; 0: as in training.")
@options.device
@options.precision
@options.operators
@options.json_output
def evaluate(
    checkpoint: Path,
    data: Path,
    batch_size: int,
    seq_length: int,
    device: str,
    precision: str,
    operators: str,
    as_json: bool,
) -> None:
    """Score a checkpoint on held-out shards: loss, perplexity per token and per word, bits per byte.

    CHECKPOINT is its folder or the run's. Bytes are those of the text after the tokenizer's normalisation. Every token
    except <s> is scored.

    \b
    Example: kogpt2 evaluate runs/demo shards/test
    """
    from kogpt2_gluon.inference.evaluation import evaluate_checkpoint

    scores = evaluate_checkpoint(checkpoint, data, batch_size, seq_length, device, precision, operators)
    if as_json:
        click.echo(json.dumps(scores.to_dict()))
        return
    click.echo(f"tokens scored       {scores.tokens:>14,}  (all but <s>)")
    click.echo(f"loss                {scores.loss:>14.4f}  nats per token")
    click.echo(f"perplexity          {scores.perplexity:>14.3f}  per token")
    click.echo(f"word perplexity     {scores.word_perplexity:>14.3f}  per word between spaces")
    click.echo(f"bits per byte       {scores.bits_per_byte:>14.4f}  of the normalised text, UTF-8")
