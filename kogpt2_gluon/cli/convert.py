"""The verb `kogpt2 convert`."""

from __future__ import annotations

from pathlib import Path

import click

from kogpt2_gluon.cli.paths import ANY_PATH, FOLDER


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=ANY_PATH)
@click.argument("out", type=FOLDER)
@click.option("--to", "target", default="huggingface", show_default=True, type=click.Choice(["huggingface"]))
def convert(checkpoint: Path, out: Path, target: str) -> None:
    """Checkpoint -> a folder that transformers (PyTorch) can load. Needs neither torch nor MXNet.

    \b
    Example: kogpt2 convert runs/demo OUT --to huggingface
    """
    from kogpt2_gluon.convert.huggingface import convert_checkpoint
    from kogpt2_gluon.runs.checkpoint import open_checkpoint

    convert_checkpoint(open_checkpoint(checkpoint), out)
    click.echo(f"{out}: load it with GPT2LMHeadModel.from_pretrained and AutoTokenizer.from_pretrained({str(out)!r})")
