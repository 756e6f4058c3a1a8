"""The verb `kogpt2 generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kogpt2_gluon.cli import options
from kogpt2_gluon.cli.options import ANY_PATH


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("prompt")
@click.option("--num-samples", "-n", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--max-new-tokens", default=60, show_default=True)
@click.option("--temperature", default=1.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", default=0, show_default=True, help="Keep the k likeliest tokens; 0: all.")
@click.option("--top-p", default=1.0, show_default=True, help="Keep the likeliest tokens of this probability.")
@click.option("--repetition-penalty", default=1.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@options.device
@options.precision
@options.operators
def generate(
    checkpoint: Path, prompt: str, num_samples: int, device: str, precision: str, operators: str, **sampling: Any
) -> None:
    """Continue a text with a checkpoint; each sample stops at </s>.

    \b
    Example: kogpt2 generate runs/demo "오늘 날씨는" --top-k 40 -n 3        (prompt: "today's weather is")
    """
    from kogpt2_gluon.inference.generation import generate_from_checkpoint

    settings = {"device": device, "precision": precision, "ops": operators, **sampling}
    for text in generate_from_checkpoint(checkpoint, prompt, num_samples, **settings):
        click.echo(text)
