"""The verb `kogpt2 convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kogpt2_gluon.cli.paths import ANY_PATH, FOLDER

TARGETS = ("huggingface", "checkpoint", "original", "onnx")
DTYPES = ("float32", "float16", "bfloat16")


@click.command(no_args_is_help=True)
@click.argument("source", type=ANY_PATH)
@click.argument("out", type=FOLDER)
@click.option("--to", "target", default="huggingface", show_default=True, type=click.Choice(TARGETS))
@click.option("--tokenizer", type=ANY_PATH, help="Tokenizer of a .params file; default: the one next to it.")
@click.option(
    "--num-heads", default=0, type=click.IntRange(0), help="Attention heads of a .params file; 0: units / 64."
)
@click.option("--with-optimizer", is_flag=True, help="The optimizer's state too, to go on with the training.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(DTYPES), help="huggingface's weights.")
@click.option("--max-shard-size", default=0, type=click.IntRange(0), help="MB a file of huggingface's weights; 0: one.")
@click.option("--bos", is_flag=True, help="huggingface's and onnx's tokenizer puts <s> before every text by itself.")
@click.option("--verify", is_flag=True, help="Run both forms, and compare their logits and greedy tokens.")
def convert(source: Path, out: Path, target: str, verify: bool, **options: Any) -> None:
    """Weights from anything to anything. Needs neither torch nor MXNet, except to --verify.

    SOURCE is a run or checkpoint, a transformers folder of a GPT-2, or a .params file of KoGPT2 v1. The targets:

    CHECKPOINT is its folder, the run's (its newest one), or RUN/best (of the lowest held-out loss).

    \b
    huggingface  a folder that transformers (PyTorch) can load
    checkpoint   a run that generate, evaluate and train --init-from take
    original     the .params and .spiece files of KoGPT2 v1
    onnx         graphs for onnxruntime, with a cache and without

    \b
    Examples: kogpt2 convert runs/demo OUT
              kogpt2 convert HUGGINGFACE-FOLDER runs/theirs --to checkpoint
    """
    from kogpt2_gluon.convert.source import open_source
    from kogpt2_gluon.convert.targets import convert_to

    opened, notes = open_source(source, options.pop("tokenizer"), options.pop("num_heads"))
    for note in notes:
        click.echo(note)
    done = convert_to(target, opened, out, **options)
    if verify:
        from kogpt2_gluon.inference.comparison import compare_conversion

        found = compare_conversion(opened, out, target, exact=options["dtype"] == "float32")
        click.echo(f"verified: {found}")
    click.echo(done)
